"""Key corridors: invariants of all levels, and the solver against exhaustive search."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlgen import registry
from rlgen.envs.minigrid import key_corridor
from rlgen.envs.minigrid.corridor_generator import num_draws
from rlgen.envs.minigrid.key_corridor import VARIANTS, KeyCorridor
from rlgen.envs.minigrid.level import BALL, KEY, NOWHERE, to_walls
from tests.standins.minigrid_worlds import AHEAD, World, fewest_steps

NUM = 600
ENV = KeyCorridor(room_size=3, num_rows=2)
RECORDED = [[2042892468, 1253890472], [3431363238, 4033803997]]


def one(levels, i):
    return jax.tree.map(lambda x: np.asarray(x)[i], levels)


@pytest.fixture(scope="module")
def levels():
    return jax.device_get(
        jax.jit(jax.vmap(ENV.sample_level))(jax.random.split(jax.random.key(1), NUM))
    )


@pytest.fixture(scope="module")
def solutions(levels):
    return jax.device_get(jax.jit(jax.vmap(ENV.solve))(levels))


def room(cell):
    """Return column and row of the room of a cell that is not in a wall."""
    return cell % 32 // 2, cell // 32 // 2


@pytest.mark.thorough
def test_the_solver_is_exact(levels, solutions):
    """The reference search includes dropping the key anywhere and closing doors."""
    for i in range(12):
        assert solutions.steps[i] == fewest_steps(World(one(levels, i)))
    assert solutions.solvable.all() and (solutions.optimal_return == 1).all()


def test_a_single_row_by_hand():
    """The corridor and both rooms have one cell each.

    The solution is: turn left; open, forward, take the key; turn twice, forward, unlock; forward
    into the door, turn twice, drop the key into the corridor, turn twice, take the ball.
    """
    env = KeyCorridor(room_size=3, num_rows=1)
    level = env.default_params
    assert (level.door_cell != NOWHERE).all() and level.start.tolist() == [3, 1]
    assert jax.jit(env.solve)(replace(level, direction=jnp.int32(3))).steps == 1 + 3 + 4 + 7


def test_levels_are_as_upstream_makes_them(levels):
    """One lock, its key on the left, the ball behind it on the right; all else is reachable."""
    lock = np.log2(levels.locked).astype(int)
    key, ball = levels.object_code.T
    assert (key >> 3 == KEY).all() and (ball >> 3 == BALL).all()
    colour = levels.door_colour[np.arange(NUM), lock]
    assert (key & 7 == colour).all() and set(ball & 7) == set(colour) == set(range(6))
    (key_x, key_y), (ball_x, ball_y) = (room(cell) for cell in levels.object_cell.T)
    assert (key_x == 0).all() and (ball_x == 2).all()
    assert (lock - 3 == ball_y).all()
    counts = np.bincount(2 * key_y + ball_y, minlength=4)
    assert (abs(counts - NUM / 4) < 5 * np.sqrt(NUM / 4)).all()
    assert (levels.max_steps_in_episode == 30 * 9).all()
    for i in range(100):
        check_connected(one(levels, i))


def check_connected(level):
    """All rooms except that of the ball can be reached without the key."""
    world = World(level)
    now = world.first
    assert tuple(level.start) not in world.walls and level.start[0] // 2 == 1
    found, stack = {now.cell}, [now.cell]
    while stack:
        x, y = stack.pop()
        for dx, dy in AHEAD:
            cell = x + dx, y + dy
            door = world.doors.get(cell)
            free = cell not in world.walls and (door is None or now.doors[door[0]] != 2)
            if free and cell not in found:
                found.add(cell)
                stack.append(cell)
    floor = {(x, y) for y in range(world.height) for x in range(world.width)} - world.walls
    lock = next(cell for cell, (d, _) in world.doors.items() if now.doors[d] == 2)
    assert floor - found == {lock, now.things[1][0]}
    # Only the locked door leads to the ball.
    x, y = now.things[1][0]
    doors_of_room = [cell for cell in world.doors if abs(cell[0] - x) + abs(cell[1] - y) == 1]
    assert doors_of_room == [lock]


def test_doors_are_added_in_random_order_until_all_is_connected(levels):
    """The number of doors has the distribution of a loop that adds random edges one by one."""
    rng = np.random.default_rng(0)
    # 1 is the corridor, 5 the room of the ball.
    edges = [(0, 1), (3, 1), (0, 3), (1, 2), (1, 5), (2, 5)]
    drawn = []
    for _ in range(4000):
        group, num = {0: 0, 1: 1, 2: 2, 3: 3, 5: 1}, 1
        order = [edges[e] for e in rng.permutation(6) if 5 not in edges[e]]
        for a, b in order:
            if len(set(group.values())) == 1:
                break
            num += 1
            group = {k: group[a] if g == group[b] else g for k, g in group.items()}
        drawn.append(num)
    ours = (levels.door_cell != NOWHERE).sum(1)
    expected = np.bincount(drawn, minlength=8) / len(drawn)
    found = np.bincount(ours, minlength=8) / NUM
    np.testing.assert_allclose(found, expected, atol=0.08)
    assert expected[4] > 0.3 and expected[5] > 0.2


def test_no_agent_starts_before_the_locked_door(levels):
    ahead = np.array(AHEAD)[levels.direction] + levels.start
    lock = levels.door_cell[np.arange(NUM), np.log2(levels.locked).astype(int)]
    assert (ahead[:, 1] * 32 + ahead[:, 0] != lock).all()
    rows = np.unique(levels.start[:, 1])  # as upstream, including the row of the removed wall
    assert list(rows) == [2, 3] and set(levels.direction) == {0, 1, 2, 3}


@pytest.mark.parametrize("name", VARIANTS)
def test_variants_have_upstreams_sizes(name):
    env = registry.make_env(f"key-corridor/{name}")
    size, rows = int(name[1]), int(name[3])
    level = jax.eval_shape(env.sample_level, jax.random.key(0))
    assert (env.room_size, env.num_rows) == (size, rows)
    assert env.num_positions() == (rows * (size - 1) + 1) * (3 * (size - 1) + 1)
    assert level.door_cell.shape == (4 * rows - 2,) and env.num_draws() == num_draws(rows)


def test_a_suite_is_the_same_each_time_and_solvable():
    suite = key_corridor.tiny().suites()["s3r3"]()
    levels = suite.levels
    assert len(levels) == 100 and suite.env == KeyCorridor(room_size=3, num_rows=3)
    assert (levels.optimal_steps > 0).all() and (levels.optimal_return == 1).all()
    # Recorded hashes: the stream must always produce the same levels.
    assert levels.hash[:2].tolist() == RECORDED
    assert to_walls(one(levels.level, 0)).sum() < 49


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"room_size": 2}, "room_size=2 is not in 3 .. 7"),
        ({"room_size": 6, "num_rows": 4}, "num_rows=4 is not in 1 .. 3"),
    ],
)
def test_bad_fields_are_refused(fields, sentence):
    with pytest.raises(ValueError, match=sentence):
        KeyCorridor(**fields)
