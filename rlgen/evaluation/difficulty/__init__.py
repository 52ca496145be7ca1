"""Difficulty cards: measurements of how hard an environment's levels are."""
