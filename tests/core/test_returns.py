"""Advantages and per-level statistics, against slow loops and numbers worked by hand."""

import jax.numpy as jnp
import numpy as np
import pytest

from rlgen.returns import episode_progress, episodes, gae, mean_per_level
from rlgen.types import Rollout

T, N, R = 24, 5, 3


def random_rollout(seed, levels_per_slot=R, end_prob=0.25):
    """Return a rollout with several episodes per slot, both kinds of end, and a full queue."""
    rng = np.random.default_rng(seed)
    first = np.zeros((T, N), bool)
    turn = np.zeros((T, N), np.int32)
    done = rng.random((T, N)) < end_prob
    done[:, 0] = False  # one slot never finishes
    terminated = done & (rng.random((T, N)) < 0.6)
    first[0] = True
    first[1:] = done[:-1]
    turn[1:] = np.cumsum(done[:-1], 0) % levels_per_slot
    floats = [rng.normal(size=(T, N)).astype(np.float32) for _ in range(4)]
    value, next_value, reward, bonus = map(jnp.asarray, floats)
    return Rollout(
        obs=(),
        action=jnp.zeros((T, N), jnp.int32),
        log_prob=jnp.zeros((T, N)),
        value=value,
        next_value=jnp.where(terminated, 0.0, next_value),
        first=jnp.asarray(first),
        terminated=jnp.asarray(terminated),
        truncated=jnp.asarray(done & ~terminated),
        level_index=jnp.asarray(turn),
        reward=reward,
        bonus=bonus,
        carry=(),
    )


def slow_episodes(rollout, slot):
    """Split a slot's rollout into episodes: [level index, list of steps, completed]."""
    pieces = []
    for t in range(T):
        if bool(rollout.first[t, slot]):
            pieces.append([int(rollout.level_index[t, slot]), [], False])
        pieces[-1][1].append(t)
        pieces[-1][2] = bool(rollout.terminated[t, slot] | rollout.truncated[t, slot])
    return pieces


def slow_gae(rollout, discount, gae_lambda, bootstrap, include_bonus):
    out = np.zeros((T, N))
    for n in range(N):
        following = 0.0
        for t in reversed(range(T)):
            terminated, truncated = bool(rollout.terminated[t, n]), bool(rollout.truncated[t, n])
            reward = float(rollout.reward[t, n]) + include_bonus * float(rollout.bonus[t, n])
            after = float(rollout.next_value[t, n])
            if terminated or (truncated and not bootstrap):
                after = 0.0
            delta = reward + discount * after - float(rollout.value[t, n])
            following = 0.0 if terminated or truncated else following
            following = delta + discount * gae_lambda * following
            out[t, n] = following
    return out


@pytest.mark.parametrize("bootstrap", [True, False])
@pytest.mark.parametrize("include_bonus", [True, False])
def test_gae_equals_a_slow_loop_with_terminations_and_time_limits(bootstrap, include_bonus):
    rollout = random_rollout(0)
    fast = gae(rollout, 0.9, 0.8, bootstrap, include_bonus)
    slow = slow_gae(rollout, 0.9, 0.8, bootstrap, include_bonus)
    np.testing.assert_allclose(fast, slow, rtol=1e-4, atol=1e-5)


def test_gae_with_lambda_one_is_the_return_minus_the_value():
    rollout = random_rollout(1)
    discount = 0.9
    advantage = np.asarray(gae(rollout, discount, 1.0, include_bonus=False))
    for n in range(N):
        for _, steps, _ in slow_episodes(rollout, n):
            total = float(rollout.next_value[steps[-1], n])  # 0 if it terminated
            for t in reversed(steps):
                total = float(rollout.reward[t, n]) + discount * total
                # Intermediate values cancel only if next_value[u] equals value[u + 1].
                between = sum(
                    discount ** (u - t + 1)
                    * float(rollout.next_value[u, n] - rollout.value[u + 1, n])
                    for u in range(t, steps[-1])
                )
                np.testing.assert_allclose(
                    advantage[t, n], total + between - rollout.value[t, n], rtol=1e-4, atol=1e-4
                )


def one_slot(terminated, truncated, **fields):
    """Build a rollout of one slot from lists."""
    done = np.asarray(terminated, bool) | np.asarray(truncated, bool)
    num_steps = len(done)
    first = np.concatenate([[True], done[:-1]])
    columns = {
        "value": np.zeros(num_steps),
        "next_value": np.zeros(num_steps),
        "reward": np.zeros(num_steps),
        "bonus": np.zeros(num_steps),
        "level_index": np.zeros(num_steps, np.int32),
        "log_prob": np.zeros(num_steps),
        "action": np.zeros(num_steps, np.int32),
        "first": first,
        "terminated": np.asarray(terminated, bool),
        "truncated": np.asarray(truncated, bool),
    } | {name: np.asarray(x) for name, x in fields.items()}
    narrow = {np.dtype(np.float64): np.float32, np.dtype(np.int64): np.int32}
    columns = {k: jnp.asarray(x[:, None], narrow.get(x.dtype, x.dtype)) for k, x in columns.items()}
    return Rollout(obs=(), carry=(), **columns)


def test_gae_of_a_time_limit_worked_by_hand():
    """Step 1 is truncated at the time limit, with value 4 after it; step 2 starts an episode."""
    rollout = one_slot(
        terminated=[0, 0, 1],
        truncated=[0, 1, 0],
        reward=[1.0, 2.0, 3.0],
        value=[0.5, 1.0, 2.0],
        next_value=[1.0, 4.0, 0.0],
    )
    # delta = (1 + .5·1 − .5, 2 + .5·4 − 1, 3 − 2) = (1, 3, 1); γλ = .25
    np.testing.assert_allclose(gae(rollout, 0.5, 0.5)[:, 0], [1.75, 3.0, 1.0])
    # as a termination: delta = (1, 1, 1)
    np.testing.assert_allclose(
        gae(rollout, 0.5, 0.5, bootstrap_truncation=False)[:, 0], [1.25, 1.0, 1.0]
    )


@pytest.mark.parametrize("levels_per_slot", [1, R])
def test_episode_statistics_equal_a_slow_loop(levels_per_slot):
    rollout = random_rollout(2, levels_per_slot)
    success = jnp.asarray(np.random.default_rng(3).random((T, N)) < 0.5)
    stats = episodes(rollout, levels_per_slot, success)
    total, length = episode_progress(rollout)
    for n in range(N):
        pieces = slow_episodes(rollout, n)
        for _, steps, _ in pieces:
            np.testing.assert_allclose(
                total[steps, n], np.cumsum(rollout.reward[steps, n]), rtol=1e-4, atol=1e-5
            )
            np.testing.assert_array_equal(length[steps, n], np.arange(len(steps)) + 1)
        for r in range(levels_per_slot):
            ended = [steps for turn, steps, complete in pieces if turn == r and complete]
            returns = [float(rollout.reward[steps, n].sum()) for steps in ended]
            assert stats.num[n, r] == len(ended)
            assert stats.num_success[n, r] == sum(bool(success[steps[-1], n]) for steps in ended)
            best = max(returns, default=-np.inf)
            np.testing.assert_allclose(stats.max_return[n, r], best, rtol=1e-4, atol=1e-5)
            mean = np.mean(returns) if ended else np.nan
            np.testing.assert_allclose(stats.mean_return[n, r], mean, rtol=1e-4, atol=1e-5)
            mean = np.mean([len(steps) for steps in ended]) if ended else np.nan
            np.testing.assert_allclose(stats.mean_length[n, r], mean, rtol=1e-6)


def slow_mean_per_level(x, rollout, levels_per_slot, completed_only):
    out = np.full((N, levels_per_slot), -np.inf)
    for n in range(N):
        for r in range(levels_per_slot):
            means = [
                np.mean([float(x[t, n]) for t in steps])
                for turn, steps, complete in slow_episodes(rollout, n)
                if turn == r and (complete or not completed_only)
            ]
            if means:
                out[n, r] = np.mean(means)
    return out


@pytest.mark.parametrize("completed_only", [True, False])
@pytest.mark.parametrize("levels_per_slot", [1, R])
def test_mean_per_level_equals_a_slow_loop(levels_per_slot, completed_only):
    for seed in range(3):
        rollout = random_rollout(seed, levels_per_slot, end_prob=0.1 + 0.2 * seed)
        fast = mean_per_level(rollout.value, rollout, levels_per_slot, completed_only)
        slow = slow_mean_per_level(rollout.value, rollout, levels_per_slot, completed_only)
        np.testing.assert_allclose(fast, slow, rtol=1e-4, atol=1e-5)


def test_a_level_that_the_queue_did_not_reach_has_no_mean():
    rollout = one_slot(
        terminated=[0, 1, 0], truncated=[0, 0, 0], level_index=[0, 0, 1], value=[1.0, 3.0, 7.0]
    )
    every = mean_per_level(rollout.value, rollout, 3)[0]
    np.testing.assert_array_equal(every, [2.0, 7.0, -np.inf])
    completed = mean_per_level(rollout.value, rollout, 3, completed_only=True)[0]
    np.testing.assert_array_equal(completed, [2.0, -np.inf, -np.inf])
