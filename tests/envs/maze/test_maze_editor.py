"""The maze's editor: effect of each step, compared with a slow editor in plain Python."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlgen import testing
from rlgen.envs.maze import Maze, check_levels, tiny, to_grid
from rlgen.protocols import Editor

ENV = Maze(height=5, width=7, num_walls=4, max_steps=30)
EDITOR = ENV.editor()


def build(editor, actions, key):
    """Return states [T + 1] and observations of one episode."""
    key_noise, key_reset, key_steps = jax.random.split(key, 3)
    noise = editor.sample_level(key_noise)
    obs, state = editor.reset_env(key_reset, noise)

    def step(state, xs):
        key, action = xs
        obs, state, reward, terminated, _ = editor.step_env(key, state, action, noise)
        return state, (obs, state, reward, terminated, editor.is_truncated(state, noise))

    keys = jax.random.split(key_steps, len(actions))
    rest = jax.lax.scan(step, state, (keys, actions))[1]
    first = (obs, state, jnp.float32(0), jnp.bool_(False), jnp.bool_(False))
    return jax.tree.map(lambda x, y: jnp.concatenate([x[None], y]), first, rest)


many = jax.jit(jax.vmap(build, in_axes=(None, 0, 0)), static_argnums=0)


def episodes(editor, num, seed=0):
    keys = jax.random.split(jax.random.key(seed), num)
    shape = (num, editor.horizon)
    actions = jax.random.randint(jax.random.key(seed + 1), shape, 0, editor.num_actions)
    return actions, many(editor, actions, keys)


@pytest.mark.thorough
@pytest.mark.parametrize(
    "editor", [tiny().editor(), Maze(height=1, width=2, num_walls=0).editor()], ids=str
)
def test_it_is_a_lawful_environment(editor):
    assert isinstance(editor, Editor)
    testing.check_env(editor, num_steps=editor.horizon + 2)


def test_an_episode_places_goal_direction_and_agent_and_then_toggles_walls():
    actions, (_, state, *_) = episodes(EDITOR, 40)
    end = jax.tree.map(lambda x: x[:, -1], state)
    for i, taken in enumerate(np.asarray(actions).tolist()):
        level = EDITOR.level_of(jax.tree.map(lambda x, i=i: x[i], end))
        goal, turn, agent, *toggles = taken
        walls, place = np.zeros(35, bool), [int(x) for x in level.start]
        for cell in toggles:
            if cell not in (goal, place[1] * 7 + place[0]):
                walls[cell] ^= True
        grid = to_grid(level)
        np.testing.assert_array_equal(grid.walls, walls.reshape(5, 7))
        np.testing.assert_array_equal(level.goal, [goal % 7, goal // 7])
        assert int(level.direction) == turn % 4
        assert agent == goal or place == [agent % 7, agent // 7]
        assert int(level.max_steps_in_episode) == ENV.max_steps


def test_an_agent_on_the_goal_goes_to_any_other_cell():
    actions = jnp.full((600, 3), 8)
    keys = jax.random.split(jax.random.key(0), 600)
    agent = np.asarray(many(EDITOR, actions, keys)[1].agent[:, -1])
    counts = np.bincount(agent, minlength=35)
    assert counts[8] == 0 and (np.delete(counts, 8) > 0).all()
    assert counts.max() < 45  # expected 17.6 each; six standard deviations


@pytest.mark.thorough
@pytest.mark.parametrize(
    "env", [tiny(), Maze(height=1, width=2, num_walls=0), Maze(), ENV], ids=str
)
def test_every_half_built_maze_is_well_formed_and_of_the_familys_shape(env):
    editor = env.editor()
    _, (_, state, *_) = episodes(editor, 6)
    states = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), state)
    levels = jax.vmap(editor.level_of)(states)
    check_levels(levels, tuple(map(str, range(len(levels.goal)))))
    example = env.sample_level(jax.random.key(0))
    one = jax.tree.map(lambda x: x[0], levels)
    testing.assert_shapes(one, example, "an edited maze is unlike a sampled one")


def test_it_pays_nothing_and_ends_at_its_horizon_alone():
    _, (_, _, reward, terminated, truncated) = episodes(EDITOR, 3)
    assert not np.any(reward) and not np.any(terminated)
    assert truncated[:, -1].all() and not truncated[:, :-1].any()


def test_two_keys_give_the_teacher_two_observations():
    keys = jax.random.split(jax.random.key(0), 64)
    noise = jax.vmap(EDITOR.sample_level)(keys)
    obs, _ = jax.vmap(EDITOR.reset_env)(keys, noise)
    seen = np.asarray(EDITOR.unpack(obs)["noise"])
    assert len(np.unique(seen, axis=0)) == 64
    assert abs(seen.mean()) < 0.05 and abs(seen.var() - 1 / 12) < 0.01
    again, _ = jax.vmap(EDITOR.reset_env)(keys, noise)
    testing.assert_same(obs, again, "noise is a matter of the level alone")


@pytest.mark.thorough
@pytest.mark.parametrize("env", [ENV, Maze(height=3, width=40, num_walls=4)], ids=str)
def test_the_teacher_sees_the_maze_so_far_and_nothing_that_is_not_placed_yet(env):
    editor = env.editor()
    _, (obs, state, *_) = episodes(editor, 2)
    seen = jax.jit(editor.unpack)(obs)
    assert seen["image"].shape == (2, 51, env.height, env.width, 3)
    for i in range(2):
        for t in range(editor.horizon + 1):
            now = jax.tree.map(lambda x, i=i, t=t: x[i, t], (seen, state))
            grid = to_grid(editor.level_of(now[1]))
            image = np.asarray(now[0]["image"])
            np.testing.assert_array_equal(image[..., 0], np.asarray(grid.walls, float))
            for plane, (x, y), since in ((1, grid.goal, 1), (2, grid.start, 3)):
                expected = np.zeros((env.height, env.width))
                expected[y, x] = t >= since
                np.testing.assert_array_equal(image[..., plane], expected)
            facing = np.eye(4)[int(grid.direction)] * (t >= 2)
            np.testing.assert_array_equal(now[0]["direction"], facing)
            np.testing.assert_array_equal(now[0]["time"], np.eye(51)[t])


def test_a_simple_maze_is_an_empty_room_with_agent_and_goal_anywhere():
    keys = jax.random.split(jax.random.key(0), 500)
    levels = jax.jit(jax.vmap(ENV.sample_simple_level))(keys)
    check_levels(levels, tuple(map(str, range(len(levels.goal)))))
    assert not jax.vmap(to_grid)(levels).walls.any()
    for point in (levels.start, levels.goal):
        assert len(np.unique(np.asarray(point), axis=0)) == 35
    assert set(np.unique(levels.direction)) == {0, 1, 2, 3}


def test_an_episode_too_short_to_place_everything_is_refused():
    with pytest.raises(ValueError, match="horizon=2 is below 3"):
        type(EDITOR)(5, 5, 20, horizon=2)
