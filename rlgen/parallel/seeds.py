"""Branches and loops that skip work: also when seeds are a `vmap` axis, and for some of many.

`vmap` turns a `lax.cond` with a batched predicate into "run both, select": every seed would pay for
the update that it skips. `any_over_seeds`, `same_for_all_seeds` and `max_over_seeds` return what is
*not* batched, one answer for all seeds; all are the identity for a single seed.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.custom_batching import custom_vmap
from jaxtyping import Array, Bool, Int, Shaped

from rlgen.types import PyTree


def _over_seeds(together: Callable[[Array], Array]) -> Callable[[Callable], custom_vmap]:
    """Turn an identity into one whose result under `vmap` is one for all seeds.

    Args:
        together: that result, of the seeds' values.
    """

    def marked(identity: Callable) -> custom_vmap:
        function = custom_vmap(identity)

        @function.def_vmap
        def _vmap(axis_size: int, in_batched: list, value: Array) -> tuple[Array, bool]:
            del axis_size
            return function(together(value) if in_batched[0] else value), False

        return function

    return marked


@_over_seeds(lambda predicate: predicate.any())
def any_over_seeds(predicate: Bool[Array, ""]) -> Bool[Array, ""]:
    """Whether the predicate holds for any seed: do the work if somebody needs it."""
    return predicate


@_over_seeds(lambda value: value[0])
def same_for_all_seeds(value: Shaped[Array, "..."]) -> Shaped[Array, "..."]:
    """A value that is equal for all seeds by construction (a counter), marked as such."""
    return value


@_over_seeds(lambda number: number.max())
def max_over_seeds(number: Int[Array, ""]) -> Int[Array, ""]:
    """The largest number of any seed: go on for as long as somebody needs it."""
    return number


def tree_where(mask: Bool[Array, "..."], new: PyTree, old: PyTree) -> PyTree:
    """Select leaf by leaf; the mask's axes are the leading axes of every leaf."""

    def select(x: Array, y: Array) -> Array:
        x, y = jnp.asarray(x), jnp.asarray(y)
        return jnp.where(mask.reshape(mask.shape + (1,) * (x.ndim - mask.ndim)), x, y)

    return jax.tree.map(select, new, old)


def map_where(
    mask: Bool[Array, " N"],
    function: Callable[[PyTree], PyTree],
    xs: PyTree,
    old: PyTree,
    size: int,
) -> PyTree:
    """`function` of the rows of `xs` where the mask holds; elsewhere the rows of `old`.

    The rows are gathered into blocks of `size`, and only as many blocks run as are needed: none if
    the mask holds nowhere. The last block is filled up with rows whose results are dropped. Cannot
    be differentiated in reverse.

    Args:
        mask: [N].
        function: of rows [size, ...] to rows [size, ...] like those of `old`.
        xs: [N, ...].
        old: [N, ...].
        size: rows at a time.
    """
    total = mask.shape[0]
    size = min(size, total)
    order = jnp.argsort(~mask, stable=True)  # those with work first
    order = jnp.concatenate([order, jnp.zeros(-total % size, order.dtype)])
    num = mask.sum()

    def unfinished(carry: tuple[Int[Array, ""], PyTree]) -> Bool[Array, ""]:
        return carry[0] < num

    def block(carry: tuple[Int[Array, ""], PyTree]) -> tuple[Int[Array, ""], PyTree]:
        done, result = carry
        rows = jax.lax.dynamic_slice_in_dim(order, done, size)
        new = function(jax.tree.map(lambda x: x[rows], xs))
        valid = done + jnp.arange(size) < num
        at = jnp.where(valid, rows, total)  # out of bounds is dropped
        result = jax.tree.map(lambda x, y: x.at[at].set(y, mode="drop"), result, new)
        return done + size, result

    return jax.lax.while_loop(unfinished, block, (jnp.zeros_like(num), old))[1]
