"""The actor-critic: published sizes, convolution, and handling of observations."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct

from rlgen.algos.learners.ppo import PPO
from rlgen.nn.actor_critic import CORES, ActorCritic
from rlgen.nn.layers import Conv
from rlgen.protocols import LevelEnv
from rlgen.testing import solve_probes


@struct.dataclass
class Level:
    max_steps_in_episode: jax.Array


class Looker(LevelEnv):
    """Environment with the observations of a maze, a 5x5 image and a direction; seven actions."""

    @property
    def num_actions(self):
        return 7

    def sample_level(self, key):
        return Level(jnp.int32(1))

    def step_env(self, key, state, action, params):
        return self.reset_env(key, params)[0], state + 1, jnp.float32(0), jnp.bool_(True), {}

    def reset_env(self, key, params):
        obs = {"image": jnp.ones((5, 5, 3)), "direction": jax.nn.one_hot(1, 4)}
        return obs, jnp.int32(0)

    def observation_space(self, params=None):
        raise NotImplementedError


def sizes(params):
    return {name: sum(x.size for x in jax.tree.leaves(part)) for name, part in params.items()}


def test_default_has_the_published_number_of_parameters():
    params = jax.eval_shape(lambda key: ActorCritic().init(key, Looker()), jax.random.key(0))
    found = sizes(params)
    assert found.pop("conv_1") == 3 * 3 * 3 * 16 + 16
    assert found.pop("vector_0") == 4 * 5 + 5
    assert found == {
        "lstm": (149 + 256 + 1) * 4 * 256,
        "actor_hidden": 256 * 32 + 32,
        "actor": 32 * 7 + 7,
        "critic_hidden": 256 * 32 + 32,
        "critic": 32 + 1,
    }
    assert sum(sizes(params).values()) == 432_929


@pytest.mark.parametrize("size", [5, 11])
def test_convolution_is_that_of_lax(size):
    image = jax.random.normal(jax.random.key(0), (3, 2, size, size, 3))
    conv = Conv(4)
    params = jax.jit(conv.init)(jax.random.key(1), image)["params"]
    params["bias"] = jnp.arange(4.0)
    expected = jax.lax.conv_general_dilated(
        image.reshape(6, size, size, 3),
        params["kernel"],
        (1, 1),
        "VALID",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    expected = expected + params["bias"][None, None, None]
    found = jax.jit(conv.apply)({"params": params}, image)
    np.testing.assert_allclose(found, expected.reshape(3, 2, -1), rtol=1e-4, atol=1e-5)


@pytest.mark.thorough
@pytest.mark.parametrize(("core", "num_layers"), [*((core, 0) for core in CORES), ("gru", 2)])
def test_unroll_is_many_steps(core, num_layers):
    network = ActorCritic(core, hidden_size=8, num_layers=num_layers, head_size=8)
    env, num_steps, num_slots = Looker(), 4, 3
    params = jax.jit(lambda key: network.init(key, env))(jax.random.key(0))
    image = jax.random.normal(jax.random.key(1), (num_steps, num_slots, 5, 5, 3))
    direction = jax.random.normal(jax.random.key(2), (num_steps, num_slots, 4))
    obs = {"image": image, "direction": direction}
    first = jax.random.bernoulli(jax.random.key(3), 0.3, (num_steps, num_slots))
    carry = network.initial_carry(num_slots)
    unroll, step = (jax.jit(partial(run, env, params)) for run in (network.unroll, network.step))
    _, logits, value = unroll(carry, obs, first)
    for t in range(num_steps):
        now = jax.tree.map(lambda x, t=t: x[t], obs)
        carry, step_logits, step_value = step(carry, now, first[t])
        np.testing.assert_allclose(step_logits, logits[t], rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(step_value, value[t], rtol=1e-4, atol=1e-6)


@pytest.mark.thorough
@pytest.mark.parametrize(("core", "num_gates"), [("lstm", 4), ("gru", 3)])
def test_recurrent_weights_of_each_gate_are_orthogonal(core, num_gates):
    network = ActorCritic(core, hidden_size=8, head_size=8, conv_features=2)
    params = jax.jit(lambda key: network.init(key, Looker()))(jax.random.key(0))
    for block in jnp.split(params[core]["recurrent"], num_gates, axis=-1):
        np.testing.assert_allclose(block @ block.T, np.eye(8), atol=1e-5)


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("core", "by_default", "name"),
    [("lstm", 1, "lstm"), ("gru", 1, "gru"), ("none", 1, "trunk"), ("linear", 2, "linear")],
)
def test_a_core_of_its_own_depth_is_one_of_that_many_layers(core, by_default, name):
    def shapes(num_layers):
        network = ActorCritic(core, hidden_size=8, num_layers=num_layers)
        init = lambda key: (network.init(key, Looker()), network.initial_carry(3))  # noqa: E731
        return jax.eval_shape(init, jax.random.key(0))

    assert name in shapes(0)[0]
    assert shapes(0) == shapes(by_default)
    assert sum(x.size for x in jax.tree.leaves(shapes(by_default + 1))) > sum(
        x.size for x in jax.tree.leaves(shapes(0))
    )


@pytest.mark.thorough
def test_first_policy_is_nearly_uniform():
    network = ActorCritic(hidden_size=16)
    obs = {"image": 10 * jnp.ones((2, 5, 5, 3)), "direction": jnp.ones((2, 4))}

    @jax.jit
    def first_logits(key):
        params, carry = network.init(key, Looker()), network.initial_carry(2)
        return network.step(Looker(), params, carry, obs, jnp.ones(2, bool))[1]

    np.testing.assert_allclose(jax.nn.softmax(first_logits(jax.random.key(0))), 1 / 7, atol=0.02)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"core": "rnn"}, "core must be 'lstm', 'gru', 'linear' or 'none', got 'rnn'"),
        ({"activation": "gelu"}, "activation must be 'relu' or 'tanh', got 'gelu'"),
        ({"num_layers": -1}, "network.num_layers must be at least 1, or 0 .*, got -1"),
        ({"hidden_size": 0}, "network.hidden_size must be at least 1, got 0"),
    ],
)
def test_impossible_networks_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        unchecked = object.__new__(ActorCritic)  # else the tests' type checks would reject it first
        for name, value in fields.items():
            object.__setattr__(unchecked, name, value)
        unchecked.__post_init__()


@pytest.mark.thorough
@pytest.mark.parametrize("core", ["gru", "linear"])  # test_ppo covers the LSTM
def test_a_core_learns_to_remember(core):
    def build(env):
        network = ActorCritic(core, hidden_size=16, head_size=16)
        settings = {"discount": 0.6, "gae_lambda": 1.0, "num_epochs": 4, "learning_rate": 0.01}
        return PPO(env, network, **settings)

    assert solve_probes(build, probes=("memory",))["memory"].solved
