"""Sets of cells as rows of bits, with a margin as wide as the 7x7 view reaches.

A set of cells is one bit a cell, by rows, with `MARGIN` cells around the grid, so that no look-up
needs a bounds check. A set that a family never uses has no rows at all, and costs nothing.
"""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, UInt32

from rlgen.envs.grid.bitboard import pack_rows, take_word

VIEW = 7
"""Side of the square that the agent sees; it stands in the middle."""
MARGIN = VIEW // 2
"""Cells kept around the grid: how far the view reaches out of it."""
MAX_SIDE = 64
"""The most cells a side."""

RIGHT, DOWN, LEFT, UP, INTERACT = range(5)
MOVES = ((1, 0), (0, 1), (-1, 0), (0, -1))
"""x, y of a step right, down, left and up."""


def pack(cells: Bool[Array, "H W"], outside: bool) -> UInt32[Array, "lines words"]:
    """A set of cells as rows of bits; `outside` says whether all else belongs to it, too."""
    return pack_rows(cells, num_words(cells.shape[1]), MARGIN, outside)


def nothing(width: int) -> UInt32[Array, "0 words"]:
    """A set that a family never uses."""
    return jnp.zeros((0, num_words(width)), jnp.uint32)


def unpack_rows(rows: UInt32[Array, "lines words"], height: int, width: int) -> Bool[Array, "H W"]:
    """The inverse of `pack`, also of a set without rows."""
    if not rows.shape[0]:
        return jnp.zeros((height, width), bool)
    column = jnp.arange(MARGIN, MARGIN + width)
    shift = (column % 32).astype(jnp.uint32)[None]
    return (rows[MARGIN : MARGIN + height, column // 32] >> shift) & 1 == 1


def num_words(width: int) -> int:
    """32-bit words a row: one for grids up to 26 cells wide."""
    return -(-(width + 2 * MARGIN) // 32)


def is_set(
    rows: UInt32[Array, "lines words"], x: Int[Array, ""], y: Int[Array, ""]
) -> Bool[Array, ""]:
    """Whether a cell, up to `MARGIN` outside the grid, belongs to a set."""
    lines, words = rows.shape
    if not lines:
        return jnp.bool_(False)
    bit, line = (x + MARGIN).astype(jnp.uint32), (y + MARGIN).astype(jnp.uint32)
    return (take_word(rows, line * words + bit // 32) >> (bit % 32)) & 1 == 1
