"""Recipes over a finite training set."""
