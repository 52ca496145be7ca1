"""Categorical distribution from logits: sampling, log-probabilities and entropy."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from rlgen.types import Key


def sample(key: Key, logits: Float[Array, "*B A"]) -> Int[Array, "*B"]:
    """Sample one action for each vector of logits; actions with logit `-inf` are never drawn.

    The Gumbel trick is used.
    """
    return jax.random.categorical(key, logits).astype(jnp.int32)


def log_prob(logits: Float[Array, "*B A"], action: Int[Array, "*B"]) -> Float[Array, "*B"]:
    """Log-probability of each action, in nats.

    The action is selected by a one-hot sum, whose gradient is dense. The gradient of a gather would
    be a scatter.
    """
    chosen = jax.nn.one_hot(action, logits.shape[-1], dtype=bool)
    return jnp.where(chosen, jax.nn.log_softmax(logits), 0.0).sum(-1)


def entropy(logits: Float[Array, "*B A"]) -> Float[Array, "*B"]:
    """Entropy in nats; masked actions (logit `-inf`) contribute 0."""
    log_p = jax.nn.log_softmax(logits)
    # Replaced before the product, not after it, because the gradient of 0 · inf would be NaN.
    log_p = jnp.where(jnp.isfinite(log_p), log_p, 0.0)
    return -(jnp.exp(log_p) * log_p).sum(-1)
