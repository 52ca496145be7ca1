"""MinAtar: gymnax's games with raw observations and time limits that truncate."""

from functools import partial

import gymnax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlgen import registry
from rlgen.config import flatten, override
from rlgen.envs.external.minatar import IDS, VARIANTS, MinAtar, build
from rlgen.evaluation.suites import load_suite
from rlgen.protocols import LevelEnv

GAMES = list(IDS)
LIMITS = {"asterix": 1000, "breakout": 1000, "freeway": 2500, "space-invaders": 1000}
CHANNELS = {"asterix": 4, "breakout": 4, "freeway": 7, "space-invaders": 6}
NUM_ACTIONS = {"asterix": 5, "breakout": 3, "freeway": 3, "space-invaders": 4}


@partial(jax.jit, static_argnums=0)
def step(env, key, state, action, level):
    obs, state, reward, terminated, _ = env.step_env(key, state, action, level)
    return obs, state, reward, terminated, env.is_truncated(state, level)


@partial(jax.jit, static_argnums=0)
def reset(env, key):
    return env.reset_env(key, env.default_params)


@pytest.mark.thorough
@pytest.mark.parametrize("game", GAMES)
def test_observations_are_raw_and_the_time_limit_is_no_termination(game):
    """The last ten steps before the time limit are tested."""
    env, (theirs, usual) = MinAtar(game), gymnax.make(IDS[game])
    level, (obs, state) = env.default_params, reset(env, jax.random.key(3))
    their_obs, _ = jax.jit(theirs.reset_env)(jax.random.key(3), usual)
    np.testing.assert_array_equal(obs, np.asarray(their_obs, np.float32))
    assert level.max_steps_in_episode == LIMITS[game]
    state, ends = state.replace(time=level.max_steps_in_episode - 10), []
    for t, action in enumerate([0, 1, 2, 1, 0, 2, 2, 0, 1, 2]):
        obs, state, _, *end = step(env, jax.random.key(t), state, jnp.int32(action), level)
        assert set(np.unique(obs)) == {0.0, 1.0} and obs.dtype == jnp.float32  # not divided by 255
        ends.append(tuple(map(bool, end)))
    assert ends == [(False, False)] * 9 + [(False, True)]  # terminated, truncated
    assert obs.shape == (10, 10, CHANNELS[game])
    assert env.observation_space(level).contains(obs)
    assert env.num_actions == NUM_ACTIONS[game] == getattr(env.action_space(), "n")  # noqa: B009


def test_freeway_is_cut_off_after_2500_steps_and_not_before():
    env = MinAtar("freeway")
    level = env.default_params
    keys = jax.random.split(jax.random.key(0), 2500)

    @jax.jit
    def play(state):
        def one(state, key):
            _, state, reward, *ends = step(env, key, state, jnp.int32(1), level)
            return state, (reward, *ends)

        return jax.lax.scan(one, state, keys)[1]

    reward, terminated, truncated = play(reset(env, keys[0])[1])
    assert truncated.sum() == 1 and truncated[-1] and not terminated.any()
    assert reward.sum() > 5  # always moving up crosses the road occasionally


def test_a_lost_ball_terminates_long_before_the_time_limit():
    env = MinAtar("breakout")
    level = env.default_params
    _, state = reset(env, jax.random.key(0))
    for t in range(40):
        action = jnp.int32(1 if state.ball_x > 4 else 2)  # move away from the ball
        _, state, _, terminated, truncated = step(env, jax.random.key(t), state, action, level)
        assert not truncated
        if terminated:
            return
    raise AssertionError("the ball was never lost")


def test_equal_games_are_equal_and_the_game_is_the_whole_configuration():
    assert MinAtar("freeway") == build(**VARIANTS["freeway"]) != MinAtar("asterix")
    assert hash(MinAtar("freeway")) == hash(build(game="freeway"))
    assert flatten(MinAtar("asterix")) == {"game": "asterix"}
    assert override(MinAtar("asterix"), {"game": "freeway"}) == MinAtar("freeway")
    with pytest.raises(ValueError, match="game='pong' is unknown"):
        override(MinAtar(), {"game": "pong"})
    with pytest.raises(ValueError, match="game='brakeout' is unknown; did you mean 'breakout'"):
        MinAtar("brakeout")
    assert not registry.has(MinAtar(), LevelEnv.num_states)


def test_a_game_that_is_first_met_inside_a_trace_leaves_no_tracer_behind():
    from rlgen.envs.external import minatar

    minatar._gymnax.cache_clear()
    env = MinAtar("breakout")
    _, state = jax.jit(lambda key: env.reset_env(key, env.default_params))(jax.random.key(0))
    level = env.default_params
    fresh = jax.jit(lambda state: env.step_env(jax.random.key(0), state, jnp.int32(2), level))
    assert fresh(state)[1].pos == 5  # reads the arrays of actions created at construction


@pytest.mark.thorough
@pytest.mark.parametrize("game", GAMES)
def test_a_suite_is_one_level_of_its_own_game(game):
    suite = load_suite(MinAtar(), f"minatar/{game}")
    assert suite.env == MinAtar(game) and suite.levels.names == (game,)
    assert suite.levels.level.max_steps_in_episode.tolist() == [LIMITS[game]]
