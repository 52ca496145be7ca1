"""Grids of walls, lava, doors and keys as bit masks: the level, the episode's state, conversions.

A set of cells is one bit a cell, by rows, with `MARGIN` cells around the grid, so that no look-up
needs a bounds check. A set that a family never uses has no rows at all, and costs nothing.
"""

from typing import no_type_check

import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Int, UInt32

VIEW = 7
"""Side of the square that the agent sees; it stands in the middle."""
MARGIN = VIEW // 2
"""Cells kept around the grid: how far the view reaches out of it."""
MAX_SIDE = 64
"""The most cells a side."""

RIGHT, DOWN, LEFT, UP, INTERACT = range(5)
MOVES = ((1, 0), (0, 1), (-1, 0), (0, -1))
"""x, y of a step right, down, left and up."""


@no_type_check  # JAX also builds it with axes or None for arrays: no check of the fields' types
@struct.dataclass
class Level:
    """All that an episode depends on. The gymnax `params` of the environment.

    Doors that are neither closed nor locked stand open from the start. Key k opens the doors of
    `locks[k]`; there is at most one door for each key.
    """

    walls: UInt32[Array, "*batch lines words"]  # cells that nobody enters; no lines if unused
    lava: UInt32[Array, "*batch lines words"]  # cells that kill; no lines if unused
    doors: Int[Array, "*batch D 2"]  # x, y
    closed: Int[Array, "*batch"]  # bit i: door i starts closed and opens when walked into
    locks: Int[Array, "*batch K"]  # bit i: key k opens door i, which starts locked
    keys: Int[Array, "*batch K 2"]  # x, y
    start: Int[Array, "*batch 2"]  # x, y
    goal: Int[Array, "*batch 2"]  # x, y
    max_steps_in_episode: Int[Array, "*batch"]
    height: int = struct.field(pytree_node=False)
    width: int = struct.field(pytree_node=False)


@no_type_check
@struct.dataclass
class State:
    """Where an episode stands."""

    x: Int[Array, "*batch"]
    y: Int[Array, "*batch"]
    time: Int[Array, "*batch"]  # steps taken
    opened: Int[Array, "*batch"]  # bit i: door i is open
    held: Int[Array, "*batch"]  # bit k: key k has been picked up
    event: Int[Array, "*batch"]  # what the last step did, see `_quest_step`


def start_of(level: Level) -> State:
    """The moment at which every episode on a level begins."""
    x, y = level.start[0], level.start[1]
    zero = jnp.zeros_like(x)
    return State(x, y, zero, first_opened(level), zero, zero)


def first_opened(level: Level) -> Int[Array, ""]:
    """Bit mask of the doors that are open from the start."""
    num_doors, num_keys = level.doors.shape[0], level.keys.shape[0]
    shut = level.closed
    for k in range(num_keys):
        shut = shut | level.locks[k]
    return jnp.int32(2**num_doors - 1) & ~shut


def pack(cells: Bool[Array, "H W"], outside: bool) -> UInt32[Array, "lines words"]:
    """A set of cells as rows of bits; `outside` says whether all else belongs to it, too."""
    words = num_words(cells.shape[1])
    right = 32 * words - MARGIN - cells.shape[1]
    padded = jnp.pad(cells, ((MARGIN, MARGIN), (MARGIN, right)), constant_values=outside)
    bits = padded.reshape(padded.shape[0], words, 32).astype(jnp.uint32)
    place = jnp.arange(32, dtype=jnp.uint32)[None, None]
    return (bits << place).sum(-1, dtype=jnp.uint32)


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


def take_word(rows: UInt32[Array, "lines words"], at: UInt32[Array, ""]) -> UInt32[Array, ""]:
    """One word by its flat position, which must be in range; scalar, as fused steps want it."""
    return rows.reshape(-1).at[at].get(mode="promise_in_bounds")


def things_at(places: Int[Array, "D 2"], x: Int[Array, ""], y: Int[Array, ""]) -> Int[Array, ""]:
    """Bit mask of the doors or keys that are at a cell."""
    found = jnp.int32(0)
    for i in range(places.shape[0]):
        here = (places[i, 0] == x) & (places[i, 1] == y)
        found |= jnp.where(here, jnp.int32(1 << i), 0)
    return found


def things_beside(
    places: Int[Array, "D 2"], x: Int[Array, ""], y: Int[Array, ""]
) -> Int[Array, ""]:
    """Bit mask of the doors that are on one of the four cells around a cell."""
    found = jnp.int32(0)
    for i in range(places.shape[0]):
        away = jnp.abs(places[i, 0] - x) + jnp.abs(places[i, 1] - y)
        found |= jnp.where(away == 1, jnp.int32(1 << i), 0)
    return found
