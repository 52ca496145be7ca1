"""Runs: run folders, checkpoints, metrics, progress and the training loop."""
