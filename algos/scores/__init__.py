"""Scores: how a level is judged."""
