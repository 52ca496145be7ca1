"""Exact shortest paths through a cave, and the level features derived from them."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from rlgen.envs.cave.level import LAVA, MOSS, WALL, Level, size_of, to_grid
from rlgen.envs.grid.bitboard import unpack_rows
from rlgen.envs.grid.flood import (
    Sets,
    cell_values,
    check_feature,
    fewest_moves,
    fewest_steps,
    sets_of,
    solution_of,
    spread,
)
from rlgen.types import Solution


def solve(level: Level) -> Solution:
    """Length of the shortest solution in env steps, turns included, and the best return.

    The best return is 0 if the shortest solution is longer than the time limit. If the start
    direction is random, the best of the four directions is assumed. No solution can be shorter
    or have a higher return, and the best direction attains both values. From the other directions
    the agent may need up to two more turns, which lower the return by up to 1.8 / limit.

    Source: breadth-first search over all pairs of a direction and a cell.
    """
    facing = (level.direction < 0) | (jnp.arange(4) == level.direction)
    return solution_of(fewest_steps(cave_sets(level), facing), level.max_steps_in_episode)


def values(level: Level, feature: str, discount: float) -> Float[Array, " Z"]:
    """Optimal value of each position if the agent faces the worst direction.

    See `flood.cell_values`.

    Raises:
        ValueError: The feature is not `position`.
    """
    check_feature(feature)
    return cell_values(cave_sets(level), size_of(level), discount)


def path_length(level: Level) -> Int[Array, ""]:
    """Number of moves on a shortest path from the start to the goal; -1 if unsolvable."""
    return fewest_moves(cave_sets(level))


def distances(level: Level) -> Int[Array, "H W"]:
    """Number of moves from each cell to the goal; -1 on walls, on lava and where no path exists."""
    height, width = size_of(level)
    sets = cave_sets(level)

    def cells(rows: Array) -> Bool[Array, "H W"]:
        return unpack_rows(rows[0, 1 : height + 1], width)

    def once(loop: tuple) -> tuple:
        reached, distance, rounds, _ = loop
        wider = spread(reached, sets.free)
        distance = jnp.where(cells(wider & ~reached), rounds, distance)
        return wider, distance, rounds + 1, jnp.any(wider != reached)

    # Breadth-first search: a cell first reached in iteration k is k moves away from the goal. The
    # loop ends after the first iteration that reaches no new cell.
    start = jnp.where(cells(sets.goal), 0, -1)
    loop = (sets.goal, start, jnp.int32(1), jnp.bool_(True))
    return jax.lax.while_loop(lambda loop: loop[3], once, loop)[1]


def features(level: Level) -> dict[str, Array]:
    """Scalars that describe a level; a path length or distance that does not exist is -1.

    Three scalars are mean distances to the goal, in moves. `mean_distance` is the mean over all
    cells from which the goal can be reached. `moss_distance` is the mean over the moss cells among
    these cells. `lava_distance` is the mean over the lava cells next to one of these cells. The
    distance of a lava cell is one more than the smallest distance among its neighbours.
    """
    tiles, distance, solution = to_grid(level).tiles, distances(level), solve(level)
    x, y = level.start
    length = distance.at[y, x].get(mode="clip")
    beside = _nearest_neighbour(distance)
    return {
        "num_walls": (tiles == WALL).sum(),
        "num_lava": (tiles == LAVA).sum(),
        "num_moss": (tiles == MOSS).sum(),
        "path_length": length,
        "optimal_steps": solution.steps,
        "solvable": solution.solvable,
        "mean_distance": _mean(distance, distance >= 0),
        "moss_distance": _mean(distance, (distance >= 0) & (tiles == MOSS)),
        "lava_distance": _mean(beside + 1, (beside >= 0) & (tiles == LAVA)),
    }


def cave_sets(level: Level) -> Sets:
    """Return the sets of start, goal and free cells of a cave, which the searches need."""
    return sets_of(level.blocked, level.height, level.start, level.goal)


def _nearest_neighbour(distance: Int[Array, "H W"]) -> Int[Array, "H W"]:
    """Smallest distance among each cell's four neighbours; -1 if all four distances are -1."""
    far = distance.size
    padded = jnp.pad(jnp.where(distance < 0, far, distance), 1, constant_values=far)
    vertical = jnp.minimum(padded[:-2, 1:-1], padded[2:, 1:-1])
    horizontal = jnp.minimum(padded[1:-1, :-2], padded[1:-1, 2:])
    nearest = jnp.minimum(vertical, horizontal)
    return jnp.where(nearest == far, -1, nearest)


def _mean(x: Int[Array, "H W"], where: Bool[Array, "H W"]) -> Float[Array, ""]:
    total, num = jnp.where(where, x, 0).sum(), where.sum()
    return jnp.where(num > 0, total / jnp.maximum(num, 1), -1.0)
