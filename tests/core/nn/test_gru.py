"""The GRU and its hand-written backward pass, against flax's cell and JAX's differentiation."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlgen.nn import layers

T, N, I, H = 5, 2, 2, 3  # noqa: E741, N is the number of slots, I of inputs


@pytest.fixture(scope="module")
def inputs():
    """Weights, an initial state, a sequence, and the steps at which episodes start."""
    keys = jax.random.split(jax.random.key(0), 6)
    shapes = (I, 3 * H), (H, 3 * H), (3 * H,), (H,)
    weights = layers.GRUWeights(*map(jax.random.normal, keys[:4], shapes))
    first = jnp.zeros((T, N), bool).at[2, 0].set(True).at[jnp.array([0, 4]), 1].set(True)
    return weights, jax.random.normal(keys[4], (N, H)), jax.random.normal(keys[5], (T, N, I)), first


def flax_params(weights):
    params = {}
    for i, gate in enumerate("rzn"):
        part = slice(i * H, (i + 1) * H)
        params[f"i{gate}"] = {"kernel": weights.inputs[:, part], "bias": weights.bias[part]}
        params[f"h{gate}"] = {"kernel": weights.recurrent[:, part]}
    params["hn"]["bias"] = weights.recurrent_bias
    return params


def by_scan(weights, hidden, x, first):
    """Run the sequence as a scan that JAX differentiates itself."""

    def step(hidden, xs):
        hidden = layers.gru_step(weights, hidden, *xs)
        return hidden, hidden

    return jax.lax.scan(step, hidden, (x, first))


def test_it_is_flax_gru_cell_with_the_same_weights_and_resets(inputs):
    weights, theirs, x, first = inputs
    end, outputs = jax.jit(layers.gru)(*inputs)
    cell, params = nn.GRUCell(H), {"params": flax_params(weights)}
    for t in range(T):
        theirs, _ = cell.apply(params, jnp.where(first[t][:, None], 0.0, theirs), x[t])
        np.testing.assert_allclose(outputs[t], theirs, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(end, theirs, rtol=1e-5, atol=1e-6)


def test_a_step_is_a_sequence_of_one(inputs):
    found, expected = jax.jit(layers.gru)(*inputs), jax.jit(by_scan)(*inputs)
    for got, want in zip(found, expected, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


def test_gradients_are_those_of_a_differentiated_scan(inputs):
    *args, first = inputs
    out_coef = jax.random.normal(jax.random.key(1), (T, N, H))
    end_coef = jax.random.normal(jax.random.key(2), (N, H))

    def gradient(run):
        def loss(*args):
            end, hidden = run(*args, first)
            return (hidden * out_coef).sum() + (end * end_coef).sum()

        return jax.tree.leaves(jax.jit(jax.grad(loss, argnums=(0, 1, 2)))(*args))

    for got, want in zip(gradient(layers.gru), gradient(by_scan), strict=True):
        np.testing.assert_allclose(got, want, rtol=2e-4, atol=2e-5)


def test_no_gradient_passes_the_beginning_of_an_episode(inputs):
    weights, hidden, x, first = inputs

    def late(hidden, x):
        """Sum the outputs of slot 0 from its second episode on."""
        return layers.gru(weights, hidden, x, first)[1][2:, 0].sum()

    of_hidden, of_x = jax.jit(jax.grad(late, argnums=(0, 1)))(hidden, x)
    assert (of_hidden[0] == 0).all()
    assert (of_x[:2, 0] == 0).all() and (of_x[2:, 0] != 0).any()
