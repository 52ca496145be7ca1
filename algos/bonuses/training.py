"""Training of learned bonuses: a few Adam steps on a random part of each rollout.

The bonus of a rollout is computed before the networks are trained on that rollout, so that new
observations still have a high bonus. The fraction of the rollout used for training determines most
of the cost and can be set freely. Burda et al., 2019, "Exploration by Random Network Distillation",
3.5, use a smaller fraction of larger rollouts.
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
"""Function that maps parameters and indices of rows (see `Training`) to losses and metrics [B]."""


class Fit(NamedTuple):
    """Trained parameters and optimiser state."""

    params: PyTree
    opt_state: PyTree


@dataclass(frozen=True)
class Training:
    """Training with Adam on a random part of the steps of a rollout.

    A row is one step of one slot. Invalid rows, such as the steps of slots whose weight is 0, have
    no influence. If a minibatch has no valid rows, its gradient step is skipped.

    Attributes:
        share: Fraction of a rollout's steps used in an epoch; 0 disables training.
        num_epochs: Number of epochs per rollout; each epoch samples its own steps.
        num_minibatches: Number of gradient steps per epoch.
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
        # [num_epochs num_minibatches, B]; the scan makes one gradient step for each B indices.
        rows = jnp.concatenate([self._draw(key, valid.size) for key in keys])
        fit, (metrics, num) = jax.lax.scan(minibatch, fit, rows)
        # Metrics [gradient steps] are weighted by the number of valid rows in each minibatch.
        total = jnp.maximum(num.sum(), 1.0)
        return fit, {name: (x * num).sum() / total for name, x in metrics.items()}

    @property
    def _optimizer(self) -> Optimizer:
        return Optimizer("adam", self.max_grad_norm)

    def _draw(self, key: Key, num_rows: int) -> Int[Array, "m B"]:
        """Draw the rows of the m minibatches by stratified sampling.

        The rollout is divided into stretches of equal length, and one row is drawn from each
        stretch. Sampling without replacement would instead require a sort. With a share of 1, every
        row is drawn. The stretches of each minibatch are distributed over the whole rollout.
        """
        size = max(round(self.share * num_rows / self.num_minibatches), 1)
        num = size * self.num_minibatches
        stretch = num_rows / num
        begin = jnp.arange(num, dtype=jnp.float32) * stretch
        # With stretches of one row nothing is random, and float rounding must not change the row.
        within = jax.random.uniform(key, (num,)) * (stretch if stretch > 1 else 0.0)
        # Float32 may round the last index up to `num_rows`, which is out of range.
        rows = jnp.minimum((begin + within).astype(jnp.int32), num_rows - 1)
        # Minibatch i takes every num_minibatches-th stretch, starting at stretch i.
        return rows.reshape(size, self.num_minibatches).T

    def _step(
        self, fit: Fit, loss: RowLoss, rows: Int[Array, " B"], valid: Bool[Array, " B"]
    ) -> tuple[Fit, tuple[Metrics, Array]]:
        num = valid.sum().astype(jnp.float32)

        def mean(x: Float[Array, " B"]) -> Float[Array, ""]:
            # The size of a minibatch is fixed, but the mean is over its valid rows only.
            return jnp.where(valid, x, 0.0).sum() / jnp.maximum(num, 1.0)

        def total(params: PyTree) -> tuple[Array, Metrics]:
            each, told = loss(params, rows)
            return mean(each), {name: mean(x) for name, x in told.items()}

        grads, metrics = jax.grad(total, has_aux=True)(fit.params)
        new = self._optimizer.step(fit.params, fit.opt_state, grads, self.learning_rate)
        # Without valid rows the gradient is 0, but Adam's momentum would still change parameters.
        return tree_where(num > 0, Fit(*new), fit), (metrics, num)
