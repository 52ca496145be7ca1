"""Learned update rules: networks, files, and the rules that ship with rlgen as `NAME.npz`."""
