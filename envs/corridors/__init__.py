"""Star of corridors: one end gives reward, and an agent can find it only by walking there."""

from rlgen.envs.corridors.env import VARIANTS, Corridors, Level, State, build, tiny

__all__ = ["VARIANTS", "Corridors", "Level", "State", "build", "tiny"]
