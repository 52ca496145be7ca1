"""Generative models of levels; see `rlgen.protocols.LevelModel`."""
