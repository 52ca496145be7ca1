"""The LSTM and its hand-written backward pass, against NumPy, finite differences, JAX, flax."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlgen.nn import layers

T, N, I, H = 5, 2, 2, 3  # noqa: E741, N is the number of slots, I of inputs


@pytest.fixture(scope="module")
def inputs():
    """Weights, initial state, a sequence with episode starts, and coefficients of the loss."""
    rng = np.random.default_rng(0)
    weights = [rng.normal(size=s) for s in ((I, 4 * H), (H, 4 * H), (4 * H,))]
    carry, x = rng.normal(size=(2, N, H)), rng.normal(size=(T, N, I))
    first = np.zeros((T, N), bool)
    first[2, 0] = first[0, 1] = first[4, 1] = True
    return weights, carry, x, first, rng.normal(size=(T, N, H)), rng.normal(size=(2, N, H))


def numpy_lstm(weights, carry, x, first):
    """Compute hidden states and final state in float64, one slot and step at a time."""
    (w_in, w_rec, bias), outputs = weights, np.zeros((*x.shape[:2], carry.shape[-1]))
    end = carry.copy()
    for n in range(x.shape[1]):
        cell, hidden = carry[:, n]
        for t in range(x.shape[0]):
            if first[t, n]:
                cell, hidden = np.zeros_like(cell), np.zeros_like(hidden)
            z = x[t, n] @ w_in + hidden @ w_rec + bias
            i, f, g, o = np.split(z, 4)
            cell = cell / (1 + np.exp(-f)) + np.tanh(g) / (1 + np.exp(-i))
            hidden = np.tanh(cell) / (1 + np.exp(-o))
            outputs[t, n] = hidden
        end[:, n] = cell, hidden
    return outputs, end


def as_jax(weights, carry, x):
    to = lambda array: jnp.asarray(array, jnp.float32)  # noqa: E731
    return (
        layers.LSTMWeights(*map(to, weights)),
        layers.LSTMCarry(*map(to, carry)),
        to(x),
    )


def by_scan(weights, carry, x, first):
    """Run the sequence as a scan that JAX differentiates itself."""

    def step(carry, xs):
        carry = layers.lstm_step(weights, carry, *xs)
        return carry, carry.hidden

    return jax.lax.scan(step, carry, (x, first))


def loss_of(run, first, out_coef, end_coef):
    def loss(weights, carry, x):
        end, hidden = run(weights, carry, x, jnp.asarray(first))
        return (hidden * out_coef).sum() + (jnp.stack(end) * end_coef).sum()

    return loss


def test_forward_is_the_textbook_lstm_with_resets(inputs):
    weights, carry, x, first, _, _ = inputs
    outputs, end = numpy_lstm(weights, carry, x, first)
    found_end, found = jax.jit(layers.lstm)(*as_jax(weights, carry, x), jnp.asarray(first))
    np.testing.assert_allclose(found, outputs, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(jnp.stack(found_end), end, rtol=1e-4, atol=1e-5)


def test_a_step_is_a_sequence_of_one(inputs):
    weights, carry, x, first, _, _ = inputs
    args = as_jax(weights, carry, x)
    stepped, hidden = by_scan(*args, jnp.asarray(first))
    end, outputs = layers.lstm(*args, jnp.asarray(first))
    np.testing.assert_allclose(hidden, outputs, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(stepped.cell, end.cell, rtol=1e-5, atol=1e-6)


def test_gradients_are_those_of_a_differentiated_scan(inputs):
    weights, carry, x, first, out_coef, end_coef = inputs
    grads = [
        jax.jit(jax.grad(loss_of(run, first, out_coef, end_coef), argnums=(0, 1, 2)))
        for run in (layers.lstm, by_scan)
    ]
    found, expected = (grad(*as_jax(weights, carry, x)) for grad in grads)
    for got, want in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(got, want, rtol=2e-4, atol=2e-5)


def test_gradients_are_finite_differences_of_numpy(inputs):
    weights, carry, x, first, out_coef, end_coef = inputs
    grad = jax.grad(loss_of(layers.lstm, first, out_coef, end_coef), argnums=(0, 1, 2))
    found = jax.tree.leaves(grad(*as_jax(weights, carry, x)))
    arrays = [*weights, carry[0], carry[1], x]

    def loss():
        outputs, end = numpy_lstm(arrays[:3], np.stack(arrays[3:5]), arrays[5], first)
        return (outputs * out_coef).sum() + (end * end_coef).sum()

    for array, got in zip(arrays, found, strict=True):
        for place in np.ndindex(array.shape):
            kept, losses = array[place], []
            for nudge in (1e-6, -1e-6):
                array[place] = kept + nudge
                losses.append(loss())
            array[place] = kept
            np.testing.assert_allclose(
                got[place], (losses[0] - losses[1]) / 2e-6, rtol=1e-3, atol=1e-4
            )


def test_no_gradient_passes_the_beginning_of_an_episode(inputs):
    weights, carry, x, first, out_coef, _ = inputs
    weights, carry, x = as_jax(weights, carry, x)

    def late(carry, x):
        """Return the weighted sum of slot 0's outputs from its second episode on."""
        return (
            layers.lstm(weights, carry, x, jnp.asarray(first))[1][2:, 0] * out_coef[2:, 0]
        ).sum()

    of_carry, of_x = jax.grad(late, argnums=(0, 1))(carry, x)
    assert all((leaf[0] == 0).all() for leaf in of_carry)
    assert (of_x[:2, 0] == 0).all() and (of_x[2:, 0] != 0).any()


def test_it_is_flax_optimized_lstm_cell_with_the_same_weights(inputs):
    weights, carry, x, _, _, _ = inputs
    weights, carry, x = as_jax(weights, carry, x)
    columns = dict(zip("ifgo", range(4), strict=True))

    def block(array, gate):
        return jnp.split(array, 4, axis=-1)[columns[gate]]

    params = {f"i{gate}": {"kernel": block(weights.inputs, gate)} for gate in columns}
    for gate in columns:
        kernel, bias = block(weights.recurrent, gate), block(weights.bias, gate)
        params[f"h{gate}"] = {"kernel": kernel, "bias": bias}
    cell = nn.OptimizedLSTMCell(H)
    theirs, ours = tuple(carry), carry
    for t in range(T):
        theirs, _ = cell.apply({"params": params}, theirs, x[t])
        ours = layers.lstm_step(weights, ours, x[t], jnp.zeros(N, bool))
    np.testing.assert_allclose(jnp.stack(ours), jnp.stack(theirs), rtol=1e-5, atol=1e-6)
