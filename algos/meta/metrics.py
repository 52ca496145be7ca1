"""What a meta-learner tells of its agents in each update."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from rlgen.types import Episodes, Lives, Metrics, Rollout


def of_lessons(
    last: Rollout, entropy: Array, target_rms: Array, critic_loss: Array, share: Float[Array, " N"]
) -> Metrics:
    """Means over the agents, weighted by their share.

    Args:
        last: [N, T, W], the batch of the meta-loss.
        entropy, target_rms, critic_loss: [N].
        share: [N].
    """

    def mean(x: Array) -> Array:
        return jnp.where(jnp.isfinite(x), share * x, 0.0).sum()

    return {
        "reward": mean(last.reward.mean((1, 2))),
        "policy_entropy": mean(entropy),
        "target_rms": mean(target_rms),
        "critic_loss": mean(critic_loss),
    }


def of_lives(lives: Lives, done: Bool[Array, " N"]) -> Metrics:
    """How many lives ended, and what they reached; NaN where none did.

    A life that was cut is no evidence: it began in the middle, at the start of a run, or the
    agent's parameters were no longer numbers.
    """
    ended = done & lives.complete

    def mean(x: Array, of: Array) -> Array:
        total = jnp.where(of, x, 0.0).sum()
        return jnp.where(of.any(), total / jnp.maximum(of.sum(), 1), jnp.nan)

    compared = ended & jnp.isfinite(lives.antagonist_return)
    gap = lives.antagonist_return - lives.student_return
    return {
        "lives_ended": ended.sum().astype(jnp.float32),
        "lives_cut": (done & ~lives.complete).sum().astype(jnp.float32),
        "returns_computed": (ended.sum() + compared.sum()).astype(jnp.float32),
        "life_return": mean(lives.student_return, ended),
        "life_antagonist_return": mean(lives.antagonist_return, compared),
        "life_regret": mean(gap, compared),
    }


def as_episodes(lives: Lives, done: Bool[Array, " N"]) -> Episodes:
    """The ended lives in the form of episodes, [N, 1]."""
    ended = (done & lives.complete)[:, None]
    value = jnp.where(ended, lives.student_return[:, None], 0.0)
    return Episodes(
        num=ended.astype(jnp.int32),
        num_success=jnp.zeros_like(ended, jnp.int32),
        mean_return=value,
        max_return=jnp.where(ended, value, -jnp.inf),
        mean_length=jnp.zeros_like(value),
    )
