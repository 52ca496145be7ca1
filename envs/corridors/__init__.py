"""Star of corridors: one end gives reward, and it can be found only by walking there."""

from rlgen.envs.corridors.env import VARIANTS, Corridors, Level, State, build, tiny

__all__ = ["VARIANTS", "Corridors", "Level", "State", "build", "tiny"]
