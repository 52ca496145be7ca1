"""Distributions as points: projection onto the simplex, or onto the part of it above a floor."""

import jax.numpy as jnp
from jaxtyping import Array, Float


def project(x: Float[Array, " K"], floor: float = 0.0) -> Float[Array, " K"]:
    """The distribution nearest to `x` in which nothing is less likely than `floor`.

    The minimiser of ‖y − x‖² over {y: Σ y = 1, y_i ≥ floor} is max(x_i − θ, floor), and θ follows
    from the sorted entries. Adding a constant to all of `x` changes nothing.

    Args:
        x: any finite numbers.
        floor: at least 0 and at most 1 / K; at 1 / K only the uniform distribution is left.

    Source: Duchi et al., 2008, "Efficient Projections onto the l1-Ball for Learning in High
    Dimensions", figure 1; the floor by shifting the simplex.
    """
    mass = 1.0 - floor * x.size  # what is left to give away above the floor
    x = x - x.max()  # so that sums of large numbers do not swallow the differences
    descending = -jnp.sort(-x)
    excess = jnp.cumsum(descending) - mass
    rank = jnp.arange(1, x.size + 1)
    # How many entries stay above the floor; at least one, also where no mass is left for it.
    above = jnp.maximum((descending * rank > excess).sum(), 1)
    threshold = excess[above - 1] / above
    return jnp.maximum(x - threshold, 0.0) + floor
