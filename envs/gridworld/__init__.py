"""Grid worlds: walk over objects that pay or cost, may end the episode and may come back."""

from rlgen.envs.gridworld.env import (
    VARIANTS,
    GridWorld,
    Level,
    Places,
    State,
    build,
    tiny,
)

__all__ = ["VARIANTS", "GridWorld", "Level", "Places", "State", "build", "tiny"]
