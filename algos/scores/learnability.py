"""Learnability: levels that are solved sometimes, neither never nor always.

Source: Rutherford et al., 2024, "No Regrets: Investigating and Improving Regret Approximations for
Curriculum Discovery" (SFL); earlier Tzannetos et al., 2023, "Proximal Curriculum".
"""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from rlgen.protocols import Learner, LevelEnv
from rlgen.returns import episodes
from rlgen.students import successes
from rlgen.types import Key, Outcome, PyTree, Slots


@dataclass(frozen=True)
class Learnability:
    """p (1 − p), with p the share of completed episodes on the level that were solved.

    Attributes:
        env: says what it is to solve an episode; without a notion of its own, a positive return.
        unbiased: multiply by n / (n − 1), n the number of episodes: with p estimated from them,
            p (1 − p) is too small on average by just this factor. A level met once has no score.
    """

    env: LevelEnv
    unbiased: bool = False

    def memory(self) -> tuple[()]:
        """Nothing is remembered."""
        return ()

    def __call__(
        self, key: Key, slots: Slots, outcome: Outcome
    ) -> tuple[Float[Array, "N R"], PyTree]:
        """Score from 0 to 1/4 (1/2 if unbiased); reads member 0 of the population."""
        del key
        rollout = jax.tree.map(lambda x: x[0], outcome.rollout)
        stats = episodes(rollout, slots.row.shape[1], successes(self.env, rollout))
        least = 2 if self.unbiased else 1
        p = stats.num_success / jnp.maximum(stats.num, 1)
        score = p * (1 - p)
        if self.unbiased:
            score *= stats.num / jnp.maximum(stats.num - 1, 1)
        return jnp.where(stats.num >= least, score, -jnp.inf), slots.memory


def build(env: LevelEnv, learner: Learner, **fields: Any) -> Learnability:
    """Learnability by the environment's own notion of success."""
    del learner
    return Learnability(env, **fields)


def tiny(env: LevelEnv) -> Learnability:
    """The smallest instance, for tests of laws."""
    return Learnability(env)
