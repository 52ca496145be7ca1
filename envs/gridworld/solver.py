"""Exact expected returns on a tabular grid world, of the best policy and of a given policy.

The solver uses dynamic programming over the number of remaining steps. The values of all states
with the same number of remaining steps form one array [2^n, C]. It contains one value for each of
the 2^n sets of present objects and each of the C cells.

Each iteration has two parts. The first part computes the expectation over the next set of objects.
Objects appear and disappear independently of each other, so one pass over the array for each of the
n objects suffices. A table of transitions would take 2^n times the work. The second part computes
the value of each action as a shift of the grid.

Cells are the last axis, so that both parts are vectorised. Cells are numbered row by row in the
largest grid, so that the shifts are constants.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from rlgen.envs.gridworld.level import DOWN, LEFT, NUM_ACTIONS, RIGHT, STAY, UP, Level


class _World(NamedTuple):
    """A level in the solver's layout: M = 2^n sets of present objects, and C = G * G cells."""

    cell: Int[Array, " C"]  # cell number in the level's own grid; 0 outside this grid
    can_enter: dict[int, Bool[Array, " C"]]  # by action: whether the next cell is free
    here: Bool[Array, "n C"]  # whether the cell is that of the object
    respawn_prob: Float[Array, " n"]
    reward: Float[Array, "M C"]  # reward for stepping onto a cell
    survival_prob: Float[Array, "M C"]  # chance that entering a cell does not end the episode


def optimal_return(level: Level, max_objects: int) -> Float[Array, ""]:
    """Compute the highest expected undiscounted return of any policy in one episode.

    The best policy may depend on the number of remaining steps.

    Args:
        level: One tabular level; its episode starts with all objects present.
        max_objects: n, the length of the level's arrays of objects.
    """
    return _solve(level, max_objects, lambda values: jnp.stack(values).max(0))


def expected_return(
    level: Level, log_policy: Float[Array, "S A"], max_objects: int
) -> Float[Array, ""]:
    """Compute the expected undiscounted return of a policy in one episode.

    Args:
        level: One tabular level; its episode starts with all objects present.
        log_policy: Log-probabilities of the actions in each state, as numbered by
            `observation.number`.
        max_objects: n, the length of the level's arrays of objects.

    Raises:
        ValueError: `log_policy` does not cover all states and actions.
    """
    num_cells = level.walls.shape[-1]
    expected = (num_cells * 2**max_objects, NUM_ACTIONS)
    if log_policy.shape != expected:
        raise ValueError(f"log_policy has shape {log_policy.shape}; this level needs {expected}")
    table = log_policy.reshape(2**max_objects, num_cells, NUM_ACTIONS)
    cell = _world(level, max_objects).cell
    policy = jnp.exp(jnp.moveaxis(table[:, cell], -1, 0))  # [A, M, C]

    def mean(values: list[Array]) -> Array:
        total = policy[0] * values[0]
        for prob, value in zip(policy[1:], values[1:], strict=True):  # a stack is 18 times slower
            total += prob * value
        return total

    return _solve(level, max_objects, mean)


def _solve(
    level: Level, max_objects: int, choose: Callable[[list[Array]], Array]
) -> Float[Array, ""]:
    """Return the value of the state at the start of an episode.

    The function `choose` combines five arrays [M, C], which hold the values of the five actions.
    """
    world = _world(level, max_objects)

    def step_back(_: Int[Array, ""], value: Float[Array, "M C"]) -> Float[Array, "M C"]:
        entered = world.reward + world.survival_prob * _before_respawn(world, value)
        return choose(_after_moving(world, entered))

    start = jnp.zeros_like(world.reward)  # no step remains
    value = jax.lax.fori_loop(0, level.max_steps_in_episode, step_back, start)
    present = (1 << level.num_objects) - 1  # all objects
    row, column = jnp.divmod(level.start, level.size)
    return value[present, row * _side(value.shape[-1]) + column]


def _before_respawn(world: _World, value: Float[Array, "M C"]) -> Float[Array, "M C"]:
    """Expected value over the next set of objects, given the previous set and the entered cell.

    An absent object respawns with its respawn probability. If the entered cell is that of a present
    object, the object is collected and does not respawn in this step. Other present objects stay.
    """
    num_sets, num_cells = value.shape
    for i, (respawn_prob, here) in enumerate(zip(world.respawn_prob, world.here, strict=True)):
        by_bit = value.reshape(-1, 2, 2**i, num_cells)  # axis 1 is bit i of the set
        absent, present = by_bit[:, 0], by_bit[:, 1]
        was_absent = (1 - respawn_prob) * absent + respawn_prob * present
        was_present = jnp.where(here[None, None], absent, present)
        value = jnp.stack([was_absent, was_present], 1).reshape(num_sets, num_cells)
    return value


def _after_moving(world: _World, entered: Float[Array, "M C"]) -> list[Float[Array, "M C"]]:
    """Value of each action in each cell, from the value of entering each cell."""
    num_cells = entered.shape[-1]
    side = _side(num_cells)
    # A shift by one column wraps into the neighbouring row only where `can_enter` is False.
    padded = jnp.pad(entered, ((0, 0), (side, side)))
    offset = {UP: -side, DOWN: side, LEFT: -1, RIGHT: 1}
    values = {STAY: entered}
    for action, by in offset.items():
        moved = padded[:, side + by : side + by + num_cells]
        values[action] = jnp.where(world.can_enter[action][None], moved, entered)
    return [values[action] for action in range(NUM_ACTIONS)]


def _world(level: Level, max_objects: int) -> _World:
    side = _side(level.walls.shape[-1])
    row, column = _row_and_column(side)
    exists = (row < level.size) & (column < level.size)
    cell = jnp.where(exists, row * level.size + column, 0)
    # [G + 2, G + 2]: the padding is not free, so no action leaves the grid.
    free = jnp.pad((exists & ~level.walls[cell]).reshape(side, side), 1)
    can_enter = {UP: free[:-2, 1:-1], DOWN: free[2:, 1:-1]}
    can_enter |= {LEFT: free[1:-1, :-2], RIGHT: free[1:-1, 2:]}

    used = jnp.arange(max_objects) < level.num_objects
    here = (used[:, None] & exists[None]) & (level.object_pos[:, None] == cell[None])
    bits = jnp.arange(2**max_objects)[:, None] >> jnp.arange(max_objects)[None] & 1
    collected = (bits[:, :, None] * here[None]).astype(jnp.float32)  # [M, n, C]

    def of_step(of_kind: Float[Array, " k"]) -> Float[Array, "M C"]:
        return (collected * of_kind[level.object_type][None, :, None]).sum(1)

    return _World(
        cell=cell,
        can_enter={action: x.reshape(-1) for action, x in can_enter.items()},
        here=here,
        respawn_prob=jnp.where(used, level.respawn_prob[level.object_type], 0.0),
        reward=of_step(level.reward),
        survival_prob=1 - jnp.minimum(of_step(level.terminate_prob), 1.0),
    )


def _row_and_column(side: int) -> tuple[Int[Array, " C"], Int[Array, " C"]]:
    row, column = jnp.divmod(jnp.arange(side * side), side)
    return row, column


def _side(num_cells: int) -> int:
    return round(num_cells**0.5)
