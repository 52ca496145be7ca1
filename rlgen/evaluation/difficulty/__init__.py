"""Difficulty reports: how hard an environment's levels are."""
