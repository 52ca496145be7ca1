"""Observation of MiniGrid's worlds: the 7x7 cells ahead of the agent as six bit planes, 48 bytes.

The view is rotated so that forward points up. The agent stands in the middle of the bottom row, in
the cell `[3, 6]`, which shows the carried object. Everything outside the world is wall. The visible
cells are found row by row, starting at the agent. Each row is swept to the right and then to the
left. In a sweep, a visible transparent cell makes three more cells visible: the next cell of its
row in the direction of the sweep, the cell straight ahead, and the cell diagonally ahead in the
direction of the sweep. Walls, as well as doors that are not open, block sight but are themselves
visible.

Source: Chevalier-Boisvert et al., 2023, "Minigrid & Miniworld", with the same codes, orientation
and rule of visibility. Differs in two points. A cell is stored in six bits, which `unpack` expands.
The mission text is omitted, because its information is the same in all levels of a family of rlgen.
"""

import functools
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from gymnax.environments import spaces
from jaxtyping import Array, Float32, Int, Int8, UInt32

from rlgen.envs.minigrid.level import (
    EMPTY,
    GREY,
    MARGIN,
    NUM_BITS,
    OPEN_DOOR,
    STRIDE,
    VIEW,
    WALL,
    Level,
    State,
    codes_now,
    door_codes,
    flags_of,
    line_of,
    size_of,
)

FAR, LINE = 4, (1 << VIEW) - 1  # number of rows in a plane's first word; mask of a row
NUM_VALUES = (8, 6, 3)
"""Number of object codes, of colour codes and of state codes in MiniGrid's encoding."""
HERE = VIEW * (VIEW - 1 - FAR) + VIEW // 2  # bit of the agent's own cell, in the second word

Words: TypeAlias = tuple[UInt32[Array, ""], UInt32[Array, ""]]
"""A set of cells in view: bit 7 y + x of rows 0 .. 3, then bit 7 (y - 4) + x of rows 4 .. 6."""


class PackedObs(NamedTuple):
    """The packed observation; `unpack` returns the image."""

    planes: UInt32[Array, "*batch 12"]  # words 2 b and 2 b + 1 hold bit b of the cells' codes
    direction: Int8[Array, "*batch"]


def packed_view(level: Level, state: State) -> PackedObs:
    """Return the packed observation of a state."""
    codes = codes_now(level, state)
    held = jnp.where(flags_of(state.carried, codes.shape[0]), codes, 0).sum()
    # The agent's own cell shows the carried object, or is empty.
    held = jnp.where(held == 0, EMPTY, held).astype(jnp.uint32)
    cells = jnp.concatenate([level.door_cell, state.object_cell])
    planes = _planes(state, cells, jnp.concatenate([door_codes(level, state), codes]))
    walls = _walls_in_view(level, state)
    halves = planes[0::2], planes[1::2]
    # Only doors have bit 5 set. Closed and locked doors, which hide the cells behind them, also
    # have bit 3 or bit 4 set.
    shut = [wall | (x[5] & (x[4] | x[3])) for wall, x in zip(walls, halves, strict=True)]
    far_seen, near_seen = _sight((shut[0], shut[1]))
    far = [word & far_seen for word in _filled(halves[0], walls[0])]
    near = _filled(halves[1], walls[1])
    here = jnp.uint32(1 << HERE)
    near = [(word & ~here) | ((held >> b & 1) << HERE) for b, word in enumerate(near)]
    words = [word for b in range(NUM_BITS) for word in (far[b], near[b] & near_seen)]
    return PackedObs(jnp.stack(words), state.direction.astype(jnp.int8))


def _filled(
    half: tuple[UInt32[Array, ""], ...], walls: UInt32[Array, ""]
) -> list[UInt32[Array, ""]]:
    """Add the codes of walls and of empty cells to one half of the view."""
    empty = ~functools.reduce(jnp.bitwise_or, half, walls)
    fill = zip(half, range(NUM_BITS), strict=True)
    zero = jnp.uint32(0)
    return [
        word | (empty if EMPTY >> b & 1 else zero) | (walls if WALL >> b & 1 else zero)
        for word, b in fill
    ]


def unpack(obs: PackedObs, encoding: str) -> dict[str, Float32[Array, "..."]]:
    """Expand an observation to network inputs, with any leading axes.

    Args:
        obs: The packed observation.
        encoding: `codes` gives MiniGrid's codes for object, colour and state, divided by ten.
            `one-hot` gives eight, six and three flags for these codes.

    Returns:
        `image`, float32[..., 7, 7, 3 or 17], with x from left to right and y from far to near; and
        `direction`, one-hot, float32[..., 4].
    """
    channels = objects_colours_states(obs)
    if encoding == "codes":
        image = jnp.stack(channels, -1) / jnp.float32(10)
    else:
        flags = (jax.nn.one_hot(x, num) for x, num in zip(channels, NUM_VALUES, strict=True))
        image = jnp.concatenate([*flags], -1, dtype=jnp.float32)
    return {"image": image, "direction": jax.nn.one_hot(obs.direction, 4, dtype=jnp.float32)}


def objects_colours_states(obs: PackedObs) -> tuple[Int[Array, "*batch 7 7"], ...]:
    """MiniGrid's integer codes for the object, colour and state of each cell `[x, y]` in view."""
    cell = jnp.arange(VIEW * VIEW, dtype=jnp.uint32)
    shift = (cell % (VIEW * FAR)).reshape(*[1] * obs.direction.ndim, -1)
    near = cell >= VIEW * FAR
    code = jnp.int32(0)
    for b in range(NUM_BITS):
        far_word, near_word = obs.planes[..., 2 * b, None], obs.planes[..., 2 * b + 1, None]
        word = jnp.where(near.reshape(shift.shape), near_word, far_word)
        code |= ((word >> shift) & 1).astype(jnp.int32) << b
    code = code.reshape(*obs.direction.shape, VIEW, VIEW).swapaxes(-1, -2)
    kind, colour = code >> 3, code & 7
    is_door = kind >= OPEN_DOOR
    # MiniGrid's objects: 0 unseen, 1 empty, 2 wall, 4 door, 5 key, 6 ball, 7 box.
    objects = jnp.where(kind == 0, code, jnp.where(is_door, 4, kind + 4))
    colours = jnp.where(kind == 0, jnp.where(code == WALL, GREY, 0), colour)
    return objects, colours, jnp.where(is_door, kind - OPEN_DOOR, 0)


def observation_space() -> spaces.Dict:
    """Space of the packed observation."""
    planes = spaces.Box(0, 2 ** (VIEW * FAR) - 1, (2 * NUM_BITS,), jnp.uint32)
    return spaces.Dict({"planes": planes, "direction": spaces.Box(0, 3, (), jnp.int8)})


def _planes(
    state: State, cells: Int[Array, " n"], codes: Int[Array, " n"]
) -> tuple[UInt32[Array, ""], ...]:
    """Compute the twelve words of all doors and objects, which are all in different cells."""
    # The barrier keeps XLA from recomputing the bits for each word. One reduction of twelve words
    # is several times as fast as a sum over [n, 6, 2].
    codes, bits = jax.lax.optimization_barrier((codes, _bits_in_view(state, cells)))
    zero = jnp.uint32(0)
    each = tuple(
        jnp.where((codes >> b) & 1 == 1, bits[:, w], zero) for b in range(NUM_BITS) for w in (0, 1)
    )

    def join(a: tuple, b: tuple) -> tuple:
        return tuple(map(jnp.bitwise_or, a, b))

    return jax.lax.reduce(each, (zero,) * len(each), join, (0,))


def _bits_in_view(state: State, cell: Int[Array, " n"]) -> UInt32[Array, "n 2"]:
    """Each cell as a set of cells in view; the set is empty if the cell is out of view."""
    dx, dy = (cell & (STRIDE - 1)) - state.x, (cell >> 5) - state.y
    turned, sign = (state.direction & 1) == 1, jnp.where(state.direction < 2, 1, -1)
    ahead = sign * jnp.where(turned, dy, dx)
    right = sign * jnp.where(turned, -dx, dy)
    # Negative coordinates wrap to large numbers, so one comparison checks both ends.
    x = (right + VIEW // 2).astype(jnp.uint32)
    y = (VIEW - 1 - ahead).astype(jnp.uint32)
    one = jnp.uint32(1) << ((VIEW * (y & 3) + x) & 31)
    word = jnp.where((x < VIEW) & (y < VIEW), y // FAR, 2)
    return jnp.where(word[:, None] == jnp.arange(2)[None], one[:, None], jnp.uint32(0))


def _walls_in_view(level: Level, state: State) -> Words:
    height, _ = size_of(level)
    turned = (state.direction & 1) == 1
    sign = jnp.where(state.direction < 2, 1, -1)
    line = MARGIN + jnp.where(turned, state.y, height + 2 * MARGIN + state.x)
    shift = jnp.where(turned, state.x, state.y) + MARGIN - VIEW // 2
    line, shift = line.astype(jnp.uint32), shift.astype(jnp.uint32)
    step = sign.astype(jnp.uint32)  # -1 becomes 2**32 - 1; sums wrap around
    words = [jnp.uint32(0), jnp.uint32(0)]
    for y in range(VIEW):
        row = (line_of(level, line + step * (VIEW - 1 - y)) >> shift) & LINE
        words[y // FAR] |= row << (VIEW * (y % FAR))
    swap = ((state.direction + 1) & 2) == 2  # if facing down or left, the right side is at low bits
    far, near = (jnp.where(swap, _mirrored(word), word) for word in words)
    return far, near


def _mirrored(word: UInt32[Array, ""]) -> UInt32[Array, ""]:
    """Reverse the seven bits of each row in a word."""
    first = 0x204081  # bit 0 of each of four rows
    middle = word & (first << 3)
    for i, apart in ((0, 6), (1, 4), (2, 2)):
        column = first << i
        middle |= ((word & column) << apart) | ((word >> apart) & column)
    return middle


def _sight(shut: Words) -> Words:
    """Compute the visible cells, given the cells that block sight."""
    words = [jnp.uint32(0), jnp.uint32(0)]
    reached = jnp.uint32(1 << VIEW // 2)  # the agent's own cell
    for y in reversed(range(VIEW)):
        clear = ~(shut[y // FAR] >> (VIEW * (y % FAR))) & LINE
        rightwards = _fill_up(reached & clear, clear) & (LINE >> 1)
        reached |= rightwards | rightwards << 1
        leftwards = _fill_down(reached & clear, clear) & (LINE - 1)
        reached |= leftwards | leftwards >> 1
        words[y // FAR] |= reached << (VIEW * (y % FAR))
        reached = rightwards | rightwards << 1 | leftwards | leftwards >> 1
    return words[0], words[1]


def _fill_up(seeds: UInt32[Array, ""], clear: UInt32[Array, ""]) -> UInt32[Array, ""]:
    """Extend the seeds upwards through adjacent clear bits, with the carry of an addition."""
    return (((seeds + clear) ^ clear) | seeds) & clear


def _fill_down(seeds: UInt32[Array, ""], clear: UInt32[Array, ""]) -> UInt32[Array, ""]:
    """Extend the seeds downwards through adjacent clear bits, with shifts by 1, 2 and 4."""
    for shift in (1, 2, 4):
        seeds |= clear & (seeds >> shift)
        clear &= clear >> shift
    return seeds
