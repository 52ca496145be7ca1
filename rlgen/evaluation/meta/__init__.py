"""Evaluation of learned update rules."""
