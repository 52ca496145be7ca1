"""Exact shortest paths through a maze by flood fill, which handles all cells of a row at once.

A set of cells has one bit per cell, packed by rows. A breadth-first search is then a loop of shifts
and masks that ends at a fixed point. The number of iterations is the length of the longest path
that the search follows, and does not depend on the size of the grid. The module also samples states
that are labelled with their optimal actions.
"""

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, UInt32

from rlgen.envs.grid.bitboard import (
    DOWN,
    FORWARD,
    LEFT,
    MARGIN,
    RIGHT,
    TURN_LEFT,
    TURN_RIGHT,
    UP,
    Level,
    State,
    cell_ahead,
    size_of,
    unpack_rows,
)
from rlgen.types import Key, Solution

Cells: TypeAlias = UInt32[Array, "... rows words"]


class Sets(NamedTuple):
    """Sets of cells that define a path problem, each `[1, H + 2, words]`.

    The rows are those of the grid and one margin row above and below.
    """

    start: Cells  # one cell
    goal: Cells  # one cell
    free: Cells


def solve(level: Level, penalize_time: bool = True) -> Solution:
    """Length of the shortest solution in env steps, turns included, and the best return.

    The best return is 0 if the shortest solution is longer than the time limit.

    Source: breadth-first search over all pairs of a direction and a cell.
    """
    steps = fewest_steps(maze_sets(level), jnp.arange(4) == level.direction)
    return solution_of(steps, level.max_steps_in_episode, penalize_time)


def values(level: Level, feature: str, discount: float) -> Float[Array, " Z"]:
    """Optimal value of each position if the agent faces the worst direction; see `cell_values`.

    Raises:
        ValueError: The feature is not `position`.
    """
    check_feature(feature)
    return cell_values(maze_sets(level), size_of(level), discount)


def check_feature(feature: str) -> None:
    """Reject every feature except `position`.

    Raises:
        ValueError: The feature is not `position`; the message names the feature.
    """
    if feature != "position":
        raise ValueError(f"a grid has no feature {feature!r}; its only feature is 'position'")


def path_length(level: Level) -> Int[Array, ""]:
    """Number of moves on a shortest path from the start to the goal; -1 if unsolvable."""
    return fewest_moves(maze_sets(level))


def sets_of(
    blocked: UInt32[Array, "lines words"],
    height: int,
    start: Int[Array, "2"],
    goal: Int[Array, "2"],
) -> Sets:
    """Build the sets of a grid whose blocked cells are packed like the walls of a maze."""
    # The rows of the grid with one margin row above and below.
    rows = blocked[MARGIN - 1 : MARGIN + height + 1]
    row = jnp.arange(height + 2)[None, :, None]
    word = jnp.arange(rows.shape[1])[None, None]

    def only(cell: Int[Array, "2"]) -> Cells:
        bit = cell[0] + MARGIN
        here = (row == cell[1] + 1) & (word == bit // 32)
        return jnp.where(here, jnp.uint32(1) << (bit % 32).astype(jnp.uint32), jnp.uint32(0))

    return Sets(only(start), only(goal), ~rows[None])


def fewest_steps(sets: Sets, facing: Bool[Array, "4"]) -> Int[Array, ""]:
    """Smallest number of moves and turns to the goal; -1 if unsolvable.

    Args:
        sets: Start, goal and free cells of the level.
        facing: Whether the agent may start in each direction; the best of these directions counts.
    """
    # [4, H + 2, words]: one set of cells per direction that the agent faces.
    seed = jnp.where(facing[:, None, None], sets.start, 0)
    return _rounds_to(lambda reached: turn_or_move(reached, sets.free), seed, sets.goal)


def fewest_moves(sets: Sets) -> Int[Array, ""]:
    """Smallest number of moves to the goal, not counting turns; -1 if unsolvable."""
    return _rounds_to(lambda reached: spread(reached, sets.free), sets.start, sets.goal)


def cell_values(sets: Sets, size: tuple[int, int], discount: float) -> Float[Array, " Z"]:
    """Optimal value of each cell from the worst of the four directions.

    The value is discount^n, where n is the smallest number of steps to the goal, turns included. It
    is 0 in cells from which the goal cannot be reached and in cells that no running episode visits.
    No running episode visits walls, cells that cannot be reached from the start, or the goal,
    where the episode ends. Cells are counted row by row.

    Args:
        sets: Start, goal and free cells of the level.
        size: Height and width of the grid.
        discount: Discount factor per step.
    """
    height, width = size

    def cells(rows: Cells) -> Bool[Array, " Z"]:
        return unpack_rows(rows[0, 1 : height + 1], width).reshape(-1)

    def whole(near: Cells) -> Cells:
        # Cells that are near the goal in all four directions, and therefore in the worst one.
        return near[:1] & near[1:2] & near[2:3] & near[3:]

    def once(loop: tuple) -> tuple:
        near, value, worth, _ = loop
        wider = turn_or_move(near, sets.free, forward=False)
        value = jnp.where(cells(whole(wider) & ~whole(near)), worth, value)
        return wider, value, worth * discount, jnp.any(wider != near)

    # The search runs backwards and starts at the goal with all four directions.
    near = jnp.broadcast_to(sets.goal, (4, *sets.goal.shape[1:]))
    loop = (near, jnp.zeros(height * width), jnp.float32(discount), jnp.bool_(True))
    value = jax.lax.while_loop(lambda loop: loop[3], once, loop)[1]
    return jnp.where(cells(all_within(sets)), value, 0.0)


def solution_of(
    steps: Int[Array, ""], limit: Int[Array, ""], penalize_time: bool = True
) -> Solution:
    """Build the solution from the number of steps to the goal (-1 if unsolvable) and the limit."""
    best = 1.0 - 0.9 * (steps / limit) if penalize_time else jnp.ones(())
    solved_in_time = (steps >= 0) & (steps <= limit)
    return Solution(steps >= 0, steps, jnp.where(solved_in_time, best, 0.0).astype(jnp.float32))


def spread(reached: Cells, free: Cells) -> Cells:
    """Return a set of cells together with the free neighbours of its cells."""
    moved = [_move(reached, direction) for direction in (RIGHT, DOWN, LEFT, UP)]
    return reached | ((moved[0] | moved[1] | moved[2] | moved[3]) & free)


def _rounds_to(spread: Callable[[Cells], Cells], seed: Cells, goal: Cells) -> Int[Array, ""]:
    """Count the calls of `spread` until the set of reached cells contains the goal.

    Return -1 if the set stops growing before it contains the goal.
    """

    def unfinished(loop: tuple) -> Bool[Array, ""]:
        _, _, met, grows = loop
        return ~met & grows

    def once(loop: tuple) -> tuple:
        reached, rounds, _, _ = loop
        wider = spread(reached)
        return wider, rounds + 1, jnp.any(wider & goal), jnp.any(wider != reached)

    met = jnp.any(seed & goal)
    _, rounds, met, _ = jax.lax.while_loop(
        unfinished, once, (seed, jnp.int32(0), met, jnp.bool_(True))
    )
    return jnp.where(met, rounds, -1)


def all_within(sets: Sets) -> Cells:
    """Return the cells that the agent can reach before the episode ends."""
    free = sets.free & ~sets.goal  # the episode ends at the goal: no path leads through it

    def once(loop: tuple) -> tuple:
        wider = spread(loop[0], free)
        return wider, jnp.any(wider != loop[0])

    return jax.lax.while_loop(lambda loop: loop[1], once, (sets.start, jnp.bool_(True)))[0]


def turn_or_move(reached: Cells, free: Cells, forward: bool = True) -> Cells:
    """Extend a set of pairs (direction, cell) by one turn or move.

    If `forward` is True, the result also contains all successors of the set. Otherwise it also
    contains all predecessors of the set.
    """
    # A left turn is the inverse of a right turn, so only moves depend on `forward`.
    moved = jnp.stack([_move(reached[d], d if forward else (d + 2) % 4) for d in range(4)])
    return reached | jnp.roll(reached, 1, 0) | jnp.roll(reached, -1, 0) | (moved & free)


def _move(cells: Cells, direction: int) -> Cells:
    """Shift all cells of a set by one step; the margin of wall keeps bits from wrapping around."""
    if direction == DOWN:
        return jnp.roll(cells, 1, -2)
    if direction == UP:
        return jnp.roll(cells, -1, -2)
    if cells.shape[-1] == 1:
        return cells << 1 if direction == RIGHT else cells >> 1
    # With several words per row, the bit at the edge of a word carries into the neighbouring word.
    if direction == RIGHT:
        return (cells << 1) | (jnp.roll(cells, 1, -1) >> 31)
    return (cells >> 1) | (jnp.roll(cells, -1, -1) << 31)


def maze_sets(level: Level) -> Sets:
    """Return the sets of start, goal and free cells of a maze, which the searches need."""
    return sets_of(level.walls, level.height, level.start, level.goal)


NUM_ACTIONS = 7


def labelled_states(
    key: Key, sets: Sets, size: tuple[int, int], num: int
) -> tuple[State, Bool[Array, "S 7"]]:
    """Sample S states at time 0, with the first actions of their shortest paths to the goal.

    Cells are drawn uniformly from the cells that an episode can visit, except the goal. Directions
    are drawn uniformly from all four. If the goal cannot be reached, no action is labelled as
    optimal. See `LevelEnv.labelled_states`.

    Args:
        key: Random key, consumed.
        sets: Start, goal and free cells of the level.
        size: Height and width of the grid.
        num: Number of states, S.
    """
    key_cell, key_direction = jax.random.split(key)
    within = unpack_rows(all_within(sets)[0, 1:-1], size[1]).reshape(-1)
    cell = jax.random.categorical(key_cell, jnp.where(within, 0.0, -jnp.inf), shape=(num,))
    y, x = jnp.divmod(cell.astype(jnp.int32), size[1])
    direction = jax.random.randint(key_direction, (num,), 0, 4, jnp.int32)
    states = State(x, y, direction, jnp.zeros_like(x))
    distance = distances(sets, size)
    return states, jax.vmap(lambda state: best_actions(distance, state))(states)


def distances(sets: Sets, size: tuple[int, int]) -> Int[Array, "4 H W"]:
    """Number of steps to the goal from each direction and cell; -1 if no path exists.

    Turns count as steps.
    """
    height, width = size

    def poses(rows: Array) -> Bool[Array, "4 H W"]:
        return jax.vmap(lambda one: unpack_rows(one[1 : height + 1], width))(rows)

    def once(loop: tuple) -> tuple:
        near, distance, rounds, _ = loop
        wider = turn_or_move(near, sets.free, forward=False)
        distance = jnp.where(poses(wider & ~near), rounds, distance)
        return wider, distance, rounds + 1, jnp.any(wider != near)

    near = jnp.broadcast_to(sets.goal, (4, *sets.goal.shape[1:]))
    start = jnp.where(poses(near), 0, -1)
    loop = (near, start, jnp.int32(1), jnp.bool_(True))
    return jax.lax.while_loop(lambda loop: loop[3], once, loop)[1]


def best_actions(distance: Int[Array, "4 H W"], state: State) -> Bool[Array, "7"]:
    """Return a mask of the actions after which the goal is one step nearer."""
    x, y = cell_ahead(state)
    # The padding allows for a cell ahead that lies outside the grid.
    ahead = jnp.pad(distance, ((0, 0), (1, 1), (1, 1)), constant_values=-1)
    after = {
        TURN_LEFT: distance[(state.direction + 3) % 4, state.y, state.x],
        TURN_RIGHT: distance[(state.direction + 1) % 4, state.y, state.x],
        FORWARD: ahead[state.direction, y + 1, x + 1],
    }
    here = distance[state.direction, state.y, state.x]
    nearer = [(after[a] >= 0) & (after[a] < here) for a in range(len(after))]
    return jnp.stack([*nearer, *[jnp.bool_(False)] * (NUM_ACTIONS - len(after))])
