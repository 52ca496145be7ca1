"""Star of corridors: one end pays, and nothing but walking there tells which."""

from rlgen.envs.corridors.env import VARIANTS, Corridors, Level, State, build, tiny

__all__ = ["VARIANTS", "Corridors", "Level", "State", "build", "tiny"]
