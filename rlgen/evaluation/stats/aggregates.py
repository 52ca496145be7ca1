"""Aggregates of zero-shot scores over seeds and levels, and the probability of improvement.

A score matrix has shape `[S, M]`: S training seeds by M levels. Each entry is the mean score of A
attempts, which are the episodes that one seed plays on one level. Every aggregate accepts any
number of leading axes, so that one call evaluates thousands of resamples, or the aggregates of S
seeds if the matrix has shape `[S, 1, M]`.

Source: Agarwal et al., 2021, "Deep Reinforcement Learning at the Edge of the Statistical
Precipice" (IQM, optimality gap, performance profile, probability of improvement).
Differs from rliable, the code of Agarwal et al.: a NaN score raises an error, because sorting and
counting would otherwise hide it.
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float

Statistic = Callable[..., np.ndarray]  # maps one or two arrays [..., S, M] to [...] or [..., K]


def mean(x: Float[np.ndarray, "*B S M"]) -> Float[np.ndarray, "*B"]:
    """Mean over seeds and levels."""
    return np.asarray(x.mean(axis=(-2, -1)))


def iqm(x: Float[np.ndarray, "*B S M"]) -> Float[np.ndarray, "*B"]:
    """Interquartile mean: the mean of the S·M entries without the lowest and highest quarter.

    At each end floor(S·M / 4) entries are left out.
    """
    check_numbers(x)  # NaN sorts last and would be trimmed silently
    entries = np.sort(x.reshape(*x.shape[:-2], -1), axis=-1)
    cut = entries.shape[-1] // 4
    return np.asarray(entries[..., cut : entries.shape[-1] - cut].mean(axis=-1))


def median(x: Float[np.ndarray, "*B S M"]) -> Float[np.ndarray, "*B"]:
    """Median over levels of the scores averaged over seeds."""
    return np.asarray(np.median(x.mean(axis=-2), axis=-1))


def optimality_gap(x: Float[np.ndarray, "*B S M"]) -> Float[np.ndarray, "*B"]:
    """Optimality gap: 1 - mean(min(score, 1)).

    Scores above 1 on some levels do not compensate for scores below 1 on others.
    """
    return np.asarray(1 - np.minimum(x, 1).mean(axis=(-2, -1)))


def level_means(x: Float[np.ndarray, "*B S M"]) -> Float[np.ndarray, "*B M"]:
    """Mean score on each level, over seeds."""
    return x.mean(axis=-2)


def performance_profile(
    x: Float[np.ndarray, "*B S M"], tau: Float[np.ndarray, " K"]
) -> Float[np.ndarray, "*B K"]:
    """Fraction of the S·M entries that lie strictly above each threshold of `tau`."""
    check_numbers(x)  # NaN sorts last and would count as above every threshold
    entries = np.sort(x.reshape(-1, x.shape[-2] * x.shape[-1]), axis=-1)
    num = entries.shape[-1]
    # The insertion point to the right of ties is the number of entries <= tau.
    above = [num - np.searchsorted(one, tau, side="right") for one in entries]
    return np.reshape(above, (*x.shape[:-2], len(tau))) / num


def probability_of_improvement(
    x: Float[np.ndarray, "*B S M"], y: Float[np.ndarray, "*B R M"]
) -> Float[np.ndarray, "*B"]:
    """Probability of improvement of run x over run y.

    This is the probability that a random seed of x scores higher than a random seed of y on a
    random level. A tie counts as one half. On a single level the probability is the Mann-Whitney
    statistic U divided by S·R. The result is the mean of the levels' probabilities.
    """
    check_numbers(x, y)  # every comparison with NaN is False
    x, y = x[..., :, None, :], y[..., None, :, :]  # [..., S, 1, M] and [..., 1, R, M]
    # P(x > y) + P(x = y) / 2 is the mean of P(x > y) and P(x >= y).
    above, at_least = (won.mean(axis=(-3, -2, -1)) for won in (x > y, x >= y))
    return np.asarray((above + at_least) / 2)


def check_numbers(*scores: np.ndarray) -> None:
    """If a score is NaN, raise an error that names the position of the first one."""
    for run, x in enumerate(scores):
        missing = np.isnan(x)
        if not missing.any():
            continue
        place = [int(i) for i in np.argwhere(missing)[0]]
        raise ValueError(
            f"the score of run {run} at {place} is not a number; {int(missing.sum())} of the "
            f"run's {x.size} scores are NaN. Runs are counted from 0. The indices are those of the "
            "seed, the level and, if there are three, the attempt. Evaluate the missing episodes, "
            "or leave out the whole seed or level and state this with the results"
        )
