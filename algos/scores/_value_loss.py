"""What the scores made of advantages or of values have in common."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from rlgen.protocols import Learner, LevelEnv
from rlgen.returns import episodes, gae
from rlgen.types import Outcome, Rollout, Slots


def protagonist(outcome: Outcome) -> Rollout:
    """The rollout [T, N] of member 0 of the population."""
    return jax.tree.map(lambda x: x[0], outcome.rollout)


def extrinsic_advantage(
    rollout: Rollout, discount: float, gae_lambda: float, bootstrap_truncation: bool
) -> Float[Array, "T N"]:
    """GAE of the extrinsic reward alone, so that exploration bonuses cannot raise a score."""
    return gae(rollout, discount, gae_lambda, bootstrap_truncation, include_bonus=False)


def learner_fields(learner: Learner) -> dict[str, Any]:
    """What the advantages of a score share with the learner's, of the fields that it has."""
    shared = ("discount", "gae_lambda", "bootstrap_truncation")
    return {name: getattr(learner, name) for name in shared if hasattr(learner, name)}


def best_return(slots: Slots, rollout: Rollout) -> Float[Array, "N R"]:
    """R_max: the highest undiscounted return of a completed episode on each level so far.

    Args:
        slots: whose memory is R_max before this rollout, [N, R].
        rollout: [T, N].
    """
    unasked = jnp.zeros_like(rollout.terminated)
    best_now = episodes(rollout, slots.row.shape[1], success=unasked).max_return
    return jnp.maximum(slots.memory, best_now)


def at_each_step(x: Float[Array, "N R"], turn: Int[Array, "T N"]) -> Float[Array, "T N"]:
    """A number of each level, at the steps that were played on it."""
    return jnp.take_along_axis(x, turn.T, axis=1).T


def environment_fields(env: LevelEnv) -> dict[str, Any]:
    """The least return there is, where the environment says that it is not 0."""
    return {"floor": float(getattr(env, "lowest_return", 0.0))}
