"""Percentiles of an agent's scores over levels, participation and dominance.

An aggregate summarises all levels; these statistics describe the whole range from an agent's worst
level to its best one. Each is computed for one agent over levels, so several seeds are never
combined into an agent that was not trained: the curve of a run is the mean of its seeds' curves.

Scores are normalised, x = (V - low) / (high - low) with V the mean return on a level. 0 is the low
reference (a return of 0, or that of untrained agents) and 1 the high reference.

Source: Open Ended Learning Team, 2021, "Open-Ended Learning Leads to Generally Capable Agents"
(normalised percentiles, participation, and the definition of better: at least as good at every
percentile).
Differs from it: the reference is the solver's optimum where there is one, instead of the agents
trained so far; the uncertainty of dominance is estimated by resampling levels.
"""

import itertools
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

Q = tuple(range(0, 101, 10))
"""Published percentiles; 0 is the worst level, 100 the best."""
SMALL = 1e-9  # smaller differences of percentiles are rounding errors
_CHUNK = 2**21  # resampled entries held at once: 16 MiB


class Dominance(NamedTuple):
    """Comparison of the percentile curves of two runs."""

    run: str
    other: str
    is_better: bool  # at least as good at every percentile, strictly better at one
    is_worse: bool  # `is_better` with the two runs exchanged
    better_share: float  # fraction of level resamples in which the run is better
    worse_share: float  # fraction in which it is worse


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

    If the low reference is 0, these are the levels on which the agent earns any return.

    Raises:
        ValueError: A score is NaN.
    """
    _check(x)
    return np.asarray((x > 0).mean(axis=-1))


def dominates(x: Float[np.ndarray, "*B K"], y: Float[np.ndarray, "*B K"]) -> Bool[np.ndarray, "*B"]:
    """Return whether curve x is nowhere below curve y and above it at one percentile or more."""
    gap = x - y
    return np.asarray((gap >= -SMALL).all(axis=-1) & (gap > SMALL).any(axis=-1))


def dominance(
    rng: np.random.Generator,
    scores: Mapping[str, Float[np.ndarray, "_ M"]],
    reps: int = 1000,
) -> tuple[Dominance, ...]:
    """Dominance of each pair of runs, and the fraction of level resamples in which it holds.

    All runs use the same resampled levels. The fractions refer to other levels drawn like these;
    seeds are not resampled.

    Args:
        rng: Generator of all random draws.
        scores: Normalised scores by run, [S, M]; the number of seeds may differ between runs.
        reps: Number of resamples; with 1000 the standard error of a fraction is at most 1.6
            percentage points.
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
    """Each run's mean curve on L resamples of the levels, which are the same for all runs."""
    num_levels = scores[0].shape[1]
    at_once = max(1, min(reps, _CHUNK // max(x.size for x in scores)))
    parts: list[list[np.ndarray]] = [[] for _ in scores]
    for start in range(0, reps, at_once):
        level = rng.integers(num_levels, size=(min(at_once, reps - start), num_levels))
        for part, x in zip(parts, scores, strict=True):  # x[:, level] is [S, chunk, M]
            part.append(percentiles(x[:, level]).mean(axis=0))
    return [np.concatenate(part) for part in parts]


def _check(x: np.ndarray) -> None:
    """Raise an error that locates the first NaN score, if there is one."""
    if np.isnan(x).any():
        place = [int(i) for i in np.argwhere(np.isnan(x))[0]]
        raise ValueError(
            f"the score at {place} is not a number (the last index is the level, the one before it "
            "the seed); leave out levels without a reference and report them"
        )
