"""The recurrent cores of a network as flax modules, and what they carry."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from rlgen import gru, linear_recurrence, lstm
from rlgen._network_parts import dense
from rlgen.initializers import Initializer, orthogonal
from rlgen.types import Key, PyTree

LONGEST = 100  # steps, the time constant with which the slowest units of a linear core begin


def zeros(core: str, num_layers: int, num_slots: int, hidden_size: int) -> PyTree:
    """Recurrent state of a core at the start of an episode, [N, ...]; `()` without a core."""
    if core == "none":
        return ()
    if core == "linear":
        return linear_recurrence.zeros(num_slots, num_layers, hidden_size)
    one = {"lstm": lstm, "gru": gru}[core].zeros(num_slots, hidden_size)
    return one if num_layers == 1 else (one,) * num_layers


class Recurrent(nn.Module):
    """An LSTM or GRU. One step if `first` is [N], a sequence if it is [T, N]."""

    core: str
    hidden_size: int

    @nn.compact
    def __call__(self, carry: PyTree, x: Array, first: Array) -> tuple[PyTree, Array]:
        size, num_gates = self.hidden_size, {"lstm": 4, "gru": 3}[self.core]
        lecun = _by_gate(nn.initializers.lecun_normal(), num_gates)
        inputs = self.param("inputs", lecun, (x.shape[-1], size))
        recurrent = self.param("recurrent", _by_gate(orthogonal(), num_gates), (size, size))
        bias = self.param("bias", nn.initializers.zeros, (num_gates * size,))
        if self.core == "gru":
            inner = self.param("recurrent_bias", nn.initializers.zeros, (size,))
            weights = gru.Weights(inputs, recurrent, bias, inner)
            if first.ndim == 2:
                return gru.gru(weights, carry, x, first)
            hidden = gru.gru_step(weights, carry, x, first)
            return hidden, hidden
        weights = lstm.Weights(inputs, recurrent, bias)
        if first.ndim == 2:
            return lstm.lstm(weights, lstm.Carry(*carry), x, first)
        carry = lstm.lstm_step(weights, lstm.Carry(*carry), x, first)
        return carry, carry.hidden


class Linear(nn.Module):
    """Blocks of a minGRU and a gated linear unit, each on the normalised sum of those before it.

    The unit after the recurrence (Dauphin et al., 2017, "Language Modeling with Gated Convolutional
    Networks", here without a product for what is gated) lets memories multiply each other, and the
    gates of the next block see what comes of it.
    """

    hidden_size: int
    num_layers: int

    @nn.compact
    def __call__(
        self, carry: Float[Array, "N L H"], x: Array, first: Array
    ) -> tuple[Float[Array, "N L H"], Array]:
        """One step if `first` is [N], a sequence if it is [T, N]."""
        x = dense(self.hidden_size, 1.0, "embed")(x)
        ends = []
        for i in range(self.num_layers):
            normal = nn.LayerNorm(use_bias=False, name=f"norm_{i}")(x)
            weights = self._weights(i)
            if first.ndim == 2:
                end, hidden = linear_recurrence.min_gru(weights, carry[:, i], normal, first)
            else:
                end = linear_recurrence.min_gru_step(weights, carry[:, i], normal, first)
                hidden = end
            ends.append(end)
            x = x + hidden * jax.nn.sigmoid(dense(self.hidden_size, 1.0, f"glu_{i}")(hidden))
        return jnp.stack(ends, axis=1), nn.LayerNorm(name="norm")(x)

    def _weights(self, i: int) -> linear_recurrence.Weights:
        size = self.hidden_size
        inputs = self.param(f"inputs_{i}", _by_gate(orthogonal(), 2), (size, size))
        return linear_recurrence.Weights(inputs, self.param(f"bias_{i}", _spread, (2 * size,)))


def _spread(key: Key, shape: tuple[int]) -> Float[Array, " B"]:
    """Biases whose update gates forget within 1 to `LONGEST` steps, on a logarithmic scale.

    Source: after Tallec and Ollivier, 2018, "Can recurrent neural networks warp time?", section 3,
    with fixed in place of random time constants.
    """
    del key
    size = shape[0] // 2
    return jnp.concatenate([-jnp.log(jnp.geomspace(1.0, LONGEST, size)), jnp.zeros(size)])


def _by_gate(init: Initializer, num_gates: int) -> Initializer:
    """Each gate's block drawn by itself, so that an orthogonal block is orthogonal."""

    def of_all(key: Key, shape: tuple[int, int]) -> Array:
        keys = jax.random.split(key, num_gates)
        return jnp.concatenate([init(k, shape, jnp.float32) for k in keys], -1)

    return of_all
