"""Exact shortest path through a key corridor; the search treats all cells of a row at once.

It never helps to close a door, or to drop the key before its door is unlocked. Because the corridor
is open from end to end, it also never helps to go through another door on the right before the
locked door is unlocked. So the path has two parts. The first part leads to the lock with the key.
It is found by a breadth-first search over cells, directions, the set of open doors on the left, and
whether the key is held. The second part leads from the lock to the ball. The agent needs free hands
to pick up the ball. It can drop the key in the corridor next to the lock, or from within the
doorway; no place behind another door is nearer. The dropped key blocks its cell, so the second
search is over cells, directions and the cell of the key.
"""

from collections.abc import Callable
from typing import TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int, UInt32

from rlgen.envs.minigrid.level import MARGIN, STRIDE, Level, size_of
from rlgen.types import Solution

Poses: TypeAlias = UInt32[Array, "... 4 H"]
"""A set of cells for each direction, one word per row; bit x + MARGIN is the cell x of a row."""
Rows: TypeAlias = UInt32[Array, "... H"]
"""Sets of cells, one word per row."""

_KEY, _BALL = range(2)  # indices in the list of objects


def solve(level: Level, penalize_time: bool) -> Solution:
    """Compute the length of the shortest solution and its return within the time limit."""
    # One step unlocks the door, and one picks up the ball.
    steps = _steps_to_lock(level) + 1 + _steps_from_lock(level) + 1
    limit = level.max_steps_in_episode
    worth = 1 - 0.9 * (steps / limit) if penalize_time else jnp.ones(())
    earned = jnp.where(steps <= limit, worth, 0.0).astype(jnp.float32)
    return Solution(jnp.bool_(True), steps, earned)


def _steps_to_lock(level: Level) -> Int[Array, ""]:
    """Smallest number of steps until the agent faces the locked door with the key in hand."""
    height, _ = size_of(level)
    num = level.door_cell.shape[0] // 2  # of the 4 R - 2 edges, the 2 R - 1 on the left are first
    sets = np.arange(1 << num)
    has = (sets[:, None] >> np.arange(num)) & 1 == 1  # [sets, doors]
    doors = _rows(level.door_cell, height)
    floor = _floor(level) & ~_join(doors)
    opened = _join(jnp.where(jnp.asarray(has)[..., None], doors[None, :num], jnp.uint32(0)))
    key = _rows(level.object_cell[_KEY], height)
    free = floor[None] | opened
    # The key blocks its cell until the key is held.
    free = jnp.stack([free & ~key[None], free])[:, :, None]  # [without or with key, sets, 1, H]
    facing_door = _facing(doors[:num])
    facing_key = _facing(key)

    def spread(reached: Poses) -> Poses:
        wider = _turn_or_move(reached, free)
        for d in range(num):  # toggling door d leads to the sets that contain d
            through = reached[:, sets & ~(1 << d)] & facing_door[d][None, None]
            wider |= jnp.where(jnp.asarray(has)[None, :, d, None, None], through, jnp.uint32(0))
        # Picking up the key leads from plane 0 to plane 1 in the same pose.
        return wider.at[1].set(wider[1] | (reached[0] & facing_key[None]))

    start = _rows(level.start[1] * STRIDE + level.start[0], height)
    facing = jnp.arange(4) == level.direction
    first = jnp.where(facing[:, None], start[None], jnp.uint32(0))
    seed = jnp.zeros((2, len(sets), 4, height), jnp.uint32).at[0, 0].set(first)
    at_lock = _at_lock(level)
    return _rounds(spread, seed, lambda reached: (reached[1] & at_lock[None]).any())


def _steps_from_lock(level: Level) -> Int[Array, ""]:
    """Smallest number of steps after unlocking until the agent faces the ball with empty hands."""
    height, width = size_of(level)
    y, x = np.divmod(np.arange(height * width), width)
    dropped = _rows(jnp.asarray(STRIDE * y + x, jnp.int32), height)  # [cells, H]
    ball = _rows(level.object_cell[_BALL], height)
    room = _floor(level) & ~_join(_rows(level.door_cell, height)) & ~ball
    free = room | _lock(level)  # cells to walk on; the key is not dropped in a doorway
    facing_spot = _facing(jnp.where((dropped & room[None]) != 0, dropped, jnp.uint32(0)))
    free_after = free[None] & ~dropped
    facing_ball = _facing(ball)

    def spread(reached: tuple[Poses, Poses]) -> tuple[Poses, Poses]:
        holding, free_handed = reached
        drops = holding[None] & facing_spot
        return (
            _turn_or_move(holding, free[None]),
            _turn_or_move(free_handed, free_after[:, None]) | drops,
        )

    seed = _at_lock(level), jnp.zeros((height * width, 4, height), jnp.uint32)
    return _rounds(spread, seed, lambda reached: (reached[1] & facing_ball[None]).any())


def _rounds(
    spread: Callable, seed: Poses | tuple[Poses, Poses], is_met: Callable
) -> Int[Array, ""]:
    """Number of rounds of `spread` until `is_met` is True.

    On every well-formed level, `is_met` becomes True.
    """

    def once(loop: tuple) -> tuple:
        reached, rounds = loop
        return spread(reached), rounds + 1

    cap = STRIDE * STRIDE  # so that a malformed level does not hang the program

    def is_unmet(loop: tuple) -> Bool[Array, ""]:
        return ~is_met(loop[0]) & (loop[1] < cap)

    return jax.lax.while_loop(is_unmet, once, (seed, jnp.int32(0)))[1]


def _floor(level: Level) -> Rows:
    height, _ = size_of(level)
    return ~level.walls[MARGIN : MARGIN + height]


def _rows(cell: Int[Array, "*n"], height: int) -> UInt32[Array, "*n H"]:
    """Each cell as a set; `NOWHERE` gives the empty set."""
    bit = jnp.uint32(1) << ((cell % STRIDE + MARGIN) & 31).astype(jnp.uint32)
    row = jnp.arange(height).reshape(*[1] * cell.ndim, height)
    return jnp.where(row == (cell // STRIDE)[..., None], bit[..., None], jnp.uint32(0))


def _join(sets: UInt32[Array, "*n K H"]) -> UInt32[Array, "*n H"]:
    """Union over the second-last axis."""
    return jax.lax.reduce(sets, jnp.uint32(0), jnp.bitwise_or, (sets.ndim - 2,))


def _facing(cells: Rows) -> Poses:
    """The poses that face a cell of a set, ignoring walls."""
    down, up = jnp.roll(cells, -1, -1), jnp.roll(cells, 1, -1)
    return jnp.stack([cells >> 1, down, cells << 1, up], -2)


def _lock(level: Level) -> Rows:
    """The cell of the locked door, as a set."""
    height, _ = size_of(level)
    num = jnp.arange(level.door_cell.shape[0], dtype=jnp.uint32)
    is_locked = (level.locked >> num) & 1 == 1
    return _rows(jnp.where(is_locked, level.door_cell, 0).sum(), height)


def _at_lock(level: Level) -> Poses:
    """The pose in the corridor in front of the locked door, facing right."""
    facing = _facing(_lock(level))
    return jnp.where(jnp.arange(4)[:, None] == 0, facing, jnp.uint32(0))


def _turn_or_move(reached: Poses, free: UInt32[Array, "..."]) -> Poses:
    right, down, left, up = (reached[..., d, :] for d in range(4))
    # A row is one word and y runs over the last axis, so moves are shifts and rolls; bits that wrap
    # around land on the outer walls and are cleared.
    moved = [right << 1, jnp.roll(down, 1, -1), left >> 1, jnp.roll(up, -1, -1)]
    turned = jnp.roll(reached, 1, -2) | jnp.roll(reached, -1, -2)
    return reached | turned | (jnp.stack(moved, -2) & free)
