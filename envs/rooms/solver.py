"""Exact shortest paths with doors and keys; the search treats all cells of a row at once.

A set of states has 2^(doors + keys) planes, one plane for each combination of open doors and held
keys, and one bit per cell in each plane. Bit i of a plane's number is set if door i is open, and
the next bits are set for the held keys. A breadth-first search is then a loop of shifts and masks,
which ends when the set no longer grows. In a search backwards from the goal, each round of the loop
adds all states from which one step leads into the set.

A jammed door opens only sometimes, but the search treats it as a door that always opens.
"""

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, UInt32

from rlgen.envs.grid.rows import MARGIN, unpack_rows
from rlgen.envs.rooms import dynamics as happened
from rlgen.envs.rooms.level import Level, first_opened
from rlgen.types import Solution

Cells: TypeAlias = UInt32[Array, "... lines words"]
Sets: TypeAlias = UInt32[Array, "P lines words"]
Flags: TypeAlias = Bool[Array, "P 1 1"]
Discount: TypeAlias = float | Float[Array, ""]

ALL = np.uint32(2**32 - 1)


class Map(NamedTuple):
    """The sets of a level that a search needs."""

    start: Sets
    goal: Cells
    ground: Cells  # cells that are neither wall nor lava, doors included
    walls: Cells
    open: Sets  # ground without the doors that are shut in each plane
    doorways: Cells  # cells of all doors, including doors that are never shut
    beside: tuple[Cells, ...]  # for each door, the four cells around it
    stuck: tuple[Flags, ...]  # for each door, planes where it is shut and a push fails
    pushed: tuple[Flags, ...]  # for each door, planes where it is shut and a push opens it
    unlocks: tuple[Flags, ...]  # for each door, planes where it is shut and its key is held
    keys: tuple[Cells, ...]
    wants: tuple[Flags, ...]  # for each key, planes where it is not held


def solve(level: Level, doors_closed: bool = True) -> Solution:
    """Compute the length of the shortest solution and its return within the time limit.

    Args:
        level: One level.
        doors_closed: Whether the family has doors that can be shut. If False, planes differ
            only in the held keys.
    """
    steps = fewest_steps(level, doors_closed)
    limit = level.max_steps_in_episode
    in_time = (steps >= 0) & (steps <= limit)
    return Solution(steps >= 0, steps, in_time.astype(jnp.float32))


def fewest_steps(level: Level, doors_closed: bool = True) -> Int[Array, ""]:
    """Number of steps on a shortest path from start to goal; -1 if no path exists."""
    here = map_of(level, doors_closed)

    def unfinished(loop: tuple) -> Bool[Array, ""]:
        _, _, met, grows = loop
        return ~met & grows

    def once(loop: tuple) -> tuple:
        reached, rounds, _, _ = loop
        wider = reached | before(here, reached)
        return wider, rounds + 1, jnp.any(wider & here.start), jnp.any(wider != reached)

    # The search starts at the goal in every plane: at the end, any doors may be open and any keys
    # held.
    first = jnp.broadcast_to(here.goal[None], here.open.shape)
    met = jnp.any(first & here.start)
    loop = (first, jnp.int32(0), met, jnp.bool_(True))
    _, rounds, met, _ = jax.lax.while_loop(unfinished, once, loop)
    return jnp.where(met, rounds, -1)


def position_values(
    level: Level, discount: Discount, doors_closed: bool = True
) -> Float[Array, " HW"]:
    """Lowest optimal value of the reachable states in each cell, row by row.

    The optimal value of a state is `discount` to the power of the length of the shortest path to
    the goal, or 0 if the goal cannot be reached. Cells that cannot be reached from the start have
    value 0. The time limit is ignored.
    """
    here = map_of(level, doors_closed)
    states = reachable(here)

    def grid(cells: Cells) -> Bool[Array, " HW"]:
        return unpack_rows(cells, level.height, level.width).reshape(-1)

    visited = grid(any_plane(states))
    # A cell is done once the goal can be reached from all its reachable states, in every plane.
    steps, done = _worst_steps(here, lambda reached: grid(_every_plane(reached | ~states)))
    return jnp.where(visited & done, discount ** steps.astype(jnp.float32), 0.0)


def event_values(
    level: Level, discount: Discount, doors_closed: bool = True, doors_jam: bool = False
) -> Float[Array, " Z"]:
    """For each event, the lowest optimal value of the states that a step with this event leads to.

    Args:
        level: One level.
        discount: Discount factor per step, used as in `position_values`.
        doors_closed: Whether the family has doors that can be shut.
        doors_jam: Whether a closed door may stay shut when the agent walks into it.
    """
    here = map_of(level, doors_closed)
    states = after_events(here, reachable(here), doors_jam)
    met = jnp.any(states != 0, (1, 2, 3))
    steps, done = _worst_steps(
        here, lambda reached: jnp.all((~states | reached[None]) == ALL, (1, 2, 3))
    )
    return jnp.where(met & done, discount ** steps.astype(jnp.float32), 0.0)


def map_of(level: Level, doors_closed: bool) -> Map:
    """Build the sets that a search needs."""
    lines = level.height + 2 * MARGIN
    words = max(level.walls.shape[1], level.lava.shape[1])
    none = jnp.zeros((lines, words), jnp.uint32)
    walls, lava = (rows if rows.shape[0] else none for rows in (level.walls, level.lava))
    num_doors, num_keys = level.doors.shape[0] if doors_closed else 0, level.keys.shape[0]
    opened, held = _plane_flags(num_doors, num_keys)
    doors = [_cell(level.doors[i], lines, words) for i in range(level.doors.shape[0])]
    stuck, pushed, unlocks = [], [], []
    blocked = jnp.zeros((opened.shape[1], lines, words), jnp.uint32)
    for i, door in enumerate(doors[:num_doors]):
        shut = ~opened[i]  # [P, 1, 1]
        fits = jnp.zeros_like(shut)
        for k in range(num_keys):
            fits |= held[k] & ((level.locks[k] >> i) & 1 == 1)
        blocked |= jnp.where(shut, door[None], 0)
        door_opens = (level.closed >> i) & 1 == 1
        pushed.append(shut & door_opens)
        stuck.append(shut & ~door_opens)
        unlocks.append(shut & fits)
    first = first_opened(level) if doors_closed else 0
    plane = jnp.arange(opened.shape[1])[:, None, None]  # at the start no key is held
    start = jnp.where(plane == first, _cell(level.start, lines, words)[None], 0)
    ground = ~(walls | lava)
    return Map(
        start,
        _cell(level.goal, lines, words),
        ground,
        walls,
        ground[None] & ~blocked,
        _union(doors, none),
        tuple(around(door) for door in doors[:num_doors]),
        tuple(stuck),
        tuple(pushed),
        tuple(unlocks),
        tuple(_cell(level.keys[k], lines, words) for k in range(num_keys)),
        tuple(~held[k] for k in range(num_keys)),
    )


def reachable(here: Map) -> Sets:
    """All states reachable from the start, including states at the goal but not states in lava."""

    def once(loop: tuple) -> tuple:
        reached, _ = loop
        alive = reached & ~here.goal[None]  # the goal ends the episode
        wider = reached | (around(alive) & here.open) | _pushing(here, alive)
        wider |= _interacting(here, alive)
        return wider, jnp.any(wider != reached)

    return jax.lax.while_loop(lambda loop: loop[1], once, (here.start, jnp.bool_(True)))[0]


def before(here: Map, reached: Sets) -> Sets:
    """Return the states from which one step leads into a set."""
    states = around(reached)
    # If the agent walks into a closed door, the door opens and the agent stays next to it.
    for i, beside in enumerate(here.beside):
        states |= jnp.where(here.pushed[i], _with(reached, i) & beside[None], 0)
    found = reached  # inverts the effects of interacting, in reverse order
    for i in reversed(range(len(here.beside))):
        touched = jnp.where(here.unlocks[i], here.beside[i][None], 0)
        found = (_with(found, i) & touched) | (found & ~touched)
    for k in range(len(here.keys)):
        touched = jnp.where(here.wants[k], here.keys[k][None], 0)
        # On a cell with a key, interacting only picks up the key; no door opens.
        found = (_with(reached, len(here.beside) + k) & touched) | (found & ~touched)
    if here.keys:
        states |= found
    return states & here.open & ~here.goal[None]


def after_events(here: Map, states: Sets, doors_jam: bool) -> UInt32[Array, "Z P lines words"]:
    """For each event, the states that a step with that event can lead to from a set of states.

    The start counts as the result of a step with the event `NOTHING`.
    """
    alive = states & ~here.goal[None]
    near, doors, shut = around(alive), here.doorways, jnp.zeros_like(alive)
    keys = jnp.zeros_like(alive)
    for i, beside in enumerate(here.beside):
        shut |= jnp.where(here.stuck[i] | (here.pushed[i] & doors_jam), beside[None], 0)
    for k, cell in enumerate(here.keys):
        keys |= jnp.where(here.wants[k], cell[None], 0)
    entered = near & here.open
    plain = entered & ~(keys | doors[None] | here.goal[None])
    idle = alive & ~keys  # states in which interacting changes nothing
    for i, beside in enumerate(here.beside):
        idle &= ~jnp.where(here.unlocks[i], beside[None], 0)
    got = _interacting(here, alive & keys)
    sets = {
        happened.NOTHING: plain | idle | here.start,
        happened.ON_KEY: entered & keys,
        happened.GOT_KEY: got,
        happened.BUMPED_DOOR: alive & shut,
        happened.OPENED: _pushing(here, alive) | (_interacting(here, alive & ~keys & ~idle)),
        happened.BUMPED_WALL: alive & around(here.walls)[None],
        happened.IN_DOORWAY: entered & doors[None],
        happened.SUCCESS: entered & here.goal[None],
        happened.DEATH: jnp.zeros_like(alive),
    }
    return jnp.stack([sets[event] for event in range(happened.NUM_EVENTS)])


def _pushing(here: Map, states: Sets) -> Sets:
    """The states that follow from a set of states when the agent walks into a closed door."""
    found = jnp.zeros_like(states)
    for i, beside in enumerate(here.beside):
        found |= _moved(jnp.where(here.pushed[i], states & beside[None], 0), i)
    return found


def _interacting(here: Map, states: Sets) -> Sets:
    """The states that follow from a set of states when the agent interacts."""
    if not here.keys:
        return states
    found = jnp.zeros_like(states)
    for k, cell in enumerate(here.keys):
        touched = jnp.where(here.wants[k], states & cell[None], 0)
        found |= _moved(touched, len(here.beside) + k)
        states = states & ~touched  # a step that picks up a key has no other effect
    for i, beside in enumerate(here.beside):
        touched = jnp.where(here.unlocks[i], states & beside[None], 0)
        states = (states & ~touched) | _moved(touched, i)
    return found | states


def _worst_steps(here: Map, is_done: Callable[[Sets], Bool[Array, " Z"]]) -> tuple[Array, Array]:
    """Search backwards from the goal, one step per round, until no more states are found.

    Args:
        here: The level.
        is_done: Function of the set of states found so far. It returns, for each feature value,
            whether the set contains all states that belong to this value.

    Returns:
        For each feature value, the number of rounds until `is_done` is True, and whether this
        happens at all.
    """

    def once(loop: tuple) -> tuple:
        reached, steps, done, _ = loop
        wider = reached | before(here, reached)
        # For feature values that are done, `steps` stops growing.
        return wider, steps + ~done, is_done(wider), jnp.any(wider != reached)

    first = jnp.broadcast_to(here.goal[None], here.open.shape)
    done = is_done(first)
    loop = (first, jnp.zeros(done.shape, jnp.int32), done, jnp.bool_(True))
    _, steps, done, _ = jax.lax.while_loop(lambda loop: loop[3], once, loop)
    return steps, done


def _plane_flags(num_doors: int, num_keys: int) -> tuple[Bool[Array, "D P 1 1"], ...]:
    """For each plane, flags of the open doors and flags of the held keys."""
    plane = np.arange(2 ** (num_doors + num_keys))
    flags = (plane[None] >> np.arange(num_doors + num_keys)[:, None]) & 1 == 1
    flags = jnp.asarray(flags[:, :, None, None])
    return flags[:num_doors], flags[num_doors:]


def _with(states: Sets, bit: int) -> Sets:
    """For each plane p, the states of plane `p | 1 << bit`."""
    return states[np.arange(states.shape[0]) | 1 << bit]


def _moved(states: Sets, bit: int) -> Sets:
    """Move states from the planes without a bit to the corresponding planes with the bit."""
    plane = np.arange(states.shape[0])
    has = (plane >> bit) & 1 == 1
    return jnp.where(has[:, None, None], states[plane & ~(1 << bit)], 0)


def around(cells: Cells) -> Cells:
    """Cells next to at least one cell of a set.

    The margin around the grid keeps bits from wrapping around to the opposite side.
    """
    if cells.shape[-1] == 1:
        beside = (cells << 1) | (cells >> 1)
    else:  # bits cross from one word of a row to the next
        beside = (cells << 1) | (jnp.roll(cells, 1, -1) >> 31)
        beside |= (cells >> 1) | (jnp.roll(cells, -1, -1) << 31)
    return beside | jnp.roll(cells, 1, -2) | jnp.roll(cells, -1, -2)


def _cell(cell: Int[Array, "2"], lines: int, words: int) -> UInt32[Array, "lines words"]:
    """The set that contains only the cell x, y."""
    bit = cell[0] + MARGIN
    here = jnp.arange(lines)[:, None] == cell[1] + MARGIN
    here &= jnp.arange(words)[None] == bit // 32
    return jnp.where(here, jnp.uint32(1) << (bit % 32).astype(jnp.uint32), jnp.uint32(0))


def _union(sets: list[Cells], like: Cells) -> Cells:
    union = jnp.zeros_like(like)
    for cells in sets:
        union |= cells
    return union


def any_plane(states: Sets) -> Cells:
    """The cells that occur in at least one plane of a set of states."""
    return jax.lax.reduce(states, jnp.uint32(0), jax.lax.bitwise_or, (0,))


def _every_plane(states: Sets) -> Cells:
    return jax.lax.reduce(states, ALL, jax.lax.bitwise_and, (0,))
