"""Optimisers that meta-gradients can differentiate through."""

from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from rlgen.protocols import check_numbers
from rlgen.types import PyTree

Kind = Literal["sgd", "adam"]


class AdamState(NamedTuple):
    """Running moments of the gradient; `mean` and `square` have the shapes of the parameters."""

    mean: PyTree
    square: PyTree
    num_steps: Int[Array, ""]


@dataclass(frozen=True)
class Optimizer:
    """Gradient descent on clipped gradients; the learning rate is an argument of each step.

    Both kinds of optimiser clip the gradient. Two singular derivatives are avoided. The gradient's
    norm is computed as √(Σ g² + 1e-12), whose derivative is finite. Adam's denominator is treated
    as a constant, because its derivative is infinite where a second moment is 0.

    Attributes:
        kind: `sgd` or `adam`.
        max_grad_norm: maximum global norm of the gradient; 0 disables clipping.
        beta1: Adam's decay rate of the first moment.
        beta2: Adam's decay rate of the second moment.
        eps: Adam's ε, added outside the square root.

    Raises:
        ValueError: unknown kind, or a field out of range.
    Source: Kingma and Ba, 2015, "Adam: A Method for Stochastic Optimization", algorithm 1; the
    constant denominator as in Oh et al., 2025, "Discovering state-of-the-art reinforcement learning
    algorithms".
    """

    kind: Kind = "sgd"
    max_grad_norm: float = 0.5
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8

    def __post_init__(self):
        if self.kind not in get_args(Kind):
            raise ValueError(f"optimizer.kind must be 'sgd' or 'adam', got {self.kind!r}")
        if not self.max_grad_norm >= 0:
            raise ValueError(
                f"optimizer.max_grad_norm must be above 0, or 0 to disable clipping, "
                f"got {self.max_grad_norm}"
            )
        check_numbers(self, "beta1", "beta2", least=0, below=1, owner="optimizer.")
        if not self.eps > 0:
            raise ValueError(f"optimizer.eps must be above 0, got {self.eps}")

    def init(self, params: PyTree) -> PyTree:
        """Initial state; `()` for `sgd`."""
        if self.kind == "sgd":
            return ()
        zeros = jax.tree.map(jnp.zeros_like, params)
        return AdamState(zeros, zeros, jnp.int32(0))

    def step(
        self,
        params: PyTree,
        opt_state: PyTree,
        grads: PyTree,
        learning_rate: float | Float[Array, ""],
    ) -> tuple[PyTree, PyTree]:
        """Take one descent step and return the new parameters and the new state.

        Args:
            params: pytree of floats.
            opt_state: state from `init` or the previous step.
            grads: gradients in the structure of `params`; clipped here.
            learning_rate: step size.
        """
        # Clipped before Adam's moments, as in optax.chain(clip_by_global_norm, adam).
        direction = clipped(grads, self.max_grad_norm)
        if self.kind == "adam":
            opt_state, direction = self._adam(opt_state, direction)
        params = jax.tree.map(lambda p, d: p - learning_rate * d, params, direction)
        return params, opt_state

    def _adam(self, state: AdamState, grads: PyTree) -> tuple[AdamState, PyTree]:
        num_steps = state.num_steps + 1
        mean = jax.tree.map(lambda m, g: self.beta1 * m + (1 - self.beta1) * g, state.mean, grads)
        square = jax.tree.map(
            lambda v, g: self.beta2 * v + (1 - self.beta2) * g**2, state.square, grads
        )
        # The gradient is stopped before the root and in the stored state, so that the denominators
        # of later steps are constants as well.
        square = jax.lax.stop_gradient(square)
        t = num_steps.astype(jnp.float32)
        # m̂ = m / (1 − β₁ᵗ) and v̂ = v / (1 − β₂ᵗ) correct the bias of zero-initialised moments.
        unbias1, unbias2 = 1 - self.beta1**t, 1 - self.beta2**t
        direction = jax.tree.map(
            lambda m, v: (m / unbias1) / (jnp.sqrt(v / unbias2) + self.eps), mean, square
        )
        return AdamState(mean, square, num_steps), direction


def clipped(grads: PyTree, max_norm: float) -> PyTree:
    """Scale gradients down to a maximum global norm; `max_norm` 0 leaves them unchanged."""
    if max_norm == 0:
        return grads
    # The maximum avoids a division by a small norm, without a branch. Up to `max_norm`, the factor
    # is 1.
    scale = max_norm / jnp.maximum(global_norm(grads), max_norm)
    return jax.tree.map(lambda g: scale * g, grads)


def global_norm(tree: PyTree) -> Float[Array, ""]:
    """L2 norm over all leaves, with a finite derivative at 0."""
    return jnp.sqrt(sum(jnp.sum(jnp.square(x)) for x in jax.tree.leaves(tree)) + 1e-12)
