"""The two scans over environment steps, against slow loops in plain Python."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct

from rlgen.protocols import Learner, LevelEnv
from rlgen.rollout import Record, play, rollout

T, N, R = 14, 3, 3
DISCOUNT_ACTION = 0.25


@struct.dataclass
class Level:
    max_steps_in_episode: jax.Array
    num_steps: jax.Array  # number of steps until the episode terminates
    number: jax.Array


@struct.dataclass
class State:
    time: jax.Array
    luck: jax.Array  # drawn at reset


@dataclass(frozen=True)
class Counter(LevelEnv):
    """Environment that shows its level's number, the time, and a number drawn at reset."""

    @property
    def num_actions(self):
        return 2

    def sample_level(self, key):
        return jax.tree.map(lambda x: x[0, 0], make_levels())

    def reset_env(self, key, params):
        state = State(jnp.int32(0), jax.random.uniform(key))
        return self.observe(state, params), state

    def observe(self, state, params):
        return jnp.stack([params.number, state.time.astype(jnp.float32), state.luck])

    def step_env(self, key, state, action, params):
        state = state.replace(time=state.time + 1)
        reward = params.number + DISCOUNT_ACTION * action + 0.01 * state.time
        return self.observe(state, params), state, reward, state.time >= params.num_steps, {}

    def observation_space(self, params=None):
        raise NotImplementedError


@dataclass(frozen=True)
class Stub(Learner):
    """Learner with a fixed policy and value; its carry counts the steps of the episode."""

    bptt_steps: int = 0

    def init(self, key):
        return ()

    def update(self, key, state, rollout, weight):
        return state, {}

    def initial_carry(self, num_slots):
        return jnp.zeros(num_slots, jnp.int32)

    def act(self, key, state, carry, obs, first):
        carry = jnp.where(first, 0, carry) + 1
        action = (obs[:, 0] + obs[:, 1]).astype(jnp.int32) % 2
        return carry, action, -obs[:, 1], self._value(carry, obs)

    def value(self, state, carry, obs, first):
        return self._value(jnp.where(first, 0, carry) + 1, obs)

    def _value(self, carry, obs):
        return 100 * obs[:, 0] + obs[:, 1] + 1000 * carry


def make_levels():
    """Return queues, [N, R], with terminations, time limits, both, and one-step episodes."""
    num_steps = np.array([[2, 9, 1], [9, 9, 9], [3, 9, 20]])
    limit = np.array([[9, 3, 9], [2, 1, 3], [3, 4, 20]])
    number = np.arange(N * R).reshape(N, R)
    return Level(jnp.asarray(limit), jnp.asarray(num_steps), jnp.asarray(number, jnp.float32))


NAMES = [
    "obs",
    "action",
    "value",
    "next_value",
    "first",
    "terminated",
    "truncated",
    "level_index",
    "reward",
]


def loop(levels, luck, num_steps):
    """Compute the rollout one slot and step at a time; luck is [N, R]."""
    rows = {name: np.zeros((num_steps, N), object) for name in (*NAMES, "carry")}
    for n in range(N):
        turn, time, count = 0, 0, 0
        for t in range(num_steps):
            number = n * R + turn
            limit = levels.max_steps_in_episode[n, turn]
            action = (number + time) % 2
            over = bool(time + 1 >= levels.num_steps[n, turn])
            cut = bool(time + 1 >= limit) and not over
            after = 100 * number + (time + 1) + 1000 * (count + 2)
            rows["obs"][t, n] = (number, time, luck[n, turn])
            rows["action"][t, n] = action
            rows["value"][t, n] = 100 * number + time + 1000 * (count + 1)
            rows["next_value"][t, n] = 0 if over else after
            rows["first"][t, n] = time == 0
            rows["terminated"][t, n], rows["truncated"][t, n] = over, cut
            rows["level_index"][t, n] = turn
            rows["reward"][t, n] = number + DISCOUNT_ACTION * action + 0.01 * (time + 1)
            rows["carry"][t, n] = count  # before the step, from this episode or the last one
            time, count = time + 1, count + 1
            if over or cut:
                turn, time, count = (turn + 1) % R, 0, 0
    return {name: np.array(values.tolist(), np.float64) for name, values in rows.items()}


@pytest.fixture(scope="module")
def levels():
    return make_levels()


@pytest.fixture(scope="module")
def played(levels):
    run = jax.jit(
        lambda key: rollout(
            key, Counter(), Stub(7), (), levels, T, Record(lambda state: state.time)
        )
    )
    return run(jax.random.key(0))


@pytest.fixture(scope="module")
def expected(levels, played):
    return loop(levels, first_luck(played[0]), T)


def first_luck(rollout):
    """Return the number drawn at each level's first reset; NaN for levels not played."""
    luck = np.full((N, R), np.nan)
    for t, n in np.argwhere(rollout.first)[::-1]:
        luck[n, rollout.level_index[t, n]] = rollout.obs[t, n, 2]
    return luck


def test_rollout_is_a_slow_loop(played, expected):
    for name in set(expected) - {"carry"}:
        found = np.asarray(getattr(played[0], name), np.float64)
        np.testing.assert_allclose(found, expected[name], rtol=1e-5, err_msg=name)


def test_queue_is_met_in_order_and_wraps_round(played):
    turn, first = np.asarray(played[0].level_index), np.asarray(played[0].first)
    for n in range(N):
        begun = turn[first[:, n], n]
        np.testing.assert_array_equal(begun, np.arange(len(begun)) % R)
    assert max(np.asarray(first).sum(0)) > R, "no slot wrapped around"


def test_true_next_value_at_a_time_limit_is_not_that_of_the_reset(played):
    value, next_value = np.asarray(played[0].value), np.asarray(played[0].next_value)
    cut = np.argwhere(np.asarray(played[0].truncated)[:-1])
    assert len(cut) > 3
    for t, n in cut:
        assert next_value[t, n] > value[t, n] != value[t + 1, n]
        assert next_value[t, n] != value[t + 1, n]


def test_termination_at_the_time_limit_is_a_termination(played):
    both = (2, 2)  # slot 2, level 0: 3 steps and a limit of 3
    assert played[0].terminated[both] and not played[0].truncated[both]
    assert not (played[0].terminated & played[0].truncated).any()
    assert played[0].next_value[both] == 0


def test_end_of_the_rollout_bootstraps(levels):
    short, _ = rollout(jax.random.key(0), Counter(), Stub(), (), levels, 2)
    assert not short.done[-1, 2]
    assert short.next_value[-1, 2] == 100 * 6 + 2 + 1000 * 3


def test_bptt_steps_keeps_the_state_before_each_part(played, expected):
    assert played[0].carry.shape == (2, N)
    for part, t in enumerate((0, 7)):
        at_start = np.asarray(played[0].first)[t]
        kept = np.where(at_start, 0, played[0].carry[part])  # `first` zeroes it
        np.testing.assert_array_equal(kept, expected["carry"][t])


def test_trace_is_taken_before_each_step_and_at_the_end(played):
    rollout, time = played
    np.testing.assert_array_equal(time[:-1], rollout.obs[..., 1])
    np.testing.assert_array_equal(time[-1], np.where(rollout.done[-1], 0, time[-2] + 1))


def slow_play(levels, max_steps):
    """Compute return, length and end of the first episode on each level."""
    results = []
    number = np.asarray(levels.number)
    for b in range(len(number)):
        total, length, over = 0.0, 0, False
        while length < max_steps:
            action = int(number[b] + length) % 2
            length += 1
            total += number[b] + DISCOUNT_ACTION * action + 0.01 * length
            over = length >= int(levels.num_steps[b])
            if over or length >= int(levels.max_steps_in_episode[b]):
                break
        results.append((total, length, over))
    return [np.array(column) for column in zip(*results, strict=True)]


@pytest.mark.thorough
@pytest.mark.parametrize("max_steps", [10**9, 2])
def test_play_counts_the_first_episode_of_each_level_and_stops(levels, max_steps):
    # A billion steps are allowed, so this test only ends if play stops when all are done.
    flat = jax.tree.map(lambda x: x.reshape(-1), levels)
    played = play(jax.random.key(1), Counter(), Stub(), (), flat, max_steps, steps_per_check=8)
    total, length, over = slow_play(flat, max_steps)
    np.testing.assert_allclose(played.episode_return, total, rtol=1e-5)
    np.testing.assert_array_equal(played.length, length)
    np.testing.assert_array_equal(played.terminated, over)
