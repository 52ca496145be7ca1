"""Percentile bootstrap of aggregates of zero-shot scores.

`rlgen.evaluation.stats.settings.Intervals` uses it for runs with one seed, and if it is asked for.

Source: Agarwal et al., 2021, "Deep Reinforcement Learning at the Edge of the Statistical
Precipice" (stratified bootstrap).
Differs from rliable, the code of Agarwal et al., in two points: every draw comes from the caller's
generator, so an interval is reproducible; whole seeds, attempts and levels can be resampled.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from rlgen.evaluation.stats.aggregates import Statistic, check_numbers
from rlgen.evaluation.stats.intervals import Interval

OVER = ("seeds", "whole-seeds", "attempts")
KIND = {"seeds": "stratified", "whole-seeds": "whole-seeds", "attempts": "attempts"}
_CHUNK = 2**21  # largest number of resampled entries in memory at a time (16 MiB)


@dataclass(frozen=True)
class Bootstrap:
    """Percentile bootstrap of a statistic of score matrices.

    The field `over` names the unit that is resampled with replacement:

    - `seeds`: Seeds are resampled independently within each level, so that each level is a stratum.
      This treats the scores of one seed on different levels as independent, which is correct if a
      separate agent is trained on each level. If one agent plays all levels and some agents are
      better on every level, the interval is too narrow.
    - `whole-seeds`: Seeds are resampled, and the same resampled seeds are used for all levels. This
      preserves the dependence between the scores of one agent on different levels. With few seeds
      the interval is too narrow.
    - `attempts`: Attempts are resampled within each seed and level. The interval describes only the
      agents that were evaluated.

    Attributes:
        over: Resampling unit, one of `OVER`.
        resample_levels: Whether to resample levels too. If True, the interval describes the family
            that the levels were drawn from. If False, it describes only the levels themselves.
        reps: Number of resamples.
        confidence: Confidence level, between 0 and 1.
    """

    over: str = "seeds"
    resample_levels: bool = False
    reps: int = 5000
    confidence: float = 0.95

    def __post_init__(self):
        """Reject invalid settings."""
        if self.over not in OVER:
            raise ValueError(f"over={self.over!r} is unknown; choose one of {', '.join(OVER)}")
        check_settings(self.reps, self.confidence)

    def interval(
        self,
        rng: np.random.Generator,
        statistic: Statistic,
        *scores: Float[np.ndarray, "_ M _"],
    ) -> Interval:
        """Compute a statistic of one run, or of two runs on the same levels, with its interval.

        Args:
            rng: Generator of all random draws.
            statistic: Function that takes one matrix `[..., S, M]` per run and returns an array
                `[...]` or `[..., K]`.
            scores: Score of every attempt, [S, M, A], one array per run. S and A may differ between
                runs.

        Raises:
            ValueError: A score is NaN, or a run has too few seeds or attempts for `over`.
        """
        check_numbers(*scores)
        self._check_units(*scores)
        value = np.asarray(statistic(*(x.mean(axis=-1, dtype=np.float64) for x in scores)))
        draws = np.concatenate([statistic(*xs) for xs in self._resamples(rng, scores)])
        tail = (1 - self.confidence) / 2
        low, high = np.quantile(draws, [tail, 1 - tail], axis=0)
        # With few seeds the bootstrap of a median is so biased that its percentile interval can
        # miss the point estimate. The interval is widened until it contains the estimate.
        low, high = np.minimum(low, value), np.maximum(high, value)
        return Interval(value, np.asarray(low), np.asarray(high), KIND[self.over])

    def _check_units(self, *scores: Float[np.ndarray, "_ _ _"]) -> None:
        seeds, attempts = (min(x.shape[axis] for x in scores) for axis in (0, 2))
        if self.over == "attempts" and attempts == 1:
            raise ValueError(
                "over='attempts' needs 2 or more attempts per level; increase --attempts"
            )
        if self.over != "attempts" and seeds == 1:
            raise ValueError(
                f"over={self.over!r} needs 2 or more seeds; use over='attempts', or train more "
                "seeds"
            )

    def _resamples(self, rng: np.random.Generator, scores: tuple[np.ndarray, ...]):
        """Yield chunks of resampled score matrices: tuples with one `[num, S, M]` array per run."""
        num_levels = scores[0].shape[1]
        # Array entries per resample: [S, M, A] if attempts are drawn, otherwise [S, M].
        width = sum(x.size if self.over == "attempts" else x[..., 0].size for x in scores)
        at_once = max(1, min(self.reps, _CHUNK // width))
        fixed = np.arange(num_levels)[None]
        for start in range(0, self.reps, at_once):
            num = min(at_once, self.reps - start)
            level = rng.integers(num_levels, size=(num, num_levels))
            level = level if self.resample_levels else np.broadcast_to(fixed, level.shape)
            # The resampled levels are the same for all runs.
            yield tuple(_resample(rng, self.over, x, level) for x in scores)


def check_settings(reps: int, confidence: float) -> None:
    """Reject an invalid number of resamples or confidence level.

    Raises:
        ValueError: `reps` is below 1, or `confidence` is not between 0 and 1.
    """
    if reps < 1:
        raise ValueError(f"reps must be at least 1, usually 2000 to 10000; got {reps}")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must be between 0 and 1, usually 0.95; got {confidence}")


def _resample(
    rng: np.random.Generator,
    over: str,
    x: Float[np.ndarray, "S M A"],
    level: Int[np.ndarray, "K M"],
) -> Float[np.ndarray, "K S M"]:
    """Resample the score matrix K times.

    The caller chooses the levels of each resample, and this function resamples seeds or attempts.

    Args:
        rng: Generator of all random draws.
        over: Resampling unit: seeds, whole-seeds or attempts.
        x: Score of every attempt.
        level: Index of the level in each column of each resample.
    """
    num_seeds, num_levels, num_attempts = x.shape
    matrix = x.mean(axis=-1, dtype=np.float64)
    row = np.arange(num_seeds)[None, :, None]  # [1, S, 1]: broadcast against `column`
    column = level[:, None, :]  # [K, 1, M]
    if over == "attempts" and ((x == 0) | (x == 1)).all():
        # The sum of A resampled zeros and ones has a binomial distribution, which needs one draw
        # instead of A.
        return rng.binomial(num_attempts, matrix[row, column]) / num_attempts
    if over == "attempts":
        size = (len(level), num_seeds, num_levels, num_attempts)
        attempt = rng.integers(num_attempts, size=size)
        return x[row[..., None], column[..., None], attempt].mean(axis=-1, dtype=np.float64)
    shared = over == "whole-seeds"  # one set of seeds for all levels of a resample
    row = rng.integers(num_seeds, size=(len(level), num_seeds, 1 if shared else num_levels))
    return matrix[row, column]
