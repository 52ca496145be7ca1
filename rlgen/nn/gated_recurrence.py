"""The LSTM over a sequence, with a backward pass of our own.

Automatic differentiation of a scan adds a weight gradient of the size of the weights at every
step, each from a product with only N rows. Here the backward scan carries no weights: it stores
the gradients of the gates, and one product after the scan forms each weight gradient.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


class Weights(NamedTuple):
    """Gates in the order input, forget, cell, output along the last axis."""

    inputs: Float[Array, "I 4H"]
    recurrent: Float[Array, "H 4H"]
    bias: Float[Array, " 4H"]


class Carry(NamedTuple):
    """Recurrent state of N sequences."""

    cell: Float[Array, "N H"]
    hidden: Float[Array, "N H"]


def zeros(num_slots: int, hidden_size: int) -> Carry:
    """The state at the start of an episode."""
    return Carry(jnp.zeros((num_slots, hidden_size)), jnp.zeros((num_slots, hidden_size)))


def lstm_step(
    weights: Weights, carry: Carry, x: Float[Array, "N I"], first: Bool[Array, " N"]
) -> Carry:
    """One step; the state is zeroed before it where an episode begins.

    Source: Hochreiter and Schmidhuber, 1997, "Long Short-Term Memory", with forget gates after
    Gers et al., 2000.
    """
    return _step(weights, carry, x, first)[0]


@jax.custom_vjp
def lstm(
    weights: Weights, carry: Carry, x: Float[Array, "T N I"], first: Bool[Array, "T N"]
) -> tuple[Carry, Float[Array, "T N H"]]:
    """The final state and the hidden states of a whole sequence.

    Differentiable in `weights`, `carry` and `x`.
    """
    end, (hidden, _, _) = _scan(weights, carry, x, first)
    return end, hidden


def _step(weights: Weights, carry: Carry, x: Array, first: Array) -> tuple[Carry, Array]:
    keep = jnp.where(first, 0.0, 1.0)[:, None]
    cell, hidden = carry.cell * keep, carry.hidden * keep
    z = x @ weights.inputs + hidden @ weights.recurrent + weights.bias[None]
    i, f, g, o = jnp.split(z, 4, axis=-1)
    i, f, g, o = jax.nn.sigmoid(i), jax.nn.sigmoid(f), jnp.tanh(g), jax.nn.sigmoid(o)
    cell = f * cell + i * g
    return Carry(cell, o * jnp.tanh(cell)), jnp.concatenate([i, f, g, o], axis=-1)


def _scan(weights: Weights, carry: Carry, x: Array, first: Array) -> tuple[Carry, tuple]:
    def step(carry: Carry, xs: tuple) -> tuple[Carry, tuple]:
        carry, gates = _step(weights, carry, *xs)
        return carry, (carry.hidden, carry.cell, gates)

    return jax.lax.scan(step, carry, (x, first))


def _forward(weights: Weights, carry: Carry, x: Array, first: Array) -> tuple:
    end, (hidden, cell, gates) = _scan(weights, carry, x, first)
    return (end, hidden), (weights, carry, x, first, hidden, cell, gates)


def _backward(saved: tuple, grads: tuple) -> tuple:
    weights, start, x, first, hidden, cell, gates = saved
    (grad_end, grad_hidden) = grads
    keep = jnp.where(first, 0.0, 1.0)[..., None]
    prev_cell = jnp.concatenate([start.cell[None], cell[:-1]]) * keep
    prev_hidden = jnp.concatenate([start.hidden[None], hidden[:-1]]) * keep
    transposed = weights.recurrent.T

    def step(grad: Carry, xs: tuple) -> tuple[Carry, Array]:
        grad_out, gates, cell, prev_cell, keep = xs
        i, f, g, o = jnp.split(gates, 4, axis=-1)
        tanh_cell = jnp.tanh(cell)
        d_hidden = grad.hidden + grad_out
        d_cell = grad.cell + d_hidden * o * (1 - tanh_cell**2)
        d_gates = jnp.concatenate(
            [
                d_cell * g * i * (1 - i),
                d_cell * prev_cell * f * (1 - f),
                d_cell * i * (1 - g**2),
                d_hidden * tanh_cell * o * (1 - o),
            ],
            axis=-1,
        )
        return Carry(d_cell * f * keep, (d_gates @ transposed) * keep), d_gates

    xs = grad_hidden, gates, cell, prev_cell, keep
    grad_start, d_gates = jax.lax.scan(step, Carry(*grad_end), xs, reverse=True)
    grad_weights = Weights(
        _flat(x).T @ _flat(d_gates), _flat(prev_hidden).T @ _flat(d_gates), d_gates.sum((0, 1))
    )
    return grad_weights, grad_start, d_gates @ weights.inputs.T, None


def _flat(x: Float[Array, "T N F"]) -> Float[Array, "TN F"]:
    return x.reshape(-1, x.shape[-1])


lstm.defvjp(_forward, _backward)
