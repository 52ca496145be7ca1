"""minGRU, a recurrent unit with an elementwise linear recurrence, trained in parallel over time.

The gates depend on the input alone. A sequence therefore takes one matrix product for all steps and
the elementwise recurrence h_t = a_t h_{t-1} + b_t, which an associative scan solves in log T
rounds. The gates of a single layer cannot depend on its memory. The gates of a second layer can
depend on the memory of the first layer.
"""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from rlgen.nn.layers import by_gate, dense, orthogonal
from rlgen.types import Key

LONGEST = 100  # steps; initial time constant of the slowest units of a linear core


class MinGRUWeights(NamedTuple):
    """minGRU weights; the last axis holds update gate and candidate, in this order."""

    inputs: Float[Array, "I 2H"]
    bias: Float[Array, " 2H"]


def zeros(num_slots: int, num_layers: int, hidden_size: int) -> Float[Array, "N L H"]:
    """State of all layers at the start of an episode."""
    return jnp.zeros((num_slots, num_layers, hidden_size))


def min_gru_step(
    weights: MinGRUWeights,
    hidden: Float[Array, "N H"],
    x: Float[Array, "N I"],
    first: Bool[Array, " N"],
) -> Float[Array, "N H"]:
    """Apply one step, h_t = (1 - z_t) h_{t-1} + z_t h̃_t; h_{t-1} is 0 where an episode begins.

    z is the update gate and h̃ the candidate.

    Source: Feng et al., 2024, "Were RNNs All We Needed?", section 3.1.
    """
    decay, push = _decay_and_push(weights, x, first)
    return decay * hidden + push


def min_gru(
    weights: MinGRUWeights,
    hidden: Float[Array, "N H"],
    x: Float[Array, "T N I"],
    first: Bool[Array, "T N"],
) -> tuple[Float[Array, "N H"], Float[Array, "T N H"]]:
    """Return the final state and the states of a whole sequence; equivalent to T steps."""
    states = recurrence(hidden, *_decay_and_push(weights, x, first))
    return states[-1], states


@jax.custom_vjp
def recurrence(
    start: Float[Array, "N H"], decay: Float[Array, "T N H"], push: Float[Array, "T N H"]
) -> Float[Array, "T N H"]:
    """Return h_t = decay_t h_{t-1} + push_t for all t, starting at h_{-1} = start.

    On CPUs, the recurrence is solved by a loop over time (`sequential`), and elsewhere by an
    associative scan (`parallel`). The scan passes over memory log T times, which makes it slower on
    CPUs. For arrays [256, 32, 256], including the gradient, the loop takes 7 ms and the scan 36 ms.
    If JAX differentiates the scan, it takes 53 ms. Here the gradient is computed as a recurrence of
    the same form, backwards in time.
    """
    return _solve(start, decay, push)


def sequential(start: Array, decay: Array, push: Array) -> Array:
    """Solve the recurrence by a loop over T steps, which reads each array once."""

    def step(hidden: Array, xs: tuple[Array, Array]) -> tuple[Array, Array]:
        hidden = xs[0] * hidden + xs[1]
        return hidden, hidden

    return jax.lax.scan(step, start, (decay, push))[1]


def parallel(start: Array, decay: Array, push: Array) -> Array:
    """Solve the recurrence in log T rounds: an associative scan over maps h -> decay h + push.

    Source: Blelloch, 1990, "Prefix Sums and Their Applications", section 1.4.
    """

    # Composition of h -> d1 h + p1 and then h -> d2 h + p2: h -> d1 d2 h + (d2 p1 + p2).
    def after(early: tuple[Array, Array], late: tuple[Array, Array]) -> tuple[Array, Array]:
        return early[0] * late[0], late[0] * early[1] + late[1]

    # The first push absorbs the start, so that the composed maps apply to 0.
    push = push.at[0].add(decay[0] * start)
    return jax.lax.associative_scan(after, (decay, push))[1]


def _solve(start: Array, decay: Array, push: Array) -> Array:
    return jax.lax.platform_dependent(start, decay, push, cpu=sequential, default=parallel)


def _decay_and_push(weights: MinGRUWeights, x: Array, first: Array) -> tuple[Array, Array]:
    bias = weights.bias.reshape((1,) * (x.ndim - 1) + (-1,))
    gate, candidate = jnp.split(x @ weights.inputs + bias, 2, axis=-1)
    update = jax.nn.sigmoid(gate)  # z_t; the first step of an episode has decay 0
    return jnp.where(first[..., None], 0.0, 1.0 - update), update * candidate


def _forward(start: Array, decay: Array, push: Array) -> tuple[Array, tuple]:
    states = _solve(start, decay, push)
    return states, (start, decay, states)


def _backward(saved: tuple, grad_states: Array) -> tuple[Array, Array, Array]:
    start, decay, states = saved
    # The total gradient with respect to h_t is the direct gradient plus decay_{t+1} times the total
    # gradient with respect to h_{t+1}. The factor of the last step is 0, because no step follows.
    # Time is reversed for `_solve`.
    later = jnp.concatenate([decay[1:], jnp.zeros_like(decay[:1])])
    reaching = _solve(jnp.zeros_like(start), later[::-1], grad_states[::-1])[::-1]
    before = jnp.concatenate([start[None], states[:-1]])
    # ∂h_0/∂start = decay_0, ∂h_t/∂decay_t = h_{t-1} and ∂h_t/∂push_t = 1.
    return decay[0] * reaching[0], reaching * before, reaching


recurrence.defvjp(_forward, _backward)


class Linear(nn.Module):
    """Residual blocks, each of a layer normalisation, a minGRU and a gated linear unit.

    The gated linear unit multiplies memories with each other, and the gates of the next block
    depend on the result.

    Source of the gated linear unit: Dauphin et al., 2017, "Language Modeling with Gated
    Convolutional Networks"; here the gated signal has no weights.
    """

    hidden_size: int
    num_layers: int

    @nn.compact
    def __call__(
        self, carry: Float[Array, "N L H"], x: Array, first: Array
    ) -> tuple[Float[Array, "N L H"], Array]:
        """Apply the blocks to one step (`first` is [N]) or to a sequence (`first` is [T, N])."""
        x = dense(self.hidden_size, 1.0, "embed")(x)
        ends = []  # final state of each layer, [N, H]
        for i in range(self.num_layers):
            # Pre-norm residual block: x + h σ(W h) with h = minGRU(norm(x)).
            normal = nn.LayerNorm(use_bias=False, name=f"norm_{i}")(x)
            weights = self._weights(i)
            if first.ndim == 2:
                end, hidden = min_gru(weights, carry[:, i], normal, first)
            else:
                end = min_gru_step(weights, carry[:, i], normal, first)
                hidden = end
            ends.append(end)
            x = x + hidden * jax.nn.sigmoid(dense(self.hidden_size, 1.0, f"glu_{i}")(hidden))
        return jnp.stack(ends, axis=1), nn.LayerNorm(name="norm")(x)

    def _weights(self, i: int) -> MinGRUWeights:
        size = self.hidden_size
        inputs = self.param(f"inputs_{i}", by_gate(orthogonal(), 2), (size, size))
        return MinGRUWeights(inputs, self.param(f"bias_{i}", _spread, (2 * size,)))


def _spread(key: Key, shape: tuple[int]) -> Float[Array, " B"]:
    """Initial biases: the units' time constants are spaced logarithmically in 1 .. `LONGEST` steps.

    Source: after Tallec and Ollivier, 2018, "Can recurrent neural networks warp time?", section 3,
    with fixed instead of random time constants.
    """
    del key
    size = shape[0] // 2
    # A unit with gate z = σ(−log τ) = 1 / (1 + τ) forgets within about τ steps. The candidates have
    # bias 0.
    return jnp.concatenate([-jnp.log(jnp.geomspace(1.0, LONGEST, size)), jnp.zeros(size)])
