"""Training of learned bonuses: a few Adam steps on a random part of each rollout.

A bonus is computed before its networks are trained on the same rollout, so that new observations
still have a high bonus. The share of the rollout used for training determines most of the cost and
is a free parameter; Burda et al. lower it as rollouts grow ("Exploration by Random Network
Distillation", 2019, 3.5).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from rlgen.nn.optimizers import Optimizer
from rlgen.parallel.seeds import tree_where
from rlgen.protocols import check_numbers
from rlgen.types import Key, Metrics, PyTree

RowLoss = Callable[[PyTree, Int[Array, " B"]], tuple[Float[Array, " B"], dict[str, Array]]]
"""Function from parameters and row indices to the loss and the metrics of each row, [B]."""


class Fit(NamedTuple):
    """Trained parameters and optimiser state."""

    params: PyTree
    opt_state: PyTree


@dataclass(frozen=True)
class Training:
    """Adam on a random part of a rollout's rows, which are its steps.

    Invalid rows, such as steps of slots without weight, have no influence. A minibatch without
    valid rows makes no step.

    Attributes:
        share: Fraction of a rollout's steps used in an epoch; 0 disables training.
        num_epochs: Epochs per rollout, each on newly sampled steps.
        num_minibatches: Gradient steps per epoch.
        learning_rate: Step size of Adam.
        max_grad_norm: Maximum global norm of the gradient; 0 disables clipping.

    Raises:
        ValueError: If a field is out of range.
    """

    share: float = 0.25
    num_epochs: int = 1
    num_minibatches: int = 4
    learning_rate: float = 3e-4
    max_grad_norm: float = 0.5

    def __post_init__(self):
        if not 0 <= self.share <= 1:
            raise ValueError(f"training.share must lie in [0, 1], got {self.share}")
        check_numbers(self, "num_epochs", "num_minibatches", least=1, owner="training.")
        if not self.learning_rate > 0:
            raise ValueError(f"training.learning_rate must be above 0, got {self.learning_rate}")
        if not self.max_grad_norm >= 0:
            raise ValueError(f"training.max_grad_norm must be 0 or more, got {self.max_grad_norm}")

    def begin(self, params: PyTree) -> Fit:
        """Return the state before the first gradient step."""
        return Fit(params, self._optimizer.init(params))

    def run(
        self, key: Key, fit: Fit, loss: RowLoss, valid: Bool[Array, " M"]
    ) -> tuple[Fit, Metrics]:
        """Train on a random part of M rows; metrics are means over the valid rows used.

        Args:
            key: Random key.
            fit: Parameters and optimiser state.
            loss: Loss and metrics of the rows at given indices.
            valid: Whether each row may be used.
        """
        if self.share == 0:
            return fit, {}

        def minibatch(fit: Fit, rows: Array) -> tuple[Fit, tuple[Metrics, Array]]:
            return self._step(fit, loss, rows, valid[rows])

        keys = jax.random.split(key, self.num_epochs)
        # [num_epochs num_minibatches, B]; the scan makes one gradient step per row of indices.
        rows = jnp.concatenate([self._draw(key, valid.size) for key in keys])
        fit, (metrics, num) = jax.lax.scan(minibatch, fit, rows)
        # Metrics [steps] are weighted by each minibatch's number of valid rows.
        total = jnp.maximum(num.sum(), 1.0)
        return fit, {name: (x * num).sum() / total for name, x in metrics.items()}

    @property
    def _optimizer(self) -> Optimizer:
        return Optimizer("adam", self.max_grad_norm)

    def _draw(self, key: Key, num_rows: int) -> Int[Array, "m B"]:
        """Draw the rows of each minibatch by stratified sampling: one row from each equal stretch.

        This serves as well as sampling without replacement, which would require a sort. A share of
        1 selects every row. The stretches of each minibatch span the whole rollout.
        """
        size = max(round(self.share * num_rows / self.num_minibatches), 1)
        num = size * self.num_minibatches
        stretch = num_rows / num
        begin = jnp.arange(num, dtype=jnp.float32) * stretch
        # A stretch of one row has only one choice, which float rounding must not change.
        within = jax.random.uniform(key, (num,)) * (stretch if stretch > 1 else 0.0)
        # Float32 may round the last row up to `num_rows`, which does not exist.
        rows = jnp.minimum((begin + within).astype(jnp.int32), num_rows - 1)
        # Minibatch i takes every num_minibatches-th stretch, starting at stretch i.
        return rows.reshape(size, self.num_minibatches).T

    def _step(
        self, fit: Fit, loss: RowLoss, rows: Int[Array, " B"], valid: Bool[Array, " B"]
    ) -> tuple[Fit, tuple[Metrics, Array]]:
        num = valid.sum().astype(jnp.float32)

        def mean(x: Float[Array, " B"]) -> Float[Array, ""]:
            # A minibatch has a fixed size; the mean is over its valid rows only.
            return jnp.where(valid, x, 0.0).sum() / jnp.maximum(num, 1.0)

        def total(params: PyTree) -> tuple[Array, Metrics]:
            each, told = loss(params, rows)
            return mean(each), {name: mean(x) for name, x in told.items()}

        grads, metrics = jax.grad(total, has_aux=True)(fit.params)
        new = self._optimizer.step(fit.params, fit.opt_state, grads, self.learning_rate)
        # Without valid rows the gradient is 0, but Adam's momentum would still move the parameters.
        return tree_where(num > 0, Fit(*new), fit), (metrics, num)
