"""Chains of rooms: a door in a shared wall leads from each room to the next room.

An attempt places the rooms of a chain one after the other. For each room, it samples `TRIES`
candidates at once and uses the first candidate that fits. If no candidate fits, the attempt fails.
Batches of `ATTEMPTS` parallel attempts are repeated until one attempt has placed all rooms.

Source: the MultiRoom tasks of Chevalier-Boisvert et al., 2023, "Minigrid & Miniworld". Differs in
one point: attempts are repeated until a chain is complete. Other implementations fall back on
shorter chains or on a fixed chain.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from rlgen.envs.grid.rows import DOWN, LEFT, RIGHT, UP
from rlgen.types import Key

TRIES, ATTEMPTS = 32, 4
NUM_DRAWS = 5
"""Number of random numbers per candidate room. The first three give the width of the room, its
height, and the place of the door in its wall. The last two give the wall of the previous room that
contains this door, and the place of the door in that wall."""
MIN_ROOM = 4
"""Cells per side of the smallest room, walls included."""


class Shape(NamedTuple):
    """Parameters of the distribution of chains."""

    num_rooms: int
    max_room_size: int  # cells per side, walls included
    size: int  # cells per side of the grid


class Room(NamedTuple):
    """A room, including its walls, and the door through which it is entered."""

    x: Int[Array, "*n"]  # left column
    y: Int[Array, "*n"]  # top row
    width: Int[Array, "*n"]
    height: Int[Array, "*n"]
    entry: Int[Array, "*n"]  # wall with the door: RIGHT, DOWN, LEFT or UP
    door: Int[Array, "*n 2"]  # x, y


class Chain(NamedTuple):
    """Rooms, start and goal of a level."""

    rooms: Room  # [n]
    start: Int[Array, "2"]  # inside the first room
    goal: Int[Array, "2"]  # inside the last room


def sample_chain(key: Key, shape: Shape) -> Chain:
    """Sample a complete chain."""

    def once(loop: tuple) -> tuple:
        trial, _, _ = loop
        # All random numbers come from one call, because a call takes longer to compile than all
        # other code of this function.
        draws = jax.random.uniform(
            jax.random.fold_in(key, trial), (ATTEMPTS, shape.num_rooms, TRIES, NUM_DRAWS)
        )
        chains, complete = jax.vmap(lambda draws: attempt(draws, shape))(draws)
        best = jnp.argmax(complete)
        return trial + 1, jax.tree.map(lambda x: x[best], chains), complete[best]

    zero, cell = jnp.zeros(shape.num_rooms, jnp.int32), jnp.zeros(2, jnp.int32)
    rooms = Room(zero, zero, zero, zero, zero, jnp.zeros((shape.num_rooms, 2), jnp.int32))
    begun = (jnp.int32(0), Chain(rooms, cell, cell), jnp.bool_(False))
    return jax.lax.while_loop(lambda loop: ~loop[2], once, begun)[1]


def attempt(draws: Float[Array, "n K 5"], shape: Shape) -> tuple[Chain, Bool[Array, ""]]:
    """Place the rooms one after the other; return the chain and whether all rooms fit.

    Args:
        draws: Numbers in [0, 1), K rows per room. For the first room, row 0 is the only candidate,
            and the next three rows give the position of the room, the start and the goal.
        shape: Parameters of the distribution of chains.
    """
    spare = draws[0, 1:4]
    corner = jnp.floor(spare[0, :2] * (shape.size - 2)).astype(jnp.int32)
    first = _entered(draws[0, 0], shape, jnp.int32(LEFT), corner)
    rooms = jax.tree.map(
        lambda x: jnp.zeros((shape.num_rooms, *x.shape), x.dtype).at[0].set(x), first
    )

    def add(loop: tuple, now: tuple) -> tuple:
        rooms, last, complete = loop
        i, draw = now
        found = jax.vmap(lambda draw: _following(draw, shape, last))(draw)
        fits = jax.vmap(lambda room: _fits(room, rooms, i, shape.size))(found)
        best = jnp.argmax(fits)  # the first room that fits; if none fits, `complete` becomes False
        new = jax.tree.map(lambda x: x[best], found)
        rooms = jax.tree.map(lambda all_, x: all_.at[i].set(x), rooms, new)
        return (rooms, new, complete & fits[best]), None

    begun = (rooms, first, _on_grid(first, shape.size))
    further = (jnp.arange(1, shape.num_rooms), draws[1:])
    (rooms, last, complete), _ = jax.lax.scan(add, begun, further)
    return Chain(rooms, _inside(spare[1], first), _inside(spare[2], last)), complete


def floor_of(rooms: Room, size: int) -> Bool[Array, "G G"]:
    """Mask [y, x] of the cells inside the rooms, without doors."""
    at = jnp.arange(size)[None]
    in_x = (at > rooms.x[:, None]) & (at < (rooms.x + rooms.width - 1)[:, None])
    in_y = (at > rooms.y[:, None]) & (at < (rooms.y + rooms.height - 1)[:, None])
    return jnp.any(in_y[:, :, None] & in_x[:, None, :], 0)


def _following(draw: Float[Array, "5"], shape: Shape, last: Room) -> Room:
    """Build a candidate for the room after the last room.

    The door between the two rooms is in a random wall of the last room, except its entry wall.
    """
    side = (last.entry + 1 + _whole(draw[3], 0, 3)) % 4
    across = (side == UP) | (side == DOWN)  # the wall runs along x
    along = _whole(draw[4], 1, jnp.where(across, last.width, last.height) - 1)
    x = jnp.where(across, last.x + along, jnp.where(side == RIGHT, last.x + last.width - 1, last.x))
    y = jnp.where(across, jnp.where(side == DOWN, last.y + last.height - 1, last.y), last.y + along)
    # In the new room, the door is in the opposite wall.
    return _entered(draw, shape, (side + 2) % 4, jnp.stack([x, y]))


def _entered(
    draw: Float[Array, "5"], shape: Shape, entry: Int[Array, ""], door: Int[Array, "2"]
) -> Room:
    """Build a room of random size whose wall `entry` contains the given door.

    The place of the door in this wall is random, but not in a corner.
    """
    width, height = (_whole(draw[i], MIN_ROOM, shape.max_room_size + 1) for i in range(2))
    across = (entry == UP) | (entry == DOWN)
    along = _whole(draw[2], 1, jnp.where(across, width, height) - 1)
    # Distance from the room's left or top wall to the wall of the door.
    back = jnp.where(entry == RIGHT, width - 1, jnp.where(entry == DOWN, height - 1, 0))
    x = door[0] - jnp.where(across, along, back)
    y = door[1] - jnp.where(across, back, along)
    return Room(x, y, width, height, entry, door)


def _whole(draw: Float[Array, ""], low: int, high: Int[Array, ""] | int) -> Int[Array, ""]:
    """Map a number in [0, 1) to a whole number in low .. high - 1."""
    return low + jnp.floor(draw * (high - low)).astype(jnp.int32)


def _fits(room: Room, rooms: Room, i: Int[Array, ""], size: int) -> Bool[Array, ""]:
    """True if room i is on the grid and overlaps none of the rooms 0 .. i - 2."""
    apart = (room.x + room.width <= rooms.x) | (rooms.x + rooms.width <= room.x)
    apart |= (room.y + room.height <= rooms.y) | (rooms.y + rooms.height <= room.y)
    # Rooms i - 1 and i share the wall that contains the door, so they always overlap.
    earlier = jnp.arange(rooms.x.shape[0]) < i - 1
    return _on_grid(room, size) & jnp.all(apart | ~earlier)


def _on_grid(room: Room, size: int) -> Bool[Array, ""]:
    inside = (room.x >= 0) & (room.y >= 0)
    return inside & (room.x + room.width <= size) & (room.y + room.height <= size)


def _inside(draw: Float[Array, "5"], room: Room) -> Int[Array, "2"]:
    """A cell inside a room, chosen uniformly."""
    x = room.x + _whole(draw[0], 1, room.width - 1)
    return jnp.stack([x, room.y + _whole(draw[1], 1, room.height - 1)])
