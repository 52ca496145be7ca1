"""Generalisation gaps, level information and the history of a curriculum."""
