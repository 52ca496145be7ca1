"""Normalisation of a bonus by a running standard deviation."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

MODES = ("std", "return-std", "legacy", "none")
SMALLEST_SHARE = 0.1


class Moments(NamedTuple):
    """Number of samples, their mean, and the sum of squared deviations from the mean."""

    num: Float[Array, "*B"]
    mean: Float[Array, "*B"]
    squares: Float[Array, "*B"]


class NormalizerState(NamedTuple):
    """Running statistics over a run."""

    moments: Moments
    running_return: Float[Array, " N"]  # discounted sum; 0 unless the mode needs it


@dataclass(frozen=True)
class Normalizer:
    """Division of a bonus by a running standard deviation; no mean is subtracted.

    The division keeps the sign of the bonus. The divisor of a step is computed from this step and
    all earlier steps, over all slots. Later steps therefore never change an earlier bonus. The
    divisor is at least a tenth of the root mean square, because a bonus that hardly varies would
    otherwise be scaled up without bound.

    Attributes:
        mode: divisor of the bonus. `std`: standard deviation of the bonus. `return-std`: standard
            deviation of the bonus's discounted sum in each slot, which continues across episodes.
            `legacy`: divisor of the code of Henaff et al., 2022 (E3B), and Henaff et al., 2023. In
            its statistics, that code counts only one of every `legacy_batch` samples. `none`: 1.
        discount: discount factor per step for `return-std`.
        legacy_batch: for `legacy`, number of trajectories per batch in the reproduced code.

    Raises:
        ValueError: unknown mode, or a number out of range.
    Source: merging of moments: Chan, Golub and LeVeque, 1979, "Updating Formulae and a Pairwise
    Algorithm for Computing Sample Variances"; `return-std`: Burda et al., 2019, "Exploration by
    Random Network Distillation", section 2.4.
    """

    mode: Literal["std", "return-std", "legacy", "none"] = "std"
    discount: float = 0.99
    legacy_batch: int = 8

    def __post_init__(self):
        if self.mode not in MODES:
            raise ValueError(
                f"normalizer.mode must be one of {', '.join(MODES)}, got {self.mode!r}"
            )
        if not 0 <= self.discount < 1:
            raise ValueError(f"normalizer.discount must lie in [0, 1), got {self.discount}")
        if self.legacy_batch < 1:
            raise ValueError(f"normalizer.legacy_batch must be at least 1, got {self.legacy_batch}")

    def init(self, num_slots: int) -> NormalizerState:
        """Statistics before any data."""
        zero = jnp.zeros(())
        return NormalizerState(Moments(zero, zero, zero), jnp.zeros(num_slots))

    def update(
        self,
        state: NormalizerState,
        raw: Float[Array, "T N"],
        counted: Bool[Array, "T N"],
    ) -> tuple[NormalizerState, Float[Array, "T 1"]]:
        """Return the statistics updated with a rollout, and the divisor of each step.

        Args:
            state: statistics so far.
            raw: bonus, [T, N].
            counted: mask of the steps that count for the statistics, [T, N].

        Returns:
            The new statistics and the divisors, [T, 1].
        """
        if self.mode == "none":
            return state, jnp.ones((raw.shape[0], 1))
        # `measured` only determines the divisor; in every mode the caller divides `raw` by the
        # divisor.
        measured, returns = raw, state.running_return
        if self.mode == "return-std":
            measured, returns = self._returns(returns, raw, counted)
        upto = _moments_upto(state.moments, measured, counted)
        # 1 as long as no step has counted.
        divisor = jnp.where(upto.num > 0, self._divisor(upto), 1.0)
        last = Moments(*(x[-1] for x in upto))
        return NormalizerState(last, returns), divisor[:, None]

    def _returns(
        self, before: Float[Array, " N"], raw: Float[Array, "T N"], counted: Bool[Array, "T N"]
    ) -> tuple[Float[Array, "T N"], Float[Array, " N"]]:
        # The sum is not reset where an episode begins.
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
            # √(B (σ² + (B − 1)² μ²)): the result if one of every B samples is counted
            # (docs/exploration.md).
            return jnp.sqrt(batch * (variance + (batch - 1) ** 2 * seen.mean**2)) + 1e-8
        power = variance + seen.mean**2  # mean square; 1 % of it is the smallest variance used
        return jnp.sqrt(jnp.maximum(variance, SMALLEST_SHARE**2 * power)) + 1e-8


def merge(left: Moments, right: Moments) -> Moments:
    """Return the moments of the union of two samples."""
    num = left.num + right.num
    # The maximum avoids 0 / 0 if both samples are empty.
    share = right.num / jnp.maximum(num, 1.0)
    apart = right.mean - left.mean
    mean = left.mean + apart * share
    # Σ(x − mean)² of the union exceeds the parts' sums by (apart)² · n_left n_right / n.
    squares = left.squares + right.squares + apart**2 * left.num * share
    return Moments(num, mean, squares)


def _moments_upto(before: Moments, x: Float[Array, "T N"], counted: Bool[Array, "T N"]) -> Moments:
    """For each step, moments of all steps up to and including this step, [T]."""
    num = counted.sum(1).astype(jnp.float32)
    mean = jnp.where(counted, x, 0.0).sum(1) / jnp.maximum(num, 1.0)
    squares = jnp.where(counted, (x - mean[:, None]) ** 2, 0.0).sum(1)
    # The moments of each step's N slots are merged along T. Unlike Σx² − n mean², this computation
    # avoids cancellation.
    upto = jax.lax.associative_scan(merge, Moments(num, mean, squares))
    # `merge` is associative, so the moments from before the rollout can be merged last.
    start = Moments(*(jnp.broadcast_to(m, num.shape) for m in before))
    return merge(start, upto)
