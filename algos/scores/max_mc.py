"""MaxMC: highest return so far on the level minus the critic's value, a regret estimate.

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
    on the level so far, including the rollout that is scored. V_t is the critic's value at step t.
    The score may be negative.

    Attributes:
        completed_only: Ignore the episode that is unfinished at the end of the rollout, as in the
            scores of JaxUED. A level without a completed episode then has no score.
        floor: R_max of a level on which no episode was completed; `build` uses the environment's
            `lowest_return`. Jiang et al. use 0, which suits returns of at least 0. With `-inf`, a
            level has no score until an episode is completed on it.
    """

    completed_only: bool = False
    floor: float = 0.0

    # The score is negative where an overestimate of the critic exceeds R_max.
    may_be_negative = True

    def __call__(
        self, key: Key, slots: Slots, outcome: Outcome
    ) -> tuple[Float[Array, "N R"], Float[Array, "N R"]]:
        """Return the score in units of return, and the new R_max.

        The score is computed from member 0 of the population.
        """
        del key
        rollout = protagonist(outcome)
        best = best_return(slots, outcome)
        # The mean of R_max − V_t is R_max − mean(V_t), because R_max is constant within a level.
        value = mean_per_level(
            rollout.value, rollout, slots.buffer_index.shape[1], self.completed_only
        )
        # `value` is -inf where no episode counts. `best` is -inf where floor = -inf and no episode
        # was completed.
        known = jnp.isfinite(value) & jnp.isfinite(best)
        return jnp.where(known, best - value, -jnp.inf), best


def build(env: LevelEnv, learner: Learner, **fields: Any) -> MaxMC:
    """Build MaxMC with the environment's lowest return as its floor."""
    del learner
    return MaxMC(**(environment_fields(env) | fields))


def tiny(env: LevelEnv) -> MaxMC:
    """Return the smallest instance, for the tests in `tests/laws`."""
    del env
    return MaxMC()
