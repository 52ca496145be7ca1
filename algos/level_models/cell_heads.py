"""Distributions over the kinds of a grid's cells, and over places on the free cells.

A place is one cell of the grid, such as the goal. The kinds on which a place may lie are called
free; a cell of a free kind is called free too. `rlgen.codec` defines these parts of levels.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from rlgen.codec import Cells
from rlgen.types import Key


def free_kinds(cells: Cells) -> Bool[np.ndarray, " K"]:
    """Return a mask of the kinds that are free."""
    return np.array([kind in cells.free for kind in cells.kinds])


def is_free(cells: Cells, value: Int[Array, "H W"]) -> Bool[Array, "H W"]:
    """Return a mask of the cells that are free."""
    return jnp.asarray(free_kinds(cells))[value]


def marked(places: Sequence[Int[Array, ""]], num_cells: int) -> Bool[Array, " C"]:
    """Return a mask of the cells at the given places."""
    mask = jnp.zeros(num_cells, bool)
    # A Python loop: the places of a level are few, and their number is static.
    for place in places:
        mask = mask.at[place].set(True)
    return mask


def log_likelihood(
    cells: Cells,
    logits: Float[Array, "H W K"],
    value: Int[Array, "H W"],
    under: Bool[Array, "H W"],
) -> Float[Array, ""]:
    """Mean over cells of the log-likelihood of each cell's kind.

    If a place lies on a cell, the cell's kind is unspecified. The target of such a cell is uniform
    over the free kinds.

    Args:
        cells: Description of the grid.
        logits: Logits of the kinds of each cell.
        value: True kind of each cell.
        under: Cells on which a place lies.
    """
    log_prob = jax.nn.log_softmax(logits)
    true = jnp.take_along_axis(log_prob, value[..., None], -1)[..., 0]
    if not cells.free:
        return true.mean()
    # Cross-entropy with the uniform target: mean log-probability of the free kinds.
    even = (log_prob * free_kinds(cells)[None, None]).sum(-1) / len(cells.free)
    return jnp.where(under, even, true).mean()


def is_right(
    cells: Cells,
    logits: Float[Array, "H W K"],
    value: Int[Array, "H W"],
    under: Bool[Array, "H W"],
) -> Bool[Array, "H W"]:
    """Return a mask of the cells whose most likely kind is correct.

    If a place lies on a cell, every free kind is correct.
    """
    likeliest = logits.argmax(-1)
    return jnp.where(under, is_free(cells, likeliest), likeliest == value)


def sample(
    key: Key, cells: Cells, logits: Float[Array, "H W K"]
) -> tuple[Int[Array, "H W"], Bool[Array, "H W"]]:
    """Sample the kind of each cell; return the kinds and a mask of the free cells.

    A cell is free if its probabilities of the free kinds add up to more than one half. The kind of
    a free cell is sampled among the free kinds. The kind of any other cell is sampled among the
    other kinds.
    """
    of_free = free_kinds(cells)[None, None]
    free_prob = jnp.where(of_free, jax.nn.softmax(logits), 0.0).sum(-1)
    # The more probable of the two cases, free or not free, is chosen. Only the kind is sampled,
    # below.
    chosen = free_prob > 0.5
    # If no kind is free, or every kind is free, only one group of kinds can be chosen.
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
    """Sample a place on the free cells; also return the most likely cell.

    Args:
        key: Consumed.
        logits: Logits of the place, over all cells.
        free: Cells on which places may lie.
        taken: Cells of other places, which are excluded.
        shunned: Cells to avoid if another free cell is available.

    Returns:
        The sampled cell, and the most likely of the cells that could be sampled.
    """
    key_choice, key_rest = jax.random.split(key)
    open_cells = ~marked(taken, free.size)
    legal = free & open_cells
    wanted = legal & ~marked(shunned, free.size)
    # The first choice follows the logits of the wanted cells. If no cell is wanted, the second
    # choice is used. It is uniform over the legal cells or, without a legal cell, over all cells
    # that are not taken.
    first = jax.random.categorical(key_choice, jnp.where(wanted, logits, -jnp.inf))
    rest = jnp.where(legal.any(), legal, open_cells)
    second = jax.random.categorical(key_rest, jnp.where(rest, 0.0, -jnp.inf))
    likeliest = jnp.where(wanted.any(), jnp.where(wanted, logits, -jnp.inf).argmax(), second)
    return jnp.where(wanted.any(), first, second), likeliest
