"""The maze compared with a slow reference written from its rules, and as a gymnax environment."""

import functools

import gymnax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnax.environments import spaces
from gymnax.wrappers import FlattenObservationWrapper, GymnaxToGymWrapper, LogWrapper

from rlgen.envs.maze import Maze, State, make_level, tiny, to_grid
from tests.standins.random_play import play

SIZE, LEVELS, STEPS = 13, 10_000, 24
AHEAD = [(1, 0), (0, 1), (-1, 0), (0, -1)]  # x, y of a step right, down, left, up
KEY = jax.random.key(0)


class ReferenceMaze:
    """Reference for many mazes as boolean maps, one cell of the observation at a time."""

    def __init__(self, walls, start, direction, goal, limit):
        self.goal, self.limit = goal, limit
        self.first = start, direction
        self.size = walls.shape[2], walls.shape[1]
        self.every = np.arange(len(walls))
        self.walls = walls
        self.position, self.direction = start.copy(), direction.copy()
        self.time = np.zeros(len(walls), int)

    def is_wall(self, x, y):
        width, height = self.size
        inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
        return ~inside | self.walls[self.every, y.clip(0, height - 1), x.clip(0, width - 1)]

    def observe(self):
        image = np.zeros((len(self.every), 5, 5, 3), np.float32)
        ahead = np.array(AHEAD)[self.direction]
        right = np.array(AHEAD)[(self.direction + 1) % 4]
        for i in range(5):
            for j in range(5):
                x, y = (self.position + (i - 2) * right + (4 - j) * ahead).T
                image[:, i, j] = np.where(self.is_wall(x, y)[:, None], [2, 5, 0], [1, 0, 0])
                image[(np.stack([x, y], 1) == self.goal).all(1), i, j] = [8, 1, 0]
        return image / np.float32(10)

    def step(self, action):
        target = self.position + np.array(AHEAD)[self.direction]
        at_goal = (action == 2) & (target == self.goal).all(1)
        moves = (action == 2) & ~at_goal & ~self.is_wall(*target.T)
        self.position = np.where(moves[:, None], target, self.position)
        self.direction = (self.direction + (action == 1) - (action == 0)) % 4
        reward = np.where(at_goal, 1 - 0.9 * (self.time + 1) / self.limit, 0)
        self.time = self.time + 1
        return reward, at_goal, self.time >= self.limit

    def restart(self, where):
        self.position = np.where(where[:, None], self.first[0], self.position)
        self.direction = np.where(where, self.first[1], self.direction)
        self.time = np.where(where, 0, self.time)


def random_grids(rng, num_levels=LEVELS, size=SIZE):
    """Random mazes of varying density, half of them with the goal a few cells from the agent."""
    walls = rng.random((num_levels, size, size)) < rng.uniform(0, 0.5, (num_levels, 1, 1))
    start = rng.integers(0, size, (num_levels, 2))
    far = rng.integers(0, size, (num_levels, 2))
    near = (start + rng.integers(-2, 3, (num_levels, 2))).clip(0, size - 1)
    goal = np.where(rng.random((num_levels, 1)) < 0.5, near, far)
    goal = np.where((goal == start).all(1, keepdims=True), (start + 1) % size, goal)
    for cell in (start, goal):
        walls[np.arange(num_levels), cell[:, 1], cell[:, 0]] = False
    return walls, start, rng.integers(0, 4, num_levels), goal


def batch(walls, start, direction, goal, limit):
    return jax.jit(jax.vmap(make_level))(walls, start, direction, goal, limit)


@functools.cache
def played():
    """Trace of random play in the maze, and the reference for the same levels."""
    rng = np.random.default_rng(0)
    grids, limit = random_grids(rng), rng.integers(5, STEPS, LEVELS)
    actions = rng.choice(7, (STEPS, LEVELS), p=[0.15, 0.15, 0.54, 0.04, 0.04, 0.04, 0.04])
    env = Maze(observation="image")
    program = jax.jit(functools.partial(play, env))
    played = program(batch(*grids, limit), actions, jax.random.split(KEY, LEVELS))
    (first_obs, _), trace = jax.tree.map(np.asarray, played)
    return ReferenceMaze(*grids, limit), actions, first_obs, trace


@pytest.mark.thorough
def test_observation_reward_and_ends_equal_the_reference_on_random_levels_and_actions():
    reference, actions, first_obs, (obs, reward, terminated, truncated) = played()
    assert terminated.sum() > 1000 and (truncated & ~terminated).sum() > 1000
    np.testing.assert_array_equal(first_obs["image"], reference.observe())
    for t, action in enumerate(actions):
        expected_reward, at_goal, timed_out = reference.step(action)
        np.testing.assert_array_equal(terminated[t], at_goal)
        np.testing.assert_array_equal(truncated[t], timed_out)
        np.testing.assert_allclose(reward[t], expected_reward, rtol=0, atol=2e-7)
        np.testing.assert_array_equal(obs["direction"][t], reference.direction)
        np.testing.assert_array_equal(obs["image"][t], reference.observe())
        reference.restart(at_goal | timed_out)


def test_view_in_the_corner_shows_walls_outside_and_the_goal_at_its_place():
    level = make_level(np.zeros((3, 3), bool), (0, 0), 0, (2, 1), 10)
    image = np.asarray(Maze(3, 3, 0, observation="image").reset(KEY, level)[0]["image"])
    wall, goal = image[..., 0] == np.float32(0.2), image[..., 0] == np.float32(0.8)
    # Facing right from the corner: cells beyond x = 2 and left of (above) the agent are outside.
    expected = np.array([[c == "#" for c in row] for row in ("##", "##", "#.", "#.", "#.")]).T
    np.testing.assert_array_equal(wall[:2], np.ones((2, 5), bool))
    np.testing.assert_array_equal(wall[2], expected[1])
    assert goal.sum() == 1 and goal[3, 2]


def test_the_three_kinds_of_observation_carry_the_same_information():
    levels = batch(*random_grids(np.random.default_rng(1), 64), np.full(64, 9))
    views = {}
    for kind in ("packed", "image", "flat"):
        env = Maze(observation=kind)
        obs = jax.jit(jax.vmap(lambda level, env=env: env.reset_env(KEY, level)[0]))(levels)
        views[kind] = env.unpack(obs)
        one = env.unpack(jax.tree.map(lambda x: x[3], obs))
        np.testing.assert_array_equal(one["image"], views[kind]["image"][3])
    for kind in ("image", "flat"):
        jax.tree.map(np.testing.assert_array_equal, views[kind], views["packed"])
    assert views["flat"]["image"].shape == (64, 5, 5, 3)


def test_a_maze_in_a_grid_of_several_words_is_seen_and_walked_as_in_one_word():
    rng = np.random.default_rng(2)
    walls, start, direction, goal = random_grids(rng, 256)
    # The maze then crosses bit 32 of the rows and bit 64 of the columns.
    offset = np.array([19, 50])
    wide = np.ones((256, 70, 40), bool)
    wide[:, offset[1] :, offset[0] :][:, :SIZE, :SIZE] = walls
    small = batch(walls, start, direction, goal, np.full(256, 9))
    large = batch(wide, start + offset, direction, goal + offset, np.full(256, 9))
    action = rng.choice(4, (12, 256), p=[0.2, 0.2, 0.5, 0.1])

    def walk(env, levels):
        def step(state, action):
            obs, state, reward, terminated, _ = jax.vmap(
                lambda s, a, level: env.step_env(KEY, s, a, level)
            )(state, action, levels)
            return state, (obs, reward, terminated)

        _, state = jax.vmap(lambda level: env.reset_env(KEY, level))(levels)
        return jax.lax.scan(step, state, action)[1]

    narrow_trace = jax.jit(lambda levels: walk(Maze(), levels))(small)
    wide_trace = jax.jit(lambda levels: walk(Maze(70, 40), levels))(large)
    jax.tree.map(np.testing.assert_array_equal, narrow_trace, wide_trace)


def test_time_limit_truncates_and_the_goal_on_the_last_step_still_pays():
    env = Maze(3, 3, 0, max_steps=2)
    level = make_level(np.zeros((3, 3), bool), (0, 0), 0, (2, 0), 2)
    _, state = env.reset(KEY, level)
    _, state, _, terminated, truncated, _ = env.step(KEY, state, 3, level)
    assert not terminated and not truncated
    _, after, reward, terminated, truncated, _ = env.step(KEY, state, 3, level)
    assert (bool(terminated), bool(truncated), float(reward)) == (False, True, 0.0)
    assert int(after.time) == 0  # gymnax's step has reset the episode
    beside = State(jnp.int32(1), jnp.int32(0), jnp.int32(0), jnp.int32(1))
    _, _, reward, terminated, _, _ = env.step(KEY, beside, 2, level)
    assert bool(terminated) and np.isclose(reward, 0.1)
    unpaid = Maze(3, 3, 0, penalize_time=False)
    assert float(unpaid.step(KEY, beside, 2, level)[2]) == 1.0


def test_equal_environments_share_compilations():
    level = tiny().default_params
    _, state = tiny().reset(KEY, level)
    tiny().step(KEY, state, 0, level)
    compiled = getattr(Maze.step, "_cache_size")  # noqa: B009  (unknown to type checkers)
    before = compiled()
    tiny().step(KEY, state, 1, level)
    assert compiled() == before
    assert tiny() == tiny() and hash(tiny()) == hash(tiny()) and tiny() != Maze()


def test_gymnax_wrappers_take_the_maze_as_it_is():
    flat = Maze(5, 5, 4, observation="flat")
    wrapped = LogWrapper(FlattenObservationWrapper(flat))
    obs, state = wrapped.reset(KEY)
    obs, state, *_ = wrapped.step(KEY, state, 2)
    assert obs.shape == (79,) and flat.observation_space().contains(obs)
    for kind in ("image", "flat"):
        gym_env = GymnaxToGymWrapper(Maze(5, 5, 4, observation=kind))
        obs = jax.tree.map(np.asarray, gym_env.reset(seed=1)[0])
        assert gym_env.observation_space.contains(obs)
        assert np.asarray(gym_env.render()).shape == (160, 160, 3)


def test_packed_observation_lies_in_its_space():
    env = tiny()
    obs, _ = env.reset(KEY)
    space = env.observation_space()
    assert isinstance(space, spaces.Dict) and space.contains(obs)
    for name, array in obs._asdict().items():
        assert space.spaces[name].dtype == array.dtype


def test_rollout_wrapper_of_gymnax_runs_on_it():
    gymnax.registration.register("MazeForTests-v0", tiny)
    env, params = gymnax.make("MazeForTests-v0")
    assert env == tiny() and to_grid(params).walls.shape == (5, 5)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"height": 0}, "height=0"),
        ({"height": 1, "width": 1, "num_walls": 0}, "width=1"),
        ({"num_walls": 168}, "num_walls=168 is not in 0 .. 167"),
        ({"max_steps": 0}, "max_steps=0"),
        ({"view_size": 7}, "view_size=7; only 5"),
    ],
)
def test_impossible_mazes_are_refused_at_construction(fields, said):
    with pytest.raises(ValueError, match=said):
        Maze(**fields)


@pytest.mark.parametrize(("field", "known"), [("observation", "flat"), ("mutation", "cells")])
def test_unknown_kinds_are_refused_with_the_known_ones(field, known):
    env = Maze()
    object.__setattr__(env, field, "other")  # the type check would already reject Maze(...)
    with pytest.raises(ValueError, match=f"{field}='other' is none of .*{known}"):
        env.__post_init__()
