"""Distributions over vectors of real numbers: independent normal distributions."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from rlgen.algos.level_models.objective import Objective
from rlgen.types import Key

LEAST_SCALE = 1e-2
"""Lower bound of a learned scale (standard deviation); it keeps the likelihood bounded."""


def mean_of(objective: Objective, head: Float[Array, " D"]) -> Float[Array, " size"]:
    """Return the means given by a decoder's outputs."""
    return _mean_and_scale(objective, head)[0]


def log_likelihood(
    objective: Objective, head: Float[Array, " D"], value: Float[Array, " size"]
) -> Float[Array, ""]:
    """Mean log-density of the numbers, in nats."""
    mean, scale = _mean_and_scale(objective, head)
    return jax.scipy.stats.norm.logpdf(value, mean, scale).mean()


def sample(key: Key, objective: Objective, head: Float[Array, " D"]) -> Float[Array, " size"]:
    """Sample a vector of numbers."""
    mean, scale = _mean_and_scale(objective, head)
    return mean + scale * jax.random.normal(key, mean.shape)


def _mean_and_scale(
    objective: Objective, head: Float[Array, " D"]
) -> tuple[Float[Array, " size"], Float[Array, " size"]]:
    if not objective.learn_scale:
        return head, jnp.full_like(head, objective.number_scale)
    # With a learned scale the head has 2 * size outputs.
    mean, raw = jnp.split(head, 2)
    return mean, jax.nn.softplus(raw) + LEAST_SCALE
