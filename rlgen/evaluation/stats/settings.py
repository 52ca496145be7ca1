"""Settings of the confidence intervals of aggregates and differences."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from rlgen.evaluation.stats.aggregates import Statistic, check_numbers, probability_of_improvement
from rlgen.evaluation.stats.bootstrap import Bootstrap, check_settings
from rlgen.evaluation.stats.intervals import Interval, improvement, no_interval, student, welch

KINDS = ("student", "stratified", "whole-seeds", "attempts")
_OVER = {"stratified": "seeds", "whole-seeds": "whole-seeds", "attempts": "attempts"}


@dataclass(frozen=True)
class Intervals:
    """Kind and confidence level of the intervals of runs on a suite whose levels are fixed.

    The field `kind` names the interval of runs with several seeds:

    - `student`: Student's t over the seeds' own aggregates, and Welch's for differences. One agent
      plays all levels, so this interval contains the effect of the seed.
    - `stratified`: bootstrap over seeds within each level. It is right only if a separate agent was
      trained on each level. The field has used it for agents that play all levels, where it is too
      narrow.
    - `whole-seeds`: bootstrap over seeds, with the same seeds for all levels. It is too narrow with
      few seeds.
    - `attempts`: bootstrap over attempts. It describes only the agents that were evaluated. An
      aggregate of a single run with one seed always has this interval, if there are two or more
      attempts per level.

    The point estimate of the first kind is the mean of the seeds' own aggregates. The bootstraps
    use the aggregate of all seeds and levels together, as rliable does. The two differ for the IQM
    and the median.

    Attributes:
        kind: Kind of the intervals, one of `KINDS`.
        confidence: Confidence level, between 0 and 1.
        reps: Number of resamples of a bootstrap.

    Raises:
        ValueError: A field is unknown or outside its range.
    """

    kind: str = "student"
    confidence: float = 0.95
    reps: int = 5000

    def __post_init__(self):
        """Reject invalid settings."""
        if self.kind not in KINDS:
            raise ValueError(f"kind={self.kind!r} is unknown; choose one of {', '.join(KINDS)}")
        check_settings(self.reps, self.confidence)

    def resolve(self, *scores: Float[np.ndarray, "_ _ _"]) -> str:
        """Return the kind of interval of these runs' aggregates: `kind`, `attempts` or `none`.

        Raises:
            ValueError: `kind` is `attempts`, and there is one attempt per level.
        """
        seeds, attempts = (min(x.shape[axis] for x in scores) for axis in (0, 2))
        if self.kind == "attempts" and attempts == 1:
            raise ValueError(
                "kind='attempts' needs 2 or more attempts per level; increase --attempts"
            )
        if self.kind != "attempts" and seeds > 1:
            return self.kind
        return "attempts" if attempts > 1 else "none"

    def of(
        self, rng: np.random.Generator, statistic: Statistic, x: Float[np.ndarray, "S M A"]
    ) -> Interval:
        """Compute an aggregate of one run with its interval.

        A bootstrap interval of width 0 is left out, because all its resamples were equal.

        Args:
            rng: Generator of a bootstrap's draws.
            statistic: Function that maps a matrix `[..., S, M]` to `[...]` or `[..., K]`.
            x: Score of every attempt.

        Raises:
            ValueError: A score is NaN.
        """
        kind = self.resolve(x)
        matrix = x.mean(axis=-1, dtype=np.float64)
        if kind == "student":
            check_numbers(matrix)
            return student(np.asarray(statistic(matrix[:, None, :])), self.confidence)
        if kind == "none":
            check_numbers(matrix)
            return no_interval(statistic(matrix))
        found = self._bootstrap(kind).interval(rng, statistic, x)
        return _without_width_zero(found)

    def difference(
        self,
        rng: np.random.Generator,
        statistic: Statistic,
        x: Float[np.ndarray, "S M A"],
        y: Float[np.ndarray, "R M A2"],
    ) -> Interval:
        """Compute an aggregate of run x minus that of run y on the same levels, with its interval.

        If a run has one seed, there is no interval, unless `kind` is `attempts`.

        Raises:
            ValueError: A score is NaN.
        """
        kind = self.resolve(x, y)
        matrices = [one.mean(axis=-1, dtype=np.float64) for one in (x, y)]
        check_numbers(*matrices)
        if kind == self.kind != "student":
            both = self._bootstrap(kind)
            found = both.interval(rng, lambda a, b: statistic(a) - statistic(b), x, y)
            return _without_width_zero(found)
        of_x, of_y = (np.asarray(statistic(one[:, None, :])) for one in matrices)
        return welch(of_x, of_y, self.confidence)

    def improvement(
        self,
        rng: np.random.Generator,
        x: Float[np.ndarray, "S M A"],
        y: Float[np.ndarray, "R M A2"],
    ) -> Interval:
        """Compute the probability of improvement of run x over run y with its interval.

        Raises:
            ValueError: A score is NaN.
        """
        kind = self.resolve(x, y)
        if kind == self.kind != "student":
            found = self._bootstrap(kind).interval(rng, probability_of_improvement, x, y)
            return _without_width_zero(found)
        of_x, of_y = (one.mean(axis=-1, dtype=np.float64) for one in (x, y))
        return improvement(of_x, of_y, self.confidence)

    def explain(self, kind: str, num_seeds: int, num_attempts: int, is_rate: bool) -> str:
        """Describe the intervals of aggregates in words, for tables and reports.

        Args:
            kind: Result of `resolve`.
            num_seeds: Number of seeds.
            num_attempts: Number of attempts per level and seed.
            is_rate: Whether the score is a solve rate.
        """
        per_cent = f"{self.confidence * 100:g} %"
        exact = f"the exact binomial interval of the episodes ({per_cent})"
        if num_seeds == 1:
            return self._of_one_agent(kind, num_attempts, exact if is_rate else "")
        drawn = {
            "stratified": f"of the {num_seeds} seeds, independently within each level (stratified)",
            "whole-seeds": f"of the {num_seeds} seeds, the same seeds for all levels",
            "attempts": f"of the {num_attempts} attempts at each level by each seed, which does "
            "not cover variation between training seeds",
        }
        how = f"{per_cent} by Student's t over the {num_seeds} seeds' own scores"
        how = f"{self._words()} {drawn[kind]}" if kind in drawn else how
        equal = f"{exact}, which contains no effect of the seed" if is_rate else "no interval"
        return f"{how}; where all seeds have the same score, {equal}"

    def _of_one_agent(self, kind: str, num_attempts: int, exact: str) -> str:
        """Describe the intervals of runs with one seed, which show only chance in the episodes."""
        parts = [f"for means and levels, {exact}"] if exact else []
        if kind != "none":
            drawn = f"{self._words()} of the {num_attempts} attempts at each level"
            parts.append(f"for other aggregates, {drawn}" if exact else drawn)
        if not parts:
            return "1 seed and 1 attempt at each level: no interval"
        return f"1 seed: no interval over seeds, only of this agent's episodes: {'; '.join(parts)}"

    def _words(self) -> str:
        return f"{self.confidence * 100:g} % percentile bootstrap, {self.reps:,} resamples"

    def _bootstrap(self, kind: str) -> Bootstrap:
        return Bootstrap(_OVER[kind], reps=self.reps, confidence=self.confidence)


DEFAULT = Intervals()


def _without_width_zero(one: Interval) -> Interval:
    known = one.high > one.low
    low, high = (np.where(known, bound, np.nan) for bound in (one.low, one.high))
    return Interval(one.value, np.asarray(low), np.asarray(high), one.kind)
