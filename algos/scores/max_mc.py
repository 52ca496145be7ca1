"""MaxMC: how far the critic is below the best return ever seen on the level.

Source: Jiang et al., 2021, "Replay-Guided Adversarial Environment Design", section 3 ("maximum
Monte Carlo").
"""

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from rlgen.algos.scores.best_return import BestReturnScore
from rlgen.protocols import Learner, LevelEnv
from rlgen.returns import best_return, environment_fields, mean_per_level, protagonist
from rlgen.types import Key, Outcome, Slots


@dataclass(frozen=True)
class MaxMC(BestReturnScore):
    """Mean over episodes of the mean over steps of R_max − V_t.

    R_max, the level's memory, is the highest undiscounted extrinsic return of a completed episode
    on the level so far, this rollout included. The score may be negative.

    Attributes:
        completed_only: whether the episode that the rollout's end cuts off is left out, as in
            published code; a level without a completed episode then has no score.
        floor: R_max of a level on which no episode was completed; `build` asks the environment for
            its `lowest_return`. 0, as published, fits returns of 0 or more. With `-inf` a level has
            no score before its first completed episode.
    """

    completed_only: bool = False
    floor: float = 0.0

    may_be_negative = True

    def __call__(
        self, key: Key, slots: Slots, outcome: Outcome
    ) -> tuple[Float[Array, "N R"], Float[Array, "N R"]]:
        """Score in units of return, and the new R_max; reads member 0 of the population."""
        del key
        rollout = protagonist(outcome)
        best = best_return(slots, outcome)
        value = mean_per_level(
            rollout.value, rollout, slots.buffer_index.shape[1], self.completed_only
        )
        known = jnp.isfinite(value) & jnp.isfinite(best)
        return jnp.where(known, best - value, -jnp.inf), best


def build(env: LevelEnv, learner: Learner, **fields: Any) -> MaxMC:
    """MaxMC with the environment's lowest return as its floor."""
    del learner
    return MaxMC(**(environment_fields(env) | fields))


def tiny(env: LevelEnv) -> MaxMC:
    """The smallest instance, for tests of laws."""
    del env
    return MaxMC()
