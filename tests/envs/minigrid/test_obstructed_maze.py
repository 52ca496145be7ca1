"""Obstructed mazes: invariants of all levels, and solvability of each, shown by playing it."""

from dataclasses import replace
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlgen import registry
from rlgen.envs.minigrid import base, obstructed_maze
from rlgen.envs.minigrid.level import BALL, BLUE, BOX, GREEN, GREY, KEY, first_state
from rlgen.envs.minigrid.obstructed_maze import VARIANTS, ObstructedMaze
from tests.standins.minigrid_worlds import AHEAD, LOCKED, Walker, World, fewest_steps

LIMITS = {"1": 288, "2": 576, "1q": 720, "2q": 1584, "full": 3600}  # values of upstream
LOCKS = {"1": 1, "2": 2, "1q": 2, "2q": 4, "full": 8}
RECORDED = [[70918501, 3298384920], [873952990, 1555636341]]


def size_of(name):
    return name if name in LIMITS else name[0]


def one(levels, i):
    return jax.tree.map(lambda x: np.asarray(x)[i], levels)


@cache
def some(name):
    """Draw 200 levels; only the generator is compiled for each variant."""
    return jax.device_get(base.draw(ObstructedMaze(name), f"test/{name}", 200))


@pytest.mark.thorough
@pytest.mark.parametrize(("name", "num"), [("1dlhb", 40), ("2dlhb", 20), ("full", 2)])
def test_levels_can_be_solved(name, num):
    for i in range(num):
        level = one(some(name), i)
        assert len(Walker(World(level)).solve()) < level.max_steps_in_episode


def test_no_way_round_the_lock():
    """Exhaustive search in one room with a locked door and the ball behind it, drops included."""
    world = World(one(some("1dl"), 0))
    walked = len(Walker(world).solve())
    keyless = World(one(some("1dl"), 0))
    keyless.doors = {cell: (d, colour + 7) for cell, (d, colour) in keyless.doors.items()}
    with pytest.raises(AssertionError, match="no way to success"):
        fewest_steps(keyless, actions=(0, 1, 2, 3, 5))
    assert fewest_steps(world) <= walked


@pytest.mark.parametrize("name", ["1dl", "1dlhb", "2dlhb", "full"])
def test_levels_are_as_upstream_makes_them(name):
    levels, locks = some(name), LOCKS[size_of(name)]
    hidden, blocked = "h" in name or name == "full", "b" in name or name == "full"
    cells, codes, inside = levels.object_cell, levels.object_code, levels.content_code
    assert (codes[:, 0] == 8 * BALL + BLUE).all() and (levels.target == 1).all()
    assert codes.shape[1] == 1 + locks * (1 + blocked)
    colours = levels.door_colour[:, -locks:]  # locked doors come last
    num_doors = levels.door_cell.shape[1]
    assert (levels.locked == (1 << num_doors) - (1 << num_doors - locks)).all()
    keys = (inside if hidden else codes)[:, 1 : 1 + locks]
    assert (keys == 8 * KEY + colours).all()
    assert not hidden or (codes[:, 1 : 1 + locks] == 8 * BOX + GREY).all()
    assert (codes[:, 1 + locks :] == 8 * BALL + GREEN).all()
    assert all(len(set(row)) == len(row) for row in cells), "two objects share a cell"
    for i in range(40):
        check_places(one(levels, i), locks, blocked)


def check_places(level, locks, blocked):
    """Each key is in a room next to its door, and so is the ball that blocks the door."""
    world = World(level)
    rooms = [at[0] // 5 + 3 * (at[1] // 5) for at, _ in world.first.things]
    doors = [divmod(int(cell), 32)[::-1] for cell in level.door_cell[-locks:]]
    for k, (x, y) in enumerate(doors):
        beside = [((x + dx) // 5 + 3 * ((y + dy) // 5), (x + dx, y + dy)) for dx, dy in AHEAD]
        floor = [(room, cell) for room, cell in beside if cell not in world.walls]
        near = [cell for room, cell in floor if room == rooms[1 + k]]
        assert len(floor) == 2 and len(near) == 1, "the key is not in a room next to its door"
        assert not blocked or world.first.things[1 + locks + k][0] == near[0]
    assert world.is_empty(world.first, world.first.cell)
    ahead = world.ahead(world.first)
    assert ahead in world.walls or world.is_empty(world.first, ahead)


def test_the_target_is_in_any_enabled_corner():
    def corners(name):
        cell = some(name).object_cell[:, 0]
        return np.unique(np.stack([cell % 32 // 5, cell // 32 // 5]), axis=1, return_counts=True)

    assert corners("2dlhb")[0].T.tolist() == [[2, 0]]
    where, counts = corners("full")
    assert where.T.tolist() == [[0, 0], [0, 2], [2, 0], [2, 2]]
    assert (abs(counts - 50) < 5 * np.sqrt(50)).all()


def test_nothing_lies_where_upstreams_agent_waits():
    """With two rooms this is the cross around (8, 3), the middle of the right room."""
    cell = some("1dl").object_cell[:, 0]
    x, y = cell % 32, cell // 32
    assert (abs(x - 8) + abs(y - 3) >= 2).all()
    assert len(set(cell)) == 16 - 5, "a free cell was never chosen"


@pytest.mark.parametrize("name", VARIANTS)
def test_variants_have_upstreams_sizes(name):
    env = registry.make_env(f"obstructed-maze/{name}")
    level = jax.eval_shape(env.sample_level, jax.random.key(0))
    num_plain = {"1": 0, "2": 1, "1q": 1, "2q": 2, "full": 4}[size_of(name)]
    assert level.door_cell.shape == (num_plain + LOCKS[size_of(name)],)
    assert env.num_positions() == (6 * 11 if name[:3] == "1dl" else 16 * 16)


@pytest.mark.parametrize("name", ["1dl", "2dlhb", "full"])
def test_limits_are_upstreams(name):
    assert (some(name).max_steps_in_episode == LIMITS[size_of(name)]).all()


def test_opening_a_box_shows_the_key_where_it_was():
    """Worked example: face the box, open it, take the key; only this key opens the lock."""
    env = obstructed_maze.tiny()
    level = jax.tree.map(jnp.asarray, one(some("1dlhb"), 0))
    walker = Walker(World(level))
    (_, box, _) = walker.things(BOX)[0]
    walker.face(box)
    state = _state_of(level, walker)
    step = jax.jit(lambda state, action: env.step_env(jax.random.key(0), state, action, level))
    obs, state, *_ = step(state, 5)
    image = env.unpack(obs)["image"] * 10
    key = int(level.content_code[1]) & 7
    np.testing.assert_allclose(image[3, 5], [5, key, 0], atol=1e-5)
    assert state.event == obstructed_maze.EVENTS.index("opened a box")
    obs, state, *_ = step(state, 3)
    image = env.unpack(obs)["image"] * 10
    np.testing.assert_allclose(image[3, 5:], [[1, 0, 0], [5, key, 0]], atol=1e-5)
    assert walker.now.doors == (LOCKED,)


def _state_of(level, walker):
    state = first_state(level)
    (x, y), direction = walker.now.cell, walker.now.direction
    return replace(state, x=jnp.int32(x), y=jnp.int32(y), direction=jnp.int32(direction))


def test_a_suite_is_the_same_each_time():
    suite = obstructed_maze.tiny().suites()["1dlhb"]()
    assert len(suite.levels) == 100 and suite.env == ObstructedMaze("1dlhb")
    assert suite.levels.hash[:2].tolist() == RECORDED  # must never change


def test_an_unknown_kind_is_refused():
    with pytest.raises(ValueError, match="kind='3q' is none of 1dl, 1dlh"):
        ObstructedMaze("3q")
