"""Negative return: minus the agent's return, the reward of a minimax adversary.

Sources: Pinto et al., 2017, "Robust Adversarial Reinforcement Learning"; Dennis et al., 2020,
"Emergent Complexity and Zero-shot Transfer via Unsupervised Environment Design", where the minimax
adversary is a baseline.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

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
        completed_only: Give a level without a completed episode no score, as in the scores of
            JaxUED. By default, such a level is scored by the return collected until the end of the
            rollout.
    """

    reads: ClassVar[frozenset[str]] = frozenset({"rollout"})

    completed_only: bool = False

    # The score is negative where the return is positive, so priorities must be by rank.
    may_be_negative = True

    def __call__(
        self, key: Key, slots: Slots, outcome: Outcome
    ) -> tuple[Float[Array, "N R"], PyTree]:
        """Return the score in units of return, and the unchanged memory.

        The score is computed from member 0 of the population.
        """
        del key
        # A population of size 1, [1, T, N].
        member = jax.tree.map(lambda x: x[:1], outcome.rollout)
        mean = member_returns(member, slots.buffer_index.shape[1], self.completed_only)[0][0]
        return jnp.where(jnp.isfinite(mean), -mean, -jnp.inf), slots.score_state


def build(env: LevelEnv, learner: Learner, **fields: Any) -> NegativeReturn:
    """Build the score; it depends neither on the environment nor on the learner."""
    del env, learner
    return NegativeReturn(**fields)


def tiny(env: LevelEnv) -> NegativeReturn:
    """Return the smallest instance, for the tests in `tests/laws`."""
    del env
    return NegativeReturn()
