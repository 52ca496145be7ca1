"""Algorithmic regret: final return of a known algorithm's agent minus that of the rule's agent.

The rule is the update rule that a meta-learner learns. The known algorithm, such as A2C, is called
the antagonist. The rule and the antagonist each train a separate agent on the level.

Source: Jackson et al., 2023, "Discovering General Reinforcement Learning Algorithms with
Adversarial Environment Design" (GROOVE), section 3.
"""

from dataclasses import dataclass
from typing import ClassVar

import jax.numpy as jnp
from jaxtyping import Array, Float

from rlgen.protocols import Learner, LevelEnv, Score
from rlgen.types import Key, LifetimeResults, Outcome, Slots

UNKNOWN = jnp.nan
"""Stored in place of the antagonist's return while no antagonist was trained on the level."""


@dataclass(frozen=True)
class AlgorithmicRegret(Score):
    """Final return of the antagonist's agent minus the final return of the rule's agent.

    Both returns are measured at the end of a lifetime, the number of updates for which an agent is
    trained. The antagonist's return does not depend on the rule. Therefore this return is stored as
    the level's memory, and a replayed level needs no second antagonist. If the rule's agent was not
    trained for its whole lifetime, the level has no score.
    """

    reads: ClassVar[frozenset[str]] = frozenset({"lifetimes"})
    may_be_negative = True

    def initial_state(self) -> Float[Array, ""]:
        """Return NaN, which stands for an unknown return of the antagonist."""
        return jnp.float32(UNKNOWN)

    def __call__(
        self, key: Key, slots: Slots, outcome: Outcome
    ) -> tuple[Float[Array, "N R"], Float[Array, "N R"]]:
        """Return the score in units of return, and the antagonist's return where it is known.

        Raises:
            ValueError: If the student reports no lifetimes.
        """
        del key
        lifetimes = outcome.lifetimes
        if not isinstance(lifetimes, LifetimeResults):
            raise ValueError(
                "algorithmic-regret compares agents trained by a rule and by an antagonist, but "
                "the student reports no such agents; use this score with the recipe groove, or "
                "choose another score"
            )
        # [N, R]; the antagonist's return, once known, is never measured again.
        unknown = jnp.isnan(slots.score_state)
        antagonist = jnp.where(unknown, lifetimes.antagonist_return[:, None], slots.score_state)
        over = (outcome.done & lifetimes.complete)[:, None]
        regret = antagonist - lifetimes.student_return[:, None]
        # `regret` is NaN where no antagonist was trained; such a level has no score.
        score = jnp.where(over & jnp.isfinite(regret), regret, -jnp.inf)
        # The antagonist's return is stored only after a complete lifetime.
        return score, jnp.where(over, antagonist, slots.score_state)


def build(env: LevelEnv, learner: Learner) -> AlgorithmicRegret:
    """Build the score; it depends neither on the environment nor on the learner."""
    del env, learner
    return AlgorithmicRegret()


def tiny(env: LevelEnv) -> AlgorithmicRegret:
    """Return the smallest instance, for the tests in `tests/laws`."""
    del env
    return AlgorithmicRegret()
