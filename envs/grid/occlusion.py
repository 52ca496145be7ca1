"""What the agent sees: the 7x7 cells around it, and nothing of where that is in the grid.

A set of those cells is a `Window`: two words, eight bits a row, the eighth always 0, so that shifts
by one cell need no mask but the set of cells that they may lead to. Sight runs along ways that
never turn back towards the agent; what blocks it is itself seen.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, UInt32

from rlgen.envs.grid.bitboard import bits_from
from rlgen.envs.grid.rows import MARGIN, VIEW

STRIDE = 8
"""Bits a row of a window."""
SPLIT = 4
"""Rows of a window in its upper word; the other three are in the lower."""
HIDDEN = 63
"""Place of what is out of view."""
_ROW = 2**VIEW - 1
_UPPER = sum(_ROW << (STRIDE * row) for row in range(SPLIT))
_LOWER = sum(_ROW << (STRIDE * row) for row in range(VIEW - SPLIT))
_CENTRE = STRIDE * MARGIN + MARGIN


class Window(NamedTuple):
    """A set of the cells in view; row r, column c is bit 8 r + c."""

    upper: UInt32[Array, "*batch"]  # rows 0 to 3
    lower: UInt32[Array, "*batch"]  # rows 4 to 6, as bits from 0 on

    def __and__(self, other: "Window") -> "Window":
        """The cells of both."""
        return Window(self.upper & other.upper, self.lower & other.lower)

    def __or__(self, other: "Window") -> "Window":
        """The cells of either."""
        return Window(self.upper | other.upper, self.lower | other.lower)

    def __invert__(self) -> "Window":
        """All other cells in view."""
        return Window(~self.upper & _UPPER, ~self.lower & _LOWER)


def empty() -> Window:
    """No cell."""
    return Window(jnp.uint32(0), jnp.uint32(0))


def window(rows: UInt32[Array, "lines words"], x: Int[Array, ""], y: Int[Array, ""]) -> Window:
    """The part of a set of cells that is in view from a cell of the grid.

    Args:
        rows: as `rows.pack` makes them; a set without rows is empty.
        x, y: where the agent is.
    """
    if not rows.shape[0]:
        return empty()
    line, bit = y.astype(jnp.uint32), x.astype(jnp.uint32)  # the margin is as wide as the reach
    lines = [(bits_from(rows, line + i, bit) & _ROW) << (STRIDE * (i % SPLIT)) for i in range(VIEW)]
    upper, lower = lines[0], lines[SPLIT]
    for i in range(1, SPLIT):
        upper |= lines[i]
    for i in range(SPLIT + 1, VIEW):
        lower |= lines[i]
    return Window(upper, lower)


def place_in_view(place: Int[Array, "2"], x: Int[Array, ""], y: Int[Array, ""]) -> Int[Array, ""]:
    """8 r + c of a cell of the grid; `HIDDEN` if it is out of view."""
    column, row = place[0] - x + MARGIN, place[1] - y + MARGIN
    inside = (column >= 0) & (column < VIEW) & (row >= 0) & (row < VIEW)
    return jnp.where(inside, STRIDE * row + column, HIDDEN)


def only(place: Int[Array, ""]) -> Window:
    """The set of one place; of none, if the place is `HIDDEN`."""
    bit = jnp.uint32(1) << (place & 31).astype(jnp.uint32)
    in_lower = (place >= 32) & (place != HIDDEN)
    return Window(jnp.where(place < 32, bit, 0), jnp.where(in_lower, bit, 0))


def holds(cells: Window, place: Int[Array, ""]) -> Bool[Array, ""]:
    """Whether a place in view belongs to a set; never, if it is `HIDDEN`."""
    word = jnp.where(place < 32, cells.upper, cells.lower)
    return (word >> (place & 31).astype(jnp.uint32)) & 1 == 1


def sight(blocked: Window) -> Window:
    """The cells that can be seen from the middle of a window.

    A cell that does not block is seen if a way from the middle leads to it over cells that do not
    block, in steps that all lead away from the middle. A cell that blocks is seen if it is one of
    the eight around such a cell.
    """
    free, seen = ~blocked, empty()
    for side in (1, -1):
        reached = Window(jnp.uint32(1 << _CENTRE), jnp.uint32(0))
        for _ in range(2 * MARGIN):
            reached |= (_sideways(reached, side) | _outwards(reached)) & free
        seen |= reached
    wide = seen | _sideways(seen, 1) | _sideways(seen, -1)
    around = wide | _down(wide) | _up(wide)
    return seen | (around & blocked)


def bits(cells: Window) -> Bool[Array, "*batch 7 7"]:
    """A window as flags, [..., row, column]."""
    shift = jnp.arange(32, dtype=jnp.uint32).reshape(*[1] * cells.upper.ndim, -1)
    words = [(word[..., None] >> shift) & 1 == 1 for word in cells]
    flags = jnp.concatenate(words, -1).reshape(*cells.upper.shape, STRIDE, STRIDE)
    return flags[..., :VIEW, :VIEW]


def place_bits(place: Int[Array, "*batch"]) -> Bool[Array, "*batch 7 7"]:
    """A place as flags, [..., row, column]; none is set for `HIDDEN`."""
    row, column = jnp.arange(VIEW), jnp.arange(VIEW)
    cell = (STRIDE * row[:, None] + column[None]).reshape(*[1] * place.ndim, VIEW, VIEW)
    return place[..., None, None] == cell


def _sideways(cells: Window, side: int) -> Window:
    """One column on, into the eighth or the row beside it at the edge: to be masked."""
    if side > 0:
        return Window(cells.upper << 1, cells.lower << 1)
    return Window(cells.upper >> 1, cells.lower >> 1)


def _outwards(cells: Window) -> Window:
    """One row up from the middle row and above, one down from it and below."""
    middle = cells.upper >> (STRIDE * (SPLIT - 1))
    return Window(cells.upper >> STRIDE, (cells.lower << STRIDE) | middle)


def _down(cells: Window) -> Window:
    carried = cells.upper >> (STRIDE * (SPLIT - 1))
    return Window(cells.upper << STRIDE, (cells.lower << STRIDE) | carried)


def _up(cells: Window) -> Window:
    carried = (cells.lower & 255) << (STRIDE * (SPLIT - 1))
    return Window((cells.upper >> STRIDE) | carried, cells.lower >> STRIDE)
