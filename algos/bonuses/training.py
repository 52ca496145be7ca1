"""How learned bonuses learn: some steps of Adam on a random part of each rollout.

A bonus is computed before it learns from the same rollout, so that what is new counts as new. The
part that it learns from is its main cost and a free parameter; Burda et al. lower it as rollouts
grow ("Exploration by Random Network Distillation", 2019, 3.5).
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
"""Loss of each of some rows, and what to report of each, [B]."""


class Fit(NamedTuple):
    """What learns."""

    params: PyTree
    opt_state: PyTree


@dataclass(frozen=True)
class Training:
    """Adam on a random part of a rollout's rows, which are its steps.

    Rows of no account, such as steps of slots without weight, have no influence. A minibatch
    without others is no step.

    Attributes:
        share: of a rollout's steps that an epoch learns from; 0 learns nothing.
        num_epochs: passes, each over steps drawn anew.
        num_minibatches: gradient steps in a pass.
        learning_rate: Adam's step size.
        max_grad_norm: clips the gradient's global norm; 0 turns it off.

    Raises:
        ValueError: a field outside its range.
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
        """Before the first step."""
        return Fit(params, self._optimizer.init(params))

    def run(
        self, key: Key, fit: Fit, loss: RowLoss, valid: Bool[Array, " M"]
    ) -> tuple[Fit, Metrics]:
        """Learn from some of M rows; metrics are means over the rows that counted.

        Args:
            key: consumed.
            fit: what learns.
            loss: of rows, by their numbers.
            valid: whether a row counts.
        """
        if self.share == 0:
            return fit, {}

        def minibatch(fit: Fit, rows: Array) -> tuple[Fit, tuple[Metrics, Array]]:
            return self._step(fit, loss, rows, valid[rows])

        keys = jax.random.split(key, self.num_epochs)
        rows = jnp.concatenate([self._draw(key, valid.size) for key in keys])
        fit, (metrics, num) = jax.lax.scan(minibatch, fit, rows)
        total = jnp.maximum(num.sum(), 1.0)
        return fit, {name: (x * num).sum() / total for name, x in metrics.items()}

    @property
    def _optimizer(self) -> Optimizer:
        return Optimizer("adam", self.max_grad_norm)

    def _draw(self, key: Key, num_rows: int) -> Int[Array, "m B"]:
        """Rows of each minibatch: one at random from each of as many equal stretches.

        As good as a draw without replacement, which would sort; and all rows where the share is 1.
        Every minibatch goes through the whole rollout.
        """
        size = max(round(self.share * num_rows / self.num_minibatches), 1)
        num = size * self.num_minibatches
        stretch = num_rows / num
        begin = jnp.arange(num, dtype=jnp.float32) * stretch
        # A stretch of one row leaves no choice; rounding must not make one.
        within = jax.random.uniform(key, (num,)) * (stretch if stretch > 1 else 0.0)
        rows = jnp.minimum((begin + within).astype(jnp.int32), num_rows - 1)
        return rows.reshape(size, self.num_minibatches).T

    def _step(
        self, fit: Fit, loss: RowLoss, rows: Int[Array, " B"], valid: Bool[Array, " B"]
    ) -> tuple[Fit, tuple[Metrics, Array]]:
        num = valid.sum().astype(jnp.float32)

        def mean(x: Float[Array, " B"]) -> Float[Array, ""]:
            return jnp.where(valid, x, 0.0).sum() / jnp.maximum(num, 1.0)

        def total(params: PyTree) -> tuple[Array, Metrics]:
            each, told = loss(params, rows)
            return mean(each), {name: mean(x) for name, x in told.items()}

        grads, metrics = jax.grad(total, has_aux=True)(fit.params)
        new = self._optimizer.step(fit.params, fit.opt_state, grads, self.learning_rate)
        # Adam would go on by its momentum.
        return tree_where(num > 0, Fit(*new), fit), (metrics, num)
