"""Grids of rooms with shared walls, and uniform choices among the free cells of the rooms.

Levels are functions of uniform numbers in [0, 1). Suites can therefore take the numbers from a
random stream that is identical in every version of the libraries.

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
    """Two adjacent rooms; the second room is to the right of the first room or below it.

    A room is given by its column i and its row j.
    """

    first: tuple[int, int]
    second: tuple[int, int]


class Doors(NamedTuple):
    """Possible cells of doors, one door per edge."""

    x: np.ndarray  # int[E], x of the first possible cell of a door
    y: np.ndarray  # int[E], y of that cell
    sideways: np.ndarray  # bool[E], True if the wall runs from left to right


def right_of(i: int, j: int) -> Edge:
    """Return the edge between a room and the room to its right."""
    return Edge((i, j), (i + 1, j))


def below(i: int, j: int) -> Edge:
    """Return the edge between a room and the room below it."""
    return Edge((i, j), (i, j + 1))


def lattice(room_size: int, num_rows: int, num_cols: int) -> np.ndarray:
    """Walls of a grid of closed rooms, bool[H, W]; `room_size` includes the walls on both sides."""
    pitch = room_size - 1  # neighbours share a wall
    y, x = np.mgrid[: num_rows * pitch + 1, : num_cols * pitch + 1]
    return (x % pitch == 0) | (y % pitch == 0)


def inside(room: tuple[int, int], room_size: int, shape: tuple[int, int]) -> np.ndarray:
    """Mask of the cells of a room without its walls, bool[H, W]."""
    pitch = room_size - 1
    y, x = np.mgrid[: shape[0], : shape[1]]
    left, top = room[0] * pitch, room[1] * pitch
    return (left < x) & (x < left + pitch) & (top < y) & (y < top + pitch)


def places_for_doors(edges: tuple[Edge, ...], room_size: int) -> Doors:
    """Possible door cells per edge: the `room_size - 2` cells of its wall that are not corners."""
    pitch = room_size - 1
    corner = np.array([edge.second for edge in edges]) * pitch
    sideways = np.array([edge.first[0] == edge.second[0] for edge in edges])
    return Doors(corner[:, 0] + sideways, corner[:, 1] + ~sideways, sideways)


def door_cells(doors: Doors, place: Int[Array, " E"]) -> Int[Array, " E"]:
    """Cell number of each door, given the door's place along its wall."""
    sideways = jnp.asarray(doors.sideways)
    x = jnp.asarray(doors.x, jnp.int32) + jnp.where(sideways, place, 0)
    y = jnp.asarray(doors.y, jnp.int32) + jnp.where(sideways, 0, place)
    return cell_at(x, y)


def open_walls(walls: np.ndarray, door_cell: Int[Array, " D"]) -> Bool[Array, "H W"]:
    """Remove the walls from the cells that have a door."""
    is_door = (jnp.asarray(cell_numbers(walls.shape))[..., None] == door_cell[None, None]).any(-1)
    return jnp.asarray(walls) & ~is_door


def cell_numbers(shape: tuple[int, int]) -> np.ndarray:
    """The number of each cell, int32[H, W]."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    return (STRIDE * y + x).astype(np.int32)


def whole(uniform: Float[Array, "*n"], num: Int[Array, "*n"] | int) -> Int[Array, "*n"]:
    """Map a uniform number in [0, 1) to a whole number in 0 .. num - 1."""
    # The minimum guards against rounding up to `num`.
    return jnp.minimum((uniform * num).astype(jnp.int32), jnp.asarray(num, jnp.int32) - 1)


def pick(uniform: Float[Array, ""], allowed: Bool[Array, "*n"]) -> Int[Array, ""]:
    """Choose a true entry and return its flat index; at least one entry must be true."""
    rank = jnp.cumsum(allowed.reshape(-1).astype(jnp.int32))
    wanted = whole(uniform, rank[-1]) + 1
    # argmax gives the first entry of that rank, which is true.
    return jnp.argmax(rank >= wanted).astype(jnp.int32)


def pick_cell(uniform: Float[Array, ""], free: Bool[Array, "H W"]) -> Int[Array, ""]:
    """Choose one of the free cells and return its number."""
    at = pick(uniform, free)
    return cell_at(at % free.shape[1], at // free.shape[1])


def pick_pose(
    uniform: Float[Array, ""],
    free: Bool[Array, "H W"],
    taken: Int[Array, " T"],
) -> tuple[Int[Array, "2"], Int[Array, ""]]:
    """Choose the agent's x, y and direction uniformly.

    The agent stands on a free cell and does not face a taken cell.
    """
    height, width = free.shape
    y, x = np.mgrid[:height, :width]
    # [H, W, 4]: number of the cell ahead. Beyond the border, this number belongs to no cell of the
    # world. Shifting an array of cell numbers would give the number of another cell instead.
    ahead = np.stack([STRIDE * (y + dy) + x + dx for dx, dy in _DIRECTIONS], -1).astype(np.int32)
    faces = (jnp.asarray(ahead)[..., None] == taken[None, None, None]).any(-1)
    at = pick(uniform, free[..., None] & ~faces)
    cell = at // 4
    return jnp.stack([cell % width, cell // width]), at % 4


def uniforms(key: Key, num: int) -> Float[Array, " n"]:
    """Sample `num` uniform numbers in [0, 1) for a level."""
    return jax.random.uniform(key, (num,))
