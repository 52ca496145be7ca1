"""Exact shortest ways through a cave, by the maze's sets of cells, and what is read off them."""

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
    """Fewest env steps to the goal, turns included, and what they earn within the time limit.

    Where the level leaves the direction to chance, this is what the luckiest of the four allows:
    a bound that no episode beats, and that can be attained in one episode of four or more. From
    the other directions it takes up to two turns more, and the best return is lower by up to
    1.8 / limit.

    Source: breadth-first search over the 4 directions x cells of the cave.
    """
    facing = (level.direction < 0) | (jnp.arange(4) == level.direction)
    return solution_of(fewest_steps(cave_sets(level), facing), level.max_steps_in_episode)


def values(level: Level, feature: str, discount: float) -> Float[Array, " Z"]:
    """The least value of each position; see `rlgen.envs.grid.flood.cell_values`.

    Raises:
        ValueError: a feature that caves do not have.
    """
    check_feature(feature)
    return cell_values(cave_sets(level), size_of(level), discount)


def path_length(level: Level) -> Int[Array, ""]:
    """Cells to walk from the start to the goal by the shortest way; -1 if there is none."""
    return fewest_moves(cave_sets(level))


def distances(level: Level) -> Int[Array, "H W"]:
    """Cells to walk from each cell to the goal; -1 on walls and lava and where there is no way."""
    height, width = size_of(level)
    sets = cave_sets(level)

    def cells(rows: Array) -> Bool[Array, "H W"]:
        return unpack_rows(rows[0, 1 : height + 1], width)

    def once(loop: tuple) -> tuple:
        reached, distance, rounds, _ = loop
        wider = spread(reached, sets.free)
        distance = jnp.where(cells(wider & ~reached), rounds, distance)
        return wider, distance, rounds + 1, jnp.any(wider != reached)

    start = jnp.where(cells(sets.goal), 0, -1)
    loop = (sets.goal, start, jnp.int32(1), jnp.bool_(True))
    return jax.lax.while_loop(lambda loop: loop[3], once, loop)[1]


def features(level: Level) -> dict[str, Array]:
    """Scalars that describe a level; lengths are -1 where there is nothing to measure.

    The mean distances are in cells to the goal: of the cells from which it can be reached, of the
    moss among them, and of the lava beside them, which is one further than the nearest of its
    neighbours that can reach the goal.
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
    """The sets of cells of a cave."""
    return sets_of(level.blocked, level.height, level.start, level.goal)


def _nearest_neighbour(distance: Int[Array, "H W"]) -> Int[Array, "H W"]:
    """The least distance among a cell's four neighbours; -1 if none has one."""
    far = distance.size
    padded = jnp.pad(jnp.where(distance < 0, far, distance), 1, constant_values=far)
    vertical = jnp.minimum(padded[:-2, 1:-1], padded[2:, 1:-1])
    horizontal = jnp.minimum(padded[1:-1, :-2], padded[1:-1, 2:])
    nearest = jnp.minimum(vertical, horizontal)
    return jnp.where(nearest == far, -1, nearest)


def _mean(x: Int[Array, "H W"], where: Bool[Array, "H W"]) -> Float[Array, ""]:
    total, num = jnp.where(where, x, 0).sum(), where.sum()
    return jnp.where(num > 0, total / jnp.maximum(num, 1), -1.0)
