"""Chains of rooms, and rooms with shared goals: geometry, and structure shared by levels."""

from dataclasses import replace
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlgen.envs.checks import check_choices
from rlgen.envs.grid.rows import unpack_rows
from rlgen.envs.rooms import chain_generator, rho_rooms, rooms, wall_generator

NUM_LEVELS = 256


def sample(env, num=NUM_LEVELS, seed=0):
    levels = jax.jit(jax.vmap(env.sample_level))(jax.random.split(jax.random.key(seed), num))
    return jax.tree.map(np.asarray, levels)


def grids(levels, name, size):
    unpacked = jax.vmap(lambda rows: unpack_rows(rows, size, size))(
        jnp.asarray(getattr(levels, name))
    )
    return np.asarray(unpacked)


def shared_structure(values):
    """1 minus the shared structure of levels [C, Z]: mean of Var V / (V̄ (1 - V̄)) over features."""
    mean = values.mean(0)
    used = (mean > 0) & (mean < 1)
    return float((values.var(0)[used] / (mean * (1 - mean))[used]).mean())


@pytest.fixture(scope="module")
def chains():
    """Rooms and completeness of single attempts at six rooms of up to ten cells a side."""
    shape = chain_generator.Shape(6, 10, 25)
    draws = jax.random.uniform(jax.random.key(1), (1024, 6, 32, 5))
    found, complete = jax.jit(jax.vmap(lambda draw: chain_generator.attempt(draw, shape)))(draws)
    return jax.tree.map(np.asarray, found), np.asarray(complete)


@pytest.fixture(scope="module")
def six():
    env = rooms.build(doors="open")
    return env, sample(env)


def test_an_attempt_succeeds_as_often_as_measured(chains):
    """An independent program measured 52%; 3 standard errors of 1,024 attempts are 0.047."""
    assert abs(chains[1].mean() - 0.52) < 0.05


def test_rooms_touch_only_where_a_door_joins_them(chains):
    found, complete = chains
    for k in np.flatnonzero(complete)[:200]:
        chain = jax.tree.map(lambda x, k=k: x[k], found)
        box = [jax.tree.map(lambda x, i=i: x[i], chain.rooms) for i in range(6)]
        for i in range(6):
            check_room(box, i)
        assert tuple(chain.start) in covered(box[0], 1)
        assert tuple(chain.goal) in covered(box[5], 1)


def check_room(box, i):
    room, cells = box[i], covered(box[i])
    assert 4 <= room.width <= 10 and 4 <= room.height <= 10
    assert room.x >= 0 and room.x + room.width <= 25
    assert room.y >= 0 and room.y + room.height <= 25
    assert all(not cells & covered(box[j]) for j in range(i - 1))
    if i:
        shared = cells & covered(box[i - 1])
        assert tuple(room.door) in shared
        assert min(len({x for x, _ in shared}), len({y for _, y in shared})) == 1
        assert on_one_side(room, room.door) and on_one_side(box[i - 1], room.door)


def on_one_side(room, door):
    """Return whether a door is in a wall but not in a corner."""
    x, y = door[0] - room.x, door[1] - room.y
    return (x in (0, room.width - 1)) + (y in (0, room.height - 1)) == 1


def covered(room, margin=0):
    """Cells of a room, including its walls if the margin is 0."""
    return {
        (int(x), int(y))
        for x in range(room.x + margin, room.x + room.width - margin)
        for y in range(room.y + margin, room.y + room.height - margin)
    }


@pytest.mark.thorough
def test_six_rooms_are_as_large_as_measured(six):
    """An independent program measured 34 steps (mean), 42 (95%) and 126 free cells."""
    env, levels = six
    features = jax.jit(jax.vmap(env.level_features))(levels)
    steps = np.asarray(features["optimal_steps"])
    assert features["solvable"].all()
    assert abs(steps.mean() - 34) < 1.5
    assert abs(np.percentile(steps, 95) - 42) < 4
    assert abs(np.asarray(features["num_reached"]).mean() - 126) < 6
    assert (features["coverage"] == 240 / features["num_reached"]).all()


@pytest.mark.thorough
def test_all_but_rooms_and_doors_is_lava(six):
    _, levels = six
    free = ~grids(levels, "lava", 25)
    assert levels.walls.shape[1] == 0
    for i in range(32):
        reached = flood(free[i], levels.start[i])
        assert (reached == free[i]).all()
        assert all(free[i][y, x] for x, y in levels.doors[i])


def flood(free, start):
    reached = np.zeros_like(free)
    reached[start[1], start[0]] = True
    for _ in range(free.size):
        padded = np.pad(reached, 1)
        near = padded[2:, 1:-1] | padded[:-2, 1:-1] | padded[1:-1, 2:] | padded[1:-1, :-2]
        reached |= near & free
    return reached


def test_levels_have_as_much_in_common_as_measured(six):
    """An independent program measured 0 for one level, 0.70 for 3 and 0.81 for 200 levels."""
    env, levels = six
    value = jax.jit(jax.vmap(lambda level: env.feature_values(level, "position", 0.99)))(levels)
    value = np.asarray(value)
    assert shared_structure(value[:1]) == 0
    threes = [shared_structure(value[i : i + 3]) for i in range(0, 120, 3)]
    assert abs(np.mean(threes) - 0.70) < 0.06
    assert abs(shared_structure(value[:200]) - 0.81) < 0.06


@pytest.fixture(scope="module")
def four():
    env = rooms.build(num_rooms=4, max_room_size=5)
    return env, sample(env, 32)


@pytest.mark.thorough
def test_shut_doors_cost_a_step_each(four):
    env, levels = four
    solve = jax.jit(jax.vmap(env.solve))
    shut, ajar = solve(levels), solve(levels.replace(closed=np.zeros_like(levels.closed)))
    assert (levels.closed == 7).all()
    assert (shut.steps == ajar.steps + 3).all()
    assert (shut.optimal_return == 1).all()


@pytest.mark.thorough
def test_a_jammed_door_opens_one_time_in_three(four):
    env = replace(four[0], doors="locked", noise=True, clock=True)
    level = jax.tree.map(lambda x: jnp.asarray(x[0]), four[1])
    x, y = level.doors[0]
    lava = unpack_rows(level.lava, 25, 25)
    # Indexed by the move that leads to the door.
    before = [(x - 1, y), (x, y - 1), (x + 1, y), (x, y + 1)]
    action = next(a for a, (x, y) in enumerate(before) if not lava[y, x])
    x, y = before[action]
    zero = jnp.int32(0)
    state = rooms.State(x, y, zero, zero, zero, zero)
    step = jax.jit(jax.vmap(lambda key: env.step_env(key, state, action, level)))
    obs, after, *_ = step(jax.random.split(jax.random.key(1), 3000))
    assert abs(np.asarray(after.opened == 1).mean() - 1 / 3) < 0.03
    assert set(np.asarray(after.event).tolist()) == {3, 4}
    assert len(np.unique(obs.messages.noise)) > 2990 and (obs.messages.clock == 1).all()
    vector = env.unpack(obs)["vector"]
    assert (vector >= 0).all() and (vector <= 1).all()


def test_an_unknown_name_is_refused():
    # The type check of the tests would already reject it in a family.
    doors = SimpleNamespace(doors="ajar")
    with pytest.raises(ValueError, match="doors='ajar' is none of open, closed"):
        check_choices(doors, doors=("open", "closed"))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"num_rooms": 1}, "num_rooms=1 is not in 2 .. 10"),
        ({"max_room_size": 3}, "max_room_size=3 is not in 4 .. 22"),
        ({"size": 70}, "size=70 is not in 7 .. 64"),
        ({"num_rooms": 10, "size": 20}, "hardly fit into size=20"),
        ({"observation": "full", "occlusion": True}, "set it to False"),
    ],
)
def test_rooms_that_cannot_be_are_refused(fields, message):
    with pytest.raises(ValueError, match=message.replace(".", r"\.")):
        rooms.build(**fields)


@pytest.fixture(scope="module")
def half_shared():
    env = rho_rooms.build(sharing=0.5)
    return env, sample(env, 2048)


def test_goals_are_shared_as_often_as_said(half_shared):
    _, levels = half_shared
    assert (levels.walls == levels.walls[0]).all() and (levels.start == 0).all()
    shared = (levels.goal == 18).all(1)
    assert abs(shared.mean() - 0.5) < 0.04


def test_other_goals_are_anywhere_but_at_the_start(half_shared):
    _, levels = half_shared
    wall = grids(levels, "walls", 19)[0]
    assert 0.12 < wall.mean() < 0.22
    assert (flood(~wall, (0, 0)) == ~wall).all()
    goal = levels.goal[~(levels.goal == 18).all(1)]
    assert not wall[goal[:, 1], goal[:, 0]].any()
    met = np.zeros_like(wall)
    met[goal[:, 1], goal[:, 0]] = True
    num = (~wall).sum() - 2  # without the start and the shared corner
    assert abs(met.sum() / num - (1 - np.exp(-len(goal) / num))) < 0.02
    assert not met[0, 0]


def test_time_limits_follow_the_number_of_free_cells(half_shared):
    _, levels = half_shared
    free = (~grids(levels, "walls", 19)[0]).sum()
    assert (levels.max_steps_in_episode == free).all()
    short = jax.eval_shape(rho_rooms.build(coverage=0.25).sample_level, jax.random.key(0))
    assert short.max_steps_in_episode.shape == ()


def test_sharing_is_what_levels_have_in_common(half_shared):
    """Levels share everything at 1, and the less they share, the fewer goals are shared."""
    found = []
    for sharing in (0.0, 0.9, 1.0):
        env = rho_rooms.build(sharing=sharing)
        levels = sample(env, 128)
        value = jax.jit(jax.vmap(lambda x: half_shared[0].feature_values(x, "position", 0.99)))
        found.append(shared_structure(np.asarray(value(levels))))
    assert found[0] > found[1] + 0.02 > found[2] + 0.02
    assert found[2] < 1e-6


def test_fresh_layouts_are_connected():
    levels = sample(rho_rooms.build(layout="fresh", size=9), 64)
    wall = grids(levels, "walls", 9)
    assert len({each.tobytes() for each in wall}) == 64
    assert all((flood(~each, (0, 0)) == ~each).all() for each in wall)
    free = (~wall).sum((1, 2))
    assert (levels.max_steps_in_episode == free).all() and len(set(free.tolist())) > 3


def test_the_fixed_layout_is_what_the_bits_say():
    """Host and device agree on whether a layout is connected."""
    wall = jnp.asarray(wall_generator.fixed_layout(9))
    assert wall_generator.is_connected(wall)
    cut = wall.at[0, 1].set(True).at[1, 0].set(True)
    assert not wall_generator.is_connected(cut)
