"""Optimisers that can be differentiated through: an agent's, inside a meta-gradient."""

from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from rlgen.protocols import check_numbers
from rlgen.types import PyTree

Kind = Literal["sgd", "adam"]


class AdamState(NamedTuple):
    """Running moments of the gradient, like the parameters."""

    mean: PyTree
    square: PyTree
    num_steps: Int[Array, ""]


@dataclass(frozen=True)
class Optimizer:
    """Gradient descent on clipped gradients; the step size is given at each step.

    Every kind clips. Two points are singular, and derivatives pass neither: the gradient's norm is
    taken as √(Σ g² + 1e-12), and Adam's denominator counts as a constant, for its derivative is
    infinite where a second moment is 0.

    Attributes:
        kind: `sgd` or `adam`.
        max_grad_norm: clips the gradient's global norm; 0 turns it off.
        beta1: Adam's decay of the first moment.
        beta2: Adam's decay of the second moment.
        eps: Adam's ε, outside the root.

    Raises:
        ValueError: an unknown kind or a field outside its range.
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
                f"optimizer.max_grad_norm must be above 0, or 0 for no clipping, "
                f"got {self.max_grad_norm}"
            )
        check_numbers(self, "beta1", "beta2", least=0, below=1, owner="optimizer.")
        if not self.eps > 0:
            raise ValueError(f"optimizer.eps must be above 0, got {self.eps}")

    def init(self, params: PyTree) -> PyTree:
        """State before the first step; `()` of what needs none."""
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
        """New parameters, a step down the gradients, and the new state.

        Args:
            params: any tree of floats.
            opt_state: from `init` or the last step.
            grads: like `params`; clipped here.
            learning_rate: step size.
        """
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
        # Before the root, and in the state: later denominators are constants as well.
        square = jax.lax.stop_gradient(square)
        t = num_steps.astype(jnp.float32)
        unbias1, unbias2 = 1 - self.beta1**t, 1 - self.beta2**t
        direction = jax.tree.map(
            lambda m, v: (m / unbias1) / (jnp.sqrt(v / unbias2) + self.eps), mean, square
        )
        return AdamState(mean, square, num_steps), direction


def clipped(grads: PyTree, max_norm: float) -> PyTree:
    """Gradients scaled down to a global norm, if theirs is larger; 0 leaves them as they are."""
    if max_norm == 0:
        return grads
    scale = max_norm / jnp.maximum(global_norm(grads), max_norm)
    return jax.tree.map(lambda g: scale * g, grads)


def global_norm(tree: PyTree) -> Float[Array, ""]:
    """L2 norm over all leaves, of finite derivative at 0."""
    return jnp.sqrt(sum(jnp.sum(jnp.square(x)) for x in jax.tree.leaves(tree)) + 1e-12)
