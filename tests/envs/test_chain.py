"""Delayed chains: only the first action determines the reward of the last step."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlgen import registry
from rlgen.config import flatten, override
from rlgen.envs.chain import VARIANTS, Chain, Level, build
from rlgen.evaluation.suites import load_suite
from rlgen.nn.approximators import Table
from rlgen.protocols import LevelEnv

LEVELS = Level(
    right=jnp.array([0, 1, 0, 1]),
    noisy=jnp.array([False, False, True, True]),
    length=jnp.array([5, 9, 5, 9]),
    max_steps_in_episode=jnp.array([5, 9, 5, 9]),
)
NUM_STEPS = 12


@partial(jax.jit, static_argnums=0)
def play(env, key, level, policy):
    """Play NUM_STEPS steps by a policy [S, 2]; the test must discard steps after the end."""
    obs, state = env.reset_env(key, level)

    def step(carry, key):
        obs, state = carry
        key_act, key_step = jax.random.split(key)
        action = jax.random.categorical(key_act, policy[obs])
        new_obs, state, reward, terminated, _ = env.step_env(key_step, state, action, level)
        return (new_obs, state), (obs, action, reward, terminated, env.is_truncated(state, level))

    return jax.lax.scan(step, (obs, state), jax.random.split(key, NUM_STEPS))[1]


@partial(jax.jit, static_argnums=0)
def play_many(env, keys, levels, policy):
    over_keys = jax.vmap(play, in_axes=(None, 0, None, None))
    return jax.vmap(over_keys, in_axes=(None, None, 0, None))(env, keys, levels, policy)


def log_policy(env, right_prob=0.7):
    """Action 1 with `right_prob` in the first state, with other probabilities elsewhere."""
    prob = jnp.linspace(0.1, 0.9, env.num_states()).at[0].set(right_prob)
    return jnp.log(jnp.stack([1 - prob, prob], 1))


ENV = Chain(length=(5, 9))
PLAYED = jax.tree.map(
    np.asarray, play_many(ENV, jax.random.split(jax.random.key(0), 2000), LEVELS, log_policy(ENV))
)


@pytest.mark.parametrize("i", range(4))
def test_the_first_action_decides_what_the_last_step_pays(i):
    obs, action, reward, terminated, truncated = (x[i] for x in PLAYED)
    length, right = int(LEVELS.max_steps_in_episode[i]), int(LEVELS.right[i])
    won = action[:, 0] == right
    np.testing.assert_array_equal(reward[:, length - 1], np.where(won, 1.0, -1.0))
    ends = np.arange(1, NUM_STEPS + 1) == length
    np.testing.assert_array_equal(terminated[:, :length].all(0), ends[:length])
    np.testing.assert_array_equal(truncated[:, :length].any(0), ends[:length])
    assert 0.2 < won.mean() < 0.8 and np.ptp(action[:, 1:]) == 1
    position, branch = obs % 10, obs // 10
    np.testing.assert_array_equal(position[0, :length], np.arange(length))
    assert (branch[:, 0] == 0).all() and (branch[:, 1:length] == action[:, :1]).all()


@pytest.mark.parametrize("i", range(4))
def test_noise_is_plus_or_minus_one_and_only_where_the_level_says_so(i):
    length = int(LEVELS.max_steps_in_episode[i])
    early = PLAYED[2][i][:, : length - 1]
    if not LEVELS.noisy[i]:
        assert (early == 0).all()
        return
    assert set(np.unique(early)) == {-1.0, 1.0}
    assert abs(early.mean()) < 4 / np.sqrt(early.size)
    correlation = np.corrcoef(early.T) - np.eye(length - 1)
    assert abs(correlation).max() < 4.5 / np.sqrt(len(early))


@pytest.mark.parametrize("i", range(4))
def test_the_exact_return_is_the_mean_of_what_is_played(i):
    level = jax.tree.map(lambda x: x[i], LEVELS)
    total = PLAYED[2][i][:, : int(level.max_steps_in_episode)].sum(1)
    expected = ENV.expected_return(level, log_policy(ENV))
    assert expected == pytest.approx(0.4 if level.right else -0.4)  # 2 * 0.7 - 1, or its negative
    assert abs(total.mean() - expected) < 3 * total.std() / np.sqrt(total.size)


def test_the_optimum_is_to_be_right_and_no_policy_beats_it():
    solution = jax.vmap(ENV.solve)(LEVELS)
    np.testing.assert_array_equal(solution.optimal_return, 1.0)
    np.testing.assert_array_equal(solution.steps, LEVELS.max_steps_in_episode)
    for prob in (0.0, 0.5, 1.0):
        policy = log_policy(ENV, prob)
        returns = jax.vmap(ENV.expected_return, in_axes=(0, None))(LEVELS, policy)
        assert returns.max() <= 1.0
        assert (returns[LEVELS.right == 1] == 2 * prob - 1).all()


def test_levels_are_as_their_variant_says():
    for name, fields in VARIANTS.items():
        env = build(**fields)
        levels = jax.vmap(env.sample_level)(jax.random.split(jax.random.key(1), 2000))
        low, high = 5, 50 if "long" in name else 30
        num = np.bincount(levels.max_steps_in_episode, minlength=high + 1)
        assert num[:low].sum() == 0 and num.size == high + 1
        assert num[low:].min() > 0.4 * 2000 / (high - low + 1)
        assert abs(np.mean(levels.right) - 0.5) < 0.05
        assert (levels.noisy == ("noisy" in name)).all()


def test_distractors_are_coins_and_the_first_two_bits_tell_the_state():
    env = build(**VARIANTS["distractor"])
    level = jax.tree.map(lambda x: x[1], LEVELS)
    keys = jax.random.split(jax.random.key(2), 400)
    start, state = jax.vmap(env.reset_env, in_axes=(0, None))(keys, level)
    assert start.shape == (400, 22) and start.dtype == jnp.float32
    later = [
        jax.vmap(env.step_env, in_axes=(0, 0, None, None))(keys, state, a, level) for a in (0, 1)
    ]
    bits = [start[:, :2], later[0][0][:, :2], later[1][0][:, :2]]
    for found, expected in zip(bits, ([1, 0], [0, 0], [0, 1]), strict=True):
        np.testing.assert_array_equal(found, np.broadcast_to(expected, (400, 2)))
    coins = np.concatenate([start[:, 2:], later[0][0][:, 2:]], 1)
    assert set(np.unique(coins)) == {0.0, 1.0}
    assert abs(coins.mean(0) - 0.5).max() < 4 * 0.5 / 20
    # The bits of a step are independent of those of the reset.
    correlation = np.corrcoef(coins.T) - np.eye(40)
    assert abs(correlation).max() < 5 / 20


def test_only_enumerable_observations_have_what_tables_need():
    env = build(**VARIANTS["distractor"])
    assert registry.has(ENV, LevelEnv.num_states) and registry.has(ENV, LevelEnv.expected_return)
    assert not registry.has(env, LevelEnv.num_states) and not registry.has(
        env, LevelEnv.expected_return
    )
    Table().check(ENV)
    with pytest.raises(ValueError, match="a table needs an environment with num_states"):
        Table().check(env)
    assert override(ENV, {"num-distractors": 3}) == Chain((5, 9), num_distractors=3)
    assert flatten(ENV) == {"length": (5, 9), "noisy": False, "num_distractors": 0}


def test_the_suite_has_both_right_actions_at_every_length():
    for fields in VARIANTS.values():
        suite = load_suite(build(**fields), "chain/seen")
        level = suite.levels.level
        assert len(suite.levels) == 16 and len(set(suite.levels.names)) == 16
        assert isinstance(suite.env, Chain)
        high = suite.env.length[1]
        found = sorted(zip(level.max_steps_in_episode.tolist(), level.right.tolist(), strict=True))
        assert found[:2] == [(5, 0), (5, 1)] and found[-2:] == [(high, 0), (high, 1)]
        np.testing.assert_array_equal(suite.levels.optimal_return, 1.0)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"length": (1, 5)}, r"length=\(1, 5\) must be .* at least 2 steps"),
        ({"length": (9, 5)}, r"length=\(9, 5\)"),
        ({"num_distractors": -1}, "num_distractors=-1 must be at least 0"),
    ],
)
def test_impossible_fields_are_refused(fields, said):
    with pytest.raises(ValueError, match=said):
        Chain(**fields)
