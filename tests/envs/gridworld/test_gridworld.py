"""Episodes on grid worlds: rules, rates of random events, and observations."""

import dataclasses
import functools
from collections import deque
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlgen import registry
from rlgen.envs.gridworld import VARIANTS, GridWorld, Level, State, build
from rlgen.envs.gridworld.dynamics import path_length
from rlgen.envs.gridworld.level import DOWN, LEFT, RIGHT, STAY, UP
from rlgen.protocols import LevelEnv
from rlgen.testing import check_env

MOVES = {UP: (-1, 0), DOWN: (1, 0), LEFT: (0, -1), RIGHT: (0, 1), STAY: (0, 0)}
NUM_LEVELS, NUM_STEPS = 256, 60
KEY = jax.random.key(3)


class Walks(NamedTuple):
    """Random episodes that continue after termination, as NumPy arrays [levels, steps, ...]."""

    level: Level
    state: State  # [levels, steps + 1]
    obs: Any
    action: Any
    reward: Any
    terminated: Any


@functools.cache
def walks(mode):
    env = GridWorld(mode)

    def walk(key):
        key_level, key_reset, key_act, key_step = jax.random.split(key, 4)
        level = env.sample_level(key_level)
        obs, state = env.reset_env(key_reset, level)
        action = jax.random.randint(key_act, (NUM_STEPS,), 0, 5)

        def step(state, now):
            obs, state, reward, terminated, _ = env.step_env(now[0], state, now[1], level)
            return state, (obs, state, reward, terminated)

        keys = jax.random.split(key_step, NUM_STEPS)
        _, (later, states, reward, terminated) = jax.lax.scan(step, state, (keys, action))

        def join(first, rest):
            return jnp.concatenate([first[None], rest])

        obs, states = (jax.tree.map(join, *x) for x in ((obs, later), (state, states)))
        return Walks(level, states, obs, action, reward, terminated)

    found = jax.jit(jax.vmap(walk))(jax.random.split(KEY, NUM_LEVELS))
    return jax.tree.map(np.asarray, found)


def row(tree, *i):
    return jax.tree.map(lambda x: x[i], tree)


def bits(present, num):
    return [bool(present >> i & 1) for i in range(num)]


def moved(level, pos, action):
    """Return the cell after a move, computed with rows and columns."""
    size = int(level.size)
    place = [x + d for x, d in zip(divmod(int(pos), size), MOVES[action], strict=True)]
    outside = min(place) < 0 or max(place) >= size
    if outside or level.walls[place[0] * size + place[1]]:
        return pos
    return place[0] * size + place[1]


@pytest.mark.thorough
@pytest.mark.parametrize("mode", ["small", "longer", "labyrinth", "rand-small", "rand-all"])
def test_every_step_follows_the_rules(mode):
    played, num = walks(mode), GridWorld(mode).max_objects
    collections = 0
    for i in range(32):
        level = row(played.level, i)
        for t in range(NUM_STEPS):
            before, after = row(played.state, i, t), row(played.state, i, t + 1)
            assert after.pos == moved(level, before.pos, int(played.action[i, t]))
            there, then = bits(before.present, num), bits(after.present, num)
            got = [there[k] and before.object_pos[k] == after.pos for k in range(num)]
            kinds = [level.object_type[k] for k in range(num) if got[k]]
            np.testing.assert_allclose(played.reward[i, t], sum(level.reward[kinds]), rtol=1e-6)
            assert not any(g and x for g, x in zip(got, then, strict=True)), (
                "an object reappeared at once"
            )
            stays = [x for x, g, was in zip(then, got, there, strict=True) if was and not g]
            assert all(stays), "an object vanished"
            assert not any(then[level.num_objects :]), "more objects than the level has"
            if played.terminated[i, t]:
                assert sum(level.terminate_prob[kinds]) > 0
            assert after.time == t + 1
            collections += sum(got)
    assert collections > 2


@pytest.mark.thorough
@pytest.mark.parametrize("mode", ["small", "dense", "rand-dense"])
def test_objects_return_and_end_episodes_as_often_as_the_level_says(mode):
    """Counts lie within four standard deviations of the sums of their probabilities."""
    played, num = walks(mode), GridWorld(mode).max_objects
    level = played.level
    there = (played.state.present[..., None] >> np.arange(num) & 1).astype(bool)
    got = there[:, :-1] & (played.state.object_pos[:, :-1] == played.state.pos[:, 1:, None])
    used = np.arange(num) < level.num_objects[:, None]
    respawn, terminate = (
        np.take_along_axis(x, level.object_type, 1)[:, None]
        for x in (level.respawn_prob, level.terminate_prob)
    )
    absent = ~there[:, :-1] & used[:, None]
    ended = (got * terminate).sum(-1)
    for events, prob in (
        (there[:, 1:][absent], np.broadcast_to(respawn, absent.shape)[absent]),
        (played.terminated.ravel(), ended.ravel()),
    ):
        spread = np.sqrt((prob * (1 - prob)).sum())
        assert spread > 3
        assert abs(events.sum() - prob.sum()) < 4 * spread


def worked(**changes):
    """A 3 x 3 grid with arrays as in `debug`: start in a corner, an object of 0.5 next to it."""
    level = GridWorld("debug").default_params.replace(
        size=jnp.int32(3),
        walls=jnp.zeros(16, bool).at[3].set(True),
        start=jnp.int32(0),
        num_objects=jnp.int32(1),
        object_type=jnp.zeros(2, jnp.int32),
        object_pos=jnp.array([1, -1]),
        reward=jnp.array([0.5, 0.0]),
        terminate_prob=jnp.zeros(2),
        respawn_prob=jnp.array([1.0, 0.0]),
        max_steps_in_episode=jnp.int32(4),
    )
    return level.replace(**changes)


def play(level, *actions, mode="debug"):
    env, found = GridWorld(mode), []
    _, state = env.reset_env(KEY, level)
    for action in actions:
        _, state, reward, terminated, _ = env.step_env(KEY, state, jnp.int32(action), level)
        truncated = bool(env.is_truncated(state, level))
        found.append((int(state.pos), float(reward), bool(terminated), truncated))
    return found


def test_an_object_comes_back_under_the_agent_a_step_later():
    played = play(worked(), DOWN, RIGHT, STAY, STAY)
    assert [step[:2] for step in played] == [(0, 0.0), (1, 0.5), (1, 0.0), (1, 0.5)]


def test_the_time_limit_truncates_and_only_objects_terminate():
    assert play(worked(), RIGHT, STAY, STAY, STAY)[-1] == (1, 0.0, False, True)
    certain = worked(terminate_prob=jnp.array([1.0, 0.0]))
    assert play(certain, STAY, RIGHT) == [(0, 0.0, False, False), (1, 0.5, True, False)]


def test_the_end_and_a_return_are_independent():
    """One object is collected (ends with 0.3) while another is absent (respawns with 0.4)."""
    env = GridWorld("debug")
    level = worked(
        num_objects=jnp.int32(2),
        object_pos=jnp.array([1, 8]),
        terminate_prob=jnp.array([0.3, 0.0]),
        respawn_prob=jnp.array([0.4, 0.0]),
    )
    state = dataclasses.replace(env.reset_env(KEY, level)[1], present=jnp.int32(1))
    step = jax.vmap(lambda key: env.step_env(key, state, jnp.int32(RIGHT), level)[1:4])
    after, reward, ended = jax.jit(step)(jax.random.split(KEY, 10_000))
    assert (reward == 0.5).all() and set(after.present.tolist()) == {0, 2}
    back = after.present == 2
    for events, prob in ((ended, 0.3), (back, 0.4), (ended & back, 0.12)):
        assert abs(events.mean() - prob) < 4 * np.sqrt(prob * (1 - prob) / 10_000)


@pytest.mark.thorough
@pytest.mark.parametrize("mode", ["rand-small", "rand-all", "rand-tiny"])
def test_moving_objects_lie_in_free_cells_alone(mode):
    played, num = walks(mode), GridWorld(mode).max_objects
    appeared = 0
    for i in range(NUM_LEVELS):
        level, state = row(played.level, i), row(played.state, i)
        for t in range(NUM_STEPS + 1):
            there = bits(state.present[t], num)
            new = [
                k for k in range(num) if there[k] and (t == 0 or not state.present[t - 1] >> k & 1)
            ]
            cells = [int(state.object_pos[t, k]) for k in range(num) if there[k]]
            assert len(set(cells)) == len(cells)
            assert all(0 <= cell < level.size**2 and not level.walls[cell] for cell in cells)
            assert state.pos[t] not in state.object_pos[t, new]
            if t:
                assert not set(state.object_pos[t, new]) & set(state.object_pos[t - 1])
                appeared += len(new)
        assert level.start == state.pos[0] and bits(state.present[0], num) == [
            k < level.num_objects for k in range(num)
        ]
    assert appeared > 20


def test_moving_objects_are_placed_uniformly():
    """All 46 cells are equally likely: 7 x 7 without two walls and the start."""
    env = GridWorld("rand-small")
    level = env.sample_level(KEY)
    keys = jax.random.split(KEY, 4600)
    state = jax.jit(jax.vmap(lambda key: env.reset_env(key, level)[1]))(keys)
    for k in range(env.max_objects):
        times = np.bincount(np.asarray(state.object_pos)[:, k], minlength=49)
        assert (times > 0).sum() == 46
        chi_square = ((times[times > 0] - 100) ** 2 / 100).sum()
        assert chi_square < 45 + 4 * np.sqrt(2 * 45)


@pytest.mark.parametrize("mode", ["small", "handcrafted"])
def test_the_observation_numbers_the_states(mode):
    env, played = GridWorld(mode), walks(mode)
    num_cells = env.max_size**2
    assert env.num_states() == num_cells * 2**env.max_objects
    np.testing.assert_array_equal(played.obs, played.state.pos + num_cells * played.state.present)
    seen = env.unpack(jnp.asarray(played.obs[0]))
    np.testing.assert_array_equal(seen["cell"].argmax(-1), played.state.pos[0])
    assert (np.asarray(seen["cell"]).sum(-1) == 1).all()
    expected = [bits(x, env.max_objects) for x in played.state.present[0]]
    np.testing.assert_array_equal(seen["objects"], np.array(expected, float))


def test_moving_objects_are_seen_on_the_plane_of_their_type():
    env, played = GridWorld("rand-all"), walks("rand-all")
    image = np.asarray(env.unpack(row(played.obs, slice(16), slice(8)))["image"])
    assert image.shape == (16, 8, 10, 10, 6)
    for i, t in np.ndindex(16, 8):
        level, state = row(played.level, i), row(played.state, i, t)
        expected = np.zeros((10, 10, 6))
        expected[(*divmod(state.pos, level.size), 0)] = 1
        for k in np.flatnonzero(bits(state.present, 5)):
            place = divmod(state.object_pos[k], level.size)
            expected[(*place, 1 + level.object_type[k])] = 1
        np.testing.assert_array_equal(image[i, t], expected)


def nearest(level):
    """Steps to the nearest object with positive reward; -1 if none can be reached."""
    kinds = level.object_type[: level.num_objects]
    goals = set(level.object_pos[: level.num_objects][level.reward[kinds] > 0].tolist())
    steps, queue = {int(level.start): 0}, deque([int(level.start)])
    while queue:
        pos = queue.popleft()
        if pos in goals:
            return steps[pos]
        for following in (int(moved(level, pos, action)) for action in MOVES):
            if following not in steps:
                steps[following] = steps[pos] + 1
                queue.append(following)
    return -1


@pytest.mark.thorough
@pytest.mark.parametrize("mode", ["all", "labyrinth"])
def test_path_lengths_are_those_of_breadth_first_search(mode):
    levels = walks(mode).level
    found = jax.jit(jax.vmap(path_length))(levels)
    assert found.tolist() == [nearest(row(levels, i)) for i in range(NUM_LEVELS)]


def test_a_level_without_a_way_to_a_reward_is_unsolvable():
    env = GridWorld("debug")
    solve = jax.jit(env.solve)
    solution = solve(worked(respawn_prob=jnp.zeros(2)))
    assert (bool(solution.solvable), int(solution.steps)) == (True, 1)
    assert float(solution.optimal_return) == 0.5
    walled = worked(walls=jnp.zeros(16, bool).at[jnp.array([1, 3])].set(True))
    for hopeless in (walled.replace(object_pos=jnp.array([8, -1])), worked(reward=-jnp.ones(2))):
        solution = solve(hopeless)
        assert (bool(solution.solvable), int(solution.steps)) == (False, -1)
        assert float(solution.optimal_return) == 0.0


def test_only_tabular_modes_enumerate_and_solve():
    for mode in VARIANTS:
        asked = (LevelEnv.num_states, LevelEnv.solve, LevelEnv.expected_return)
        able = [registry.has(GridWorld(mode), x) for x in asked]
        assert able == [not mode.startswith("rand-")] * 3
    with pytest.raises(ValueError, match=r"needs an environment with solve.*gridworld"):
        registry.require(GridWorld("rand-all"), LevelEnv.solve, "it")


def test_an_unknown_mode_is_answered_with_the_nearest():
    with pytest.raises(ValueError, match=r"mode='rand_dense'.*did you mean 'rand-dense'"):
        build(mode="rand_dense")


@pytest.mark.thorough
def test_moving_objects_keep_the_laws():
    check_env(GridWorld("rand-tiny"), num_levels=4)


def test_pictures_show_where_the_objects_are():
    env, level = GridWorld("debug"), worked()
    _, state = env.reset_env(KEY, level)
    start, image = env.render(level, state), env.level_image(level)
    assert image.shape == (96, 96, 3)
    np.testing.assert_array_equal(start, image)
    collected = env.render(
        dataclasses.replace(state, present=jnp.int32(0)), level
    )  # gymnax's order of arguments
    changed = (start != collected).any(-1).reshape(3, 32, 3, 32).any((1, 3))
    assert changed.ravel().tolist() == [i == 1 for i in range(9)]
    costly = env.level_image(worked(reward=-jnp.ones(2)))
    assert image[16, 48].argmax() == 1 and costly[16, 48].argmax() == 0, (
        "green for positive reward, red for negative"
    )
