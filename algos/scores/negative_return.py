"""Negative return: what a minimax adversary is paid, however hopeless the level.

Source: Pinto et al., 2017, "Robust Adversarial Reinforcement Learning"; as a baseline of
environment design, Dennis et al., 2020, "Emergent Complexity and Zero-shot Transfer via
Unsupervised Environment Design".
"""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from rlgen.algos.scores.member_returns import member_returns
from rlgen.protocols import Learner, LevelEnv, Score
from rlgen.types import Key, Outcome, PyTree, Slots


@dataclass(frozen=True)
class NegativeReturn(Score):
    """Minus the mean undiscounted extrinsic return on the level.

    Attributes:
        completed_only: whether a level without a completed episode has no score, as in published
            code; else what was gathered by the rollout's end stands for it.
    """

    completed_only: bool = False

    reads = frozenset({"rollout"})
    may_be_negative = True

    def __call__(
        self, key: Key, slots: Slots, outcome: Outcome
    ) -> tuple[Float[Array, "N R"], PyTree]:
        """Score in units of return; reads member 0 of the population."""
        del key
        member = jax.tree.map(lambda x: x[:1], outcome.rollout)
        mean = member_returns(member, slots.buffer_index.shape[1], self.completed_only)[0][0]
        return jnp.where(jnp.isfinite(mean), -mean, -jnp.inf), slots.score_state


def build(env: LevelEnv, learner: Learner, **fields: Any) -> NegativeReturn:
    """The score; it depends on neither."""
    del env, learner
    return NegativeReturn(**fields)


def tiny(env: LevelEnv) -> NegativeReturn:
    """The smallest instance, for tests of laws."""
    del env
    return NegativeReturn()
