"""Exploration bonuses: intrinsic rewards for novelty; see `rlgen.protocols.Bonus`."""
