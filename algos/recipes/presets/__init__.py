"""Settings of the recipes, as data."""
