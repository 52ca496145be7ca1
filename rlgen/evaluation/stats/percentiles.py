"""Percentiles of an agent's scores over levels, participation and dominance.

An aggregate says how an agent does on the whole; these say how it does from its worst level up. All
of them are of one agent over levels, so several seeds are never put together into an agent that
nobody trained: the curve of a run is the mean of its seeds' curves.

Scores are normalised, x = (V - low) / (high - low) with V the mean return on a level, so that 0 is
no better than nothing and 1 as good as the reference.

Source: Open Ended Learning Team, 2021, "Open-Ended Learning Leads to Generally Capable Agents"
(normalised percentiles, participation, and better as at least as good at every percentile).
Differs from it: the reference is the solver's optimum where there is one, and not the agents that
were trained so far; how sure dominance is, is told by resampling levels.
"""

import itertools
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

Q = tuple(range(0, 101, 10))
"""Percentiles that are published; 0 is the worst level, 100 the best one."""
SMALL = 1e-9  # a smaller difference of percentiles is rounding
_CHUNK = 2**21  # resampled entries held at once: 16 MiB


class Dominance(NamedTuple):
    """One run against another, by their percentile curves."""

    run: str
    other: str
    is_better: bool  # at least as good at every percentile, strictly better at one
    is_worse: bool
    better_share: float  # of resamples of the levels
    worse_share: float


def percentiles(
    x: Float[np.ndarray, "*B M"], q: tuple[float, ...] = Q
) -> Float[np.ndarray, "*B K"]:
    """Percentiles over levels, between two levels by linear interpolation.

    Raises:
        ValueError: a score is not a number.
    """
    _check(x)
    return np.moveaxis(np.percentile(x, q, axis=-1), 0, -1)


def participation(x: Float[np.ndarray, "*B M"]) -> Float[np.ndarray, "*B"]:
    """Share of levels with a normalised score above 0: any reward at all, where the low is 0.

    Raises:
        ValueError: a score is not a number.
    """
    _check(x)
    return np.asarray((x > 0).mean(axis=-1))


def dominates(x: Float[np.ndarray, "*B K"], y: Float[np.ndarray, "*B K"]) -> Bool[np.ndarray, "*B"]:
    """Whether one percentile curve is nowhere below another and somewhere above it."""
    gap = x - y
    return np.asarray((gap >= -SMALL).all(axis=-1) & (gap > SMALL).any(axis=-1))


def dominance(
    rng: np.random.Generator,
    scores: Mapping[str, Float[np.ndarray, "_ M"]],
    reps: int = 1000,
) -> tuple[Dominance, ...]:
    """Whether one of every two runs dominates the other, and in which share of resamples of levels.

    All runs are resampled on the same levels. The shares speak of other levels like these; seeds
    are not resampled.

    Args:
        rng: the source of all draws.
        scores: by run, normalised, of each seed [S, M]; the number of seeds may differ.
        reps: resamples; of 1000, a share is known to 1.6 points.
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
    """Each run's mean curve on L resamples of the levels, the same for all runs."""
    num_levels = scores[0].shape[1]
    at_once = max(1, min(reps, _CHUNK // max(x.size for x in scores)))
    parts: list[list[np.ndarray]] = [[] for _ in scores]
    for start in range(0, reps, at_once):
        level = rng.integers(num_levels, size=(min(at_once, reps - start), num_levels))
        for part, x in zip(parts, scores, strict=True):
            part.append(percentiles(x[:, level]).mean(axis=0))
    return [np.concatenate(part) for part in parts]


def _check(x: np.ndarray) -> None:
    """Refuse scores that are not numbers, and say where they are."""
    if np.isnan(x).any():
        place = [int(i) for i in np.argwhere(np.isnan(x))[0]]
        raise ValueError(
            f"the score at {place} is not a number (the last index is the level, the one before it "
            "the seed); leave levels without a reference out, and say so"
        )
