"""Latent vectors between those of known levels: which pairs, and which points between them.

Source: Garcin et al., 2024, "DRED"; the spherical interpolation is that of White, 2016, "Sampling
Generative Networks".
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from rlgen.types import Key

NEARLY_PARALLEL = 0.955
"""Vectors whose angle has a cosine beyond this, either way, are interpolated on a straight line."""


class Points(NamedTuple):
    """n points between pairs of levels."""

    parents: Int[Array, "n 2"]  # rows of the two levels
    position: Float[Array, " n"]  # 0 at the first, 1 at the second


def draw_points(key: Key, num_levels: int, num: int, num_points: int) -> Points:
    """`num` points, `num_points` in a row between each pair, its ends included.

    Of `num / num_points` pairs, rounded up, no level is in two, if the set is large enough; the
    i-th drawn is paired with the i-th from the end. In a smaller set only the two of a pair differ,
    and a single level is paired with itself. What is more than `num` is cut.
    """
    num_pairs = -(-num // num_points)
    pairs = _pairs(key, num_levels, num_pairs)
    row = jnp.linspace(0.0, 1.0, num_points) if num_points > 1 else jnp.zeros(1)
    position = jnp.tile(row, num_pairs)[:num]
    return Points(jnp.repeat(pairs, num_points, 0)[:num], position)


def slerp(
    position: Float[Array, ""], a: Float[Array, " L"], b: Float[Array, " L"]
) -> Float[Array, " L"]:
    """The point at a position on the arc from a to b; on a line if they are nearly parallel."""
    norms = jnp.sqrt((a**2).sum() * (b**2).sum())
    cosine = jnp.where(norms > 0, (a * b).sum() / jnp.where(norms > 0, norms, 1.0), 1.0)
    curved = jnp.abs(cosine) <= NEARLY_PARALLEL
    angle = jnp.arccos(jnp.where(curved, cosine, 0.0))
    arc = (jnp.sin((1 - position) * angle) * a + jnp.sin(position * angle) * b) / jnp.sin(angle)
    return jnp.where(curved, arc, lerp(position, a, b))


def lerp(
    position: Float[Array, ""], a: Float[Array, " L"], b: Float[Array, " L"]
) -> Float[Array, " L"]:
    """The point at a position on the line from a to b."""
    return (1 - position) * a + position * b


def _pairs(key: Key, num_levels: int, num_pairs: int) -> Int[Array, "K 2"]:
    if num_levels >= 2 * num_pairs:
        drawn = jax.random.permutation(key, num_levels)[: 2 * num_pairs]
        return jnp.stack([drawn[:num_pairs], drawn[::-1][:num_pairs]], -1)
    key_first, key_offset = jax.random.split(key)
    first = jax.random.randint(key_first, (num_pairs,), 0, num_levels)
    offset = jax.random.randint(key_offset, (num_pairs,), min(1, num_levels - 1), num_levels)
    return jnp.stack([first, (first + offset) % num_levels], -1)
