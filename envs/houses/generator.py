"""Houses by recursive splitting: walls cut a square into rooms, and each wall gets 1 or 2 doors.

A layout is a function of numbers in [0, 1). The same code therefore samples levels inside jit and
the levels of suites, whose numbers are drawn on the host.

Sampling a layout cannot fail. A cut splits a room by a wall. The region on each side of this wall
is connected by its own doors, and a door between two free cells joins the two regions. Doors are
placed after all cuts, so no wall blocks a door. As long as more rooms are needed, at least one room
can be cut (see `most_rooms`).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

MAX_DOORS = 2
"""Largest number of doors in a wall; every wall has at least one door."""
TWO_DOORS_PROB = 0.5
"""Probability that a wall gets a second door, given that a second door fits."""


class Shape(NamedTuple):
    """Parameters shared by all houses of a family."""

    size: int  # cells per side
    num_rooms: tuple[int, int]  # smallest and largest number of rooms
    min_side: int  # smallest side of a room, in cells


class Cuts(NamedTuple):
    """Walls between rooms, [M]."""

    upright: Bool[Array, " M"]  # True if the wall runs along y, False if it runs along x
    line: Int[Array, " M"]  # x of the wall if upright, else y
    first: Int[Array, " M"]  # lowest y of the wall if upright, else lowest x
    length: Int[Array, " M"]  # in cells; 0 if the wall does not exist


class _Rooms(NamedTuple):
    """All rooms so far, [R]; entries without a room have width and height 0."""

    x: Int[Array, " R"]
    y: Int[Array, " R"]
    width: Int[Array, " R"]
    height: Int[Array, " R"]


def most_rooms(size: int, min_side: int) -> int:
    """Number of rooms that are sure to fit into a house, for any random numbers.

    A room that cannot be cut has at most 2 min_side cells per side. If one adjacent wall per axis
    is counted as part of each room, such a room covers at most (2 min_side + 1)² cells, and all
    rooms together cover (size + 1)² cells. When no room can be cut, the house therefore has at
    least ((size + 1) / (2 min_side + 1))² rooms.
    """
    # This is a ceiling division.
    return -(-((size + 1) ** 2) // (2 * min_side + 1) ** 2)


def num_draws(shape: Shape) -> int:
    """Number of random numbers in [0, 1) that a layout needs."""
    # Two numbers give the number of rooms and the start. Each cut needs three numbers for the
    # split, one for a second door, and one score for each cell of the wall.
    return 2 + (shape.num_rooms[1] - 1) * (4 + shape.size)


def layout(shape: Shape, draws: Float[Array, " D"]) -> tuple[Bool[Array, "S S"], Int[Array, "2"]]:
    """Build the walls [y, x] and the agent's start x, y of one house.

    Args:
        shape: Parameters of the family.
        draws: `num_draws(shape)` numbers in [0, 1).
    """
    low, high = shape.num_rooms
    num_rooms = low + _below(draws[0], jnp.int32(high - low + 1))
    by_cut = draws[2:].reshape(high - 1, -1)
    cuts = _cuts(shape, num_rooms, by_cut[:, :3])
    walls = _mask(cuts, shape.size)
    walls &= ~_doors(walls, cuts, by_cut[:, 3], by_cut[:, 4:])
    return walls, _start(walls, draws[1])


def _cuts(shape: Shape, num_rooms: Int[Array, ""], draws: Float[Array, "M 3"]) -> Cuts:
    """Compute the walls of all splits; splits that are not needed have walls of length 0."""
    most = shape.num_rooms[1]
    first = (jnp.arange(most) == 0).astype(jnp.int32)
    whole = _Rooms(first * 0, first * 0, first * shape.size, first * shape.size)

    def split(rooms: _Rooms, step: tuple[Array, Array]) -> tuple[_Rooms, Cuts]:
        number, draw = step
        can = jnp.stack([rooms.width, rooms.height]) > 2 * shape.min_side
        # Among the rooms that can be cut, one is chosen with probability proportional to its area.
        weight = jnp.where(can.any(0), rooms.width * rooms.height, 0)
        chosen = jnp.arange(most) == _weighted(draw[0], weight)
        x, y, width, height = (jnp.where(chosen, side, 0).sum() for side in rooms)
        can_x, can_y = (jnp.where(chosen, flags, False).any() for flags in can)
        # If both sides can be cut, one is chosen with probability proportional to its length.
        upright = jnp.where(can_x & can_y, draw[1] * (width + height) < width, can_x)
        side = jnp.where(upright, width, height)
        offset = shape.min_side + _below(draw[2], side - 2 * shape.min_side)
        wanted = number < num_rooms
        # The chosen room shrinks to the part before the wall; entry `number` gets the other part.
        here, there = chosen & wanted, (jnp.arange(most) == number) & wanted
        line = jnp.where(upright, x, y) + offset
        across = jnp.where(upright, y, x)
        length = jnp.where(wanted, jnp.where(upright, height, width), 0)
        before, behind = offset, side - offset - 1
        after = _Rooms(
            _put(rooms.x, there, jnp.where(upright, line + 1, x)),
            _put(rooms.y, there, jnp.where(upright, y, line + 1)),
            _put(
                _put(rooms.width, here, jnp.where(upright, before, width)),
                there,
                jnp.where(upright, behind, width),
            ),
            _put(
                _put(rooms.height, here, jnp.where(upright, height, before)),
                there,
                jnp.where(upright, height, behind),
            ),
        )
        return after, Cuts(upright, line, across, length)

    return jax.lax.scan(split, whole, (jnp.arange(1, most), draws))[1]


def _mask(cuts: Cuts, size: int) -> Bool[Array, "S S"]:
    """Mask of the cells of all walls."""
    cell = jnp.arange(size)
    on_line = cell[None] == cuts.line[:, None]  # [M, S]
    along = _along(cuts, size)
    rows = jnp.where(cuts.upright[:, None], along, on_line)
    columns = jnp.where(cuts.upright[:, None], on_line, along)
    return (rows[:, :, None] & columns[:, None]).any(0)


def _along(cuts: Cuts, size: int) -> Bool[Array, "M S"]:
    cell, first = jnp.arange(size)[None], cuts.first[:, None]
    return (cell >= first) & (cell < first + cuts.length[:, None])


def _doors(
    walls: Bool[Array, "S S"],
    cuts: Cuts,
    second: Float[Array, " M"],
    score: Float[Array, "M S"],
) -> Bool[Array, "S S"]:
    """Mask of all doors, each between two free cells; two doors in a wall are never adjacent."""
    size = walls.shape[0]
    cell = jnp.arange(size)[None]

    def beside(step: int) -> Bool[Array, "M S"]:
        """Mask of the cells on each wall's line that have a free neighbour on the side `step`."""
        line = jnp.clip(cuts.line + step, 0, size - 1)
        return ~jnp.where(cuts.upright[:, None], walls.T[line], walls[line])

    possible = _along(cuts, size) & beside(-1) & beside(1)
    first = jnp.argmax(jnp.where(possible, score, -1.0), -1)[:, None]
    chosen = possible & (cell == first)
    # If no second cell is possible, argmax gives 0, which `possible` masks out.
    possible &= (abs(cell - first) > 1) & (second < TWO_DOORS_PROB)[:, None]
    chosen |= possible & (cell == jnp.argmax(jnp.where(possible, score, -1.0), -1)[:, None])
    line = jnp.arange(size)[None] == cuts.line[:, None]
    rows = jnp.where(cuts.upright[:, None], chosen, line)
    columns = jnp.where(cuts.upright[:, None], line, chosen)
    return (rows[:, :, None] & columns[:, None]).any(0)


def _start(walls: Bool[Array, "S S"], draw: Float[Array, ""]) -> Int[Array, "2"]:
    """Draw a free cell x, y uniformly."""
    cell = _weighted(draw, (~walls).reshape(-1).astype(jnp.int32))
    return jnp.stack([cell % walls.shape[0], cell // walls.shape[0]])


def _weighted(draw: Float[Array, ""], weight: Int[Array, " n"]) -> Int[Array, ""]:
    """Draw an index with probability proportional to its weight."""
    up_to = jnp.cumsum(weight)
    return (up_to <= _below(draw, up_to[-1])).sum(dtype=jnp.int32)


def _below(draw: Float[Array, ""], bound: Int[Array, ""]) -> Int[Array, ""]:
    """Scale `draw` from [0, 1) to an integer in 0 .. bound - 1.

    The minimum is needed because the product can be rounded up to `bound`.
    """
    return jnp.minimum((draw * bound).astype(jnp.int32), bound - 1)


def _put(
    values: Int[Array, " R"], where: Bool[Array, " R"], value: Int[Array, ""]
) -> Int[Array, " R"]:
    return jnp.where(where, value, values)
