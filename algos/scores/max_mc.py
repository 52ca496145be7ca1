"""MaxMC: how far the critic is below the best return ever seen on the level.

Source: Jiang et al., 2021, "Replay-Guided Adversarial Environment Design", section 3 ("maximum
Monte Carlo").
"""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from rlgen.protocols import Learner, LevelEnv
from rlgen.returns import episodes, mean_per_level
from rlgen.types import Key, Outcome, Slots


@dataclass(frozen=True)
class MaxMC:
    """Mean over episodes of the mean over steps of R_max − V_t.

    R_max, the level's memory, is the highest undiscounted extrinsic return of a completed episode
    on the level so far, this rollout included. The score may be negative.

    Attributes:
        completed_only: whether the episode that the rollout's end cuts off is left out, as in
            published code; a level without a completed episode then has no score.
        floor: R_max of a level on which no episode was completed. 0, as published, fits returns of
            0 or more; for families with negative returns give their lowest return. With `-inf` a
            level has no score before its first completed episode.
    """

    completed_only: bool = False
    floor: float = 0.0

    may_be_negative = True

    def memory(self) -> Float[Array, ""]:
        """R_max of an unseen level."""
        return jnp.float32(self.floor)

    def __call__(
        self, key: Key, slots: Slots, outcome: Outcome
    ) -> tuple[Float[Array, "N R"], Float[Array, "N R"]]:
        """Score in units of return, and the new R_max; reads member 0 of the population."""
        del key
        rollout = jax.tree.map(lambda x: x[0], outcome.rollout)
        num_queued = slots.row.shape[1]
        unasked = jnp.zeros_like(rollout.terminated)
        best_now = episodes(rollout, num_queued, success=unasked).max_return
        best = jnp.maximum(slots.memory, best_now)
        value = mean_per_level(rollout.value, rollout, num_queued, self.completed_only)
        known = jnp.isfinite(value) & jnp.isfinite(best)
        return jnp.where(known, best - value, -jnp.inf), best


def build(env: LevelEnv, learner: Learner, **fields: Any) -> MaxMC:
    """MaxMC; it depends on neither."""
    del env, learner
    return MaxMC(**fields)


def tiny(env: LevelEnv) -> MaxMC:
    """The smallest instance, for tests of laws."""
    del env
    return MaxMC()
