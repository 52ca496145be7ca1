"""Shared layers of networks: observation encoders, dense layers and gated recurrent layers.

The LSTM and the GRU have hand-derived backward passes. If a scan is differentiated automatically,
every step computes a full weight gradient by a matrix product with only N rows and adds it to a
sum. Here, the backward scan carries no weight gradients. It stores the gradients of the gates, and
after the scan each weight gradient is computed by one matrix product.

Orthogonal initial weights are computed with matrix products alone, not with a QR decomposition. On
the CPU, batched QR decompositions (one agent per seed under `vmap`) can deadlock. In jaxlib 0.10,
each decomposition occupies a thread of a pool and waits for work that it has queued on the same
pool. Two simultaneous decompositions therefore block a machine with two cores.
"""

from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from rlgen.protocols import LevelEnv
from rlgen.types import Key, PyTree


def first_obs(key_level: Key, key_reset: Key, env: LevelEnv) -> PyTree:
    """Example observation of one slot, [1, ...], for initialising parameters."""
    obs, _ = env.reset_env(key_reset, env.sample_level(key_level))
    return jax.tree.map(lambda x: jnp.asarray(x)[None], obs)


def dense(features: int, scale: float, name: str) -> nn.Dense:
    """Dense layer with orthogonal initial weights, scaled by `scale`."""
    return nn.Dense(features, kernel_init=orthogonal(scale), name=name)


def encode(
    features: PyTree, num_axes: int, conv_features: int, vector_features: int
) -> Float[Array, "*B F"]:
    """Encode all leaves of an observation and concatenate the results.

    The function must be called inside a method of a flax module marked as `nn.compact`.

    Args:
        features: unpacked observations, with `num_axes` leading axes of time and slots.
        num_axes: 1 for a step [N], 2 for a sequence [T, N].
        conv_features: number of filters over images.
        vector_features: number of units of the dense layers for leaves that accompany an image.
    """
    leaves = [leaf.astype(jnp.float32) for leaf in jax.tree.leaves(features)]
    # An image [H, W, C] has rank 3 after the axes of time and slots.
    has_image = any(leaf.ndim - num_axes == 3 for leaf in leaves)
    encoded = []
    for i, leaf in enumerate(leaves):
        if leaf.ndim - num_axes == 3:
            encoded.append(nn.relu(Conv(conv_features, name=f"conv_{i}")(leaf)))
            continue
        flat = leaf.reshape(*leaf.shape[:num_axes], -1)
        small = dense(vector_features, 2**0.5, f"vector_{i}")
        encoded.append(small(flat) if has_image else flat)
    return jnp.concatenate(encoded, axis=-1)


def convolve(
    image: Float[Array, "B H W C"], kernel: Float[Array, "3 3 C F"]
) -> Float[Array, "B H-2 W-2 F"]:
    """3×3 convolution without padding, computed as one matrix product.

    The nine shifted images are concatenated along the channels. On the CPU, XLA's own convolution
    is fast outside loops but an order of magnitude slower inside a loop body, where learners run
    their epochs.
    """
    height, width = image.shape[1] - 2, image.shape[2] - 2
    shifted = [image[:, i : i + height, j : j + width] for i in range(3) for j in range(3)]
    # [B, H-2, W-2, 9 C], with the shifts in the order of the kernel's first two axes.
    return jnp.concatenate(shifted, axis=-1) @ kernel.reshape(-1, kernel.shape[-1])


class Conv(nn.Module):
    """3×3 convolution without padding, with flattened output."""

    features: int

    @nn.compact
    def __call__(self, image: Float[Array, "*B H W C"]) -> Float[Array, "*B F"]:
        """Return the features of each image."""
        shape = (3, 3, image.shape[-1], self.features)
        kernel = self.param("kernel", nn.initializers.lecun_normal(), shape)
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        # Time and slots become one batch axis, [T · N, H, W, C], and are restored below.
        out = convolve(image.reshape(-1, *image.shape[-3:]), kernel) + bias[None, None, None]
        return out.reshape(*image.shape[:-3], -1)


Initializer = Callable[..., Array]

NUM_ITERATIONS = 50  # of Newton–Schulz; each multiplies a small singular value by about 3/2


def orthogonal(scale: float = 1.0) -> Initializer:
    """Initialiser of matrices [I, O] with orthonormal rows or columns, times `scale`.

    The rows are orthonormal if I ≤ O, and the columns if I ≥ O. The matrix is the polar factor of a
    Gaussian matrix. Like the signed Q factor of a QR decomposition, the polar factor is uniformly
    (Haar) distributed over such matrices. It is computed by the Newton–Schulz iteration
    X ← 3/2 X − 1/2 X XᵀX, which converges to singular values of 1 from all starting values in
    (0, √3).

    Source: Saxe et al., 2014, "Exact solutions to the nonlinear dynamics of learning in deep linear
    neural networks"; Higham, 2008, "Functions of Matrices", section 8.3.
    """

    def init(key: Key, shape: tuple[int, int], dtype: object = jnp.float32) -> Float[Array, "I O"]:
        rows, columns = shape
        few, many = sorted(shape)
        # Tall, so that the Gram matrix below has the smaller size, [few, few].
        x = jax.random.normal(key, (many, few), jnp.float32)
        x /= jnp.sqrt((x**2).sum())  # the Frobenius norm bounds the singular values by 1

        def step(_: Array, x: Array) -> Array:
            # Full precision, since the error of lower-precision products would stay in the result.
            gram = jnp.matmul(x.T, x, precision="highest")
            return 1.5 * x - 0.5 * jnp.matmul(x, gram, precision="highest")

        x = jax.lax.fori_loop(0, NUM_ITERATIONS, step, x)
        return (scale * (x if rows >= columns else x.T)).astype(dtype)

    return init


def by_gate(init: Initializer, num_gates: int) -> Initializer:
    """Initialise each gate's block of a weight matrix by a separate call of `init`.

    With `orthogonal`, each block is then orthogonal, rather than the matrix as a whole.
    """

    def of_all(key: Key, shape: tuple[int, int]) -> Array:
        keys = jax.random.split(key, num_gates)
        return jnp.concatenate([init(k, shape, jnp.float32) for k in keys], -1)

    return of_all


class LSTMWeights(NamedTuple):
    """LSTM weights; the last axis holds the input, forget, cell and output gates, in this order."""

    inputs: Float[Array, "I 4H"]
    recurrent: Float[Array, "H 4H"]
    bias: Float[Array, " 4H"]


class LSTMCarry(NamedTuple):
    """Recurrent state of an LSTM for N sequences."""

    cell: Float[Array, "N H"]
    hidden: Float[Array, "N H"]


def lstm_zeros(num_slots: int, hidden_size: int) -> LSTMCarry:
    """State of an LSTM at the start of an episode."""
    return LSTMCarry(jnp.zeros((num_slots, hidden_size)), jnp.zeros((num_slots, hidden_size)))


def lstm_step(
    weights: LSTMWeights, carry: LSTMCarry, x: Float[Array, "N I"], first: Bool[Array, " N"]
) -> LSTMCarry:
    """Apply one LSTM step; where an episode begins, the state is zeroed before the step.

    Source: Hochreiter and Schmidhuber, 1997, "Long Short-Term Memory", with forget gates after
    Gers et al., 2000.
    """
    return _lstm_step(weights, carry, x, first)[0]


@jax.custom_vjp
def lstm(
    weights: LSTMWeights, carry: LSTMCarry, x: Float[Array, "T N I"], first: Bool[Array, "T N"]
) -> tuple[LSTMCarry, Float[Array, "T N H"]]:
    """Return the final state of an LSTM and its hidden states for a whole sequence.

    Differentiable in `weights`, `carry` and `x`.
    """
    end, (hidden, _, _) = _lstm_scan(weights, carry, x, first)
    return end, hidden


def _lstm_step(
    weights: LSTMWeights, carry: LSTMCarry, x: Array, first: Array
) -> tuple[LSTMCarry, Array]:
    # A product with 0 or 1, not a `where`, since the backward pass multiplies by the same factor.
    keep = jnp.where(first, 0.0, 1.0)[:, None]
    cell, hidden = carry.cell * keep, carry.hidden * keep
    z = x @ weights.inputs + hidden @ weights.recurrent + weights.bias[None]  # [N, 4H]
    i, f, g, o = jnp.split(z, 4, axis=-1)
    i, f, g, o = jax.nn.sigmoid(i), jax.nn.sigmoid(f), jnp.tanh(g), jax.nn.sigmoid(o)
    cell = f * cell + i * g
    return LSTMCarry(cell, o * jnp.tanh(cell)), jnp.concatenate([i, f, g, o], axis=-1)


def _lstm_scan(
    weights: LSTMWeights, carry: LSTMCarry, x: Array, first: Array
) -> tuple[LSTMCarry, tuple]:
    def step(carry: LSTMCarry, xs: tuple) -> tuple[LSTMCarry, tuple]:
        carry, gates = _lstm_step(weights, carry, *xs)
        return carry, (carry.hidden, carry.cell, gates)

    return jax.lax.scan(step, carry, (x, first))


def _lstm_forward(weights: LSTMWeights, carry: LSTMCarry, x: Array, first: Array) -> tuple:
    end, (hidden, cell, gates) = _lstm_scan(weights, carry, x, first)
    return (end, hidden), (weights, carry, x, first, hidden, cell, gates)


def _lstm_backward(saved: tuple, grads: tuple) -> tuple:
    """Backward pass through time; `d_NAME` is the derivative of the loss with respect to NAME.

    `d_gates`, however, is the derivative with respect to the gates' inputs z = W x + U h + b. It
    contains the derivatives of the gates, σ' = σ (1 − σ) and tanh' = 1 − tanh².
    """
    weights, start, x, first, hidden, cell, gates = saved
    (grad_end, grad_hidden) = grads
    # c_{t-1} and h_{t-1} as used by step t: zeroed where an episode began.
    keep = jnp.where(first, 0.0, 1.0)[..., None]
    prev_cell = jnp.concatenate([start.cell[None], cell[:-1]]) * keep
    prev_hidden = jnp.concatenate([start.hidden[None], hidden[:-1]]) * keep
    transposed = weights.recurrent.T

    def step(grad: LSTMCarry, xs: tuple) -> tuple[LSTMCarry, Array]:
        grad_out, gates, cell, prev_cell, keep = xs
        i, f, g, o = jnp.split(gates, 4, axis=-1)
        tanh_cell = jnp.tanh(cell)
        d_hidden = grad.hidden + grad_out  # through step t + 1, and through the output h_t
        # c_t reaches the loss through c_{t+1} and through h_t = o tanh(c_t).
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
        return LSTMCarry(d_cell * f * keep, (d_gates @ transposed) * keep), d_gates

    # `keep` also stops the gradient at the start of an episode, where the state was zeroed.
    xs = grad_hidden, gates, cell, prev_cell, keep
    grad_start, d_gates = jax.lax.scan(step, LSTMCarry(*grad_end), xs, reverse=True)
    # One product over all T · N rows for each weight, see the module docstring.
    grad_weights = LSTMWeights(
        _flat(x).T @ _flat(d_gates), _flat(prev_hidden).T @ _flat(d_gates), d_gates.sum((0, 1))
    )
    return grad_weights, grad_start, d_gates @ weights.inputs.T, None  # `first` has no gradient


def _flat(x: Float[Array, "T N F"]) -> Float[Array, "TN F"]:
    return x.reshape(-1, x.shape[-1])


lstm.defvjp(_lstm_forward, _lstm_backward)


class GRUWeights(NamedTuple):
    """GRU weights; the last axis holds reset gate, update gate and candidate, in this order."""

    inputs: Float[Array, "I 3H"]
    recurrent: Float[Array, "H 3H"]
    bias: Float[Array, " 3H"]
    recurrent_bias: Float[Array, " H"]  # b_n of the candidate, which the reset gate multiplies


def gru_zeros(num_slots: int, hidden_size: int) -> Float[Array, "N H"]:
    """State of a GRU at the start of an episode."""
    return jnp.zeros((num_slots, hidden_size))


def gru_step(
    weights: GRUWeights,
    hidden: Float[Array, "N H"],
    x: Float[Array, "N I"],
    first: Bool[Array, " N"],
) -> Float[Array, "N H"]:
    """Apply one GRU step; where an episode begins, the state is zeroed before the step.

    An update gate of 1 keeps the old state.

    Source: Cho et al., 2014, "Learning Phrase Representations using RNN Encoder-Decoder for
    Statistical Machine Translation", equations 5 to 8. One point differs from the paper, as in flax
    and most libraries: the reset gate is applied after the recurrent product, so that one product
    serves all gates.
    """
    return _gru_step(weights, hidden, x, first)[0]


@jax.custom_vjp
def gru(
    weights: GRUWeights,
    hidden: Float[Array, "N H"],
    x: Float[Array, "T N I"],
    first: Bool[Array, "T N"],
) -> tuple[Float[Array, "N H"], Float[Array, "T N H"]]:
    """Return the final state of a GRU and its states for a whole sequence.

    Differentiable in `weights`, `hidden` and `x`.
    """
    end, (outputs, _) = _gru_scan(weights, hidden, x, first)
    return end, outputs


def _gru_step(weights: GRUWeights, hidden: Array, x: Array, first: Array) -> tuple[Array, Array]:
    hidden = hidden * jnp.where(first, 0.0, 1.0)[:, None]
    from_x = jnp.split(x @ weights.inputs + weights.bias[None], 3, axis=-1)
    from_hidden = jnp.split(hidden @ weights.recurrent, 3, axis=-1)
    r = jax.nn.sigmoid(from_x[0] + from_hidden[0])
    z = jax.nn.sigmoid(from_x[1] + from_hidden[1])
    # U_n h + b_n, which the reset gate multiplies. The backward pass needs this value.
    recalled = from_hidden[2] + weights.recurrent_bias[None]
    n = jnp.tanh(from_x[2] + r * recalled)
    return (1 - z) * n + z * hidden, jnp.concatenate([r, z, n, recalled], axis=-1)


def _gru_scan(weights: GRUWeights, hidden: Array, x: Array, first: Array) -> tuple[Array, tuple]:
    def step(hidden: Array, xs: tuple) -> tuple[Array, tuple]:
        hidden, gates = _gru_step(weights, hidden, *xs)
        return hidden, (hidden, gates)

    return jax.lax.scan(step, hidden, (x, first))


def _gru_forward(weights: GRUWeights, start: Array, x: Array, first: Array) -> tuple:
    end, (hidden, gates) = _gru_scan(weights, start, x, first)
    return (end, hidden), (weights, start, x, first, hidden, gates)


def _gru_backward(saved: tuple, grads: tuple) -> tuple:
    """Backward pass through time.

    `d_r`, `d_z` and `d_n` are the derivatives of the loss with respect to the inputs of the reset
    gate, the update gate and the candidate.
    """
    weights, start, x, first, hidden, gates = saved
    (grad_end, grad_hidden) = grads
    keep = jnp.where(first, 0.0, 1.0)[..., None]
    prev_hidden = jnp.concatenate([start[None], hidden[:-1]]) * keep
    transposed = weights.recurrent.T

    def step(grad: Array, xs: tuple) -> tuple[Array, tuple]:
        grad_out, gates, prev_hidden, keep = xs
        r, z, n, recalled = jnp.split(gates, 4, axis=-1)
        # h_t = (1 − z) n + z h_{t-1} with n = tanh(W_n x + r (U_n h_{t-1} + b_n)).
        d_hidden = grad + grad_out
        d_n = d_hidden * (1 - z) * (1 - n**2)
        d_z = d_hidden * (prev_hidden - n) * z * (1 - z)
        d_r = d_n * recalled * r * (1 - r)
        # Derivative with respect to U h, in the order of the weights. The candidate's part passes
        # through the reset gate.
        d_recurrent = jnp.concatenate([d_r, d_z, d_n * r], axis=-1)
        return (d_hidden * z + d_recurrent @ transposed) * keep, (d_recurrent, d_n)

    xs = grad_hidden, gates, prev_hidden, keep
    grad_start, (d_recurrent, d_n) = jax.lax.scan(step, grad_end, xs, reverse=True)
    size = start.shape[-1]
    # Derivative with respect to W x. It equals `d_recurrent`, except that the candidate's part does
    # not pass through the reset gate.
    d_inputs = jnp.concatenate([d_recurrent[..., : 2 * size], d_n], axis=-1)
    grad_weights = GRUWeights(
        _flat(x).T @ _flat(d_inputs),
        _flat(prev_hidden).T @ _flat(d_recurrent),
        d_inputs.sum((0, 1)),
        d_recurrent[..., 2 * size :].sum((0, 1)),
    )
    return grad_weights, grad_start, d_inputs @ weights.inputs.T, None


gru.defvjp(_gru_forward, _gru_backward)


class Recurrent(nn.Module):
    """LSTM or GRU layer for one step (`first` is [N]) or for a sequence (`first` is [T, N])."""

    core: str
    hidden_size: int

    @nn.compact
    def __call__(self, carry: PyTree, x: Array, first: Array) -> tuple[PyTree, Array]:
        """Return the new state and the output of the step, or of every step of a sequence."""
        size, num_gates = self.hidden_size, {"lstm": 4, "gru": 3}[self.core]
        lecun = by_gate(nn.initializers.lecun_normal(), num_gates)
        inputs = self.param("inputs", lecun, (x.shape[-1], size))
        recurrent = self.param("recurrent", by_gate(orthogonal(), num_gates), (size, size))
        bias = self.param("bias", nn.initializers.zeros, (num_gates * size,))
        if self.core == "gru":
            inner = self.param("recurrent_bias", nn.initializers.zeros, (size,))
            weights = GRUWeights(inputs, recurrent, bias, inner)
            if first.ndim == 2:
                return gru(weights, carry, x, first)
            hidden = gru_step(weights, carry, x, first)
            return hidden, hidden
        weights = LSTMWeights(inputs, recurrent, bias)
        if first.ndim == 2:
            return lstm(weights, LSTMCarry(*carry), x, first)
        carry = lstm_step(weights, LSTMCarry(*carry), x, first)
        return carry, carry.hidden
