"""What the scores made of advantages or of values have in common."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from rlgen.protocols import Learner, LevelEnv
from rlgen.returns import episodes, gae
from rlgen.types import Episodes, Outcome, Rollout, Slots


def protagonist(outcome: Outcome) -> Rollout:
    """The rollout [T, N] of member 0 of the population."""
    return jax.tree.map(lambda x: x[0], outcome.rollout)


def extrinsic_advantage(
    rollout: Rollout, discount: float, gae_lambda: float, bootstrap_truncation: bool
) -> Float[Array, "T N"]:
    """GAE of the extrinsic reward alone, so that exploration bonuses cannot raise a score."""
    return gae(rollout, discount, gae_lambda, bootstrap_truncation, include_bonus=False)


def learner_fields(learner: Learner) -> dict[str, Any]:
    """What the advantages of a score share with the learner's, of the fields that it has.

    Where a rule teaches an agent, it is the agent that discounts.
    """
    shared = ("discount", "gae_lambda", "bootstrap_truncation")
    owner = getattr(learner, "agent", learner)
    return {name: getattr(owner, name) for name in shared if hasattr(owner, name)}


def completed(outcome: Outcome, num_queued: int) -> Episodes:
    """The episodes of each level, [N, R]: those that the student reports, else the rollout's.

    A meta-learner reports what its agents earn at the end of their lives, of which the batches that
    it learns from show little. An on-policy student reports those of its rollout.
    """
    if isinstance(outcome.episodes, Episodes):
        return outcome.episodes
    rollout = protagonist(outcome)
    return episodes(rollout, num_queued, success=jnp.zeros_like(rollout.terminated))


def best_return(slots: Slots, outcome: Outcome) -> Float[Array, "N R"]:
    """R_max: the highest undiscounted return of a completed episode on each level so far.

    Args:
        slots: whose memory is R_max before this outcome, [N, R].
        outcome: of member 0.
    """
    return jnp.maximum(slots.memory, completed(outcome, slots.row.shape[1]).max_return)


def at_each_step(x: Float[Array, "N R"], turn: Int[Array, "T N"]) -> Float[Array, "T N"]:
    """A number of each level, at the steps that were played on it."""
    return jnp.take_along_axis(x, turn.T, axis=1).T


def environment_fields(env: LevelEnv) -> dict[str, Any]:
    """The least return there is, where the environment says that it is not 0."""
    return {"floor": float(getattr(env, "lowest_return", 0.0))}
