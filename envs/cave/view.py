"""What the agent sees of a cave: the maze's 5x5 window, with lava and moss in it.

Codes and orientation are those of MiniGrid, see `rlgen.envs.grid.bitboard`. The agent's own cell
looks empty whatever it stands on; walls and lava hide nothing behind them.
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
"""Object, colour and state of a cell, divided by ten; the others are the maze's."""
_OWN = VIEW * (VIEW // 2) + VIEW - 1
"""The agent's cell, [2, 4], as a bit of the view."""


class PackedObs(NamedTuple):
    """The observation in 10 bytes; `unpack` gives the image."""

    blocked: UInt32[Array, "*batch"]  # bit 5 x + y is cell [x, y] of the view: walls and lava
    marked: UInt32[Array, "*batch"]  # lava and moss
    goal: Int8[Array, "*batch"]  # 5 x + y, or 25 if out of view
    direction: Int8[Array, "*batch"]


def packed_view(level: Level, state: State) -> PackedObs:
    """What the agent sees of one cave."""
    others = jnp.uint32(2 ** (VIEW * VIEW) - 1 - 2**_OWN)
    blocked = cells_in_view(level.blocked, level.height, state) & others
    marked = cells_in_view(level.marked, level.height, state) & others
    goal = goal_in_view(level.goal, state).astype(jnp.int8)
    return PackedObs(blocked, marked, goal, state.direction.astype(jnp.int8))


def image_view(level: Level, state: State) -> dict[str, Array]:
    """The view as `{"image": float32[5, 5, 3], "direction": int32}`."""
    return {"image": _image(packed_view(level, state)), "direction": state.direction}


def unpack(obs: PyTree) -> dict[str, Float[Array, "..."]]:
    """Either kind of observation as a network sees it; leading axes are free.

    Returns:
        `image`, float32[..., 5, 5, 3], and `direction`, one-hot, float32[..., 4].
    """
    if isinstance(obs, PackedObs):
        return {"image": _image(obs), "direction": one_hot(obs.direction)}
    return {"image": obs["image"], "direction": one_hot(obs["direction"])}


def _image(obs: PackedObs) -> Float32[Array, "*batch 5 5 3"]:
    lead = obs.blocked.shape
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
