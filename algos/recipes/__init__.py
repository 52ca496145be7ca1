"""Recipes: a method on one screen."""
