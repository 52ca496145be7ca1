"""The gated recurrent unit over a sequence, with a backward pass of our own.

As in `rlgen.lstm`, the backward scan carries no weights: it stores the gradients of the gates, and
one product after the scan forms each weight gradient.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


class Weights(NamedTuple):
    """Gates in the order reset, update, candidate along the last axis."""

    inputs: Float[Array, "I 3H"]
    recurrent: Float[Array, "H 3H"]
    bias: Float[Array, " 3H"]
    recurrent_bias: Float[Array, " H"]  # of the candidate's recurrent part, inside the reset


def zeros(num_slots: int, hidden_size: int) -> Float[Array, "N H"]:
    """The state at the start of an episode."""
    return jnp.zeros((num_slots, hidden_size))


def gru_step(
    weights: Weights,
    hidden: Float[Array, "N H"],
    x: Float[Array, "N I"],
    first: Bool[Array, " N"],
) -> Float[Array, "N H"]:
    """One step; the state is zeroed before it where an episode begins.

    Source: Cho et al., 2014, "Learning Phrase Representations using RNN Encoder-Decoder for
    Statistical Machine Translation", equations 5 to 8. Differs from it, as do flax and most
    libraries: the update gate keeps the old state where it is 1, and the reset gate acts after the
    recurrent product, so that one product serves all gates.
    """
    return _step(weights, hidden, x, first)[0]


@jax.custom_vjp
def gru(
    weights: Weights,
    hidden: Float[Array, "N H"],
    x: Float[Array, "T N I"],
    first: Bool[Array, "T N"],
) -> tuple[Float[Array, "N H"], Float[Array, "T N H"]]:
    """The final state and the states of a whole sequence.

    Differentiable in `weights`, `hidden` and `x`.
    """
    end, (outputs, _) = _scan(weights, hidden, x, first)
    return end, outputs


def _step(weights: Weights, hidden: Array, x: Array, first: Array) -> tuple[Array, Array]:
    hidden = hidden * jnp.where(first, 0.0, 1.0)[:, None]
    from_x = jnp.split(x @ weights.inputs + weights.bias[None], 3, axis=-1)
    from_hidden = jnp.split(hidden @ weights.recurrent, 3, axis=-1)
    r = jax.nn.sigmoid(from_x[0] + from_hidden[0])
    z = jax.nn.sigmoid(from_x[1] + from_hidden[1])
    recalled = from_hidden[2] + weights.recurrent_bias[None]
    n = jnp.tanh(from_x[2] + r * recalled)
    return (1 - z) * n + z * hidden, jnp.concatenate([r, z, n, recalled], axis=-1)


def _scan(weights: Weights, hidden: Array, x: Array, first: Array) -> tuple[Array, tuple]:
    def step(hidden: Array, xs: tuple) -> tuple[Array, tuple]:
        hidden, gates = _step(weights, hidden, *xs)
        return hidden, (hidden, gates)

    return jax.lax.scan(step, hidden, (x, first))


def _forward(weights: Weights, start: Array, x: Array, first: Array) -> tuple:
    end, (hidden, gates) = _scan(weights, start, x, first)
    return (end, hidden), (weights, start, x, first, hidden, gates)


def _backward(saved: tuple, grads: tuple) -> tuple:
    weights, start, x, first, hidden, gates = saved
    (grad_end, grad_hidden) = grads
    keep = jnp.where(first, 0.0, 1.0)[..., None]
    prev_hidden = jnp.concatenate([start[None], hidden[:-1]]) * keep
    transposed = weights.recurrent.T

    def step(grad: Array, xs: tuple) -> tuple[Array, tuple]:
        grad_out, gates, prev_hidden, keep = xs
        r, z, n, recalled = jnp.split(gates, 4, axis=-1)
        d_hidden = grad + grad_out
        d_n = d_hidden * (1 - z) * (1 - n**2)
        d_z = d_hidden * (prev_hidden - n) * z * (1 - z)
        d_r = d_n * recalled * r * (1 - r)
        d_recurrent = jnp.concatenate([d_r, d_z, d_n * r], axis=-1)
        return (d_hidden * z + d_recurrent @ transposed) * keep, (d_recurrent, d_n)

    xs = grad_hidden, gates, prev_hidden, keep
    grad_start, (d_recurrent, d_n) = jax.lax.scan(step, grad_end, xs, reverse=True)
    size = start.shape[-1]
    d_inputs = jnp.concatenate([d_recurrent[..., : 2 * size], d_n], axis=-1)
    grad_weights = Weights(
        _flat(x).T @ _flat(d_inputs),
        _flat(prev_hidden).T @ _flat(d_recurrent),
        d_inputs.sum((0, 1)),
        d_recurrent[..., 2 * size :].sum((0, 1)),
    )
    return grad_weights, grad_start, d_inputs @ weights.inputs.T, None


def _flat(x: Float[Array, "T N F"]) -> Float[Array, "TN F"]:
    return x.reshape(-1, x.shape[-1])


gru.defvjp(_forward, _backward)
