"""Grounded positive value loss: positive part of the highest return so far minus the value.

Source: Jiang et al., 2021, "Replay-Guided Adversarial Environment Design", and the code of these
authors, which takes the positive part of MaxMC at each step.
"""

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from rlgen.algos.scores.best_return import BestReturnScore
from rlgen.protocols import Learner, LevelEnv
from rlgen.returns import at_each_step, best_return, environment_fields, mean_per_level, protagonist
from rlgen.types import Key, Outcome, Slots


@dataclass(frozen=True)
class GroundedPositiveValueLoss(BestReturnScore):
    """Mean over episodes of the mean over steps of max(R_max − V_t, 0).

    R_max is the highest undiscounted extrinsic return of a completed episode on the level so far,
    including the rollout that is scored. R_max is stored with the level between rollouts. V_t is
    the critic's value at step t. In MaxMC, overestimates at some steps can cancel underestimates at
    other steps. In this score they cannot.

    Attributes:
        completed_only: Ignore the episode that is unfinished at the end of the rollout, as in the
            scores of JaxUED. A level without a completed episode then has no score.
        floor: R_max of a level on which no episode was completed; `build` uses the environment's
            `lowest_return`. With `-inf`, a level has no score until an episode is completed on it.
    """

    completed_only: bool = False
    floor: float = 0.0

    def __call__(
        self, key: Key, slots: Slots, outcome: Outcome
    ) -> tuple[Float[Array, "N R"], Float[Array, "N R"]]:
        """Return the score in units of return, at least 0, and the new R_max.

        The score is computed from member 0 of the population.
        """
        del key
        rollout = protagonist(outcome)
        best = best_return(slots, outcome)
        # max(R_max − V_t, 0), [T, N], with R_max of the level on which step t was played.
        missed = jnp.maximum(at_each_step(best, rollout.level_index) - rollout.value, 0.0)
        score = mean_per_level(missed, rollout, slots.buffer_index.shape[1], self.completed_only)
        # With floor = -inf, R_max may be -inf; the level then has no score yet.
        return jnp.where(jnp.isfinite(best), score, -jnp.inf), best


def build(env: LevelEnv, learner: Learner, **fields: Any) -> GroundedPositiveValueLoss:
    """Build the score with the environment's lowest return as its floor."""
    del learner
    return GroundedPositiveValueLoss(**(environment_fields(env) | fields))


def tiny(env: LevelEnv) -> GroundedPositiveValueLoss:
    """Return the smallest instance, for the tests in `tests/laws`."""
    del env
    return GroundedPositiveValueLoss()
