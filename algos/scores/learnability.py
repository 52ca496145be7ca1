"""Learnability p (1 − p): highest for levels that the agent solves half of the time.

Sources: Rutherford et al., 2024, "No Regrets: Investigating and Improving Regret Approximations for
Curriculum Discovery" (SFL), and earlier Tzannetos et al., 2023, "Proximal Curriculum".
"""

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

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
    """p (1 − p), where p is the solve rate: the fraction of completed episodes that were solved.

    Attributes:
        env: Environment, which defines when an episode is solved. If the environment has no such
            definition, an episode with a positive return counts as solved.
        unbiased: Multiply by n / (n − 1), where n is the number of episodes. Because p is estimated
            from these episodes, p (1 − p) is too small on average by this factor. With `unbiased`,
            a level with fewer than two episodes has no score.
        accumulate: Count the episodes of all rollouts since the level's memory was reset, not only
            the episodes of the last rollout. The estimate of p is then more precise. If the agent
            trains between the rollouts, the estimate includes older policies. Intended for samplers
            that evaluate a level several times in a row.
    """

    reads: ClassVar[frozenset[str]] = frozenset({"rollout"})

    env: LevelEnv
    unbiased: bool = False
    accumulate: bool = False

    def initial_state(self) -> Tally | tuple[()]:
        """Return a tally of 0 episodes, or `()` if episodes do not accumulate."""
        zero = jnp.zeros((), jnp.int32)
        return Tally(zero, zero) if self.accumulate else ()

    def __call__(
        self, key: Key, slots: Slots, outcome: Outcome
    ) -> tuple[Float[Array, "N R"], PyTree]:
        """Return the score, at most 1/4 (1/2 if unbiased), and the memory.

        The score is computed from member 0 of the population.
        """
        del key
        # Member 0 is the agent that is evaluated, [P, T, N] -> [T, N].
        rollout = jax.tree.map(lambda x: x[0], outcome.rollout)
        stats = episodes(rollout, slots.buffer_index.shape[1], successes(self.env, rollout))
        # Counts can be added over rollouts; estimates of p cannot.
        tally = Tally(stats.num, stats.num_success)
        if self.accumulate:
            tally = jax.tree.map(jnp.add, slots.score_state, tally)
        least = 2 if self.unbiased else 1  # n / (n − 1) needs two episodes
        p = tally.num_success / jnp.maximum(tally.num, 1)
        score = p * (1 - p)
        if self.unbiased:
            # E[p̂ (1 − p̂)] = p (1 − p) (n − 1) / n for a binomial p̂.
            score *= tally.num / jnp.maximum(tally.num - 1, 1)
        score = jnp.where(tally.num >= least, score, -jnp.inf)
        return score, tally if self.accumulate else slots.score_state


def build(env: LevelEnv, learner: Learner, **fields: Any) -> Learnability:
    """Build the score with the environment's definition of a solved episode."""
    del learner
    return Learnability(env, **fields)


def tiny(env: LevelEnv) -> Learnability:
    """Return the smallest instance, for the tests in `tests/laws`."""
    return Learnability(env)
