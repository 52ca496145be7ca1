"""Work for some of many: done for those alone, a few at a time, inside a compiled program."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from rlgen.types import PyTree


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
