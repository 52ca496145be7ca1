"""Exploration bonuses: intrinsic rewards from what is new; see `rlgen.protocols.Bonus`."""
