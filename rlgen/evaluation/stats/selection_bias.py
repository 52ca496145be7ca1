"""Bias of a mean over the worst levels that arises because the levels are ranked with noise.

If levels are ranked by few attempts, some of the levels with the lowest means were only unlucky, so
the levels that are selected are on average better than the worst levels. Their mean score in a
second evaluation is therefore too high: it is an upper bound, in expectation. The bias is estimated
in two steps. The distribution of the levels' expected scores is fitted to the attempts of both
evaluations. From this distribution, the mean over the worst levels follows, and also the expected
mean over the levels that N attempts would select.

Source: The fit is the nonparametric maximum likelihood estimate of a mixing distribution, computed
by the EM algorithm: Kiefer and Wolfowitz, 1956, "Consistency of the maximum likelihood estimator in
the presence of infinitely many incidental parameters"; Laird, 1978, "Nonparametric maximum
likelihood estimation of a mixing distribution". The application to selection is our own.
"""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy.special import gammaln, xlog1py, xlogy

TOLERANCE = 0.02
"""Largest bias without a warning, as a fraction of the range of the scores."""
MOST_ATTEMPTS = 4000  # an upper bound on the number of attempts that is reported as needed
_NUM_STEPS = 1000  # steps of the EM algorithm
# Support points of the fitted distribution. They are denser near 0 and near 1, where the noise is
# small.
_GRID = np.sin(np.linspace(0, np.pi / 2, 201)) ** 2


class SelectionBias(NamedTuple):
    """Estimated bias for K fractions of the levels, means over seeds."""

    bias: Float[np.ndarray, " K"]  # in units of the score; 0 or more
    tolerance: float  # largest bias that needs no warning, in units of the score
    needed: Int[np.ndarray, " K"]  # attempts for which the bias is below the tolerance


def estimate(
    attempts: Float[np.ndarray, "S M N"], num_ranking: int, share: Float[np.ndarray, " K"]
) -> SelectionBias:
    """Estimate how much too high the mean score on the worst levels is, for each fraction.

    The scores are scaled to the range from 0 to 1 and treated as quasi-binomial: an attempt on a
    level with expected score p has the variance φ p(1 - p), with one dispersion φ for all levels.
    For scores of 0 and 1, φ is 1 and the model is exact. If all levels have the same expected
    score, the bias is 0, but the estimate is not, because few attempts cannot show that levels are
    equal.

    Args:
        attempts: Scores of all attempts of both evaluations, at least two per level.
        num_ranking: Number of attempts in the evaluation that ranks the levels.
        share: Fractions of the levels, above 0 and at most 1.
    """
    low, high = float(attempts.min()), float(attempts.max())
    bias, needed = np.zeros(len(share)), np.full(len(share), num_ranking)
    tolerance = TOLERANCE * (high - low)
    scaled = (attempts - low) / (high - low) if low < high else np.zeros_like(attempts)
    dispersion = _dispersion(scaled)
    if dispersion == 0:  # the levels are ranked without noise
        return SelectionBias(bias, tolerance, needed)
    num = attempts.shape[-1] / dispersion
    weight = np.stack([_mixing(mean, num) for mean in scaled.mean(axis=-1)])
    bias = _bias(weight, num_ranking / dispersion, share)
    number = num_ranking
    is_enough = bias <= TOLERANCE
    while not is_enough.all() and number < MOST_ATTEMPTS:
        number = min(_next(number), MOST_ATTEMPTS)
        needed = np.where(is_enough, needed, number)
        is_enough |= _bias(weight, number / dispersion, share) <= TOLERANCE
    return SelectionBias(bias * (high - low), tolerance, needed)


def _next(number: int) -> int:
    """Number that is larger by about a quarter, rounded up to two digits."""
    unit = 10 ** max(len(str(number)) - 2, 0)
    return math.ceil(1.25 * number / unit) * unit


def _dispersion(scores: Float[np.ndarray, "S M N"]) -> float:
    """Variance of the attempts on a level divided by that of 0/1 scores with equal expectations."""
    mean, variance = scores.mean(axis=-1), scores.var(axis=-1, ddof=1)
    # Unbiased estimate of p(1 - p) for the expected score p of each level.
    largest = (mean * (1 - mean) + variance / scores.shape[-1]).sum()
    return float(variance.sum() / largest) if largest > 0 else 0.0


def _mixing(mean: Float[np.ndarray, " M"], num: float) -> Float[np.ndarray, " G"]:
    """Fit a distribution on `_GRID` to the levels' means, each of `num` 0/1 attempts."""
    value, count = np.unique(mean, return_counts=True)
    if len(value) > len(_GRID):  # rounded, so that the time does not grow with the number of levels
        value, count = np.unique(mean.round(2), return_counts=True)
    log = _log_likelihood(num * value, num)
    likelihood = np.exp(log - log.max(axis=1, keepdims=True))
    weight, share = np.full(len(_GRID), 1 / len(_GRID)), count / count.sum()
    for _ in range(_NUM_STEPS):
        weight = weight * ((share / (likelihood @ weight)) @ likelihood)
    return weight / weight.sum()


def _log_likelihood(hits: Float[np.ndarray, " B"], num: int | float) -> Float[np.ndarray, "B G"]:
    """Log-likelihood of the points of `_GRID` for each number of hits in `num` attempts."""
    misses = np.maximum(num - hits, 0)
    misses = np.where(misses < 1e-9 * num, 0, misses)  # a rounding error would rule out p = 1
    return xlogy(hits[:, None], _GRID) + xlog1py(misses[:, None], -_GRID)


def _bias(
    weight: Float[np.ndarray, "S G"], num: float, share: Float[np.ndarray, " K"]
) -> Float[np.ndarray, " K"]:
    """Bias if `num` 0/1 attempts rank the levels, mean over seeds."""
    whole = min(max(round(num), 1), MOST_ATTEMPTS)
    hits = np.arange(whole + 1.0)
    choose = gammaln(whole + 1) - gammaln(hits + 1) - gammaln(whole - hits + 1)
    chance = np.exp(choose[:, None] + _log_likelihood(hits, whole))  # [whole + 1, G]
    found = []
    for one in weight:
        by_hits, total = chance @ one, chance @ (one * _GRID)
        expected = np.divide(total, by_hits, out=np.zeros_like(total), where=by_hits > 0)
        found.append(_lowest(by_hits, expected, share) - _lowest(one, _GRID, share))
    return np.maximum(np.mean(found, axis=0), 0.0)


def _lowest(
    weight: Float[np.ndarray, " B"], value: Float[np.ndarray, " B"], share: Float[np.ndarray, " K"]
) -> Float[np.ndarray, " K"]:
    """Mean of `value` over the first part of the weight, for each fraction of the weight."""
    before = np.cumsum(weight) - weight
    taken = np.clip(share[:, None] - before, 0, weight)
    return (taken @ value) / taken.sum(axis=1)
