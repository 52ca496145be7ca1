"""Runs: their folder, checkpoints, metrics, progress, and the loop that trains them."""
