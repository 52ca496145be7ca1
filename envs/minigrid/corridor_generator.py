"""Random key corridors: the set of doors and the cells of key, ball and agent."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from rlgen.envs.minigrid import room_grid as rooms
from rlgen.envs.minigrid.level import (
    BALL,
    COLOURS,
    KEY,
    NOWHERE,
    Level,
    cell_at,
    code_of,
    pack_walls,
)

LEFT, MIDDLE, RIGHT = range(3)
"""Columns of rooms."""


class Plan(NamedTuple):
    """Everything that all levels of the same size have in common."""

    walls: np.ndarray  # bool[H, W], without doorways; the middle column is one corridor
    middle: np.ndarray  # bool[H, W]; cells where the agent may start
    # Pairs of rooms between which a door is possible, for R rows of rooms. First come R pairs of a
    # left room and the corridor, then R - 1 pairs of left rooms. The pairs with right rooms follow
    # in the same order.
    edges: tuple[rooms.Edge, ...]
    doors: rooms.Doors


@functools.lru_cache
def plan(room_size: int, num_rows: int) -> Plan:
    """Return the plan of all levels of one size."""
    walls = rooms.lattice(room_size, num_rows, 3)
    pitch = room_size - 1
    corridor = np.zeros_like(walls)
    corridor[1:-1, pitch + 1 : 2 * pitch] = True
    walls &= ~corridor
    top = num_rows // 2 * pitch  # the agent starts next to the middle row of rooms
    middle = corridor.copy()
    middle[:top] = middle[top + room_size :] = False
    edges = [rooms.right_of(LEFT, j) for j in range(num_rows)]
    edges += [rooms.below(LEFT, j) for j in range(num_rows - 1)]
    edges += [rooms.right_of(MIDDLE, j) for j in range(num_rows)]
    edges += [rooms.below(RIGHT, j) for j in range(num_rows - 1)]
    return Plan(walls, middle, tuple(edges), rooms.places_for_doors(tuple(edges), room_size))


def num_draws(num_rows: int) -> int:
    """Number of uniform numbers that a level needs."""
    # With R rows, each of the 4 R - 2 possible doors needs three numbers: place, colour and order.
    # Eight further numbers are for the key, the ball and the agent.
    return 3 * (4 * num_rows - 2) + 8


def level_of(uniform: Float[Array, " n"], room_size: int, num_rows: int, max_steps: int) -> Level:
    """Build a level from uniform numbers; every level is solvable.

    The ball lies in a random room on the right; the door of this room is the only locked door. The
    key lies in a random room on the left. Doors without a lock are added in random order until
    every room can be reached.
    """
    made = plan(room_size, num_rows)
    num = len(made.edges)
    place, colour, order = uniform[: 3 * num].reshape(3, num)
    ball_row, key_row, ball_x, ball_y, key_x, key_y, ball_colour, pose = uniform[3 * num :]
    ball_row, key_row = rooms.whole(ball_row, num_rows), rooms.whole(key_row, num_rows)
    lock = 2 * num_rows - 1 + ball_row  # index of the edge between corridor and ball room
    cell = rooms.door_cells(made.doors, rooms.whole(place, room_size - 2))
    colour = rooms.whole(colour, len(COLOURS))
    start, direction = rooms.pick_pose(pose, jnp.asarray(made.middle), cell[lock][None])
    cell = jnp.where(_doors(order, lock, ball_row, made, num_rows), cell, NOWHERE)

    def spot(column: int, row: Array, x: Array, y: Array) -> Array:
        x, y = (1 + rooms.whole(each, room_size - 2) for each in (x, y))
        return cell_at(column * (room_size - 1) + x, row * (room_size - 1) + y)

    key_cell, ball_cell = spot(LEFT, key_row, key_x, key_y), spot(RIGHT, ball_row, ball_x, ball_y)
    ball = code_of(BALL, rooms.whole(ball_colour, len(COLOURS)))
    return Level(
        walls=pack_walls(rooms.open_walls(made.walls, cell)),
        start=start,
        direction=direction,
        door_cell=cell,
        door_colour=colour,
        locked=jnp.uint32(1) << lock.astype(jnp.uint32),
        object_cell=jnp.stack([key_cell, ball_cell]),
        object_code=jnp.stack([code_of(KEY, colour[lock]), ball]),
        content_code=jnp.zeros(2, jnp.int32),
        target=jnp.uint32(0b10),
        max_steps_in_episode=jnp.int32(max_steps),
        height=made.walls.shape[0],
    )


def _doors(
    order: Float[Array, " E"],
    lock: Int[Array, ""],
    ball_row: Int[Array, ""],
    made: Plan,
    num_rows: int,
) -> Bool[Array, " E"]:
    """Mask of the edges that have a door.

    An edge is a pair of adjacent rooms. One edge has the locked door, and other doors are added
    until all rooms are connected. Rooms that are connected by doors form a group. Each round adds
    the next door and joins the groups on the two sides of the door, until a single group is left.
    """
    first, second = (
        np.array([getattr(e, side)[1] * 3 + getattr(e, side)[0] for e in made.edges])
        for side in ("first", "second")
    )
    group = np.arange(3 * num_rows)
    group[MIDDLE::3] = MIDDLE  # the corridor is one room
    ball_room = 3 * ball_row + RIGHT
    # The locked door joins the ball's room to the corridor; the ball's room has no other door.
    group = jnp.where(jnp.arange(3 * num_rows) == ball_room, MIDDLE, jnp.asarray(group))
    touches = (jnp.asarray(first) == ball_room) | (jnp.asarray(second) == ball_room)
    # 2.0 is above all uniform numbers, so doors that are not allowed come last.
    turn = jnp.argsort(jnp.where(touches, 2.0, order))
    first, second = jnp.asarray(first)[turn], jnp.asarray(second)[turn]
    allowed = ~touches[turn]

    def add(group: Array, door: tuple) -> tuple[Array, Array]:
        a, b, may = door
        # Until all rooms are connected, every allowed door is added, even between rooms that
        # already belong to one group.
        added = may & (group != group[0]).any()
        joined = jnp.where(group == group[b], group[a], group)
        return jnp.where(added, joined, group), added

    _, added = jax.lax.scan(add, group, (first, second, allowed))
    has_door = jnp.zeros(len(made.edges), bool).at[turn].set(added)
    return has_door | (jnp.arange(len(made.edges)) == lock)
