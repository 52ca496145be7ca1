"""Grid worlds: walk over objects that pay or cost, may end the episode and may come back."""

from rlgen.envs.gridworld.env import VARIANTS, GridWorld, build, tiny
from rlgen.envs.gridworld.level import Level, State
from rlgen.envs.gridworld.observation import Places

__all__ = ["VARIANTS", "GridWorld", "Level", "Places", "State", "build", "tiny"]
