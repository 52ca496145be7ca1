"""Scores rate levels: regret, learnability, value losses."""
