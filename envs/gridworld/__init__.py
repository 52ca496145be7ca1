"""Grid worlds: collect objects that give or cost reward, may end the episode and may respawn."""

from rlgen.envs.gridworld.env import VARIANTS, GridWorld, build, tiny
from rlgen.envs.gridworld.level import Level, State
from rlgen.envs.gridworld.observation import Places

__all__ = ["VARIANTS", "GridWorld", "Level", "Places", "State", "build", "tiny"]
