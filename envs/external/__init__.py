"""Adapters for environments that are implemented in other packages."""
