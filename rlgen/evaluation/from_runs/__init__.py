"""Inputs of reports that are read from run folders, or played with their policies."""
