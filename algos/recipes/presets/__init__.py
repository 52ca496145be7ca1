"""Presets of the recipes: named sets of values for the fields of a curriculum, as data."""
