"""Adapters of environments that other packages implement."""
