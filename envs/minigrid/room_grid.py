"""Rooms in rows and columns that share their walls, and uniform choices among what is free in them.

Levels are functions of uniform numbers in [0, 1), so that suites can draw these from a stream that
no version of a library changes.

Source: Chevalier-Boisvert et al., 2023, "Minigrid & Miniworld", room grids.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from rlgen.envs.minigrid.level import STRIDE, cell_at
from rlgen.types import Key

_DIRECTIONS = ((1, 0), (0, 1), (-1, 0), (0, -1))


class Edge(NamedTuple):
    """Two rooms side by side, as i, j: columns and rows of rooms; the second is right or below."""

    first: tuple[int, int]
    second: tuple[int, int]


class Doors(NamedTuple):
    """Where doors may be, one an edge."""

    x: np.ndarray  # int[E], of the first place for a door
    y: np.ndarray
    sideways: np.ndarray  # bool[E], whether its wall runs from left to right


def right_of(i: int, j: int) -> Edge:
    """The edge between a room and the one to its right."""
    return Edge((i, j), (i + 1, j))


def below(i: int, j: int) -> Edge:
    """The edge between a room and the one below."""
    return Edge((i, j), (i, j + 1))


def lattice(room_size: int, num_rows: int, num_cols: int) -> np.ndarray:
    """The walls of closed rooms, bool[H, W]; `room_size` counts the walls of both sides."""
    pitch = room_size - 1
    y, x = np.mgrid[: num_rows * pitch + 1, : num_cols * pitch + 1]
    return (x % pitch == 0) | (y % pitch == 0)


def inside(room: tuple[int, int], room_size: int, shape: tuple[int, int]) -> np.ndarray:
    """The cells of a room without its walls, bool[H, W]."""
    pitch = room_size - 1
    y, x = np.mgrid[: shape[0], : shape[1]]
    left, top = room[0] * pitch, room[1] * pitch
    return (left < x) & (x < left + pitch) & (top < y) & (y < top + pitch)


def places_for_doors(edges: tuple[Edge, ...], room_size: int) -> Doors:
    """The walls between rooms, corners left out; each has `room_size - 2` places."""
    pitch = room_size - 1
    corner = np.array([edge.second for edge in edges]) * pitch
    sideways = np.array([edge.first[0] == edge.second[0] for edge in edges])
    return Doors(corner[:, 0] + sideways, corner[:, 1] + ~sideways, sideways)


def door_cells(doors: Doors, place: Int[Array, " E"]) -> Int[Array, " E"]:
    """The cells of doors at some places of their walls."""
    sideways = jnp.asarray(doors.sideways)
    x = jnp.asarray(doors.x, jnp.int32) + jnp.where(sideways, place, 0)
    y = jnp.asarray(doors.y, jnp.int32) + jnp.where(sideways, 0, place)
    return cell_at(x, y)


def open_walls(walls: np.ndarray, door_cell: Int[Array, " D"]) -> Bool[Array, "H W"]:
    """Walls without those where a door is."""
    is_door = (jnp.asarray(cell_numbers(walls.shape))[..., None] == door_cell[None, None]).any(-1)
    return jnp.asarray(walls) & ~is_door


def cell_numbers(shape: tuple[int, int]) -> np.ndarray:
    """The number of each cell, int32[H, W]."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    return (STRIDE * y + x).astype(np.int32)


def whole(uniform: Float[Array, "*n"], num: Int[Array, "*n"] | int) -> Int[Array, "*n"]:
    """A number from 0 to below `num`, of a uniform one."""
    return jnp.minimum((uniform * num).astype(jnp.int32), jnp.asarray(num, jnp.int32) - 1)


def pick(uniform: Float[Array, ""], allowed: Bool[Array, "*n"]) -> Int[Array, ""]:
    """One of the true entries, by its flat position; at least one must be true."""
    rank = jnp.cumsum(allowed.reshape(-1).astype(jnp.int32))
    wanted = whole(uniform, rank[-1]) + 1
    return jnp.argmax(rank >= wanted).astype(jnp.int32)


def pick_cell(uniform: Float[Array, ""], free: Bool[Array, "H W"]) -> Int[Array, ""]:
    """The number of one of some cells."""
    at = pick(uniform, free)
    return cell_at(at % free.shape[1], at // free.shape[1])


def pick_pose(
    uniform: Float[Array, ""],
    free: Bool[Array, "H W"],
    taken: Int[Array, " T"],
) -> tuple[Int[Array, "2"], Int[Array, ""]]:
    """The agent's x, y and direction: on one of some cells, and not facing what is taken."""
    height, width = free.shape
    y, x = np.mgrid[:height, :width]
    # Not the numbers of neighbours: those past the border would be other cells.
    ahead = np.stack([STRIDE * (y + dy) + x + dx for dx, dy in _DIRECTIONS], -1).astype(np.int32)
    faces = (jnp.asarray(ahead)[..., None] == taken[None, None, None]).any(-1)
    at = pick(uniform, free[..., None] & ~faces)
    cell = at // 4
    return jnp.stack([cell % width, cell // width]), at % 4


def uniforms(key: Key, num: int) -> Float[Array, " n"]:
    """Numbers for the functions above."""
    return jax.random.uniform(key, (num,))
