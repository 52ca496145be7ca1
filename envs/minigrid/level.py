"""MiniGrid's worlds as a few words: walls as bit masks, doors and objects as short lists.

Walls are kept by rows and by columns, one bit a cell, with `MARGIN` cells of wall around them, so
that the view is seven short bit fields of seven neighbouring lines. What can change in an episode
is listed: a door stays in its cell, an object has one or is carried. A cell shows one code of six
bits: what kind of thing it is and of what colour.

Source: Chevalier-Boisvert et al., 2023, "Minigrid & Miniworld".
"""

from dataclasses import replace
from typing import no_type_check

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Bool, Int, UInt32

VIEW = 7
"""Side of the square that the agent sees."""
MARGIN = VIEW - 1
LONGEST = 32 - 2 * MARGIN
"""Cells a side of the largest world: a line of it is one word."""
STRIDE = 32
"""A cell is `STRIDE * y + x`."""
NOWHERE = STRIDE * STRIDE - 1
"""The cell of what is carried, gone or was never there; no view and no step reaches it."""

COLOURS = ("red", "green", "blue", "purple", "yellow", "grey")
RED, GREEN, BLUE, PURPLE, YELLOW, GREY = range(len(COLOURS))

# A code is `kind << 3 | colour`; those of kind 0 have no colour.
UNSEEN, EMPTY, WALL = 0, 1, 2
KEY, BALL, BOX, OPEN_DOOR, CLOSED_DOOR, LOCKED_DOOR = range(1, 7)
NUM_BITS = 6

TURN_LEFT, TURN_RIGHT, FORWARD, PICK_UP, DROP, TOGGLE, DONE = range(7)
NOTHING, TOOK_KEY, TOOK_BALL, TOOK_BOX, TOOK_TARGET, DROPPED = range(6)
OPENED, CLOSED, UNLOCKED, REFUSED, UNPACKED = range(6, 11)
EVENTS = (
    "nothing",
    "took a key",
    "took a ball",
    "took a box",
    "took what was looked for",
    "dropped something",
    "opened a door",
    "closed a door",
    "unlocked a door",
    "found a door locked",
    "opened a box",
)
"""What `State.event` says of the last step."""


@no_type_check  # JAX also builds it with axes or None for arrays: no check of the fields' types
@struct.dataclass
class Level:
    """One world: all that an episode in it depends on. Doors start closed."""

    walls: UInt32[Array, "*batch lines"]  # height + 12 rows, then width + 12 columns
    start: Int[Array, "*batch 2"]  # x, y of the agent
    direction: Int[Array, "*batch"]  # of the agent: 0 right, 1 down, 2 left, 3 up
    door_cell: Int[Array, "*batch D"]  # `NOWHERE` if there is none
    door_colour: Int[Array, "*batch D"]
    locked: UInt32[Array, "*batch"]  # bit d: door d needs the key of its colour
    object_cell: Int[Array, "*batch K"]
    object_code: Int[Array, "*batch K"]
    content_code: Int[Array, "*batch K"]  # what a box, never empty, holds; 0 if it is none
    target: UInt32[Array, "*batch"]  # bit k: picking up object k is success
    max_steps_in_episode: Int[Array, "*batch"]
    height: int = struct.field(pytree_node=False)


@no_type_check
@struct.dataclass
class State:
    """Where an episode stands. The sets are bit masks over the level's lists."""

    x: Int[Array, "*batch"]
    y: Int[Array, "*batch"]
    direction: Int[Array, "*batch"]
    time: Int[Array, "*batch"]  # steps taken
    object_cell: Int[Array, "*batch K"]
    unpacked: UInt32[Array, "*batch"]  # boxes that were opened, and are their contents now
    carried: UInt32[Array, "*batch"]  # one bit or none
    open: UInt32[Array, "*batch"]  # doors
    locked: UInt32[Array, "*batch"]  # doors
    event: Int[Array, "*batch"]  # what happened with the last step, a place in `EVENTS`


def code_of(kind: int, colour: Int[Array, "*n"] | int) -> Int[Array, "*n"]:
    """What a cell with a thing of a kind and a colour shows."""
    return jnp.asarray(8 * kind + colour, jnp.int32)


def cell_at(x: Int[Array, "*n"], y: Int[Array, "*n"]) -> Int[Array, "*n"]:
    """The number of a cell."""
    return STRIDE * y + x


def size_of(level: Level) -> tuple[int, int]:
    """Height and width of a level, or of a batch of them, from its shapes."""
    return level.height, level.walls.shape[-1] - level.height - 4 * MARGIN


def pack_walls(walls: Bool[Array, "H W"]) -> UInt32[Array, " lines"]:
    """Walls by rows and by columns; everything outside is wall."""
    return jnp.concatenate([_pack(walls), _pack(walls.T)])


def to_walls(level: Level) -> np.ndarray:
    """The walls of one level, bool[H, W]; on the host."""
    height, width = size_of(level)
    rows = np.asarray(level.walls)[MARGIN : MARGIN + height]
    return (rows[:, None] >> np.arange(MARGIN, MARGIN + width, dtype=np.uint32)) & 1 == 1


def line_of(level: Level, at: UInt32[Array, ""]) -> UInt32[Array, ""]:
    """One line of walls; `at` must be in range. Fast under `vmap`, as `take_word`."""
    return level.walls.at[at].get(mode="promise_in_bounds")


def position_of(state: State, level: Level) -> Int[Array, ""]:
    """The agent's cell, counted row by row."""
    _, width = size_of(level)
    return state.y * width + state.x


def hash_parts(level: Level) -> tuple[Array, ...]:
    """What tells levels apart: all but the time limit."""
    limitless = replace(level, max_steps_in_episode=jnp.zeros_like(level.max_steps_in_episode))
    return tuple(jax.tree.leaves(limitless))


def first_state(level: Level) -> State:
    """The start of an episode."""
    x, y = level.start
    none, zero = jnp.zeros_like(level.locked), jnp.zeros_like(x)
    return State(
        x=x,
        y=y,
        direction=level.direction,
        time=zero,
        object_cell=level.object_cell,
        unpacked=none,
        carried=none,
        open=none,
        locked=level.locked,
        event=zero,
    )


def bits_of(flags: Bool[Array, " K"]) -> UInt32[Array, ""]:
    """A set as one word, bit k for the k-th flag."""
    place = jnp.arange(flags.shape[0], dtype=jnp.uint32)
    return (flags.astype(jnp.uint32) << place).sum(dtype=jnp.uint32)


def flags_of(bits: UInt32[Array, ""], num: int) -> Bool[Array, " K"]:
    """The inverse of `bits_of`."""
    return (bits[None] >> jnp.arange(num, dtype=jnp.uint32)) & 1 == 1


def codes_now(level: Level, state: State) -> Int[Array, " K"]:
    """What each object shows: itself, or what was in it."""
    opened = flags_of(state.unpacked, level.object_code.shape[0])
    return jnp.where(opened, level.content_code, level.object_code)


def door_codes(level: Level, state: State) -> Int[Array, " D"]:
    """What each door shows: open, closed or locked, and its colour."""
    num = level.door_cell.shape[0]
    kind = jnp.where(flags_of(state.locked, num), LOCKED_DOOR, CLOSED_DOOR)
    kind = jnp.where(flags_of(state.open, num), OPEN_DOOR, kind)
    return 8 * kind + level.door_colour


def _pack(walls: Bool[Array, "R C"]) -> UInt32[Array, " lines"]:
    right = 32 - MARGIN - walls.shape[1]
    padded = jnp.pad(walls, ((MARGIN, MARGIN), (MARGIN, right)), constant_values=True)
    place = jnp.arange(32, dtype=jnp.uint32)[None]
    return (padded.astype(jnp.uint32) << place).sum(-1, dtype=jnp.uint32)
