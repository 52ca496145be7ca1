"""Synthetic rollouts."""

import jax.numpy as jnp
import numpy as np
import pytest

from rlgen.testing import assert_same, random_rollout


def with_successors(seed, num_steps, num_slots):
    """Rollout of random observations, including the observation after the last step."""
    data = random_rollout(seed, num_steps, num_slots, 1)
    last = np.random.default_rng(seed + 1).normal(size=(1, num_slots, 4))
    return data._replace(last_obs=jnp.asarray(last, jnp.float32))


def check_what_counts(learn, data):
    """Check that networks learn from valid transitions of weighted slots, and from no others.

    Args:
        learn: Function that returns the networks trained on a rollout whose slot 0 has weight 0.
        data: Rollout in which the last step of slot 3 ends an episode.
    """
    wild = data._replace(
        action=jnp.where(data.done, 1 - data.action, data.action),
        obs=data.obs.at[:, 0].set(1e6),
        last_obs=data.last_obs.at[:, 3].set(-1e6),
    )
    plain = learn(data)
    assert_same(learn(wild), plain, "the networks learned from data that must be ignored")
    other = data._replace(action=jnp.where(data.done, data.action, 1 - data.action))
    with pytest.raises(AssertionError, match="the networks ignored valid data"):
        assert_same(learn(other), plain, "the networks ignored valid data")
