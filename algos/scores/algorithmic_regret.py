"""Algorithmic regret: how much more an agent earns if a known algorithm trains it than the rule.

Source: Jackson et al., 2023, "Discovering General Reinforcement Learning Algorithms with
Adversarial Environment Design" (GROOVE), section 3.
"""

from dataclasses import dataclass

import jax.numpy as jnp
from jaxtyping import Array, Float

from rlgen.protocols import Learner, LevelEnv, Score
from rlgen.types import Key, LifetimeResults, Outcome, Slots

UNKNOWN = jnp.nan
"""The antagonist's return on a level on which none was trained yet."""


@dataclass(frozen=True)
class AlgorithmicRegret(Score):
    """The return of the antagonist's agent less that of the rule's, both at the end of a lifetime.

    The antagonist's does not depend on the rule: it is the level's memory, so that a level that is
    replayed needs no second antagonist. A life that did not go from birth to the end of its
    lifetime has no score.
    """

    reads = frozenset({"lifetimes"})
    may_be_negative = True

    def initial_state(self) -> Float[Array, ""]:
        """The antagonist's return on an unseen level."""
        return jnp.float32(UNKNOWN)

    def __call__(
        self, key: Key, slots: Slots, outcome: Outcome
    ) -> tuple[Float[Array, "N R"], Float[Array, "N R"]]:
        """Score in units of return, and the antagonist's return where it is known.

        Raises:
            ValueError: the student tells nothing of lives.
        """
        del key
        lifetimes = outcome.lifetimes
        if not isinstance(lifetimes, LifetimeResults):
            raise ValueError(
                "algorithmic-regret compares agents that a rule and an antagonist trained, and the "
                "student reports none; use it with the recipe groove, or choose another score"
            )
        unknown = jnp.isnan(slots.score_state)
        antagonist = jnp.where(unknown, lifetimes.antagonist_return[:, None], slots.score_state)
        over = (outcome.done & lifetimes.complete)[:, None]
        regret = antagonist - lifetimes.student_return[:, None]
        score = jnp.where(over & jnp.isfinite(regret), regret, -jnp.inf)
        return score, jnp.where(over, antagonist, slots.score_state)


def build(env: LevelEnv, learner: Learner) -> AlgorithmicRegret:
    """Algorithmic regret; it depends on neither."""
    del env, learner
    return AlgorithmicRegret()


def tiny(env: LevelEnv) -> AlgorithmicRegret:
    """The smallest instance, for tests of laws."""
    del env
    return AlgorithmicRegret()
