"""Grounded positive value loss: best return seen so far minus the critic's value, where positive.

Source: Jiang et al., 2021, "Replay-Guided Adversarial Environment Design", and its released code,
which takes the positive part of MaxMC at each step.
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

    R_max, the level's memory, is the highest undiscounted extrinsic return of a completed episode
    on the level so far, including this rollout. Unlike in MaxMC, overestimates at some steps do not
    cancel underestimates at others.

    Attributes:
        completed_only: Ignore the episode that is unfinished at the end of the rollout, as in
            published code; a level without a completed episode then has no score.
        floor: R_max of a level on which no episode was completed; `build` sets it to the
            environment's `lowest_return`. With `-inf` a level has no score before its first
            completed episode.
    """

    completed_only: bool = False
    floor: float = 0.0

    def __call__(
        self, key: Key, slots: Slots, outcome: Outcome
    ) -> tuple[Float[Array, "N R"], Float[Array, "N R"]]:
        """Return the score in units of return, at least 0, and the new R_max; reads member 0."""
        del key
        rollout = protagonist(outcome)
        best = best_return(slots, outcome)
        # max(R_max − V_t, 0), [T, N], with R_max of the level that step t was played on.
        missed = jnp.maximum(at_each_step(best, rollout.level_index) - rollout.value, 0.0)
        score = mean_per_level(missed, rollout, slots.buffer_index.shape[1], self.completed_only)
        # With floor = -inf, R_max may be infinite: no score yet.
        return jnp.where(jnp.isfinite(best), score, -jnp.inf), best


def build(env: LevelEnv, learner: Learner, **fields: Any) -> GroundedPositiveValueLoss:
    """Build the score with the environment's lowest return as its floor."""
    del learner
    return GroundedPositiveValueLoss(**(environment_fields(env) | fields))


def tiny(env: LevelEnv) -> GroundedPositiveValueLoss:
    """Return the smallest instance, for the law tests."""
    del env
    return GroundedPositiveValueLoss()
