"""Regret: how much better one learner of a population did on the level than another.

Sources: Dennis et al., 2020, "Emergent Complexity and Zero-shot Transfer via Unsupervised
Environment Design", section 5 (PAIRED) and its appendix (population).
"""

from dataclasses import dataclass
from typing import Any, Literal

import jax.numpy as jnp
from jaxtyping import Array, Float

from rlgen.algos.scores.member_returns import member_returns
from rlgen.protocols import Learner, LevelEnv, Score
from rlgen.types import Key, Outcome, PyTree, Rollout, Slots

KINDS = ("max-mean", "mean-mean", "population")


@dataclass(frozen=True)
class Regret(Score):
    """The antagonist's return minus the protagonist's, on the same level.

    Member 0 of the population is the protagonist, member 1 the antagonist. A level that either of
    them did not meet has no score.

    Attributes:
        kind: `max-mean`, the antagonist's best episode against the protagonist's mean;
            `mean-mean`, their means; `population`, the best member's mean against the mean of all.
        non_negative: raise a regret below 0, where the protagonist did better, to 0, as the first
            PAIRED code and minimax do; JaxUED does not.
        completed_only: whether a level on which one of them completed no episode has no score, as
            in published code; else what that one had gathered by the rollout's end stands for it.

    Raises:
        ValueError: an unknown kind; when called, a population of the wrong size.
    """

    kind: Literal["max-mean", "mean-mean", "population"] = "max-mean"
    non_negative: bool = True
    completed_only: bool = False

    reads = frozenset({"rollout"})

    def __post_init__(self):
        if self.kind not in KINDS:
            raise ValueError(f"kind must be one of {', '.join(KINDS)}, got {self.kind!r}")

    @property
    def may_be_negative(self) -> bool:
        """Whether priorities can only go by rank."""
        return self.kind != "population" and not self.non_negative

    def __call__(
        self, key: Key, slots: Slots, outcome: Outcome
    ) -> tuple[Float[Array, "N R"], PyTree]:
        """Score in units of return."""
        del key
        rollouts = self._rollouts(outcome)
        mean, best = member_returns(rollouts, slots.buffer_index.shape[1], self.completed_only)
        met = jnp.isfinite(mean).all(0)
        mean, best = jnp.where(met[None], mean, 0.0), jnp.where(met[None], best, 0.0)
        if self.kind == "population":
            regret = mean.max(0) - mean.mean(0)
        else:
            regret = (best if self.kind == "max-mean" else mean)[1] - mean[0]
        if self.non_negative:
            regret = jnp.maximum(regret, 0.0)
        return jnp.where(met, regret, -jnp.inf), slots.score_state

    def _rollouts(self, outcome: Outcome) -> Rollout:
        """Those of the population, if it has the size that is asked for."""
        rollouts = outcome.rollout
        assert isinstance(rollouts, Rollout), "regret is measured on the rollouts of a population"
        size = rollouts.reward.shape[0]
        if size < 2 or (size > 2 and self.kind != "population"):
            wanted = "two or more" if self.kind == "population" else "two"
            raise ValueError(
                f"regret of kind {self.kind!r} compares {wanted} learners on the same levels, and "
                f"the student has {size}; set student.population=2 (more with kind='population'), "
                "or choose another score"
            )
        return rollouts


def build(env: LevelEnv, learner: Learner, **fields: Any) -> Regret:
    """Regret; it depends on neither."""
    del env, learner
    return Regret(**fields)


def tiny(env: LevelEnv) -> Regret:
    """The smallest instance, for tests of laws."""
    del env
    return Regret()
