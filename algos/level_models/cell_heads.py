"""Distributions of what stands in the cells of a grid, and of places among its free cells."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from rlgen.codec import Cells
from rlgen.types import Key


def free_kinds(cells: Cells) -> Bool[np.ndarray, " K"]:
    """Which kinds are free."""
    return np.array([kind in cells.free for kind in cells.kinds])


def is_free(cells: Cells, value: Int[Array, "H W"]) -> Bool[Array, "H W"]:
    """Which cells of a grid are free."""
    return jnp.asarray(free_kinds(cells))[value]


def marked(places: Sequence[Int[Array, ""]], num_cells: int) -> Bool[Array, " C"]:
    """The cells at some places."""
    mask = jnp.zeros(num_cells, bool)
    for place in places:
        mask = mask.at[place].set(True)
    return mask


def log_likelihood(
    cells: Cells,
    logits: Float[Array, "H W K"],
    value: Int[Array, "H W"],
    under: Bool[Array, "H W"],
) -> Float[Array, ""]:
    """Mean over cells of the log-probability of what stands there; under places, of any free kind.

    There the target is spread evenly over the free kinds.
    """
    log_prob = jax.nn.log_softmax(logits)
    true = jnp.take_along_axis(log_prob, value[..., None], -1)[..., 0]
    if not cells.free:
        return true.mean()
    even = (log_prob * free_kinds(cells)[None, None]).sum(-1) / len(cells.free)
    return jnp.where(under, even, true).mean()


def is_right(
    cells: Cells,
    logits: Float[Array, "H W K"],
    value: Int[Array, "H W"],
    under: Bool[Array, "H W"],
) -> Bool[Array, "H W"]:
    """Whether the likeliest kind of each cell is the true one, or under a place a free one."""
    likeliest = logits.argmax(-1)
    return jnp.where(under, is_free(cells, likeliest), likeliest == value)


def sample(
    key: Key, cells: Cells, logits: Float[Array, "H W K"]
) -> tuple[Int[Array, "H W"], Bool[Array, "H W"]]:
    """What stands in each cell, and which cells are free: those more than half likely to be."""
    of_free = free_kinds(cells)[None, None]
    free_prob = jnp.where(of_free, jax.nn.softmax(logits), 0.0).sum(-1)
    chosen = free_prob > 0.5
    if cells.free == () or len(cells.free) == len(cells.kinds):
        chosen = jnp.full_like(chosen, bool(cells.free))
    return (
        jax.random.categorical(key, jnp.where(of_free == chosen[..., None], logits, -jnp.inf)),
        chosen,
    )


def sample_place(
    key: Key,
    logits: Float[Array, " C"],
    free: Bool[Array, " C"],
    taken: Sequence[Int[Array, ""]],
    shunned: Sequence[Int[Array, ""]],
) -> tuple[Int[Array, ""], Int[Array, ""]]:
    """A place on free cells, and where it was likeliest to be before others took their cells.

    Args:
        key: of the draw.
        logits: of the place, over all cells.
        free: where places may lie.
        taken: where other places are, never given again.
        shunned: avoided where there is another free cell.
    """
    key_choice, key_rest = jax.random.split(key)
    open_cells = ~marked(taken, free.size)
    legal = free & open_cells
    wanted = legal & ~marked(shunned, free.size)
    first = jax.random.categorical(key_choice, jnp.where(wanted, logits, -jnp.inf))
    rest = jnp.where(legal.any(), legal, open_cells)
    second = jax.random.categorical(key_rest, jnp.where(rest, 0.0, -jnp.inf))
    likeliest = jnp.where(wanted.any(), jnp.where(wanted, logits, -jnp.inf).argmax(), second)
    return jnp.where(wanted.any(), first, second), likeliest
