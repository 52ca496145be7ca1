"""Mazes as a family: distribution, edits, exact solutions, hashes and features."""

import collections
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlgen.envs.maze import Maze, check_levels, make_level, to_grid

AHEAD = [(1, 0), (0, 1), (-1, 0), (0, -1)]


def breadth_first(walls, start, direction, goal, turns):
    """Fewest moves to the goal, with or without turns; -1 if it cannot be reached."""
    height, width = walls.shape
    first = (*start, direction)
    distance, queue = {first: 0}, collections.deque([first])
    while queue:
        x, y, d = here = queue.popleft()
        facing = [d] if turns else range(4)
        ways = [(x + AHEAD[f][0], y + AHEAD[f][1], d) for f in facing]
        ways = [(a, b, f) for a, b, f in ways if 0 <= a < width and 0 <= b < height]
        ways = [way for way in ways if not walls[way[1], way[0]]]
        for way in ways + ([(x, y, (d + 1) % 4), (x, y, (d - 1) % 4)] if turns else []):
            if way not in distance:
                distance[way] = distance[here] + 1
                queue.append(way)
            if way[:2] == tuple(goal):
                return distance[way]
    return -1


def sampled(env, num_levels, seed=0):
    return jax.jit(jax.vmap(env.sample_level))(jax.random.split(jax.random.key(seed), num_levels))


def features(env, levels):
    return jax.tree.map(np.asarray, jax.jit(jax.vmap(env.level_features))(levels))


def names(levels):
    return tuple(str(i) for i in range(len(levels.start)))


@pytest.mark.thorough
@pytest.mark.parametrize(("height", "width", "num_walls"), [(13, 13, 55), (7, 40, 90), (30, 3, 20)])
def test_solver_equals_breadth_first_search(height, width, num_walls):
    env = Maze(height, width, num_walls)
    levels = sampled(env, 100)
    found, grids = features(env, levels), jax.vmap(to_grid)(levels)
    walls, starts, directions, goals = (np.asarray(x) for x in grids)
    for i in range(100):
        maze = walls[i], starts[i], directions[i], goals[i]
        assert found["optimal_steps"][i] == breadth_first(*maze, turns=True)
        assert found["path_length"][i] == breadth_first(*maze, turns=False)
        assert found["solvable"][i] == (found["path_length"][i] >= 0)
        assert found["num_walls"][i] == walls[i].sum()
        assert found["distance"][i] == abs(starts[i] - goals[i]).sum()
    assert 0 < found["solvable"].sum() < 100


def test_solver_finds_the_long_way_through_a_comb_of_101_by_101():
    walls = np.zeros((101, 101), bool)
    walls[1::4, :-1] = walls[3::4, 1:] = True  # a single corridor that winds back and forth
    level = make_level(walls, (0, 0), 0, (100, 100), 20_000)
    solution = jax.jit(Maze(101, 101).solve)(level)
    # 51 corridors of 100 moves, and 50 changes of corridor with 2 moves and 2 turns each
    assert (
        int(solution.steps)
        == 51 * 100 + 50 * 4
        == breadth_first(walls, (0, 0), 0, (100, 100), True)
    )
    np.testing.assert_allclose(solution.optimal_return, 1 - 0.9 * 5300 / 20_000, rtol=1e-6)


@pytest.mark.thorough
def test_labyrinth_takes_96_cells_and_113_steps():
    rows = "0000 0FFE 0802 0BFA 0A0A 0AEA 0AAA 0AAA 088A 0FFA 0082 1EBE 0080"
    walls = np.array(
        [[int(row, 16) >> (12 - x) & 1 for x in range(13)] for row in rows.split()], bool
    )
    env, level = Maze(), make_level(walls, (0, 12), 0, (6, 6))
    found = jax.jit(env.level_features)(level)
    assert (int(found["path_length"]), int(found["optimal_steps"])) == (96, 113)
    np.testing.assert_allclose(env.solve(level).optimal_return, 0.5932, atol=1e-6)
    hurried = env.solve(replace(level, max_steps_in_episode=jnp.int32(112)))
    assert (
        bool(hurried.solvable) and int(hurried.steps) == 113 and float(hurried.optimal_return) == 0
    )
    assert float(Maze(penalize_time=False).solve(level).optimal_return) == 1


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("num_walls", "distinct", "solvable", "path", "steps", "late"),
    [(25, 23.3, 0.996, 9.0, 11.4, 20), (60, 50.6, 0.846, 10.8, 14.9, 29)],
)
def test_random_mazes_have_the_published_statistics(
    num_walls, distinct, solvable, path, steps, late
):
    # Tolerances: three standard errors of the difference between two means over 3,000 levels.
    found = features(Maze(num_walls=num_walls), sampled(Maze(num_walls=num_walls), 3000, seed=3))
    solved = found["solvable"]
    error = np.sqrt(2 / 3000) * 3
    for values, expected in (
        (found["num_walls"], distinct),
        (found["path_length"][solved], path),
        (found["optimal_steps"][solved], steps),
    ):
        assert abs(values.mean() - expected) < 0.05 + error * values.std()
    assert abs(solved.mean() - solvable) < error * np.sqrt(solvable * (1 - solvable))
    assert abs(np.percentile(found["optimal_steps"][solved], 95) - late) <= 1


def test_agent_goal_and_walls_are_uniform_over_the_cells():
    levels = sampled(Maze(4, 5, 6), 8000)
    grids = jax.vmap(to_grid)(levels)
    for cells in (grids.start, grids.goal):
        count = np.bincount(np.asarray(cells[:, 1] * 5 + cells[:, 0]), minlength=20)
        assert abs(count - 400).max() < 5 * np.sqrt(400)
    chance = 1 - (19 / 20) ** 6
    assert abs(np.asarray(grids.walls).mean(0) - chance).max() < 5 * np.sqrt(chance / 8000)
    assert abs(np.bincount(grids.direction) - 2000).max() < 5 * np.sqrt(2000)


@pytest.mark.thorough
@pytest.mark.parametrize(
    "env",
    [Maze(), Maze(num_walls=0), Maze(1, 3, 1), Maze(40, 33, 600), Maze(sample_num_walls=True)],
)
def test_sampled_mazes_are_well_formed(env):
    levels = sampled(env, 200)
    check_levels(levels, names(levels))
    count = np.asarray(jax.vmap(to_grid)(levels).walls).sum((1, 2))
    assert count.max() <= env.num_walls
    if env.sample_num_walls:
        assert count.min() == 0 and abs(count.mean() - 11.9) < 2


@pytest.mark.thorough
@pytest.mark.parametrize("num_edits", [1, 6])
def test_flips_change_at_most_one_wall_or_the_goal_an_edit(num_edits):
    env = Maze(num_walls=40)
    levels = sampled(env, 3000)
    edited = jax.jit(lambda key, x: env.mutate_levels(key, x, num_edits))(jax.random.key(1), levels)
    check_levels(edited, names(edited))
    before, after = jax.vmap(to_grid)(levels), jax.vmap(to_grid)(edited)
    flipped = np.asarray(before.walls != after.walls).sum((1, 2))
    moved = np.asarray(before.goal != after.goal).any(1)
    np.testing.assert_array_equal(before.start, after.start)
    assert (flipped + moved).max() <= num_edits
    if num_edits == 1:  # with probability 1/3 each: no change, a wall, the goal
        for kind in (flipped == 1, moved):
            assert abs(kind.mean() - 1 / 3) < 4 * np.sqrt(2 / 9 / 3000)
        removed = np.asarray(before.walls & ~after.walls).sum() / flipped.sum()
        assert abs(removed - np.asarray(before.walls).sum() / 3000 / 167) < 0.06


@pytest.mark.thorough
def test_cell_edits_rewrite_at_most_as_many_cells_and_replace_what_they_removed():
    env = Maze(mutation="cells", num_walls=40)
    levels = sampled(env, 3000)
    edited = jax.jit(lambda key, x: env.mutate_levels(key, x, 5))(jax.random.key(1), levels)
    check_levels(edited, names(edited))
    before, after = jax.vmap(to_grid)(levels), jax.vmap(to_grid)(edited)
    assert np.asarray(before.walls != after.walls).sum((1, 2)).max() == 5
    # Each of 4.94 distinct cells (on average) becomes a wall with probability 1/3.
    density = np.asarray(before.walls).mean()
    change = np.asarray(after.walls).sum() / 3000 - np.asarray(before.walls).sum() / 3000
    assert abs(change - 4.94 * (1 / 3 - density)) < 0.1
    # The goal moves if one of the cells became the goal, or if its own cell was rewritten.
    moved = np.asarray(before.goal != after.goal).any(1).mean()
    assert abs(moved - (1 - (2 / 3) ** 4.94)) < 0.05
    displaced = np.asarray(before.start != after.start).any(1).mean()
    assert abs(displaced - 4.94 / 169) < 0.015


@pytest.mark.thorough
@pytest.mark.parametrize("mutation", ["flip", "cells"])
@pytest.mark.parametrize("size", [(1, 2), (5, 5)])
def test_edits_keep_the_smallest_and_the_fullest_mazes_well_formed(mutation, size):
    env = Maze(*size, num_walls=size[0] * size[1] - 2, mutation=mutation)
    levels = sampled(env, 200)
    edit = jax.jit(lambda key, x: env.mutate_levels(key, x, 12))
    for seed in range(5):
        levels = edit(jax.random.key(seed), levels)
        check_levels(levels, names(levels))


def test_hash_tells_mazes_apart_and_forgets_the_time_limit():
    env = Maze()
    levels = sampled(env, 2000)
    hashes = np.asarray(jax.jit(jax.vmap(env.level_hash))(levels))
    assert len(np.unique(hashes, axis=0)) == 2000
    grid = to_grid(jax.tree.map(lambda x: x[0], levels))
    again = make_level(*grid, max_steps=7)
    np.testing.assert_array_equal(env.level_hash(again), hashes[0])
    for other in (
        grid._replace(direction=(grid.direction + 1) % 4),
        grid._replace(start=grid.goal, goal=grid.start),
    ):
        assert (np.asarray(env.level_hash(make_level(*other))) != hashes[0]).any()
