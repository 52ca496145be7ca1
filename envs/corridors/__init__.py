"""Star of corridors: only one corridor has a reward at its end, which agents find by walking."""

from rlgen.envs.corridors.env import VARIANTS, Corridors, Level, State, build, tiny

__all__ = ["VARIANTS", "Corridors", "Level", "State", "build", "tiny"]
