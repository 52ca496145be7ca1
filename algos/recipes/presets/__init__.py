"""Presets of the recipes, as data."""
