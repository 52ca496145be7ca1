"""Occluded 7x7 view centred on the agent, which does not show the agent's position in the grid.

A `Window` is a set of cells in view, stored in two 32-bit words. Each row of the view takes eight
bits, and the eighth bit is always 0. A cell that a shift moves out of its row therefore lands on
one of these bits, so a shift needs only one mask, the set of cells that it may reach.
Lines of sight are paths that never turn back towards the agent. Cells that block sight are
themselves visible. The index of a cell in view is 8 r + c, where r is its row and c its column.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, UInt32

from rlgen.envs.grid.bitboard import bits_from
from rlgen.envs.grid.rows import MARGIN, VIEW

STRIDE = 8
"""Number of bits per row of a window."""
SPLIT = 4
"""Number of rows in the upper word of a window; the lower word has the other three."""
HIDDEN = 63
"""Value of the index 8 r + c of an object if the object is out of view."""
_ROW = 2**VIEW - 1
_UPPER = sum(_ROW << (STRIDE * row) for row in range(SPLIT))
_LOWER = sum(_ROW << (STRIDE * row) for row in range(VIEW - SPLIT))
_CENTRE = STRIDE * MARGIN + MARGIN


class Window(NamedTuple):
    """Set of cells in view; row r, column c is bit 8 r + c."""

    upper: UInt32[Array, "*batch"]  # rows 0 to 3
    lower: UInt32[Array, "*batch"]  # rows 4 to 6, starting at bit 0

    def __and__(self, other: "Window") -> "Window":
        """Intersection of two sets."""
        return Window(self.upper & other.upper, self.lower & other.lower)

    def __or__(self, other: "Window") -> "Window":
        """Union of two sets."""
        return Window(self.upper | other.upper, self.lower | other.lower)

    def __invert__(self) -> "Window":
        """Complement within the view."""
        return Window(~self.upper & _UPPER, ~self.lower & _LOWER)


def empty() -> Window:
    """Return the empty set."""
    return Window(jnp.uint32(0), jnp.uint32(0))


def window(rows: UInt32[Array, "lines words"], x: Int[Array, ""], y: Int[Array, ""]) -> Window:
    """Return the part of a set of cells that lies in the view of an agent at x, y.

    Args:
        rows: Set of cells, packed by `rows.pack`; a set without rows is empty.
        x: Column of the agent.
        y: Row of the agent.
    """
    if not rows.shape[0]:
        return empty()
    # `rows` includes a margin, which is as wide as the reach of the view. The bit at position x, y
    # of `rows` is therefore the top left cell of the view.
    line, bit = y.astype(jnp.uint32), x.astype(jnp.uint32)
    lines = [(bits_from(rows, line + i, bit) & _ROW) << (STRIDE * (i % SPLIT)) for i in range(VIEW)]
    upper, lower = lines[0], lines[SPLIT]
    for i in range(1, SPLIT):
        upper |= lines[i]
    for i in range(SPLIT + 1, VIEW):
        lower |= lines[i]
    return Window(upper, lower)


def place_in_view(place: Int[Array, "2"], x: Int[Array, ""], y: Int[Array, ""]) -> Int[Array, ""]:
    """Return the index 8 r + c of a grid cell within the view; `HIDDEN` if it is out of view."""
    column, row = place[0] - x + MARGIN, place[1] - y + MARGIN
    inside = (column >= 0) & (column < VIEW) & (row >= 0) & (row < VIEW)
    return jnp.where(inside, STRIDE * row + column, HIDDEN)


def only(place: Int[Array, ""]) -> Window:
    """Return the set that contains only the cell with the given index; empty for `HIDDEN`."""
    # HIDDEN (63) is excluded explicitly: it would set bit 31 of the lower word.
    bit = jnp.uint32(1) << (place & 31).astype(jnp.uint32)
    in_lower = (place >= 32) & (place != HIDDEN)
    return Window(jnp.where(place < 32, bit, 0), jnp.where(in_lower, bit, 0))


def holds(cells: Window, place: Int[Array, ""]) -> Bool[Array, ""]:
    """Return whether the cell with the given index belongs to a set; False for `HIDDEN`."""
    # For HIDDEN (63) this reads bit 31 of the lower word, which is always 0.
    word = jnp.where(place < 32, cells.upper, cells.lower)
    return (word >> (place & 31).astype(jnp.uint32)) & 1 == 1


def sight(blocked: Window) -> Window:
    """Return the cells that are visible from the middle of a window.

    A cell that does not block sight is visible if a path from the middle leads to it through cells
    that do not block sight, and every step of the path leads away from the middle. A cell that
    blocks sight is visible if it is one of the eight neighbours of a visible cell that does not
    block sight.
    """
    free, seen = ~blocked, empty()
    # First the paths that lead right, then those that lead left. Each has at most 2 MARGIN steps.
    for side in (1, -1):
        reached = Window(jnp.uint32(1 << _CENTRE), jnp.uint32(0))
        for _ in range(2 * MARGIN):
            reached |= (_sideways(reached, side) | _outwards(reached)) & free
        seen |= reached
    # Dilation by the eight neighbours: first along rows, then along columns.
    wide = seen | _sideways(seen, 1) | _sideways(seen, -1)
    around = wide | _down(wide) | _up(wide)
    return seen | (around & blocked)


def bits(cells: Window) -> Bool[Array, "*batch 7 7"]:
    """Unpack a window into flags, [..., row, column]."""
    shift = jnp.arange(32, dtype=jnp.uint32).reshape(*[1] * cells.upper.ndim, -1)
    words = [(word[..., None] >> shift) & 1 == 1 for word in cells]
    flags = jnp.concatenate(words, -1).reshape(*cells.upper.shape, STRIDE, STRIDE)
    return flags[..., :VIEW, :VIEW]


def place_bits(place: Int[Array, "*batch"]) -> Bool[Array, "*batch 7 7"]:
    """Convert the index of a cell to flags, [..., row, column]; for `HIDDEN` no flag is set."""
    row, column = jnp.arange(VIEW), jnp.arange(VIEW)
    cell = (STRIDE * row[:, None] + column[None]).reshape(*[1] * place.ndim, VIEW, VIEW)
    return place[..., None, None] == cell


def _sideways(cells: Window, side: int) -> Window:
    """Shift a set by one column.

    Cells at the edge leave the view, so the caller must mask the result.
    """
    if side > 0:
        return Window(cells.upper << 1, cells.lower << 1)
    return Window(cells.upper >> 1, cells.lower >> 1)


def _outwards(cells: Window) -> Window:
    """Shift the upper half of a set up by one row and the lower half down by one row.

    The middle row belongs to both halves.
    """
    middle = cells.upper >> (STRIDE * (SPLIT - 1))
    return Window(cells.upper >> STRIDE, (cells.lower << STRIDE) | middle)


def _down(cells: Window) -> Window:
    carried = cells.upper >> (STRIDE * (SPLIT - 1))
    return Window(cells.upper << STRIDE, (cells.lower << STRIDE) | carried)


def _up(cells: Window) -> Window:
    carried = (cells.lower & 255) << (STRIDE * (SPLIT - 1))
    return Window((cells.upper >> STRIDE) | carried, cells.lower >> STRIDE)
