"""Recipes: each method is a short module that combines a student, a sampler and a score."""
