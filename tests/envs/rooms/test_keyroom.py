"""Key rooms: plans, a worked example, and features that are shared by all levels."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlgen.envs.grid.rows import INTERACT, unpack_rows
from rlgen.envs.rooms import keyroom

NUM_LEVELS, SIZE = 256, 10
MOVES = ((1, 0), (0, 1), (-1, 0), (0, -1))


@pytest.fixture(scope="module")
def sampled():
    env = keyroom.build()
    keys = jax.random.split(jax.random.key(0), NUM_LEVELS)
    levels = jax.tree.map(np.asarray, jax.jit(jax.vmap(env.sample_level))(keys))
    walls = jax.vmap(lambda rows: unpack_rows(rows, SIZE, SIZE))(jnp.asarray(levels.walls))
    return env, levels, np.asarray(walls)


def test_a_locked_room_stands_in_the_room(sampled):
    _, levels, walls = sampled
    doors, corners = [], []
    for i, wall in enumerate(walls):
        (x, y), goal = levels.doors[i, 0], levels.goal[i]
        ring = wall.copy()
        ring[y, x] = True
        rows, columns = np.flatnonzero(ring.any(1)), np.flatnonzero(ring.any(0))
        assert rows[-1] - rows[0] == columns[-1] - columns[0] == 4
        inside = np.zeros_like(ring)
        inside[rows[1] : rows[-1], columns[1] : columns[-1]] = True
        box = np.zeros_like(ring)
        box[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] = True
        assert (ring == (box & ~inside)).all()
        near = [(x + dx, y + dy) for dx, dy in MOVES]
        within = [(a, b) for a, b in near if 0 <= a < SIZE and 0 <= b < SIZE]
        assert sum(bool(inside[b, a]) for a, b in within) == 1  # not a corner
        assert sum(not box[b, a] for a, b in within) == 1  # one free cell in front of it
        assert inside[goal[1], goal[0]]
        for cell in (levels.start[i], levels.keys[i, 0]):
            assert not box[cell[1], cell[0]]
        assert (levels.start[i] != levels.keys[i, 0]).any()
        doors.append((int(x) - columns[0], int(y) - rows[0]))
        corners.append((columns[0], rows[0]))
    assert len(set(doors)) == 12 and len(set(corners)) == 36


def test_every_level_can_be_solved_in_time(sampled):
    env, levels, _ = sampled
    solution = jax.jit(jax.vmap(env.solve))(levels)
    assert solution.solvable.all() and (solution.optimal_return == 1).all()
    distance = np.abs(levels.start - levels.keys[:, 0]).sum(1)
    distance += np.abs(levels.keys[:, 0] - levels.doors[:, 0]).sum(1)
    distance += np.abs(levels.doors[:, 0] - levels.goal).sum(1)
    least = distance + 2  # taking the key and opening the door take one step each
    assert (solution.steps >= least).all() and (solution.steps == least).mean() > 0.3


@pytest.mark.thorough
def test_a_game_by_hand():
    """The key is to the right of the agent, then come the door and the goal behind it."""
    cells = np.zeros((5, 5), bool)
    cells[3] = cells[:, 3] = True
    env = keyroom.build(size=5, inner=1, max_steps=24)
    level = jax.jit(env.sample_level)(jax.random.key(0)).replace(
        start=jnp.array([0, 1]),
        keys=jnp.array([[1, 1]]),
        doors=jnp.array([[3, 1]]),
        goal=jnp.array([4, 1]),
        walls=keyroom.pack(jnp.asarray(cells).at[1, 3].set(False), outside=True),
    )
    right, left = 0, 2
    actions = [left, INTERACT, right, INTERACT, right, right, INTERACT, right, right]
    expected = [5, 0, 1, 2, 0, 3, 4, 6, 7]
    step = jax.jit(env.step_env)
    obs, state = env.reset_env(jax.random.key(0), level)
    for time, (action, event) in enumerate(zip(actions, expected, strict=True), 1):
        obs, state, reward, terminated, _ = step(jax.random.key(1), state, action, level)
        assert (env.event(state, level), state.time) == (event, time)
        assert (reward, terminated) == (event == 7, event == 7)
        vector = env.unpack(obs)["vector"]
        assert vector.argmax() == event and vector[-1] == (time >= 4)
    assert env.position(state, level) == 5 + 4
    assert jax.jit(env.solve)(level).steps == 6


def test_events_mean_the_same_on_all_levels_and_positions_do_not(sampled):
    env, levels, _ = sampled
    spread = {}
    for feature in ("event", "position"):
        of = jax.jit(jax.vmap(lambda level, f=feature: env.feature_values(level, f, 0.99)))
        value = np.asarray(of(levels))
        mean = value.mean(0)
        used = (mean > 0) & (mean < 1)
        spread[feature] = (value.var(0)[used] / (mean * (1 - mean))[used]).mean()
    assert spread["event"] < 0.02
    assert spread["position"] > 5 * spread["event"]


def test_an_unknown_feature_is_refused(sampled):
    env, levels, _ = sampled
    with pytest.raises(ValueError, match="feature='mood' is none of position, event"):
        env.feature_values(jax.tree.map(lambda x: jnp.asarray(x[0]), levels), "mood", 0.9)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"inner": 8}, "inner=8 is not in 1 .. 7"),
        ({"size": 3}, "size=3 is not in 4 .. 64"),
        ({"max_steps": 0}, "max_steps=0 is not in 1"),
    ],
)
def test_rooms_that_cannot_be_are_refused(fields, message):
    with pytest.raises(ValueError, match=message.replace(".", r"\.")):
        keyroom.build(**fields)
