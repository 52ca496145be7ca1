"""What the agent sees: a 5x5 window ahead of it, turned so that forward points up.

The window reaches four cells ahead and two to each side; walls do not hide what is behind them,
and everything outside the maze is wall. Codes and orientation are those of MiniGrid: cell `[x, y]`
of the image has x from left to right and y from far to near, the agent being at `[2, 4]`.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Float32, Int, Int8, UInt32

from rlgen.envs.grid.bitboard import MARGIN, VIEW, Level, State, take_word
from rlgen.types import PyTree

HIDDEN = VIEW * VIEW
"""The goal's place when it is out of view."""
EMPTY_CODE, WALL_CODE, GOAL_CODE = (0.1, 0.0, 0.0), (0.2, 0.5, 0.0), (0.8, 0.1, 0.0)
"""Object, colour and state of a cell, divided by ten."""


class PackedObs(NamedTuple):
    """The observation in 6 bytes; `unpack` gives the image."""

    walls: UInt32[Array, "*batch"]  # bit 5 x + y is cell [x, y] of the view
    goal: Int8[Array, "*batch"]  # 5 x + y, or 25 if out of view
    direction: Int8[Array, "*batch"]


def packed_view(level: Level, state: State) -> PackedObs:
    """What the agent sees of one maze."""
    walls = cells_in_view(level.walls, level.height, state)
    goal = goal_in_view(level.goal, state).astype(jnp.int8)
    return PackedObs(walls, goal, state.direction.astype(jnp.int8))


def image_view(level: Level, state: State) -> dict[str, Array]:
    """The view as `{"image": float32[5, 5, 3], "direction": int32}`."""
    obs = packed_view(level, state)
    return {"image": _image(obs), "direction": state.direction}


def flat_view(level: Level, state: State) -> Float32[Array, "79"]:
    """The view as one vector: the image's 75 numbers, then the direction as one-hot."""
    obs = packed_view(level, state)
    return jnp.concatenate([_image(obs).reshape(-1), one_hot(state.direction)])


def unpack(obs: PyTree) -> dict[str, Float[Array, "..."]]:
    """Any of the three kinds of observation as a network sees it; leading axes are free.

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
    """Which of the 25 cells in view belong to a set; bit 5 x + y is cell [x, y]."""
    # Five neighbouring rows (facing right or left) or columns (up or down), five bits of each.
    turned = (state.direction & 1) == 1
    column = height + 2 * MARGIN + state.x
    line = jnp.where(turned, column, state.y) + MARGIN - VIEW // 2
    along = jnp.where(turned, state.y, state.x)
    bit = along + jnp.where(state.direction < 2, MARGIN, 0)  # else the window ends at the agent
    line, bit = line.astype(jnp.uint32), bit.astype(jnp.uint32)
    window = jnp.uint32(0)
    for i in range(VIEW):
        window |= (_five_bits(lines, line + i, bit) & 31) << (VIEW * i)
    return _turn(window, state.direction)


def _five_bits(
    lines: UInt32[Array, "lines words"], line: UInt32[Array, ""], bit: UInt32[Array, ""]
) -> UInt32[Array, ""]:
    words = lines.shape[-1]
    if words == 1:
        return take_word(lines, line) >> bit
    # The field may cross into the next word. Where it does not, what is shifted in from the left
    # lies above the five bits, so the clamped index never matters. Two shifts, as one of 32 bits
    # is not defined everywhere.
    word, shift = bit // 32, bit % 32
    low = take_word(lines, line * words + word) >> shift
    following = jnp.minimum(word + 1, jnp.uint32(words - 1))
    high = take_word(lines, line * words + following)
    return low | ((high << 1) << (31 - shift))


def _turn(window: UInt32[Array, ""], direction: Int[Array, ""]) -> UInt32[Array, ""]:
    # Far to near runs against the bits when facing right or down, left to right against the lines
    # when facing down or left. Masks: the first, second and middle bit of every line.
    first, second, middle = 0x0108421, 0x0210842, 0x0421084
    swapped = ((window & first) << 4) | ((window >> 4) & first)
    swapped |= ((window & second) << 2) | ((window >> 2) & second) | (window & middle)
    window = jnp.where(direction < 2, swapped, window)
    swapped = ((window & 0x1F) << 20) | ((window >> 20) & 0x1F)
    swapped |= ((window & 0x3E0) << 10) | ((window >> 10) & 0x3E0) | (window & 0x7C00)
    return jnp.where(((direction + 1) & 2) == 2, swapped, window)


def goal_in_view(goal: Int[Array, "2"], state: State) -> Int[Array, ""]:
    """5 x + y of the goal's cell [x, y] of the view; `HIDDEN` if it is out of view."""
    dx, dy = goal[0] - state.x, goal[1] - state.y
    turned = (state.direction & 1) == 1
    sign = jnp.where(state.direction < 2, 1, -1)
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
    """The compass as networks see it."""
    return jax.nn.one_hot(direction, 4, dtype=jnp.float32)
