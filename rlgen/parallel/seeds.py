"""Branches and loops that skip unneeded work, even under a `vmap` over seeds.

Under `vmap`, a `lax.cond` with a batched predicate executes both branches and selects a result, so
every seed would compute even an update that it skips. `any_over_seeds`, `same_for_all_seeds` and
`max_over_seeds` return one *unbatched* value for all seeds. For a single seed, these three
functions are the identity. `map_where` computes only those rows of an array that a mask selects.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.custom_batching import custom_vmap
from jaxtyping import Array, Bool, Int, Shaped

from rlgen.types import PyTree


def _over_seeds(together: Callable[[Array], Array]) -> Callable[[Callable], custom_vmap]:
    """Decorate an identity function so that `vmap` over seeds gives one unbatched result.

    Args:
        together: reduction of the seeds' values to this result.
    """

    def marked(identity: Callable) -> custom_vmap:
        function = custom_vmap(identity)

        @function.def_vmap
        def _vmap(axis_size: int, in_batched: list, value: Array) -> tuple[Array, bool]:
            del axis_size
            # `function` is called again, so that a second `vmap` around the first is reduced as
            # well. `False` means that the result is not batched.
            return function(together(value) if in_batched[0] else value), False

        return function

    return marked


@_over_seeds(lambda predicate: predicate.any())
def any_over_seeds(predicate: Bool[Array, ""]) -> Bool[Array, ""]:
    """Return whether the predicate holds for at least one seed, so that work must be done."""
    return predicate


@_over_seeds(lambda value: value[0])
def same_for_all_seeds(value: Shaped[Array, "..."]) -> Shaped[Array, "..."]:
    """Mark a value that is equal for all seeds by construction, such as a counter."""
    return value


@_over_seeds(lambda number: number.max())
def max_over_seeds(number: Int[Array, ""]) -> Int[Array, ""]:
    """Return the maximum over all seeds, such as a number of iterations that suffices for all."""
    return number


def tree_where(mask: Bool[Array, "..."], new: PyTree, old: PyTree) -> PyTree:
    """Apply `jnp.where` to every leaf; the mask's axes are the leading axes of every leaf."""

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
    """Apply `function` to the rows of `xs` where the mask is True; elsewhere keep rows of `old`.

    The rows are gathered into blocks of `size`, and only as many blocks are computed as needed. If
    the mask is False everywhere, no block is computed. The last block is padded with rows whose
    results are dropped. Reverse-mode differentiation is not supported.

    Args:
        mask: True for the rows to compute, [N].
        function: maps rows [size, ...] of `xs` to rows [size, ...] of `old`.
        xs: inputs, [N, ...].
        old: results for the other rows, [N, ...].
        size: number of rows in a block.
    """
    total = mask.shape[0]
    size = min(size, total)
    # Shapes are static, so all N indices are sorted. The loop below decides how many of these
    # indices are used.
    order = jnp.argsort(~mask, stable=True)  # rows to compute come first
    # The order is padded to a multiple of `size`, because `dynamic_slice` would shift a block that
    # extends beyond the end.
    order = jnp.concatenate([order, jnp.zeros(-total % size, order.dtype)])
    num = mask.sum()

    def unfinished(carry: tuple[Int[Array, ""], PyTree]) -> Bool[Array, ""]:
        return carry[0] < num

    def block(carry: tuple[Int[Array, ""], PyTree]) -> tuple[Int[Array, ""], PyTree]:
        done, result = carry
        rows = jax.lax.dynamic_slice_in_dim(order, done, size)
        new = function(jax.tree.map(lambda x: x[rows], xs))
        valid = done + jnp.arange(size) < num
        at = jnp.where(valid, rows, total)  # an index out of bounds is dropped
        result = jax.tree.map(lambda x, y: x.at[at].set(y, mode="drop"), result, new)
        return done + size, result

    return jax.lax.while_loop(unfinished, block, (jnp.zeros_like(num), old))[1]
