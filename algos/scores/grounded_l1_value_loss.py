"""Grounded L1 value loss: size of the critic's error; 0 on levels not known to be solvable.

Source: Garcin et al., 2024, "DRED: Zero-Shot Transfer in Reinforcement Learning via
Data-Regularised Environment Design".
"""

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from rlgen.algos.scores.best_return import BestReturnScore
from rlgen.algos.scores.value_loss import ValueLoss
from rlgen.protocols import Learner, LevelEnv
from rlgen.returns import best_return, environment_fields
from rlgen.types import Key, Outcome, Slots


@dataclass(frozen=True)
class GroundedL1ValueLoss(ValueLoss, BestReturnScore):
    """The L1 value loss on levels with a return above `floor` so far, and 0 on all other levels.

    The L1 value loss is the mean over episodes of the mean over steps of |A_t|, where A_t is the
    GAE advantage of the extrinsic reward. The level's memory is the highest undiscounted extrinsic
    return of a completed episode on the level so far, including the rollout that is scored. The
    other fields are described in `rlgen.algos.scores.value_loss.ValueLoss`.

    Attributes:
        floor: Return of an episode that achieves nothing; `build` uses the environment's
            `lowest_return`. Garcin et al. use 0.
    """

    floor: float = 0.0

    def loss(self, advantage: Float[Array, "T N"]) -> Float[Array, "T N"]:
        """Return the absolute value of the advantage."""
        return jnp.abs(advantage)

    def __call__(
        self, key: Key, slots: Slots, outcome: Outcome
    ) -> tuple[Float[Array, "N R"], Float[Array, "N R"]]:
        """Return the score in units of reward, at least 0, and the new best return.

        The score is computed from member 0 of the population.
        """
        # `super()` is `ValueLoss`, the first base class. Its `__call__` gives the L1 value loss and
        # the unchanged memory. The new best return replaces this memory.
        loss, _ = super().__call__(key, slots, outcome)
        best = best_return(slots, outcome)
        # A level on which no return exceeded `floor` has the lowest score, 0, and not `-inf`. The
        # value `-inf` would mean that no episode counts, and an old score in the buffer would stay
        # unchanged.
        futile = jnp.isfinite(loss) & (best <= self.floor)
        return jnp.where(futile, 0.0, loss), best


def build(env: LevelEnv, learner: Learner, **fields: Any) -> GroundedL1ValueLoss:
    """Build the score with the learner's discounting and the environment's lowest return."""
    return GroundedL1ValueLoss(**(learner.discounting() | environment_fields(env) | fields))


def tiny(env: LevelEnv) -> GroundedL1ValueLoss:
    """Return the smallest instance, for the tests in `tests/laws`."""
    del env
    return GroundedL1ValueLoss()
