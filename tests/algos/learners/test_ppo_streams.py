"""PPO's two value streams: the bonus has its own value, discount and episode boundaries."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlgen.algos.learners.ppo import PPO, IntrinsicStream
from rlgen.nn.actor_critic import ActorCritic
from rlgen.nn.approximators import MLP, Separate
from rlgen.rollout import rollout
from rlgen.testing import Probe, assert_close, random_rollout

T, N = 12, 4
KEY = jax.random.key(0)
NETWORK = ActorCritic(core="lstm", hidden_size=4, head_size=4)
LEARNER = PPO(Probe(), NETWORK, num_epochs=1, two_streams=True, learning_rate=1e-2)


@pytest.fixture(scope="module")
def played():
    """A learner's state, and its rollout with a synthetic bonus."""
    state = LEARNER.init(KEY)
    level = jax.vmap(Probe().sample_level)(jax.random.split(KEY, N))
    level = jax.tree.map(lambda x: x[:, None], level)
    found = rollout(KEY, Probe(), LEARNER, state, level, T)[0]
    return state, found._replace(bonus=jax.random.uniform(KEY, (T, N)))


def slow_advantage(stream, data, values):
    """Compute the advantage backwards, one number at a time."""
    advantage = np.zeros((T + 1, N))
    for t in reversed(range(T)):
        for n in range(N):
            over = bool(data.done[t, n]) and stream.episodic
            follows = 0.0 if over else stream.discount
            delta = data.bonus[t, n] + follows * values[t + 1, n] - values[t, n]
            advantage[t, n] = delta + follows * stream.gae_lambda * advantage[t + 1, n]
    return advantage[:T]


@pytest.mark.parametrize("episodic", [True, False])
def test_the_bonus_is_summed_over_episodes_or_over_the_whole_life(episodic):
    stream = IntrinsicStream(discount=0.9, gae_lambda=0.8, episodic=episodic)
    data = random_rollout(1, T, N, 1)
    rng = np.random.default_rng(0)
    data = data._replace(bonus=jnp.asarray(rng.random((T, N)), jnp.float32))
    values = rng.normal(size=(T + 1, N)).astype(np.float32)
    assert data.done.any()
    found = stream.advantage(data, jnp.asarray(values))
    np.testing.assert_allclose(found, slow_advantage(stream, data, values), rtol=1e-4, atol=1e-5)


@pytest.mark.thorough
def test_the_values_of_the_bonus_are_those_of_its_head_step_by_step(played):
    state, data = played
    batch = LEARNER._batch(state.params, data, jnp.ones(N))
    network, carry = replace(NETWORK, num_values=2), LEARNER.initial_carry(N)
    for t in range(T):
        obs = jax.tree.map(lambda x, t=t: x[t], data.obs)
        carry, _, both = network.values(Probe(), state.params, carry, obs, data.first[t])
        np.testing.assert_allclose(both[:, 0], data.value[t], rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(both[:, 1], batch.bonus_value[t], rtol=1e-4, atol=1e-6)


@pytest.mark.thorough
def test_reward_and_bonus_are_mixed_in_the_advantage_alone(played):
    state, data = played
    one = replace(LEARNER, two_streams=False)
    nothing = replace(LEARNER, intrinsic=IntrinsicStream(coef=0.0, extrinsic_coef=3.0))
    weight = jnp.ones(N)
    plain = one._batch(state.params, data._replace(bonus=jnp.zeros((T, N))), weight)
    found = nothing._batch(state.params, data, weight)
    assert_close(found.advantage, 3.0 * plain.advantage, "the bonus is in the reward's advantage")
    assert_close(found.target, plain.target, "the bonus is in the reward's value")


@pytest.mark.thorough
def test_a_slot_without_weight_leaves_no_trace_in_either_stream(played):
    state, data = played
    weight = jnp.ones(N).at[1].set(0.0)
    update = jax.jit(LEARNER.update)
    wild = data._replace(bonus=data.bonus.at[:, 1].set(jnp.nan))
    first, second = (update(KEY, state, x, weight)[0].params for x in (data, wild))
    assert_close(first, second, "a slot of weight 0 changed the result")
    other = data._replace(bonus=data.bonus.at[:, 0].add(1.0))
    moved = jax.tree.map(
        lambda x, y: bool((x != y).any()), update(KEY, state, other, weight)[0].params, first
    )
    assert any(jax.tree.leaves(moved))


def test_a_network_of_one_value_is_refused():
    with pytest.raises(ValueError, match="two_streams needs a network with several values"):
        PPO(Probe(), Separate(MLP((4,))), two_streams=True)
    with pytest.raises(ValueError, match=r"intrinsic.discount must lie in \[0, 1\], got 1.5"):
        IntrinsicStream(discount=1.5)
