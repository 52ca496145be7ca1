"""Recipes: one short module per method, which combines student, sampler and score."""
