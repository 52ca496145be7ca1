"""Three corridors and who walks straight on in them: mazes whose returns are known."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from rlgen.envs import maze
from rlgen.envs.grid.bitboard import FORWARD
from rlgen.evaluation.zero_shot import Policies, evaluate
from rlgen.levels import LevelSet, Suite, make_level_set
from tests.standins.stubs import Untaught


@dataclasses.dataclass(frozen=True)
class Forward(Untaught, abstract=True):
    """Walks straight on."""

    def act(self, key, state, carry, obs, first):
        zero = jnp.zeros(first.shape)
        return carry, jnp.full(first.shape, FORWARD), zero, zero


def corridors() -> LevelSet:
    """Straight on it takes two steps to the goal, or four, or there is none."""
    env = maze.tiny()
    rows = (">.G..\n", ">...G\n", "G.>..\n")
    levels = [env.from_text(row + "#####\n" * 4) for row in rows]
    return make_level_set(env, jax.tree.map(lambda *x: jnp.stack(x), *levels))


def worth() -> np.ndarray:
    """Return on each corridor."""
    env = maze.tiny()
    suite = Suite("corridors", env, corridors())
    return evaluate(Policies("forward", env, Forward(), jnp.zeros(1), {}), suite, 1).episode_return[
        0, :, 0
    ]
