"""Mazes as bit masks: the level, the state of an episode, and the agent's view.

A maze is stored twice, by rows and by columns, with one bit per cell. A *line* is one row or column
of bits. Whichever direction the agent faces, the view consists of five bits from each of five
neighbouring lines. A margin of `MARGIN` wall cells surrounds the maze, so no look-up needs a bounds
check.

The view is a 5x5 window ahead of the agent, rotated so that forward points up. It reaches four
cells ahead and two to each side. Walls do not hide the cells behind them, and everything outside
the maze is wall. Codes and orientation are those of MiniGrid: cell `[x, y]` of the image has x from
left to right and y from far to near, and the agent is at `[2, 4]`.

`GridEnv` is the base class of the families whose agent has this view, turns and moves forward.
"""

import abc
import functools
from collections.abc import Callable, Mapping
from typing import ClassVar, NamedTuple, no_type_check

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, ArrayLike, Bool, Float, Float32, Int, Int8, UInt32

from rlgen.protocols import LevelEnv
from rlgen.types import Key, PyTree

VIEW = 5
"""Side of the square view, in cells."""
MARGIN = VIEW - 1
"""Width of the wall margin: the number of cells by which the view can reach outside the maze."""
HIDDEN = VIEW * VIEW
"""Value of the goal's index in the view if the goal is out of view."""
EMPTY_CODE, WALL_CODE, GOAL_CODE = (0.1, 0.0, 0.0), (0.2, 0.5, 0.0), (0.8, 0.1, 0.0)
"""MiniGrid's codes of the object, colour and state of a cell, each divided by ten."""

RIGHT, DOWN, LEFT, UP = range(4)
TURN_LEFT, TURN_RIGHT, FORWARD = range(3)


@no_type_check  # JAX also builds it with axes or None as fields, so field types are not checked
@struct.dataclass
class Level:
    """One maze, with all data that an episode depends on; the gymnax `params`."""

    walls: UInt32[Array, "*batch lines words"]  # lines: height + 8 rows, then width + 8 columns
    start: Int[Array, "*batch 2"]  # x, y of the agent
    direction: Int[Array, "*batch"]  # start direction: 0 right, 1 down, 2 left, 3 up
    goal: Int[Array, "*batch 2"]  # x, y
    max_steps_in_episode: Int[Array, "*batch"]
    height: int = struct.field(pytree_node=False)


@no_type_check
@struct.dataclass
class State:
    """State of an episode. It contains no part of the level, so it is small."""

    x: Int[Array, "*batch"]
    y: Int[Array, "*batch"]
    direction: Int[Array, "*batch"]
    time: Int[Array, "*batch"]  # steps taken


class Grid(NamedTuple):
    """A maze as an array of walls."""

    walls: Bool[Array, "H W"]
    start: Int[Array, "2"]  # x, y
    direction: Int[Array, ""]
    goal: Int[Array, "2"]  # x, y


class PackedObs(NamedTuple):
    """Observation packed into 6 bytes; `unpack` converts it to an image."""

    walls: UInt32[Array, "*batch"]  # bit 5 x + y is cell [x, y] of the view
    goal: Int8[Array, "*batch"]  # 5 x + y, or 25 if the goal is out of view
    direction: Int8[Array, "*batch"]


def make_level(
    walls: Bool[ArrayLike, "H W"],
    start: Int[ArrayLike, "2"] | tuple[int, int],
    direction: Int[ArrayLike, ""],
    goal: Int[ArrayLike, "2"] | tuple[int, int],
    max_steps: Int[ArrayLike, ""] = 250,
) -> Level:
    """Build a level from a grid of walls, without checks (see `check_levels`).

    Args:
        walls: True on wall cells, indexed `walls[y, x]` with y downwards.
        start: x, y of the agent.
        direction: Start direction: 0 right, 1 down, 2 left, 3 up.
        goal: x, y of the goal.
        max_steps: Env steps after which an episode is truncated.
    """
    walls = jnp.asarray(walls)
    height, _ = walls.shape
    lines = pack_lines(walls)
    start, direction, goal, max_steps = (
        jnp.asarray(x, jnp.int32) for x in (start, direction, goal, max_steps)
    )
    return Level(lines, start, direction, goal, max_steps, height)


def to_grid(level: Level) -> Grid:
    """Convert a level back to walls, start, direction and goal; the time limit is left out."""
    height, width = size_of(level)
    walls = unpack_rows(interior(level.walls, height), width)
    return Grid(walls, level.start, level.direction, level.goal)


def size_of(level: Level) -> tuple[int, int]:
    """Return the height and width of a level, or of the levels of a batch."""
    return level.height, width_of(level.walls, level.height)


def pack_lines(cells: Bool[Array, "H W"], outside: bool = True) -> UInt32[Array, "lines words"]:
    """Pack a set of cells by rows and by columns; if `outside`, the margin belongs to the set."""
    words = num_words(*cells.shape)
    both = (pack_rows(part, words, MARGIN, outside) for part in (cells, cells.T))
    return jnp.concatenate([*both])


def unpack_rows(rows: UInt32[Array, "H words"], width: int) -> Bool[Array, "H W"]:
    """Unpack rows, such as those that `interior` returns, into one flag per cell."""
    column = jnp.arange(MARGIN, MARGIN + width)
    shift = (column % 32).astype(jnp.uint32)[None]
    return (rows[:, column // 32] >> shift) & 1 == 1


def width_of(lines: UInt32[Array, "*batch lines words"], height: int) -> int:
    """Return the width of a grid of known height, from the shape of its lines."""
    # lines = (height + 2 MARGIN) rows + (width + 2 MARGIN) columns.
    return lines.shape[-2] - height - 4 * MARGIN


def num_words(height: int, width: int) -> int:
    """Return the number of 32-bit words per line: one for mazes of up to 24 x 24 cells."""
    return -(-(max(height, width) + 2 * MARGIN) // 32)


def interior(walls: UInt32[Array, "lines words"], height: int) -> UInt32[Array, "H words"]:
    """Return the rows inside the margin.

    In each row, bit `x + MARGIN` is cell x, and all other bits belong to the margin.
    """
    return walls[MARGIN : MARGIN + height]


def border(height: int, width: int) -> UInt32[Array, "lines words"]:
    """Return the lines of a maze without inner walls."""
    return make_level(jnp.zeros((height, width), bool), (0, 0), 0, (0, 0)).walls


def cell_bits(cell: Int[Array, "2"], height: int, width: int) -> UInt32[Array, "lines words"]:
    """Return lines in which only the two bits of cell x, y are set.

    Bit operations with these lines add, remove or flip a wall.
    """
    words = num_words(height, width)
    along_row, along_column = cell[0] + MARGIN, cell[1] + MARGIN
    line = jnp.arange(height + width + 4 * MARGIN)[:, None]
    word = jnp.arange(words)[None]

    def bit(position: Array) -> Array:
        one = jnp.uint32(1) << (position % 32).astype(jnp.uint32)
        return jnp.where(word == position // 32, one, jnp.uint32(0))

    # The lines are all rows, indexed by y + MARGIN, and then all columns, indexed by x + MARGIN.
    in_row = line == along_column
    in_column = line == height + 2 * MARGIN + along_row
    return jnp.where(in_row, bit(along_row), 0) | jnp.where(in_column, bit(along_column), 0)


def is_wall(level: Level, x: Int[Array, ""], y: Int[Array, ""]) -> Bool[Array, ""]:
    """Return whether a cell is a wall; cells up to `MARGIN` outside the maze are valid."""
    return is_set(level.walls, x, y)


def is_set(
    lines: UInt32[Array, "lines words"], x: Int[Array, ""], y: Int[Array, ""]
) -> Bool[Array, ""]:
    """Return whether a cell belongs to a set; cells up to `MARGIN` outside the grid are valid."""
    words = lines.shape[-1]
    bit = (x + MARGIN).astype(jnp.uint32)
    line = (y + MARGIN).astype(jnp.uint32)
    return (take_word(lines, line * words + bit // 32) >> (bit % 32)) & 1 == 1


def cell_ahead(state: State) -> tuple[Int[Array, ""], Int[Array, ""]]:
    """Return x, y of the cell that the agent faces."""
    sign = jnp.where(state.direction < 2, 1, -1)  # right and down increase x and y
    turned = (state.direction & 1) == 1  # down or up
    return state.x + jnp.where(turned, 0, sign), state.y + jnp.where(turned, sign, 0)


def after(state: State, action: Int[Array, ""] | float, moves: Bool[Array, ""]) -> State:
    """Return the next state: the agent turns if the action is a turn, and advances if `moves`."""
    # A left turn is three right turns, modulo 4.
    turn = jnp.where(action == TURN_RIGHT, 1, 0) + jnp.where(action == TURN_LEFT, 3, 0)
    x, y = cell_ahead(state)
    return State(
        jnp.where(moves, x, state.x),
        jnp.where(moves, y, state.y),
        (state.direction + turn) & 3,
        state.time + 1,
    )


def take_word(walls: UInt32[Array, "lines words"], at: UInt32[Array, ""]) -> UInt32[Array, ""]:
    """Return one word by its flat index, which must be in range and unsigned.

    Under `vmap`, this scalar look-up stays inside the fused loop of a step. A slice or a vector of
    indices would become a separate gather, which made a step up to twice as slow.
    """
    return walls.reshape(-1).at[at].get(mode="promise_in_bounds")


def packed_view(level: Level, state: State) -> PackedObs:
    """Compute the packed observation of one state."""
    walls = cells_in_view(level.walls, level.height, state)
    goal = goal_in_view(level.goal, state).astype(jnp.int8)
    return PackedObs(walls, goal, state.direction.astype(jnp.int8))


def image_view(level: Level, state: State) -> dict[str, Array]:
    """Compute the observation as `{"image": float32[5, 5, 3], "direction": int32}`."""
    obs = packed_view(level, state)
    return {"image": _image(obs), "direction": state.direction}


def flat_view(level: Level, state: State) -> Float32[Array, "79"]:
    """Compute the observation as one vector: the 75 image numbers, then the one-hot direction."""
    obs = packed_view(level, state)
    return jnp.concatenate([_image(obs).reshape(-1), one_hot(state.direction)])


def unpack(obs: PyTree) -> dict[str, Float[Array, "..."]]:
    """Convert any of the three kinds of observation to network input; leading axes are kept.

    Returns:
        `image`, float32[..., 5, 5, 3], and `direction`, one-hot, float32[..., 4].
    """
    if isinstance(obs, PackedObs):
        return {"image": _image(obs), "direction": one_hot(obs.direction)}
    if isinstance(obs, dict):
        return {"image": obs["image"], "direction": one_hot(obs["direction"])}
    cells = 3 * VIEW * VIEW
    image = obs[..., :cells].reshape(*obs.shape[:-1], VIEW, VIEW, 3)
    return {"image": image, "direction": obs[..., cells:]}


def cells_in_view(
    lines: UInt32[Array, "lines words"], height: int, state: State
) -> UInt32[Array, ""]:
    """Return the cells in view that belong to a set; bit 5 x + y is cell [x, y] of the view."""
    # Read five bits of each of five neighbouring lines: rows if the agent faces right or left,
    # columns if it faces up or down.
    turned = (state.direction & 1) == 1
    column = height + 2 * MARGIN + state.x
    line = jnp.where(turned, column, state.y) + MARGIN - VIEW // 2
    along = jnp.where(turned, state.y, state.x)
    # If the agent faces right or down, the bits begin at the agent; otherwise they end at it.
    bit = along + jnp.where(state.direction < 2, MARGIN, 0)
    # `take_word` requires unsigned indices. Because of the margin, neither number is negative.
    line, bit = line.astype(jnp.uint32), bit.astype(jnp.uint32)
    window = jnp.uint32(0)
    for i in range(VIEW):
        window |= (bits_from(lines, line + i, bit) & 31) << (VIEW * i)
    return _turn(window, state.direction)


def _turn(window: UInt32[Array, ""], direction: Int[Array, ""]) -> UInt32[Array, ""]:
    # The view counts cells from far to near. If the agent faces right or down, the bits of a line
    # have the reverse order. The view counts lines from left to right. If the agent faces down or
    # left, the lines have the reverse order. In these cases, the first step reverses the bits of
    # every line, and the second step reverses the lines.
    # The masks select the first, second and middle bit of every line.
    first, second, middle = 0x0108421, 0x0210842, 0x0421084
    swapped = ((window & first) << 4) | ((window >> 4) & first)
    swapped |= ((window & second) << 2) | ((window >> 2) & second) | (window & middle)
    window = jnp.where(direction < 2, swapped, window)
    swapped = ((window & 0x1F) << 20) | ((window >> 20) & 0x1F)
    swapped |= ((window & 0x3E0) << 10) | ((window >> 10) & 0x3E0) | (window & 0x7C00)
    return jnp.where(((direction + 1) & 2) == 2, swapped, window)


def goal_in_view(goal: Int[Array, "2"], state: State) -> Int[Array, ""]:
    """Return 5 x + y for the goal's cell [x, y] in the view; `HIDDEN` if it is out of view."""
    dx, dy = goal[0] - state.x, goal[1] - state.y
    turned = (state.direction & 1) == 1
    sign = jnp.where(state.direction < 2, 1, -1)
    # Offsets in the frame of the agent: cells ahead of it and to its right.
    ahead = sign * jnp.where(turned, dy, dx)
    right = sign * jnp.where(turned, -dx, dy)
    x, y = right + VIEW // 2, VIEW - 1 - ahead
    visible = (x >= 0) & (x < VIEW) & (y >= 0) & (y < VIEW)
    return jnp.where(visible, VIEW * x + y, HIDDEN)


def _image(obs: PackedObs) -> Float32[Array, "*batch 5 5 3"]:
    lead = obs.walls.shape
    cell = jnp.arange(VIEW * VIEW).reshape(*[1] * len(lead), -1, 1)
    wall = (obs.walls[..., None, None] >> cell.astype(jnp.uint32)) & 1 == 1
    goal = obs.goal[..., None, None] == cell
    empty_code, wall_code, goal_code = (
        jnp.array(code, jnp.float32).reshape(*[1] * len(lead), 1, 3)
        for code in (EMPTY_CODE, WALL_CODE, GOAL_CODE)
    )
    codes = jnp.where(goal, goal_code, jnp.where(wall, wall_code, empty_code))
    return codes.reshape(*lead, VIEW, VIEW, 3)


def one_hot(direction: Int[Array, "*batch"]) -> Float32[Array, "*batch 4"]:
    """Return the direction as a one-hot vector."""
    return jax.nn.one_hot(direction, 4, dtype=jnp.float32)


def bits_from(
    lines: UInt32[Array, "lines words"], line: UInt32[Array, ""], bit: UInt32[Array, ""]
) -> UInt32[Array, ""]:
    """Return the bits of a line from `bit` onwards as a word; bits past the line are undefined."""
    words = lines.shape[-1]
    if words == 1:
        return take_word(lines, line) >> bit
    # The bits may continue in the next word. If the line has no next word, the clamped index reads
    # a wrong word, but its bits are shifted to positions that are not used. Two shifts are needed
    # because a shift by 32 bits (at shift = 0) is undefined on some backends.
    word, shift = bit // 32, bit % 32
    low = take_word(lines, line * words + word) >> shift
    following = jnp.minimum(word + 1, jnp.uint32(words - 1))
    high = take_word(lines, line * words + following)
    return low | ((high << 1) << (31 - shift))


def pack_rows(
    cells: Bool[Array, "R C"], words: int, margin: int, outside: bool
) -> UInt32[Array, "lines words"]:
    """Pack a set of cells by rows; all bits of the margin around the grid equal `outside`."""
    right = 32 * words - margin - cells.shape[1]
    padded = jnp.pad(cells, ((margin, margin), (margin, right)), constant_values=outside)
    bits = padded.reshape(padded.shape[0], words, 32).astype(jnp.uint32)
    place = jnp.arange(32, dtype=jnp.uint32)[None, None]
    return (bits << place).sum(-1, dtype=jnp.uint32)


class GridEnv(LevelEnv, abstract=True):
    """Base class of families of grids with a fixed size; the agent turns and moves forward.

    Subclasses are dataclasses that declare the fields below. Their episode state is `State`.
    """

    height: int
    """Number of cells from top to bottom."""
    width: int
    """Number of cells from left to right."""
    observation: str
    """Kind of observation, a key of `views`."""

    views: ClassVar[Mapping[str, Callable[[PyTree, State], PyTree]]]
    """For each kind of observation, the function that computes it from level and state."""

    @abc.abstractmethod
    def example(self, rng: np.random.Generator) -> PyTree:
        """Return a level drawn with numpy."""

    @property
    def num_actions(self) -> int:
        """Seven: turn left, turn right, forward, and four that do nothing."""
        return 7

    @property
    def default_params(self) -> PyTree:
        """Example level, always the same."""
        return _example(self)

    def observe(
        self, key: Key, state: State, action: Int[Array, ""] | float | None, params: PyTree
    ) -> PyTree:
        """Compute the observation of the kind that the field `observation` selects."""
        return self.views[self.observation](params, state)

    def position(self, state: State, level: PyTree) -> Int[Array, ""]:
        """Cell of the agent, counted row by row in a grid of the environment's size."""
        return state.y * self.width + state.x

    def num_positions(self) -> int:
        """Number of cells."""
        return self.height * self.width


@functools.lru_cache(maxsize=64)
def _example(env: GridEnv) -> PyTree:
    # The arrays are concrete even if the example is first requested under a trace, as it is in
    # gymnax's own `step`.
    with jax.ensure_compile_time_eval():
        return env.example(np.random.default_rng(0))
