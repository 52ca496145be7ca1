"""Percentiles of an agent's scores over levels, participation and dominance.

An aggregate summarises all levels in one number. The statistics in this module describe the whole
range from an agent's worst level to its best level:

    percentile curve   scores at the percentiles 0, 10, ..., 100 of an agent's levels
    participation      fraction of the levels on which an agent's score is above 0
    dominance          one curve is nowhere below another, and above it at one percentile or more

A curve is computed for each seed's agent separately, and the curve of a run is the mean of its
seeds' curves. Scores of several seeds are therefore never combined into an agent that was not
trained.

Scores are normalised returns x = (V - low) / (high - low), where V is the mean return on a level. A
score of 0 means the low reference (a return of 0, or the return of untrained agents). A score of 1
means the high reference (see `rlgen.evaluation.stats.normalised_scores`).

Source: Open Ended Learning Team, 2021, "Open-Ended Learning Leads to Generally Capable Agents"
(normalised percentiles, participation, and the definition of better: at least as good at every
percentile).
Differs from this source in two points. If the solver's optimal return is known, it replaces the
returns of the agents trained so far as the high reference. The uncertainty of dominance is
estimated by resampling levels.
"""

import itertools
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

Q = tuple(range(0, 101, 10))
"""Percentiles of the Open Ended Learning Team: 0 is the worst level and 100 the best."""
SMALL = 1e-9  # smaller differences of percentiles are rounding errors
_CHUNK = 2**21  # resampled entries held at once: 16 MiB


class Dominance(NamedTuple):
    """Comparison of the percentile curves of two runs."""

    run: str
    other: str
    is_better: bool  # at least as good at every percentile, strictly better at one or more
    is_worse: bool  # `is_better` with the two runs exchanged
    better_share: float  # fraction of level resamples in which the run is better
    worse_share: float  # fraction of level resamples in which the run is worse


def percentiles(
    x: Float[np.ndarray, "*B M"], q: tuple[float, ...] = Q
) -> Float[np.ndarray, "*B K"]:
    """Percentiles over levels, with linear interpolation between two levels.

    Raises:
        ValueError: A score is NaN.
    """
    _check(x)
    return np.moveaxis(np.percentile(x, q, axis=-1), 0, -1)


def participation(x: Float[np.ndarray, "*B M"]) -> Float[np.ndarray, "*B"]:
    """Fraction of levels with a normalised score above 0.

    If the low reference is 0, these are the levels on which the agent's mean return is positive.

    Raises:
        ValueError: A score is NaN.
    """
    _check(x)
    return np.asarray((x > 0).mean(axis=-1))


def dominates(x: Float[np.ndarray, "*B K"], y: Float[np.ndarray, "*B K"]) -> Bool[np.ndarray, "*B"]:
    """Return whether curve x is nowhere below curve y and above y at one percentile or more."""
    gap = x - y
    return np.asarray((gap >= -SMALL).all(axis=-1) & (gap > SMALL).any(axis=-1))


def dominance(
    rng: np.random.Generator,
    scores: Mapping[str, Float[np.ndarray, "_ M"]],
    reps: int = 1000,
) -> tuple[Dominance, ...]:
    """Determine whether one run of each pair dominates the other, and in how many resamples.

    Levels are resampled, and all runs use the same resampled levels. The fractions of resamples
    describe how the runs would compare on other levels of the same distribution. Seeds are not
    resampled.

    Args:
        rng: Generator of all random draws.
        scores: Normalised scores [S, M] by run. The number S of seeds may differ between runs.
        reps: Number of resamples. With 1000 resamples, the standard error of a fraction is at most
            1.6 percentage points.
    """
    curves = {run: percentiles(x).mean(axis=0) for run, x in scores.items()}
    drawn = dict(zip(scores, _resampled(rng, list(scores.values()), reps), strict=True))
    found = []
    for run, other in itertools.combinations(scores, 2):
        turns = ((run, other), (other, run))
        now = (bool(dominates(curves[a], curves[b])) for a, b in turns)
        shares = (float(dominates(drawn[a], drawn[b]).mean()) for a, b in turns)
        found.append(Dominance(run, other, *now, *shares))
    return tuple(found)


def _resampled(
    rng: np.random.Generator, scores: list[np.ndarray], reps: int
) -> list[Float[np.ndarray, "L K"]]:
    """Compute each run's curve on L resamples of the levels, which all runs share."""
    num_levels = scores[0].shape[1]
    at_once = max(1, min(reps, _CHUNK // max(x.size for x in scores)))
    parts: list[list[np.ndarray]] = [[] for _ in scores]
    for start in range(0, reps, at_once):
        level = rng.integers(num_levels, size=(min(at_once, reps - start), num_levels))
        for part, x in zip(parts, scores, strict=True):  # x[:, level] is [S, chunk, M]
            part.append(percentiles(x[:, level]).mean(axis=0))
    return [np.concatenate(part) for part in parts]


def _check(x: np.ndarray) -> None:
    """If a score is NaN, raise an error that names the position of the first one."""
    if np.isnan(x).any():
        place = [int(i) for i in np.argwhere(np.isnan(x))[0]]
        raise ValueError(
            f"the score at {place} is not a number. The last index is that of the level, and the "
            "index before it that of the seed. Leave out levels without a reference return, and "
            "name them with the results"
        )
