"""Vaults: plans, locks that cannot be passed without their keys, and the single level."""

import jax
import numpy as np
import pytest

from rlgen.envs.grid.rows import unpack_rows
from rlgen.envs.rooms import vault, vault_generator

SEEDS = range(6)
KEY = jax.random.key(0)
DESIGN = vault_generator.Design(6, 4, 7, 0.15, 180, 320)
MOVES = ((1, 0), (0, 1), (-1, 0), (0, -1))


@pytest.fixture(scope="module")
def plans():
    return [vault_generator.draw_plan(seed, DESIGN) for seed in SEEDS]


def flood(plan, closed=()):
    """Cells that can be reached if all doors except the given closed ones are open."""
    free = ~(plan.walls | plan.lava)
    for i in closed:
        x, y = plan.doors[i]
        free[y, x] = False
    reached = np.zeros_like(free)
    reached[plan.start[1], plan.start[0]] = True
    grows = True
    while grows:
        before = reached.sum()
        for dx, dy in MOVES:  # the outer walls keep roll from wrapping around
            reached |= np.roll(reached, (dy, dx), (0, 1)) & free
        grows = reached.sum() > before
    return reached


def test_every_door_needs_its_key(plans):
    for plan in plans:
        assert flood(plan)[plan.goal[1], plan.goal[0]]
        for i in range(3):
            before = flood(plan, [i])
            assert not before[plan.goal[1], plan.goal[0]]
            assert before[plan.keys[i][1], plan.keys[i][0]]
            later = [plan.doors[j] for j in range(3) if j > i]
            assert not any(before[y, x] for x, y in later)


def test_rooms_are_joined_as_a_tree(plans):
    for plan in plans:
        assert plan.walls.shape == (33, 49)
        lines = np.zeros_like(plan.walls)
        lines[::8], lines[:, ::8] = True, True
        doorways = np.argwhere(~plan.walls & lines)
        assert len(doorways) == 23
        assert (~plan.walls).sum() == 24 * 49 + 23
        for y, x in doorways:
            assert not any(plan.lava[y + dy, x + dx] for dx, dy in MOVES)
        assert not (plan.lava & plan.walls).any()
        assert 0.1 < plan.lava.sum() / (24 * 49) < 0.15


@pytest.mark.thorough
def test_solutions_are_as_long_as_wanted(plans):
    """The bit-parallel search and a plain one agree, also with lava."""
    for seed, plan in zip(SEEDS, plans, strict=True):
        way = vault_generator.solution(plan)
        assert 180 <= len(way) - 1 <= 320
        assert len({tuple(cell) for cell in plan.keys}) == 3
        if seed < 2:
            env = vault.build(seed=seed)
            solution = jax.jit(env.solve)(env.sample_level(KEY))
            assert (solution.steps, solution.optimal_return) == (len(way) - 1, 1)


def test_there_is_one_level_for_a_seed():
    levels = [
        jax.jit(vault.build(seed=seed).sample_level)(jax.random.key(key))
        for seed, key in ((0, 0), (0, 1), (1, 0))
    ]
    same, other = (
        all((a == b).all() for a, b in zip(*map(jax.tree.leaves, pair), strict=True))
        for pair in (levels[:2], levels[1:])
    )
    assert same and not other


def test_the_level_is_the_plan(plans):
    level = vault.build().sample_level(KEY)
    assert (unpack_rows(level.walls, 33, 49) == plans[0].walls).all()
    assert (unpack_rows(level.lava, 33, 49) == plans[0].lava).all()
    assert (level.doors == plans[0].doors).all() and (level.keys == plans[0].keys).all()
    assert level.locks.tolist() == [1, 2, 4]


@pytest.mark.thorough
def test_the_suite_of_others_has_other_levels():
    env = vault.build(columns=3, rows=2, room_size=3, max_steps=80)
    suite = env.suites()["others"]()
    assert len(suite.levels) == 8 == len({tuple(h) for h in np.asarray(suite.levels.hash).tolist()})
    assert (suite.levels.optimal_return == 1).all()
    hashed = np.asarray(env.suites()["seen"]().levels.hash)
    assert hashed[0].tolist() not in np.asarray(suite.levels.hash).tolist()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"columns": 8, "rows": 8}, "make a grid of \\(65, 65\\) cells"),
        ({"lava": 0.6}, "lava=0.6 is not in 0.0 .. 0.5"),
        ({"room_size": 2}, "room_size=2 is not in 3 .. 15"),
    ],
)
def test_vaults_that_cannot_be_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        vault.build(**fields)


def test_a_vault_without_a_fitting_solution_is_refused():
    env = vault.build(columns=2, rows=2)  # too few rooms on the path for three doors
    with pytest.raises(ValueError, match=r"needs 180 \.\. 320 steps; use more rooms"):
        env.sample_level(jax.random.key(0))
