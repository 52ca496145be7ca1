"""Editors of physical systems: one choice per parameter, and noise that affects no level."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlgen import registry, testing
from rlgen.envs.classic_control.editor import PhysicsEditor
from rlgen.protocols import Editor

NAMES = ("cart-pole", "pendulum", "mountain-car")


def editor_of(name):
    return registry.load("envs", name).build().editor()


def values(editor, state):
    level = editor.level_of(state)
    return [float(getattr(level, name)) for name in editor.env.ranges().names]


def played(editor, actions, key=0):
    """Observations and states of an episode, the first ones before any action."""
    level = editor.sample_level(jax.random.key(key))
    obs, state = editor.reset_env(jax.random.key(key), level)
    moments = [(obs, state)]
    for action in actions:
        key_step = jax.random.key(0)
        obs, state, reward, terminated, _ = editor.step_env(
            key_step, state, jnp.int32(action), level
        )
        assert reward == 0.0 and reward.dtype == jnp.float32 and not terminated
        moments.append((obs, state))
    return level, moments


@pytest.mark.thorough
@pytest.mark.parametrize("name", NAMES)
def test_laws(name):
    editor = editor_of(name)
    assert isinstance(editor, Editor)
    testing.check_env(editor, num_steps=editor.horizon + 2)


@pytest.mark.parametrize("name", NAMES)
def test_each_step_sets_one_parameter_to_a_value_of_the_grid(name):
    editor = editor_of(name)
    ranges = editor.env.ranges()
    actions = [0, 10, 5, 3, 7][: editor.horizon]
    _, moments = played(editor, actions)
    expected = ranges.nominal.astype(float)
    np.testing.assert_allclose(values(editor, moments[0][1]), expected, rtol=1e-6)
    for i, action in enumerate(actions):
        low, high = float(ranges.low[i]), float(ranges.high[i])
        expected[i] = low ** (1 - action / 10) * high ** (action / 10)
        np.testing.assert_allclose(values(editor, moments[i + 1][1]), expected, rtol=1e-5)
    built = values(editor, moments[-1][1])
    assert built[0] == ranges.low[0] and built[1] == ranges.high[1]  # the ends of the range exactly


@pytest.mark.parametrize("name", NAMES)
def test_an_episode_lasts_as_many_steps_as_there_are_parameters(name):
    editor = editor_of(name)
    level, moments = played(editor, [1] * editor.horizon)
    ends = [bool(editor.is_truncated(state, level)) for _, state in moments]
    assert ends == [False] * editor.horizon + [True]
    assert level.max_steps_in_episode == editor.horizon == len(editor.env.ranges().names)
    _, further = played(editor, [1] * editor.horizon + [9])
    assert values(editor, further[-1][1]) == values(editor, moments[-1][1])


def test_the_level_is_one_of_the_family():
    editor = editor_of("pendulum")
    _, moments = played(editor, [2, 3, 4, 5])
    sampled = editor.env.sample_level(jax.random.key(0))
    testing.assert_shapes(editor.level_of(moments[-1][1]), sampled, "built levels")
    assert editor.level_of(moments[-1][1]).max_steps_in_episode == 200


def test_two_keys_give_the_teacher_two_observations():
    editor = editor_of("cart-pole")
    first, second = (played(editor, [], key)[1][0][0] for key in (0, 1))
    assert first["noise"].shape == (16,)
    assert (first["noise"] != second["noise"]).all()
    noise = jax.vmap(editor.sample_level)(jax.random.split(jax.random.key(2), 500)).noise
    assert 0 <= noise.min() < 0.01 and 0.99 < noise.max() < 1
    np.testing.assert_allclose(noise.mean(0), 0.5, atol=0.07)


def test_observation_by_hand():
    editor = PhysicsEditor(registry.load("envs", "mountain-car").build(force=(0.001, 0.01)), 5, 3)
    level, moments = played(editor, [3, 0])
    gravity = np.log(2.5) / np.log(3)  # place of 0.0025 in 0.001 .. 0.003
    built = [[[0, 0], [gravity, 0]], [[0.75, 1], [gravity, 0]], [[0.75, 1], [0, 1]]]
    time = [[1, 0], [0, 1], [0, 0]]
    for (obs, _), right_built, right_time in zip(moments, built, time, strict=True):
        np.testing.assert_allclose(obs["built"], right_built, atol=1e-6)
        np.testing.assert_array_equal(obs["time"], right_time)
        np.testing.assert_array_equal(obs["noise"], level.noise)


def test_bad_fields_are_refused():
    env = registry.load("envs", "pendulum").build()
    for fields in ({"num_choices": 1}, {"num_noise": 0}):
        with pytest.raises(ValueError, match=f"{next(iter(fields))}=. must be at least"):
            PhysicsEditor(env, **fields)
