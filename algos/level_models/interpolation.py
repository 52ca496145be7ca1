"""Interpolation between the latents of known levels: choice of pairs, and of points between them.

Sources: Garcin et al., 2024, "DRED"; White, 2016, "Sampling Generative Networks", for the spherical
interpolation.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from rlgen.types import Key

# The threshold in the code of Garcin et al.
NEARLY_PARALLEL = 0.955
"""If the absolute cosine of two vectors is above this value, interpolation is linear."""


class Points(NamedTuple):
    """n points between the latents of pairs of levels."""

    parents: Int[Array, "n 2"]  # rows of the two levels in the set
    position: Float[Array, " n"]  # 0 at the first level, 1 at the second


def draw_points(key: Key, num_levels: int, num: int, num_points: int) -> Points:
    """Draw pairs of levels, and `num_points` evenly spaced points per pair, `num` points in total.

    The points of a pair include both ends. The number of pairs is `num / num_points`, rounded up.
    Points beyond `num` are dropped. If the set has at least two levels for each pair, no level
    occurs in two pairs: the i-th level of a random sequence is paired with the i-th level from the
    end of this sequence. In a smaller set, a level can occur in several pairs, but the two levels
    of a pair differ. If the set has a single level, this level is paired with itself.
    """
    num_pairs = -(-num // num_points)  # rounded up
    pairs = _pairs(key, num_levels, num_pairs)
    row = jnp.linspace(0.0, 1.0, num_points) if num_points > 1 else jnp.zeros(1)
    position = jnp.tile(row, num_pairs)[:num]
    return Points(jnp.repeat(pairs, num_points, 0)[:num], position)


def slerp(
    position: Float[Array, ""], a: Float[Array, " L"], b: Float[Array, " L"]
) -> Float[Array, " L"]:
    """Spherical interpolation from a to b.

    If the vectors are nearly parallel, the interpolation is linear.
    """
    # A zero vector has no direction, so cosine 1 selects linear interpolation. The inner `where`
    # avoids 0 / 0.
    norms = jnp.sqrt((a**2).sum() * (b**2).sum())
    cosine = jnp.where(norms > 0, (a * b).sum() / jnp.where(norms > 0, norms, 1.0), 1.0)
    curved = jnp.abs(cosine) <= NEARLY_PARALLEL
    # Linear interpolation does not use the angle; cosine 0 keeps sin(angle) away from 0.
    angle = jnp.arccos(jnp.where(curved, cosine, 0.0))
    # sin((1 − t) Ω) / sin Ω · a + sin(t Ω) / sin Ω · b, with Ω the angle between a and b.
    arc = (jnp.sin((1 - position) * angle) * a + jnp.sin(position * angle) * b) / jnp.sin(angle)
    return jnp.where(curved, arc, lerp(position, a, b))


def lerp(
    position: Float[Array, ""], a: Float[Array, " L"], b: Float[Array, " L"]
) -> Float[Array, " L"]:
    """Linear interpolation from a to b."""
    return (1 - position) * a + position * b


def _pairs(key: Key, num_levels: int, num_pairs: int) -> Int[Array, "K 2"]:
    if num_levels >= 2 * num_pairs:
        drawn = jax.random.permutation(key, num_levels)[: 2 * num_pairs]
        return jnp.stack([drawn[:num_pairs], drawn[::-1][:num_pairs]], -1)
    # An offset of at least 1 makes the two levels of a pair differ. If the set has one level, the
    # offset is 0.
    key_first, key_offset = jax.random.split(key)
    first = jax.random.randint(key_first, (num_pairs,), 0, num_levels)
    offset = jax.random.randint(key_offset, (num_pairs,), min(1, num_levels - 1), num_levels)
    return jnp.stack([first, (first + offset) % num_levels], -1)
