"""Sets of cells as rows of bits, with a margin for the 7x7 view.

A set of cells has one bit per cell, packed by rows. A margin of `MARGIN` cells surrounds the grid,
so no look-up needs a bounds check. A set that a family never uses has zero rows and needs neither
memory nor time.
"""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, UInt32

from rlgen.envs.grid.bitboard import pack_rows, take_word

VIEW = 7
"""Side of the square view in cells; the agent is in the middle."""
MARGIN = VIEW // 2
"""Width of the margin: the number of cells by which the view can reach outside the grid."""
MAX_SIDE = 64
"""Largest side of a grid, in cells."""

RIGHT, DOWN, LEFT, UP, INTERACT = range(5)
MOVES = ((1, 0), (0, 1), (-1, 0), (0, -1))
"""Offsets (x, y) of a step right, down, left and up."""


def pack(cells: Bool[Array, "H W"], outside: bool) -> UInt32[Array, "lines words"]:
    """Pack a set of cells as rows of bits; if `outside`, the margin belongs to the set."""
    return pack_rows(cells, num_words(cells.shape[1]), MARGIN, outside)


def nothing(width: int) -> UInt32[Array, "0 words"]:
    """Return a set with zero rows, for sets that a family never uses."""
    return jnp.zeros((0, num_words(width)), jnp.uint32)


def unpack_rows(rows: UInt32[Array, "lines words"], height: int, width: int) -> Bool[Array, "H W"]:
    """Unpack a set of cells that was packed by `pack`; a set without rows is empty."""
    if not rows.shape[0]:
        return jnp.zeros((height, width), bool)
    column = jnp.arange(MARGIN, MARGIN + width)
    shift = (column % 32).astype(jnp.uint32)[None]
    return (rows[MARGIN : MARGIN + height, column // 32] >> shift) & 1 == 1


def num_words(width: int) -> int:
    """Return the number of 32-bit words per row: one for grids up to 26 cells wide."""
    return -(-(width + 2 * MARGIN) // 32)


def is_set(
    rows: UInt32[Array, "lines words"], x: Int[Array, ""], y: Int[Array, ""]
) -> Bool[Array, ""]:
    """Return whether a cell belongs to a set; cells up to `MARGIN` outside the grid are valid."""
    lines, words = rows.shape
    if not lines:
        return jnp.bool_(False)
    bit, line = (x + MARGIN).astype(jnp.uint32), (y + MARGIN).astype(jnp.uint32)
    return (take_word(rows, line * words + bit // 32) >> (bit % 32)) & 1 == 1
