"""Random obstructed mazes: doors and their colours, blocking balls, keys, target and agent."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from rlgen.envs.minigrid import room_grid as rooms
from rlgen.envs.minigrid.level import (
    BALL,
    BLUE,
    BOX,
    COLOURS,
    GREEN,
    GREY,
    KEY,
    NOWHERE,
    STRIDE,
    Level,
    code_of,
    pack_walls,
)

ROOM_SIZE = 6
_STEP = ((1, 0), (0, 1), (-1, 0), (0, -1))  # right, down, left, up
# The side room and the corner room of each quarter of the 3 x 3 grid of rooms. The target may be in
# the corner rooms.
_SIDES = ((2, 1), (1, 2), (0, 1), (1, 0))
_CORNERS = ((2, 0), (2, 2), (0, 2), (0, 0))

Room = tuple[int, int]
"""Column and row of a room."""


class Lock(NamedTuple):
    """The properties of a locked door that all levels of a kind share."""

    edge: rooms.Edge
    colour: int  # an index into the level's shuffled colours
    room: Room  # room of the door's key and of the ball that blocks the door
    before: int  # cell number of the ball minus cell number of the door


class Plan(NamedTuple):
    """Everything that all levels of a kind have in common."""

    rows: int
    columns: int
    plain: tuple[tuple[rooms.Edge, int], ...]  # unlocked doors and their colours
    locks: tuple[Lock, ...]
    targets: tuple[Room, ...]  # rooms where the target may be
    start: Room
    hidden: bool  # True if keys are in boxes
    blocked: bool  # True if a ball lies in front of each locked door

    @property
    def walls(self) -> np.ndarray:
        """Walls of closed rooms, without openings for doors, bool[H, W]."""
        return rooms.lattice(ROOM_SIZE, self.rows, self.columns)


def two_rooms(hidden: bool, blocked: bool) -> Plan:
    """Plan of two rooms side by side with a locked door between them."""
    return Plan(1, 2, (), (_lock((0, 0), 0, 0),), ((1, 0),), (0, 0), hidden, blocked)


def nine_rooms(num_quarters: int, start: Room, hidden: bool, blocked: bool) -> Plan:
    """Plan of nine rooms, where 1 to 4 side rooms have locked doors to two corner rooms each."""
    sides = list(enumerate(_SIDES[:num_quarters]))
    plain = tuple((_edge((1, 1), side), side) for side, _ in sides)
    locks = tuple(
        _lock(room, (side + k) % 4, (side + k) % len(COLOURS))
        for side, room in sides
        for k in (-1, 1)
    )
    return Plan(3, 3, plain, locks, _CORNERS[:num_quarters], start, hidden, blocked)


def num_draws(plan: Plan) -> int:
    """Number of uniform numbers that a level needs."""
    return len(COLOURS) + len(plan.plain) + 2 * len(plan.locks) + 3


def level_of(uniform: Float[Array, " n"], plan: Plan, max_steps: int) -> Level:
    """Build a level from uniform numbers; every level is solvable.

    All doors and blocking balls are placed before any key, so that no ball is placed on a key. In
    the first release of MiniGrid, some balls were placed on keys, which made those levels
    unsolvable.
    """
    num, num_plain = len(plan.locks), len(plan.plain)
    parts = np.cumsum([len(COLOURS), num_plain + num, num])
    for_colour, for_door, for_key, (ball_room, for_ball, pose) = jnp.split(uniform, parts)
    edges = (*(edge for edge, _ in plan.plain), *(lock.edge for lock in plan.locks))
    colour = [which for _, which in plan.plain] + [lock.colour for lock in plan.locks]
    # The argsort of uniform numbers is a random permutation of the colours.
    colour = jnp.argsort(for_colour).astype(jnp.int32)[np.array(colour)]
    place = rooms.whole(for_door, ROOM_SIZE - 2)
    cell = rooms.door_cells(rooms.places_for_doors(edges, ROOM_SIZE), place)

    before = jnp.array([lock.before for lock in plan.locks], jnp.int32)
    balls = cell[num_plain:] + before if plan.blocked else jnp.zeros(0, jnp.int32)
    keys = _keys(for_key, plan, balls)
    target = _target(ball_room, for_ball, plan, jnp.concatenate([balls, keys]))
    cells = jnp.concatenate([target[None], keys, balls])  # order of the level's objects
    taken = jnp.concatenate([cells, cell])
    free = _without(jnp.asarray(_space(plan, plan.start)), taken)
    start, direction = rooms.pick_pose(pose, free, taken)
    codes, contents = _codes(plan, colour[num_plain:])
    return Level(
        walls=pack_walls(rooms.open_walls(plan.walls, cell)),
        start=start,
        direction=direction,
        door_cell=cell,
        door_colour=colour,
        # Unlocked doors come first, so the bits of the locked doors start at `num_plain`.
        locked=jnp.uint32((1 << num_plain + num) - (1 << num_plain)),
        object_cell=cells,
        object_code=codes,
        content_code=contents,
        target=jnp.uint32(1),
        max_steps_in_episode=jnp.int32(max_steps),
        height=plan.walls.shape[0],
    )


def _keys(uniform: Float[Array, " L"], plan: Plan, taken: Int[Array, " B"]) -> Int[Array, " L"]:
    """Place the keys one after the other, each in the room in front of its door."""
    num = len(plan.locks)
    space = jnp.asarray(np.stack([_space(plan, lock.room) for lock in plan.locks]))

    def place(keys: Int[Array, " L"], k: Int[Array, ""]) -> tuple[Int[Array, " L"], None]:
        free = _without(space[k] & _far(plan), jnp.concatenate([taken, keys]))
        return jnp.where(jnp.arange(num) == k, rooms.pick_cell(uniform[k], free), keys), None

    return jax.lax.scan(place, jnp.full(num, NOWHERE, jnp.int32), jnp.arange(num))[0]


def _target(
    which: Float[Array, ""], uniform: Float[Array, ""], plan: Plan, taken: Int[Array, " T"]
) -> Int[Array, ""]:
    space = jnp.asarray(np.stack([_space(plan, room) for room in plan.targets]))
    space = space[rooms.whole(which, len(plan.targets))]
    return rooms.pick_cell(uniform, _without(space & _far(plan), taken))


def _codes(plan: Plan, colour: Int[Array, " L"]) -> tuple[Int[Array, " K"], Int[Array, " K"]]:
    """Codes of target, keys (or their boxes) and balls, and the codes of the boxes' contents."""
    num = len(plan.locks)
    keys = code_of(KEY, colour)
    boxes = jnp.full(num, 8 * BOX + GREY, jnp.int32)
    balls = jnp.full(num if plan.blocked else 0, 8 * BALL + GREEN, jnp.int32)
    nothing = jnp.zeros_like
    target = jnp.full(1, 8 * BALL + BLUE, jnp.int32)
    codes = jnp.concatenate([target, boxes if plan.hidden else keys, balls])
    inside = keys if plan.hidden else nothing(keys)
    return codes, jnp.concatenate([nothing(target), inside, nothing(balls)])


def _space(plan: Plan, room: Room) -> np.ndarray:
    return rooms.inside(room, ROOM_SIZE, plan.walls.shape)


def _without(cells: Bool[Array, "H W"], taken: Int[Array, " T"]) -> Bool[Array, "H W"]:
    """Remove the taken cells from a set of cells."""
    numbers = jnp.asarray(rooms.cell_numbers((cells.shape[0], cells.shape[1])))
    return cells & ~(numbers[..., None] == taken[None, None]).any(-1)


def _far(plan: Plan) -> Bool[Array, "H W"]:
    """Mask of the cells at least two steps from the centre of the world's middle room.

    In MiniGrid the agent stands at this centre while objects are placed, and no object is placed
    next to the agent.
    """
    y, x = np.mgrid[: plan.walls.shape[0], : plan.walls.shape[1]]
    middle_x, middle_y = (
        num // 2 * (ROOM_SIZE - 1) + ROOM_SIZE // 2 for num in (plan.columns, plan.rows)
    )
    return jnp.asarray(abs(x - middle_x) + abs(y - middle_y) >= 2)


def _edge(room: Room, direction: int) -> rooms.Edge:
    x, y = _STEP[direction]
    return rooms.Edge(*sorted((room, (room[0] + x, room[1] + y))))


def _lock(room: Room, direction: int, colour: int) -> Lock:
    x, y = _STEP[direction]
    return Lock(_edge(room, direction), colour, room, -(STRIDE * y + x))
