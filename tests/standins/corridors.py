"""Three corridors and a learner that always walks forward: mazes with known returns."""

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
    """Learner that always walks forward."""

    def act(self, key, state, carry, obs, first):
        zero = jnp.zeros(first.shape)
        return carry, jnp.full(first.shape, FORWARD), zero, zero


def corridors() -> LevelSet:
    """Corridors in which the goal is two steps ahead, four steps ahead, or behind the agent."""
    env = maze.tiny()
    rows = (">.G..\n", ">...G\n", "G.>..\n")
    levels = [env.from_text(row + "#####\n" * 4) for row in rows]
    return make_level_set(env, jax.tree.map(lambda *x: jnp.stack(x), *levels))


def worth() -> np.ndarray:
    """Return of `Forward` on each corridor."""
    env = maze.tiny()
    suite = Suite("corridors", env, corridors())
    return evaluate(Policies("forward", env, Forward(), jnp.zeros(1), {}), suite, 1).episode_return[
        0, :, 0
    ]
