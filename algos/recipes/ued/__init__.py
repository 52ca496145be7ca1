"""Recipes of unsupervised environment design and domain randomisation."""
