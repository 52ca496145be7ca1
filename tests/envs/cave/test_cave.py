"""The cave compared with a slow reference written from its rules, and with worked examples."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnax.environments import spaces

from rlgen import testing
from rlgen.envs.cave import EMPTY, LAVA, MOSS, WALL, Cave, State, make_level, tiny
from tests.standins.random_play import play

SIZE, LEVELS, STEPS = 13, 400, 20
AHEAD = [(1, 0), (0, 1), (-1, 0), (0, -1)]  # x, y of a step right, down, left, up
CODES = {EMPTY: (1, 0, 0), WALL: (2, 5, 0), LAVA: (9, 0, 0), MOSS: (3, 2, 0)}
GOAL = (8, 1, 0)
KEY, FORWARD = jax.random.key(0), jnp.int32(2)
CAVE = """\
.."#.
.S~G.
"....
~#.".
....#"""


class ReferenceCave:
    """Reference for one cave, computed cell by cell from a table of tiles."""

    def __init__(self, tiles, start, goal, limit):
        self.tiles, self.start, self.limit = tiles, tuple(start), limit
        self.goal = tuple(goal)

    def begin(self, direction):
        self.position, self.direction, self.time = self.start, direction, 0

    def tile(self, x, y):
        height, width = self.tiles.shape
        return self.tiles[y, x] if 0 <= x < width and 0 <= y < height else WALL

    def observe(self):
        image = np.zeros((5, 5, 3), np.float32)
        (x, y), ahead = self.position, AHEAD[self.direction]
        right = AHEAD[(self.direction + 1) % 4]
        for i in range(5):
            for j in range(5):
                side, depth = i - 2, 4 - j
                cell = (
                    x + side * right[0] + depth * ahead[0],
                    y + side * right[1] + depth * ahead[1],
                )
                code = CODES[EMPTY if cell == self.position else self.tile(*cell)]
                image[i, j] = GOAL if cell == self.goal else code
        return image / np.float32(10)

    def step(self, action):
        """Return reward, terminated and truncated."""
        self.time += 1
        late = self.time >= self.limit
        if action < 2:
            self.direction = (self.direction + (1 if action else -1)) % 4
        if action != 2:
            return 0.0, False, late
        target = tuple(p + a for p, a in zip(self.position, AHEAD[self.direction], strict=True))
        if target == self.goal:
            return 1 - 0.9 * self.time / self.limit, True, late
        if self.tile(*target) == LAVA:
            return 0.0, True, late
        if self.tile(*target) != WALL:
            self.position = target
        return 0.0, False, late


def random_caves(rng, num_levels, height=SIZE, width=SIZE):
    """Random caves of varying density, half of them with the goal a few cells from the agent."""
    share = rng.uniform(0, 0.25, (num_levels, 1, 1))
    draw = rng.random((num_levels, height, width))
    tiles = np.select([draw < share, draw < 1.6 * share, draw < 2.5 * share], [WALL, LAVA, MOSS])
    size = np.array([width, height])
    start, far = (rng.integers(0, size, (num_levels, 2)) for _ in range(2))
    near = (start + rng.integers(-2, 3, (num_levels, 2))).clip(0, size - 1)
    goal = np.where(rng.random((num_levels, 1)) < 0.5, near, far)
    goal = np.where((goal == start).all(1, keepdims=True), (start + 1) % size, goal)
    for cell in (start, goal):
        tiles[np.arange(num_levels), cell[:, 1], cell[:, 0]] = EMPTY
    return tiles.astype(np.int32), start, goal


@pytest.mark.thorough
@pytest.mark.parametrize(("height", "width", "num"), [(SIZE, SIZE, LEVELS), (43, 30, 100)])
def test_observation_reward_and_ends_equal_the_reference_on_random_levels(height, width, num):
    rng = np.random.default_rng(0)
    tiles, start, goal = random_caves(rng, num, height, width)
    limit = rng.integers(5, STEPS, num)
    actions = rng.choice(7, (STEPS, num), p=[0.15, 0.15, 0.54, 0.04, 0.04, 0.04, 0.04])
    levels = jax.jit(jax.vmap(make_level))(tiles, start, goal, limit)
    env = Cave(height, width)
    program = jax.jit(functools.partial(play, env))
    first, trace = program(levels, actions, jax.random.split(KEY, num))
    images = [np.asarray(env.unpack(obs)["image"]) for obs in (first[0], trace[0])]
    directions = [np.asarray(obs.direction) for obs in (first[0], trace[0])]
    reward, terminated, truncated = (np.asarray(x) for x in trace[1:])
    assert (reward > 0).sum() > num / 20 and (terminated & (reward == 0)).sum() > num / 20
    assert (truncated & ~terminated).sum() > num / 20
    for i in range(num):
        reference = ReferenceCave(tiles[i], start[i], goal[i], limit[i])
        reference.begin(directions[0][i])
        np.testing.assert_array_equal(images[0][i], reference.observe())
        for t, action in enumerate(actions[:, i]):
            paid, ended, late = reference.step(action)
            assert (terminated[t, i], truncated[t, i]) == (ended, late)
            np.testing.assert_allclose(reward[t, i], paid, rtol=0, atol=2e-7)
            assert directions[1][t, i] == reference.direction
            np.testing.assert_array_equal(images[1][t, i], reference.observe())
            if ended or late:
                reference.begin(directions[0][i])


# Views from (2, 2) facing right, down, left and up; rows from far to near, columns left to right.
SEEN = (
    ["#####", "#####", "....#", '#G.".', '"~...'],
    ["#####", "#####", "#....", '.".#~', '...."'],
    ["#####", "#####", '.~"..', ".#...", '...~"'],
    ["#####", "#####", '.."#.', "..~G.", '"....'],
)


@functools.cache
def by_hand():
    env = Cave(5, 5, 0, observation="image")
    return env, env.from_text(CAVE)


def at(x, y, direction, time=0):
    return State(*(jnp.int32(v) for v in (x, y, direction, time)))


def triples(text):
    """Convert five rows of text to a view [5, 5, 3]."""
    named = dict(zip('.#~"', CODES.values(), strict=True)) | {"G": GOAL}
    return np.array([[named[row[x]] for row in text] for x in range(5)], np.float32) / 10


@pytest.mark.thorough
@pytest.mark.parametrize("direction", range(4))
def test_view_of_a_cave_by_hand_in_four_directions(direction):
    env, level = by_hand()
    obs = env.observe(KEY, at(2, 2, direction), None, level)
    np.testing.assert_array_equal(obs["image"], triples(SEEN[direction]))
    assert int(obs["direction"]) == direction
    packed = Cave(5, 5, 0).observe(KEY, at(2, 2, direction), None, level)
    for view in (env.unpack(obs), env.unpack(packed)):
        np.testing.assert_array_equal(view["image"], triples(SEEN[direction]))
        np.testing.assert_array_equal(view["direction"], np.eye(4, dtype=np.float32)[direction])


def test_own_cell_looks_empty_on_moss():
    env, level = by_hand()
    image = env.observe(KEY, at(3, 3, 0), None, level)["image"]
    np.testing.assert_array_equal(image[2, 4], triples(SEEN[0])[2, 4])
    beside = env.observe(KEY, at(2, 3, 0), None, level)["image"]
    np.testing.assert_array_equal(beside[2, 3], np.array([0.3, 0.2, 0], np.float32))


def test_lava_ends_the_episode_and_pays_nothing():
    env, level = by_hand()
    for action, ended in ((2, True), (0, False), (1, False), (3, False), (6, False)):
        _, _, reward, terminated, _ = env.step_env(KEY, at(2, 2, 3), jnp.int32(action), level)
        assert (bool(terminated), float(reward)) == (ended, 0.0)
        assert not env.success(reward, terminated)


def test_goal_pays_less_the_later_and_walls_cost_the_step():
    env, level = by_hand()
    _, state, reward, terminated, _ = env.step_env(KEY, at(3, 2, 3, time=49), FORWARD, level)
    assert bool(terminated) and int(state.time) == 50 and np.isclose(reward, 0.82)
    assert env.success(reward, terminated)
    _, _, last, terminated, _ = env.step_env(KEY, at(3, 2, 3, time=249), FORWARD, level)
    assert bool(terminated) and np.isclose(last, 0.1) and env.success(last, terminated)
    # Into a wall, and twice into the border.
    for x, y, direction in ((1, 2, 1), (0, 0, 2), (4, 0, 3)):
        _, state, reward, terminated, _ = env.step_env(KEY, at(x, y, direction), FORWARD, level)
        assert (int(state.x), int(state.y), int(state.time)) == (x, y, 1)
        assert float(reward) == 0 and not terminated


def test_time_limit_truncates():
    env, level = by_hand()
    *_, terminated, truncated, _ = env.step(KEY, at(2, 2, 3, time=248), 3, level)
    assert not terminated and not truncated
    _, state, reward, terminated, truncated, _ = env.step(KEY, at(2, 2, 3, time=249), 3, level)
    assert (bool(terminated), bool(truncated), float(reward)) == (False, True, 0.0)
    assert int(state.time) == 0  # gymnax's step has reset the episode


def walked_onto_moss():
    """Time out an episode on the moss at (0, 2) and start the next one."""
    env, _ = by_hand()
    text = CAVE.replace("S", "v")
    hurried, level = Cave(5, 5, 0, max_steps=3).from_text(text), env.from_text(text)
    first, state = env.reset(KEY, hurried)
    for action in (2, 1, 2):
        obs, state, *_, truncated, info = env.step(KEY, state, action, hurried)
    assert truncated and int(info["final_observation"]["direction"]) == 2
    return env, level, first, obs, state


def test_moss_on_which_an_episode_ended_is_there_in_the_next():
    _, _, first, again, _ = walked_onto_moss()
    np.testing.assert_array_equal(first["image"][3, 3], np.array([0.3, 0.2, 0], np.float32))
    np.testing.assert_array_equal(again["image"], first["image"])


def test_start_stays_empty_after_an_episode_that_ended_on_moss():
    env, level, _, _, state = walked_onto_moss()
    for action in (2, 1, 1):  # one step down, then turn around
        obs, state, *_ = env.step(KEY, state, action, level)
    assert (int(state.x), int(state.y), int(state.direction)) == (1, 2, 3)
    np.testing.assert_array_equal(
        obs["image"][2, 3], np.array([0.1, 0, 0], np.float32)
    )  # the start cell


def test_an_episode_holds_nothing_of_its_level():
    _, state = Cave().reset(KEY)
    assert [leaf.shape for leaf in jax.tree.leaves(state)] == [()] * 4


def test_episodes_start_in_every_direction_alike_or_in_the_one_of_the_level():
    env, level = by_hand()
    fixed = env.from_text(CAVE.replace("S", "<"))
    reset = jax.jit(jax.vmap(lambda key, level: env.reset_env(key, level)[1], (0, None)))
    keys = jax.random.split(KEY, 4000)
    counts = np.bincount(reset(keys, level).direction, minlength=4)
    assert abs(counts - 1000).max() < 5 * np.sqrt(1000 * 0.75)
    assert set(np.asarray(reset(keys, fixed).direction)) == {2}


@pytest.mark.thorough
def test_laws_of_environments():
    testing.check_env(tiny())


@pytest.mark.parametrize("observation", ["packed", "image"])
def test_observation_lies_in_its_space(observation):
    env = Cave(5, 5, 8, observation=observation)
    obs, _ = env.reset(KEY)
    space = env.observation_space()
    assert isinstance(space, spaces.Dict)
    if observation == "packed":
        assert space.contains(obs)
    assert set(space.spaces) == set(obs if isinstance(obs, dict) else obs._fields)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"height": 0}, "height=0"),
        ({"height": 1, "width": 1, "num_objects": 0}, "width=1"),
        (
            {"num_objects": 168},
            "num_objects=168 is not in 0 .. 167, which leaves room for start and goal",
        ),
        ({"max_steps": 0}, "max_steps=0"),
    ],
)
def test_impossible_caves_are_refused_at_construction(fields, said):
    with pytest.raises(ValueError, match=said):
        Cave(**fields)


def test_an_unknown_observation_is_refused_with_the_known_ones():
    env = Cave()
    object.__setattr__(env, "observation", "other")  # the type check would already reject Cave(...)
    with pytest.raises(ValueError, match="observation='other' is none of packed, image"):
        env.__post_init__()
