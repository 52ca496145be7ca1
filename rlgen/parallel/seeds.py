"""Branches and loops that stay what they are when seeds are a `vmap` axis.

`vmap` turns a `lax.cond` with a batched predicate into "run both, select": every seed would pay for
the update that it skips. These functions return what is *not* batched: one answer for all seeds.
All are the identity for a single seed.
"""

import jax
import jax.numpy as jnp
from jax.custom_batching import custom_vmap
from jaxtyping import Array, Bool, Int, Shaped

from rlgen.types import PyTree


@custom_vmap
def any_seed(predicate: Bool[Array, ""]) -> Bool[Array, ""]:
    """Whether the predicate holds for any seed: do the work if somebody needs it."""
    return predicate


@any_seed.def_vmap
def _any_seed_vmap(axis_size: int, in_batched: list, predicate: Array) -> tuple[Array, bool]:
    del axis_size
    return any_seed(predicate.any() if in_batched[0] else predicate), False


@custom_vmap
def same_for_all_seeds(value: Shaped[Array, "..."]) -> Shaped[Array, "..."]:
    """A value that is equal for all seeds by construction (a counter), marked as such."""
    return value


@same_for_all_seeds.def_vmap
def _same_vmap(axis_size: int, in_batched: list, value: Array) -> tuple[Array, bool]:
    del axis_size
    return same_for_all_seeds(value[0] if in_batched[0] else value), False


@custom_vmap
def most_of_seeds(number: Int[Array, ""]) -> Int[Array, ""]:
    """The largest number of any seed: go on for as long as somebody needs it."""
    return number


@most_of_seeds.def_vmap
def _most_vmap(axis_size: int, in_batched: list, number: Array) -> tuple[Array, bool]:
    del axis_size
    return most_of_seeds(number.max() if in_batched[0] else number), False


def where(mask: Bool[Array, "..."], new: PyTree, old: PyTree) -> PyTree:
    """Select leaf by leaf; the mask's axes are the leading axes of every leaf."""

    def select(x: Array, y: Array) -> Array:
        x, y = jnp.asarray(x), jnp.asarray(y)
        return jnp.where(mask.reshape(mask.shape + (1,) * (x.ndim - mask.ndim)), x, y)

    return jax.tree.map(select, new, old)
