"""Houses by recursive splitting: a square is cut into rooms, and every cut gets a door or two.

A layout is a function of numbers in [0, 1), so that levels drawn inside jit and those of suites,
drawn on the host, are made by the same lines. It cannot fail: a cut parts two regions that are each
connected by their own doors and gets a door between free cells, which is never blocked later, as
doors come last; and a room that can be cut is left as long as rooms are wanted (see `most_rooms`).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

MAX_DOORS = 2
"""Doors of one wall, at most; there is at least one."""
TWO_DOORS_PROB = 0.5


class Shape(NamedTuple):
    """What all houses of a family share."""

    size: int  # cells a side
    num_rooms: tuple[int, int]  # fewest and most
    min_side: int  # of a room, in cells


class Cuts(NamedTuple):
    """Walls between rooms, [M]."""

    upright: Bool[Array, " M"]  # runs along y; else along x
    line: Int[Array, " M"]  # its x, or y if it is not upright
    first: Int[Array, " M"]  # its first cell along y, or x
    length: Int[Array, " M"]  # cells; 0 where there is no such wall


class _Rooms(NamedTuple):
    """All rooms so far, [R]; those to come have no cells."""

    x: Int[Array, " R"]
    y: Int[Array, " R"]
    width: Int[Array, " R"]
    height: Int[Array, " R"]


def most_rooms(size: int, min_side: int) -> int:
    """How many rooms a house can always have, whatever was drawn.

    A room that cannot be cut has at most 2 min_side cells a side and, with its walls, is one of at
    least ((size + 1) / (2 min_side + 1))² that fill the square.
    """
    return -(-((size + 1) ** 2) // (2 * min_side + 1) ** 2)


def num_draws(shape: Shape) -> int:
    """How many numbers in [0, 1) a layout is made of."""
    return 2 + (shape.num_rooms[1] - 1) * (4 + shape.size)


def layout(shape: Shape, draws: Float[Array, " D"]) -> tuple[Bool[Array, "S S"], Int[Array, "2"]]:
    """Walls [y, x] and the agent's start x, y of one house.

    Args:
        shape: of the family.
        draws: in [0, 1), as many as `num_draws` says.
    """
    low, high = shape.num_rooms
    num_rooms = low + _below(draws[0], jnp.int32(high - low + 1))
    by_cut = draws[2:].reshape(high - 1, -1)
    cuts = _cuts(shape, num_rooms, by_cut[:, :3])
    walls = _mask(cuts, shape.size)
    walls &= ~_doors(walls, cuts, by_cut[:, 3], by_cut[:, 4:])
    return walls, _start(walls, draws[1])


def _cuts(shape: Shape, num_rooms: Int[Array, ""], draws: Float[Array, "M 3"]) -> Cuts:
    """The walls of all splits; those after the last room have length 0."""
    most = shape.num_rooms[1]
    first = (jnp.arange(most) == 0).astype(jnp.int32)
    whole = _Rooms(first * 0, first * 0, first * shape.size, first * shape.size)

    def split(rooms: _Rooms, step: tuple[Array, Array]) -> tuple[_Rooms, Cuts]:
        number, draw = step
        can = jnp.stack([rooms.width, rooms.height]) > 2 * shape.min_side
        weight = jnp.where(can.any(0), rooms.width * rooms.height, 0)
        chosen = jnp.arange(most) == _weighted(draw[0], weight)
        x, y, width, height = (jnp.where(chosen, side, 0).sum() for side in rooms)
        can_x, can_y = (jnp.where(chosen, flags, False).any() for flags in can)
        upright = jnp.where(can_x & can_y, draw[1] * (width + height) < width, can_x)
        side = jnp.where(upright, width, height)
        offset = shape.min_side + _below(draw[2], side - 2 * shape.min_side)
        wanted = number < num_rooms
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
    """The cells of all walls."""
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
    """The cells of all doors, each between two free cells; two of a wall are not neighbours."""
    size = walls.shape[0]
    cell = jnp.arange(size)[None]

    def beside(step: int) -> Bool[Array, "M S"]:
        """Whether the cells on one side of each wall are free."""
        line = jnp.clip(cuts.line + step, 0, size - 1)
        return ~jnp.where(cuts.upright[:, None], walls.T[line], walls[line])

    possible = _along(cuts, size) & beside(-1) & beside(1)
    first = jnp.argmax(jnp.where(possible, score, -1.0), -1)[:, None]
    chosen = possible & (cell == first)
    possible &= (abs(cell - first) > 1) & (second < TWO_DOORS_PROB)[:, None]
    chosen |= possible & (cell == jnp.argmax(jnp.where(possible, score, -1.0), -1)[:, None])
    line = jnp.arange(size)[None] == cuts.line[:, None]
    rows = jnp.where(cuts.upright[:, None], chosen, line)
    columns = jnp.where(cuts.upright[:, None], line, chosen)
    return (rows[:, :, None] & columns[:, None]).any(0)


def _start(walls: Bool[Array, "S S"], draw: Float[Array, ""]) -> Int[Array, "2"]:
    """A free cell, uniformly."""
    cell = _weighted(draw, (~walls).reshape(-1).astype(jnp.int32))
    return jnp.stack([cell % walls.shape[0], cell // walls.shape[0]])


def _weighted(draw: Float[Array, ""], weight: Int[Array, " n"]) -> Int[Array, ""]:
    """A place, with chances in proportion to its weight."""
    up_to = jnp.cumsum(weight)
    return (up_to <= _below(draw, up_to[-1])).sum(dtype=jnp.int32)


def _below(draw: Float[Array, ""], bound: Int[Array, ""]) -> Int[Array, ""]:
    """Uniform in 0 .. bound - 1."""
    return jnp.minimum((draw * bound).astype(jnp.int32), bound - 1)


def _put(
    values: Int[Array, " R"], where: Bool[Array, " R"], value: Int[Array, ""]
) -> Int[Array, " R"]:
    return jnp.where(where, value, values)
