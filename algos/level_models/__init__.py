"""Generative models of levels; the interface is `rlgen.protocols.LevelModel`."""
