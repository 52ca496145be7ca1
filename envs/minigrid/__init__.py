"""Ports of MiniGrid's families: rooms with doors of colours, keys, balls and boxes."""
