"""Ports of MiniGrid's families: rooms with coloured doors, keys, balls and boxes."""
