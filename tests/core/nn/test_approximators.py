"""Approximators: a table is a dense layer on one-hot states; networks, and rejected input."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from rlgen.nn.approximators import MLP, Conv, Separate, Table, approximator_for
from rlgen.protocols import Network
from rlgen.testing import Probe, assert_close
from tests.standins.stubs import Unplayed

S, A, B = 7, 3, 40


@dataclass(frozen=True)
class Pictures(Unplayed, abstract=True):
    """Environment with random observations of the given shapes."""

    shapes: tuple = ((5, 4, 2), (3,))
    num_actions: Any = A  # None means continuous actions

    def sample_level(self, key):
        return ()

    def reset_env(self, key, params):
        keys = jax.random.split(key, len(self.shapes))
        each = zip(keys, self.shapes, strict=True)
        return tuple(jax.random.normal(k, shape) for k, shape in each), ()


@dataclass(frozen=True)
class States(Pictures):
    """Environment whose observation is the number of its state."""

    def num_states(self):
        return S

    def unpack(self, obs):
        return jax.nn.one_hot(obs, S)

    def reset_env(self, key, params):
        return jnp.int32(2), ()


def test_a_table_is_a_dense_layer_on_one_hots():
    key_weights, key_states, key_up = jax.random.split(jax.random.key(0), 3)
    weights = jax.random.normal(key_weights, (S, A))
    obs = jax.random.randint(key_states, (B,), 0, S)
    up = jax.random.normal(key_up, (B, A))
    dense = nn.Dense(A, use_bias=False)

    def gathered(weights):
        return Table().apply(States(), weights, obs)

    def multiplied(weights):
        return dense.apply({"params": {"kernel": weights}}, jax.nn.one_hot(obs, S))

    ours, back = jax.vjp(gathered, weights)
    theirs, back_theirs = jax.vjp(multiplied, weights)
    np.testing.assert_array_equal(ours, theirs)
    np.testing.assert_allclose(back(up)[0], back_theirs(up)[0], rtol=1e-5, atol=1e-6)


def test_a_table_starts_at_zero():
    params = Table().init(jax.random.key(0), States(), A)
    assert params.shape == (S, A) and not params.any()


@pytest.mark.thorough
def test_an_mlp_is_flax_dense_layers_side_by_side():
    env, net = Pictures(), MLP((6, 5), "tanh")
    params = net.init(jax.random.key(0), env, 4)
    obs = jax.vmap(lambda key: env.reset_env(key, ())[0])(jax.random.split(jax.random.key(1), B))
    x = jnp.concatenate([leaf.reshape(B, -1) for leaf in obs], axis=1)
    for i, size in enumerate((6, 5, 4)):
        x = nn.Dense(size).apply({"params": params[f"dense_{i}"]}, x)
        x = jnp.tanh(jnp.asarray(x)) if i < 2 else x
    assert_close(net.apply(env, params, obs), x, "differs from flax's layers")


def test_an_mlp_without_hidden_layers_is_linear():
    env, net = Pictures(((4,),)), MLP(())
    params = net.init(jax.random.key(0), env, 2)
    obs = (jnp.eye(4),)
    np.testing.assert_allclose(net.apply(env, params, obs), params["dense_0"]["kernel"], rtol=1e-6)


def test_a_convolution_is_flax_layers():
    env, net = Pictures(((3,), (5, 4, 2))), Conv(features=3, hidden=(6,))
    params = net.init(jax.random.key(0), env, A)
    assert set(params) == {"conv_1", "dense_0", "dense_1"}
    vector, image = jax.vmap(lambda key: env.reset_env(key, ())[0])(
        jax.random.split(jax.random.key(1), B)
    )
    with jax.numpy_rank_promotion("allow"):
        conv = nn.Conv(3, (3, 3), padding="VALID").apply({"params": params["conv_1"]}, image)
        x = jnp.concatenate([vector, nn.relu(jnp.asarray(conv)).reshape(B, -1)], axis=1)
        x = nn.relu(jnp.asarray(nn.Dense(6).apply({"params": params["dense_0"]}, x)))
        x = nn.Dense(A).apply({"params": params["dense_1"]}, x)
    assert_close(net.apply(env, params, (vector, image)), x, "differs from flax's layers", 1e-4)


@pytest.mark.thorough
@pytest.mark.parametrize("net", [Table(), MLP((4,)), Conv(2, (4,))])
def test_agents_are_an_axis(net):
    env = States() if net == Table() else Pictures(((5, 4, 2),))
    init = jax.vmap(lambda key: net.init(key, env, A))
    params = init(jax.random.split(jax.random.key(0), 3))
    obs = jnp.arange(3 * B).reshape(3, B) % S
    if net != Table():
        obs = (jax.random.normal(jax.random.key(1), (3, B, 5, 4, 2)),)
    together = jax.jit(jax.vmap(lambda params, obs: net.apply(env, params, obs)))(params, obs)
    for i in range(3):
        one, seen = jax.tree.map(lambda x, i=i: x[i], (params, obs))
        assert_close(together[i], net.apply(env, one, seen), "differs from one alone", 1e-4)


@pytest.mark.parametrize(
    ("env", "net"),
    [
        (States(), Table()),
        (Pictures(), Conv()),
        (Pictures(((2, 9, 4),)), MLP()),  # too small for a 3×3 filter
        (Probe(), MLP()),
    ],
)
def test_an_environment_gets_what_suits_it(env, net):
    assert approximator_for(env) == net


# Separate policy and value networks.


def test_separate_is_a_network_of_two_groups():
    net = Separate(MLP((4,)))
    assert isinstance(net, Network)
    params = net.init(jax.random.key(0), Probe())
    assert tuple(params) == net.groups == ("actor", "critic")
    assert net.initial_carry(5) == ()


def test_a_sequence_is_its_steps():
    net, env = Separate(MLP((4,))), Probe()
    params = net.init(jax.random.key(0), env)
    obs, first = jax.random.normal(jax.random.key(1), (3, 5, 4)), jnp.zeros((3, 5), bool)
    _, logits, value = net.unroll(env, params, (), obs, first)
    assert logits.shape == (3, 5, 2) and value.shape == (3, 5)
    for t in range(3):
        step = net.step(env, params, (), obs[t], first[t])
        assert_close((logits[t], value[t]), step[1:], f"step {t} differs")


def test_the_value_has_no_influence_on_the_policy():
    net, env = Separate(MLP((4,))), Probe()
    params = net.init(jax.random.key(0), env)
    obs, first = jax.random.normal(jax.random.key(1), (3, 5, 4)), jnp.zeros((3, 5), bool)
    grads = jax.grad(lambda p: net.unroll(env, p, (), obs, first)[2].sum())(params)
    assert not any(x.any() for x in jax.tree.leaves(grads["actor"]))
    assert any(x.any() for x in jax.tree.leaves(grads["critic"]))


# Invalid input.


def test_a_table_refuses_an_environment_that_does_not_number_its_states():
    with pytest.raises(ValueError, match=r"a table needs an environment with num_states\(\)"):
        Table().init(jax.random.key(0), Pictures(), A)


@pytest.mark.parametrize("shapes", [((4,),), ((2, 9, 4),)])
def test_a_convolution_refuses_an_environment_without_images(shapes):
    with pytest.raises(ValueError, match=r"needs an image .* has leaves of shapes \(.*Choose MLP"):
        Conv().init(jax.random.key(0), Pictures(shapes), A)


def test_continuous_actions_are_refused():
    with pytest.raises(ValueError, match="Pictures has no num_actions: its actions are continuous"):
        Separate(MLP()).init(jax.random.key(0), Pictures(num_actions=None))


@pytest.mark.parametrize(
    ("kind", "fields", "sentence"),
    [
        (MLP, {"hidden": (8, 0)}, "hidden must be at least 1, got 8, 0"),
        (Conv, {"features": 0}, "features must be at least 1, got 0"),
        (MLP, {"activation": "gelu"}, "activation must be 'relu' or 'tanh', got 'gelu'"),
    ],
)
def test_sizes_out_of_range_are_refused(kind, fields, sentence):
    with pytest.raises(ValueError, match=sentence):
        unchecked = object.__new__(kind)  # else the tests' type checks would reject it first
        for name, value in fields.items():
            object.__setattr__(unchecked, name, value)
        unchecked.__post_init__()
