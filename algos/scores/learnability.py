"""Learnability: levels that are solved sometimes, neither never nor always.

Source: Rutherford et al., 2024, "No Regrets: Investigating and Improving Regret Approximations for
Curriculum Discovery" (SFL); earlier Tzannetos et al., 2023, "Proximal Curriculum".
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from rlgen.protocols import Learner, LevelEnv, Score
from rlgen.returns import episodes
from rlgen.students import successes
from rlgen.types import Key, Outcome, PyTree, Slots


class Tally(NamedTuple):
    """Completed episodes on one level so far."""

    num: Int[Array, "*B"]
    num_success: Int[Array, "*B"]


@dataclass(frozen=True)
class Learnability(Score):
    """p (1 − p), with p the share of completed episodes on the level that were solved.

    Attributes:
        env: says what it is to solve an episode; without a notion of its own, a positive return.
        unbiased: multiply by n / (n − 1), n the number of episodes: with p estimated from them,
            p (1 − p) is too small on average by just this factor. A level met once has no score.
        accumulate: count the episodes of all rollouts on a level that the sampler keeps the memory
            of, not those of the last alone: p is known better, but of a policy that has changed
            since, if it trained between. For samplers that look at a level several times in a row.
    """

    env: LevelEnv
    unbiased: bool = False
    accumulate: bool = False

    reads = frozenset({"rollout"})

    def initial_state(self) -> Tally | tuple[()]:
        """No episodes yet; nothing is remembered unless they accumulate."""
        zero = jnp.zeros((), jnp.int32)
        return Tally(zero, zero) if self.accumulate else ()

    def __call__(
        self, key: Key, slots: Slots, outcome: Outcome
    ) -> tuple[Float[Array, "N R"], PyTree]:
        """Score from 0 to 1/4 (1/2 if unbiased); reads member 0 of the population."""
        del key
        rollout = jax.tree.map(lambda x: x[0], outcome.rollout)
        stats = episodes(rollout, slots.buffer_index.shape[1], successes(self.env, rollout))
        tally = Tally(stats.num, stats.num_success)
        if self.accumulate:
            tally = jax.tree.map(jnp.add, slots.score_state, tally)
        least = 2 if self.unbiased else 1
        p = tally.num_success / jnp.maximum(tally.num, 1)
        score = p * (1 - p)
        if self.unbiased:
            score *= tally.num / jnp.maximum(tally.num - 1, 1)
        score = jnp.where(tally.num >= least, score, -jnp.inf)
        return score, tally if self.accumulate else slots.score_state


def build(env: LevelEnv, learner: Learner, **fields: Any) -> Learnability:
    """Learnability by the environment's own notion of success."""
    del learner
    return Learnability(env, **fields)


def tiny(env: LevelEnv) -> Learnability:
    """The smallest instance, for tests of laws."""
    return Learnability(env)
