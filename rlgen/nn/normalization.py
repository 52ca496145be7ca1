"""Running statistics of a bonus, and what it is divided by."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

MODES = ("std", "return-std", "legacy", "none")
SMALLEST_SHARE = 0.1


class Moments(NamedTuple):
    """Count, mean and sum of squared deviations of what was seen."""

    num: Float[Array, "*B"]
    mean: Float[Array, "*B"]
    squares: Float[Array, "*B"]


class NormalizerState(NamedTuple):
    """Everything seen in a run."""

    moments: Moments
    running_return: Float[Array, " N"]  # discounted, of each slot; 0 unless the mode needs it


@dataclass(frozen=True)
class Normalizer:
    """Divides a bonus by a running deviation; nothing is subtracted, so that its sign stays.

    The divisor of a step is of all that was seen up to and with it, over all slots, so later steps
    never change an earlier bonus. A deviation below a tenth of the root mean square counts as that
    much: a bonus that hardly varies would otherwise be blown up.

    Attributes:
        mode: `std`, the bonus's own deviation; `return-std`, that of its discounted sum so far in
            each slot, episodes notwithstanding; `legacy`, what the code of E3B and of the study of
            global and episodic bonuses arrives at, which counts one sample for every
            `legacy_batch`; `none`, 1.
        discount: of `return-std`.
        legacy_batch: B, trajectories of a batch in the code that `legacy` reproduces.

    Raises:
        ValueError: an unknown mode or a number outside its range.
    Source: merging of moments: Chan, Golub and LeVeque, 1979, "Updating Formulae and a Pairwise
    Algorithm for Computing Sample Variances"; `return-std`: Burda et al., 2019, "Exploration by
    Random Network Distillation", 2.4.
    """

    mode: Literal["std", "return-std", "legacy", "none"] = "std"
    discount: float = 0.99
    legacy_batch: int = 8

    def __post_init__(self):
        if self.mode not in MODES:
            raise ValueError(f"normalizer.mode={self.mode!r} is none of {', '.join(MODES)}")
        if not 0 <= self.discount < 1:
            raise ValueError(f"normalizer.discount must lie in [0, 1), got {self.discount}")
        if self.legacy_batch < 1:
            raise ValueError(f"normalizer.legacy_batch must be at least 1, got {self.legacy_batch}")

    def init(self, num_slots: int) -> NormalizerState:
        """Nothing seen."""
        zero = jnp.zeros(())
        return NormalizerState(Moments(zero, zero, zero), jnp.zeros(num_slots))

    def update(
        self,
        state: NormalizerState,
        raw: Float[Array, "T N"],
        counted: Bool[Array, "T N"],
    ) -> tuple[NormalizerState, Float[Array, "T 1"]]:
        """Take in a rollout; the new state and each step's divisor.

        Args:
            raw: the bonus.
            counted: whether a step counts for the statistics.
        """
        if self.mode == "none":
            return state, jnp.ones((raw.shape[0], 1))
        measured, returns = raw, state.running_return
        if self.mode == "return-std":
            measured, returns = self._returns(returns, raw, counted)
        upto = _moments_upto(state.moments, measured, counted)
        divisor = jnp.where(upto.num > 0, self._divisor(upto), 1.0)
        last = Moments(*(x[-1] for x in upto))
        return NormalizerState(last, returns), divisor[:, None]

    def _returns(
        self, before: Float[Array, " N"], raw: Float[Array, "T N"], counted: Bool[Array, "T N"]
    ) -> tuple[Float[Array, "T N"], Float[Array, " N"]]:
        def step(total: Array, xs: tuple[Array, Array]) -> tuple[Array, Array]:
            bonus, counts = xs
            total = jnp.where(counts, self.discount * total + bonus, total)
            return total, total

        end, returns = jax.lax.scan(step, before, (raw, counted), unroll=8)
        return returns, end

    def _divisor(self, seen: Moments) -> Float[Array, " T"]:
        variance = seen.squares / jnp.maximum(seen.num, 1.0)
        if self.mode == "legacy":
            batch = self.legacy_batch
            return jnp.sqrt(batch * (variance + (batch - 1) ** 2 * seen.mean**2)) + 1e-8
        power = variance + seen.mean**2
        return jnp.sqrt(jnp.maximum(variance, SMALLEST_SHARE**2 * power)) + 1e-8


def merge(left: Moments, right: Moments) -> Moments:
    """The moments of two samples taken together."""
    num = left.num + right.num
    share = right.num / jnp.maximum(num, 1.0)
    apart = right.mean - left.mean
    mean = left.mean + apart * share
    squares = left.squares + right.squares + apart**2 * left.num * share
    return Moments(num, mean, squares)


def _moments_upto(before: Moments, x: Float[Array, "T N"], counted: Bool[Array, "T N"]) -> Moments:
    """The moments of all that was seen up to and with each step, [T]."""
    num = counted.sum(1).astype(jnp.float32)
    mean = jnp.where(counted, x, 0.0).sum(1) / jnp.maximum(num, 1.0)
    squares = jnp.where(counted, (x - mean[:, None]) ** 2, 0.0).sum(1)
    upto = jax.lax.associative_scan(merge, Moments(num, mean, squares))
    start = Moments(*(jnp.broadcast_to(m, num.shape) for m in before))
    return merge(start, upto)
