"""MiniGrid's worlds in compact form: walls as bit masks, doors and objects as short lists.

Walls are stored twice, by rows and by columns; rows and columns are both called lines. A line has
one bit per cell, and `MARGIN` further cells of wall surround the world. In every direction, the
walls in view are therefore seven short bit fields, one from each of seven neighbouring lines.
Everything that can change during an episode is in the list of doors or in the list of objects. A
door stays in its cell; an object is in a cell or is carried. The content of a cell is described by
a code of six bits, for its kind and its colour.

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
"""Side of the square that the agent sees, in cells."""
MARGIN = VIEW - 1
"""Number of cells of wall stored on each side of the world; equal to the number of cells that the
view reaches ahead of the agent."""
LONGEST = 32 - 2 * MARGIN
"""Number of cells per side of the largest world. A line of this world, with its margins, still fits
into one word."""
STRIDE = 32
"""A cell's number is `STRIDE * y + x`."""
NOWHERE = STRIDE * STRIDE - 1
"""Cell number of carried objects, and of objects and doors that do not exist; no view or step
reaches this cell."""

COLOURS = ("red", "green", "blue", "purple", "yellow", "grey")
RED, GREEN, BLUE, PURPLE, YELLOW, GREY = range(len(COLOURS))

# A code is `kind << 3 | colour`. Kind 0 has no colours; its codes mean unseen, empty and wall.
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
"""Meaning of each value of `State.event`, the effect of the last step."""


@no_type_check  # JAX also builds this class with axes or None in place of arrays
@struct.dataclass
class Level:
    """One world: everything that an episode depends on. All doors start closed."""

    walls: UInt32[Array, "*batch lines"]  # height + 12 rows, then width + 12 columns
    start: Int[Array, "*batch 2"]  # x, y of the agent
    direction: Int[Array, "*batch"]  # of the agent: 0 right, 1 down, 2 left, 3 up
    door_cell: Int[Array, "*batch D"]  # `NOWHERE` if the door does not exist
    door_colour: Int[Array, "*batch D"]
    locked: UInt32[Array, "*batch"]  # bit d: door d needs the key of its colour
    object_cell: Int[Array, "*batch K"]
    object_code: Int[Array, "*batch K"]
    content_code: Int[Array, "*batch K"]  # code of a box's content; 0 if not a box, never for a box
    target: UInt32[Array, "*batch"]  # bit k: picking up object k solves the level
    max_steps_in_episode: Int[Array, "*batch"]
    height: int = struct.field(pytree_node=False)


@no_type_check
@struct.dataclass
class State:
    """State of an episode. Sets are bit masks over the level's list of doors or objects."""

    x: Int[Array, "*batch"]
    y: Int[Array, "*batch"]
    direction: Int[Array, "*batch"]
    time: Int[Array, "*batch"]  # steps taken
    object_cell: Int[Array, "*batch K"]
    unpacked: UInt32[Array, "*batch"]  # boxes that were opened and replaced by their contents
    carried: UInt32[Array, "*batch"]  # at most one bit is set
    open: UInt32[Array, "*batch"]  # doors that are open
    locked: UInt32[Array, "*batch"]  # doors that are still locked
    event: Int[Array, "*batch"]  # effect of the last step, an index into `EVENTS`


def code_of(kind: int, colour: Int[Array, "*n"] | int) -> Int[Array, "*n"]:
    """Code of an object or door with the given kind and colour."""
    return jnp.asarray(8 * kind + colour, jnp.int32)


def cell_at(x: Int[Array, "*n"], y: Int[Array, "*n"]) -> Int[Array, "*n"]:
    """Return the number of a cell."""
    return STRIDE * y + x


def size_of(level: Level) -> tuple[int, int]:
    """Height and width of a level, or of a batch of levels, from its shapes."""
    # There are height + 2 MARGIN rows and width + 2 MARGIN columns.
    return level.height, level.walls.shape[-1] - level.height - 4 * MARGIN


def pack_walls(walls: Bool[Array, "H W"]) -> UInt32[Array, " lines"]:
    """Pack walls by rows and by columns; everything outside the world is wall."""
    return jnp.concatenate([_pack(walls), _pack(walls.T)])


def to_walls(level: Level) -> np.ndarray:
    """Return the walls of one level, bool[H, W], on the host."""
    height, width = size_of(level)
    rows = np.asarray(level.walls)[MARGIN : MARGIN + height]
    return (rows[:, None] >> np.arange(MARGIN, MARGIN + width, dtype=np.uint32)) & 1 == 1


def line_of(level: Level, at: UInt32[Array, ""]) -> UInt32[Array, ""]:
    """Return line `at` of the walls.

    The index must be in range. It is not checked, which makes this function fast under `vmap`.
    """
    return level.walls.at[at].get(mode="promise_in_bounds")


def position_of(state: State, level: Level) -> Int[Array, ""]:
    """Index of the agent's cell, counted row by row."""
    _, width = size_of(level)
    return state.y * width + state.x


def hash_parts(level: Level) -> tuple[Array, ...]:
    """Arrays of a level that its hash depends on: all except the time limit."""
    limitless = replace(level, max_steps_in_episode=jnp.zeros_like(level.max_steps_in_episode))
    return tuple(jax.tree.leaves(limitless))


def first_state(level: Level) -> State:
    """Return the state at the start of an episode."""
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
    """Pack flags into one word; bit k is the k-th flag."""
    place = jnp.arange(flags.shape[0], dtype=jnp.uint32)
    return (flags.astype(jnp.uint32) << place).sum(dtype=jnp.uint32)


def flags_of(bits: UInt32[Array, ""], num: int) -> Bool[Array, " K"]:
    """Unpack a word into flags; the inverse of `bits_of`."""
    return (bits[None] >> jnp.arange(num, dtype=jnp.uint32)) & 1 == 1


def codes_now(level: Level, state: State) -> Int[Array, " K"]:
    """Current code of each object; an opened box has the code of its content."""
    opened = flags_of(state.unpacked, level.object_code.shape[0])
    return jnp.where(opened, level.content_code, level.object_code)


def door_codes(level: Level, state: State) -> Int[Array, " D"]:
    """Current code of each door: its kind (open, closed or locked) and its colour."""
    num = level.door_cell.shape[0]
    kind = jnp.where(flags_of(state.locked, num), LOCKED_DOOR, CLOSED_DOOR)
    kind = jnp.where(flags_of(state.open, num), OPEN_DOOR, kind)
    return 8 * kind + level.door_colour


def _pack(walls: Bool[Array, "R C"]) -> UInt32[Array, " lines"]:
    right = 32 - MARGIN - walls.shape[1]  # number of bits that fill the word
    padded = jnp.pad(walls, ((MARGIN, MARGIN), (MARGIN, right)), constant_values=True)
    place = jnp.arange(32, dtype=jnp.uint32)[None]
    return (padded.astype(jnp.uint32) << place).sum(-1, dtype=jnp.uint32)
