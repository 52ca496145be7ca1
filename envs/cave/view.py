"""Observation of a cave: a 5x5 view as in mazes, but one that also shows lava and moss.

Codes and orientation are those of MiniGrid; see `rlgen.envs.grid.bitboard`. The agent's own cell
appears empty even if it is moss. Walls and lava do not hide the cells behind them.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, Float32, Int8, UInt32

from rlgen.envs.cave.level import Level
from rlgen.envs.grid.bitboard import (
    EMPTY_CODE,
    GOAL_CODE,
    VIEW,
    WALL_CODE,
    State,
    cells_in_view,
    goal_in_view,
    one_hot,
)
from rlgen.types import PyTree

MOSS_CODE, LAVA_CODE = (0.3, 0.2, 0.0), (0.9, 0.0, 0.0)
"""MiniGrid's codes of object, colour and state, each divided by ten; see also `bitboard`."""
_OWN = VIEW * (VIEW // 2) + VIEW - 1
"""Bit of the agent's own cell, [2, 4], in a packed view."""


class PackedObs(NamedTuple):
    """Observation packed into 10 bytes; `unpack` converts it to an image."""

    blocked: UInt32[Array, "*batch"]  # wall and lava; bit 5 x + y is cell [x, y] of the view
    marked: UInt32[Array, "*batch"]  # lava and moss, in the same order
    goal: Int8[Array, "*batch"]  # 5 x + y, or 25 if the goal is out of view
    direction: Int8[Array, "*batch"]


def packed_view(level: Level, state: State) -> PackedObs:
    """Compute the packed observation of one state."""
    others = jnp.uint32(2 ** (VIEW * VIEW) - 1 - 2**_OWN)
    blocked = cells_in_view(level.blocked, level.height, state) & others
    marked = cells_in_view(level.marked, level.height, state) & others
    goal = goal_in_view(level.goal, state).astype(jnp.int8)
    return PackedObs(blocked, marked, goal, state.direction.astype(jnp.int8))


def image_view(level: Level, state: State) -> dict[str, Array]:
    """Compute the observation as `{"image": float32[5, 5, 3], "direction": int32}`."""
    return {"image": _image(packed_view(level, state)), "direction": state.direction}


def unpack(obs: PyTree) -> dict[str, Float[Array, "..."]]:
    """Convert either kind of observation to network input; any leading axes are kept.

    Returns:
        `image`, float32[..., 5, 5, 3], and `direction`, one-hot, float32[..., 4].
    """
    if isinstance(obs, PackedObs):
        return {"image": _image(obs), "direction": one_hot(obs.direction)}
    return {"image": obs["image"], "direction": one_hot(obs["direction"])}


def _image(obs: PackedObs) -> Float32[Array, "*batch 5 5 3"]:
    lead = obs.blocked.shape
    # [..., 25, 1]: one entry per cell of the view; the codes broadcast over the last axis.
    cell = jnp.arange(VIEW * VIEW).reshape(*[1] * len(lead), -1, 1)
    blocked, marked = (
        (bits[..., None, None] >> cell.astype(jnp.uint32)) & 1 == 1
        for bits in (obs.blocked, obs.marked)
    )
    empty, wall, lava, moss, goal = (
        jnp.array(code, jnp.float32).reshape(*[1] * len(lead), 1, 3)
        for code in (EMPTY_CODE, WALL_CODE, LAVA_CODE, MOSS_CODE, GOAL_CODE)
    )
    codes = jnp.where(blocked, jnp.where(marked, lava, wall), jnp.where(marked, moss, empty))
    codes = jnp.where(obs.goal[..., None, None] == cell, goal, codes)
    return codes.reshape(*lead, VIEW, VIEW, 3)
