"""Confidence intervals and tests over training seeds: Student's t, Welch, binomial, Holm.

One agent plays all levels, and some agents are better than others on every level. The unit of
observation is therefore the agent of a seed: each seed contributes one number, its own aggregate
over the levels. Intervals and tests treat these numbers as independent draws.

- `student`: interval of one run, or of the differences of agents that were measured twice.
- `welch`, `welch_p`: interval of the difference between two runs, and its test.
- `binomial`: exact interval of a solve rate, for runs whose seeds all have the same score.
- `family`, `family_gap`: intervals that describe a family of levels, from which the levels were
  drawn. Seeds and levels vary together; a gap uses the same seeds on both of its sides.
- `holm`: correction of several tests, with the confidence level of each interval.

Sources: Student, 1908, "The Probable Error of a Mean"; Welch, 1947, "The Generalization of
'Student's' Problem when Several Different Population Variances are Involved"; Clopper and Pearson,
1934, "The Use of Confidence or Fiducial Limits Illustrated in the Case of the Binomial";
Satterthwaite, 1946, "An Approximate Distribution of Estimates of Variance Components"; Holm, 1979,
"A Simple Sequentially Rejective Multiple Test Procedure"; DeLong, DeLong and Clarke-Pearson, 1988,
"Comparing the Areas under Two or More Correlated Receiver Operating Characteristic Curves".
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy.special import betaincinv, stdtr, stdtrit

from rlgen.evaluation.stats.aggregates import Statistic, check_numbers

_SMALL = 1e-12  # relative spread below which numbers count as equal; rounding is smaller


class Interval(NamedTuple):
    """A point estimate and its confidence interval.

    `value`, `low` and `high` have the same shape (0-d for a single number). If there is no
    interval, the bounds are NaN.
    """

    value: Float[np.ndarray, "..."]
    low: Float[np.ndarray, "..."]
    high: Float[np.ndarray, "..."]
    # student, welch, binomial, family, levels, stratified, whole-seeds, attempts or none
    kind: str

    def at(self, i: int) -> "Interval":
        """Return the interval at index i of the first axis."""
        value, low, high = (np.asarray(x[i]) for x in (self.value, self.low, self.high))
        return Interval(value, low, high, self.kind)

    def clipped(self, low: float = -np.inf, high: float = np.inf) -> "Interval":
        """Return the interval with its bounds clipped to the range of the score.

        The bounds are never clipped beyond the point estimate.
        """
        bottom = np.where(np.isnan(self.low), np.nan, np.maximum(self.low, low))
        top = np.where(np.isnan(self.high), np.nan, np.minimum(self.high, high))
        bottom, top = np.minimum(bottom, self.value), np.maximum(top, self.value)
        return Interval(self.value, np.asarray(bottom), np.asarray(top), self.kind)

    @property
    def is_known(self) -> bool:
        """True if the interval of a single number has bounds."""
        return not bool(np.isnan(self.low))

    @property
    def excludes_zero(self) -> bool:
        """True if there is an interval and zero lies outside it.

        This property is defined only for the interval of a single number.
        """
        # Comparisons with NaN bounds are False.
        return bool(self.low > 0 or self.high < 0)


def no_interval(value: Float[np.ndarray, "..."] | np.floating | float) -> Interval:
    """Return a point estimate without an interval."""
    value = np.asarray(value, np.float64)
    return Interval(value, np.full_like(value, np.nan), np.full_like(value, np.nan), "none")


def student(values: Float[np.ndarray, "S ..."], confidence: float = 0.95) -> Interval:
    """Interval of the mean of S independent numbers, by Student's t with S - 1 degrees of freedom.

    If there is one number, or if all numbers are equal, there is no interval: t would have width 0.

    Args:
        values: One number, or an array of numbers, per seed.
        confidence: Confidence level, between 0 and 1.

    Raises:
        ValueError: A number is NaN.
    """
    check_numbers(values)
    freedom = np.asarray(len(values) - 1)
    centre = np.asarray(values.mean(axis=0))
    return _symmetric(centre, _of_mean(values), freedom, confidence, "student")


def welch(
    x: Float[np.ndarray, "S ..."], y: Float[np.ndarray, "R ..."], confidence: float = 0.95
) -> Interval:
    """Interval of the mean of x minus the mean of y, by Welch's t or by t with a pooled variance.

    The wider of the two intervals is used. If both runs have the same number of seeds, it is always
    Welch's. Otherwise Welch's alone is too narrow if the run with fewer seeds happens to vary
    little, and the pooled one alone if its variance is the larger one. If a run has one number, or
    if the numbers of each run are all equal, there is no interval.

    Args:
        x: One number, or an array of numbers, per seed of the first run.
        y: The same for the second run, whose seeds are independent of those of the first.
        confidence: Confidence level, between 0 and 1.

    Raises:
        ValueError: A number is NaN.
    """
    check_numbers(x, y)
    centre = np.asarray(x.mean(axis=0) - y.mean(axis=0))
    if min(len(x), len(y)) < 2:
        return no_interval(centre)
    found = _two_samples(x, y)
    return _widest([_symmetric(centre, *each, confidence, "welch") for each in found])


def welch_p(x: Float[np.ndarray, " S"], y: Float[np.ndarray, " R"]) -> float:
    """Two-sided p-value of the test that two runs have equal means.

    This is the larger of the p-values of Welch's test and of the test with a pooled variance (see
    `welch`). If the numbers of each run are all equal, t is undefined; the p-value is then the one
    of `_constant_p`. It is NaN if a run has one seed.

    Raises:
        ValueError: A number is NaN.
    """
    check_numbers(x, y)
    if min(len(x), len(y)) < 2:
        return float("nan")
    gap = abs(float(x.mean() - y.mean()))
    found = _two_samples(x, y)
    if found[0][0] > 0:
        return max(_p_of_t(gap, *each) for each in found)
    return 1.0 if gap <= _rounding(x, y) else _constant_p(len(x), len(y))


def improvement(
    x: Float[np.ndarray, "S M"], y: Float[np.ndarray, "R M"], confidence: float = 0.95
) -> Interval:
    """Probability of improvement of run x over run y, with an interval.

    A pair of seeds counts by its share of levels on which x is higher; a tie counts one half. The
    variance is that of a two-sample U statistic: each seed contributes its mean over all seeds of
    the other run (DeLong et al.). If a run has one seed, there is no interval.

    Raises:
        ValueError: A score is NaN.
    """
    check_numbers(x, y)
    one, two = x[:, None, :], y[None, :, :]
    won = ((one > two).mean(axis=-1) + (one >= two).mean(axis=-1)) / 2  # [S, R]
    value = np.asarray(won.mean())
    if min(won.shape) < 2:
        return no_interval(value)
    of_x, of_y = won.mean(axis=1), won.mean(axis=0)
    variance, freedom = _satterthwaite(
        ((_of_mean(of_x), len(of_x) - 1), (_of_mean(of_y), len(of_y) - 1))
    )
    return _symmetric(value, variance, freedom, confidence, "welch").clipped(0.0, 1.0)


def binomial(
    successes: Int[np.ndarray, "..."] | np.integer | int, trials: int, confidence: float = 0.95
) -> tuple[Float[np.ndarray, "..."], Float[np.ndarray, "..."]]:
    """Lower and upper bound of the exact interval of a success rate (Clopper and Pearson).

    The interval assumes that all trials are independent, so it holds no effect of the seed. At
    least the fraction `confidence` of such intervals contain the true rate.
    """
    won, tail = np.asarray(successes, np.float64), (1 - confidence) / 2
    # The bounds are quantiles of beta distributions; the replaced arguments are not used.
    low = betaincinv(np.maximum(won, 1), trials - won + 1, tail)
    high = betaincinv(won + 1, np.maximum(trials - won, 1), 1 - tail)
    return np.where(won == 0, 0.0, low), np.where(won == trials, 1.0, high)


def with_binomial(
    one: Interval,
    successes: Int[np.ndarray, "..."] | np.integer | int,
    trials: int,
    confidence: float = 0.95,
) -> Interval:
    """Use the exact binomial interval of the pooled episodes where there is no interval.

    Args:
        one: Solve rates with their intervals, a single number or [K].
        successes: Number of solved episodes, of the shape of `one.value`.
        trials: Number of episodes of all seeds, for each entry.
        confidence: Confidence level, between 0 and 1.
    """
    unknown = np.isnan(one.low)
    if not unknown.any():
        return one
    low, high = binomial(successes, trials, confidence)
    kind = "binomial" if unknown.all() else one.kind
    low, high = np.where(unknown, low, one.low), np.where(unknown, high, one.high)
    return Interval(one.value, np.asarray(low), np.asarray(high), kind)


def jackknife_t(
    of_seed: Float[np.ndarray, "S K"],
    statistic: Callable[[Float[np.ndarray, "R M"]], Float[np.ndarray, " K"]],
    reference: Float[np.ndarray, "R M"],
    confidence: float = 0.95,
) -> Interval:
    """Interval of numbers of one run that also depend on the scores of a reference run.

    The variance is the sum of a part over the S seeds of the run and a part over the R seeds of the
    reference, which is estimated by leaving out one seed of the reference at a time. If the
    reference has one seed, or all its seeds are equal, it counts as known.

    Args:
        of_seed: Numbers of each seed of the run, with the whole reference.
        statistic: Function that maps a reference to the mean of these numbers over the run's seeds.
        reference: Scores of the reference.
        confidence: Confidence level, between 0 and 1.
    """
    check_numbers(of_seed)
    parts = [(_of_mean(of_seed), len(of_seed) - 1)]
    num = len(reference)
    if num > 1:
        each = np.stack([statistic(np.delete(reference, r, axis=0)) for r in range(num)])
        parts.append((np.asarray(_of_mean(each) * (num - 1) ** 2), num - 1))
    variance, freedom = _satterthwaite(parts)
    centre = np.asarray(of_seed.mean(axis=0))
    return _symmetric(centre, variance, freedom, confidence, "student")


class Holm(NamedTuple):
    """Holm's correction of K tests; NaN p-values, for which there is no test, stay NaN."""

    p: Float[np.ndarray, " K"]  # adjusted p-values
    # Confidence level of the interval of each difference. An interval of this level excludes 0 if
    # and only if Holm's procedure rejects the hypothesis of the test.
    confidence: Float[np.ndarray, " K"]


def holm(p: Sequence[float], confidence: float = 0.95) -> Holm:
    """Correct p-values of several tests, so that a false rejection among all is improbable.

    The p-values are visited in ascending order. The i-th of K, counted from 0, is rejected if it is
    at most (1 - confidence) / (K - i) and all before it were rejected.
    """
    raw = np.asarray(p, np.float64)
    adjusted, levels = np.full_like(raw, np.nan), np.full_like(raw, confidence)
    known = np.flatnonzero(~np.isnan(raw))
    order = known[np.argsort(raw[known], kind="stable")]
    largest, stopped = 0.0, 0
    for place, i in enumerate(order):
        left = len(order) - place
        largest = max(largest, min(1.0, left * raw[i]))
        adjusted[i] = largest
        # After the first test that is not rejected, all intervals keep its level.
        stopped = stopped or (left if raw[i] > (1 - confidence) / left else 0)
        levels[i] = 1 - (1 - confidence) / (stopped or left)
    return Holm(adjusted, levels)


def family(x: Float[np.ndarray, "S M"], confidence: float = 0.95) -> Interval:
    """Interval of the mean score of random seeds on random levels of a family.

    The variance of the mean over S seeds and M levels is the sum of a part that varies with the
    seed and a part that varies with the level. The remaining part, which varies with both, is
    contained in each of them and is subtracted once. The degrees of freedom are Satterthwaite's.
    With one seed, the interval covers only the variation between levels, and vice versa.

    Raises:
        ValueError: A score is NaN.
    """
    check_numbers(x)
    return _family(x.mean(axis=1), (x,), confidence)


def family_gap(
    x: Float[np.ndarray, "S M"], y: Float[np.ndarray, "R K"], confidence: float = 0.95
) -> Interval:
    """Interval of the mean on one set of levels minus the mean of the same seeds on another set.

    The two sets are independent draws of levels. Each seed contributes the difference of its mean
    scores on the two sets, so an effect of the seed on both sides cancels. See `family`.
    The variance of the levels is taken from each side alone or from both sides together, whichever
    gives the wider interval. If both sides have the same number of levels, it is the former.

    Raises:
        ValueError: A score is NaN, or the two sides have different numbers of seeds.
    """
    check_numbers(x, y)
    if len(x) != len(y):
        raise ValueError(f"a gap needs the same seeds on both sides, got {len(x)} and {len(y)}")
    of_seed = x.mean(axis=1) - y.mean(axis=1)
    return _family(of_seed, (x, y), confidence)


def family_gap_p(x: Float[np.ndarray, "S M"], y: Float[np.ndarray, "R K"]) -> float:
    """Two-sided p-value of the test that the gap of `family_gap` is 0.

    If neither seeds nor levels differ on either side, the p-value is 1 for equal means, and
    otherwise the one of `_constant_p` for the numbers of levels, which are independent draws. It is
    then NaN if a side has one level.

    Raises:
        ValueError: A score is NaN, or the two sides have different numbers of seeds.
    """
    gap = abs(float(family_gap(x, y).value))
    of_seed = x.mean(axis=1) - y.mean(axis=1)
    found, _ = _family_variances(of_seed, (x, y))
    if found[0][0] > 0:
        return max(_p_of_t(gap, *each) for each in found)
    if gap <= _rounding(x, y):
        return 1.0
    sizes = x.shape[1], y.shape[1]
    return _constant_p(*sizes) if min(sizes) > 1 else float("nan")


def family_aggregate(
    statistic: Statistic, x: Float[np.ndarray, "S M"], confidence: float = 0.95
) -> Interval:
    """Like `family`, for another aggregate than the mean, such as the IQM over levels.

    The part of the variance that varies with the level is estimated by leaving out one level at a
    time (jackknife). The part that varies with both seed and level is counted in both parts, so the
    variance is slightly too large.

    Args:
        statistic: Aggregate that maps `[..., S, M]` to `[...]`.
        x: Scores of S seeds on M levels.
        confidence: Confidence level, between 0 and 1.
    """
    check_numbers(x)
    of_seed = statistic(x[:, None, :])
    num = x.shape[1]
    parts = [(_of_mean(of_seed), len(x) - 1)] if len(x) > 1 else []
    if num > 2:
        each = [statistic(np.delete(x, m, axis=1)[:, None, :]).mean() for m in range(num)]
        parts.append((np.asarray(_of_mean(np.asarray(each)) * (num - 1) ** 2), num - 1))
    if not parts:
        return no_interval(of_seed.mean())
    variance, freedom = _satterthwaite(parts)
    kind = "family" if len(parts) == 2 else "levels" if len(x) == 1 else "student"
    return _symmetric(np.asarray(of_seed.mean()), variance, freedom, confidence, kind)


def _family(
    of_seed: Float[np.ndarray, " S"], sides: tuple[Float[np.ndarray, "S _"], ...], confidence: float
) -> Interval:
    found, kind = _family_variances(of_seed, sides)
    centre = np.asarray(of_seed.mean())
    return _widest([_symmetric(centre, *each, confidence, kind) for each in found])


def _family_variances(
    of_seed: Float[np.ndarray, " S"], sides: tuple[Float[np.ndarray, "S _"], ...]
) -> tuple[list[tuple[np.ndarray, np.ndarray]], str]:
    """Variances of a mean over seeds and levels, their degrees of freedom, and the interval's kind.

    The first variance has a separate part for each side. The second, if there are two sides,
    pools the levels of both.
    """
    seeds = len(of_seed)
    own = [(_of_mean(of_seed), seeds - 1)] if seeds > 1 else []
    sides = tuple(x for x in sides if x.shape[1] > 1)
    levels = [(_of_mean(x.mean(axis=0)), x.shape[1] - 1) for x in sides]
    both = [_residual(x) for x in sides] if seeds > 1 else []
    if not own and not levels:
        return [(np.zeros(()), np.ones(()))], "none"
    found = [_satterthwaite((*own, *levels), both)]
    if len(sides) == 2:
        num, other = (x.shape[1] for x in sides)
        levels, both = ([_pooled(*some, num, other)] if some else [] for some in (levels, both))
        found.append(_satterthwaite((*own, *levels), both))
    return found, ("family" if levels else "student") if own else "levels"


def _residual(x: Float[np.ndarray, "S M"]) -> tuple[np.ndarray, int]:
    """Part of the variance of a mean that varies with both seed and level."""
    rest = x - x.mean(axis=1, keepdims=True) - x.mean(axis=0) + x.mean()
    freedom = (len(x) - 1) * (x.shape[1] - 1)
    return np.asarray((rest**2).sum() / freedom / x.size), freedom


def _two_samples(
    x: Float[np.ndarray, "S ..."], y: Float[np.ndarray, "R ..."]
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Variances of the difference of two means, Welch's and pooled, with degrees of freedom."""
    one, two = (_of_mean(x), len(x) - 1), (_of_mean(y), len(y) - 1)
    pooled, freedom = _pooled(one, two, len(x), len(y))
    return [_satterthwaite((one, two)), (pooled, np.asarray(freedom))]


def _pooled(
    one: tuple[np.ndarray, int], two: tuple[np.ndarray, int], num: int, other: int
) -> tuple[np.ndarray, int]:
    """Variance of the difference of two means of `num` and `other` numbers of equal variance.

    Args:
        one: Variance of the first mean, and its degrees of freedom.
        two: Those of the second mean.
        num: Number of numbers behind the first mean.
        other: Number of numbers behind the second mean.
    """
    freedom = one[1] + two[1]
    each = (one[0] * num * one[1] + two[0] * other * two[1]) / freedom
    return np.asarray(each * (1 / num + 1 / other)), freedom


def _widest(found: Sequence[Interval]) -> Interval:
    """Return the widest of intervals with the same centre."""
    low = np.min([one.low for one in found], axis=0)
    high = np.max([one.high for one in found], axis=0)
    return found[0]._replace(low=np.asarray(low), high=np.asarray(high))


def _constant_p(num: int, other: int) -> float:
    """Largest probability that two samples of equal law are each constant, but differ.

    If the law gives one value with probability q and another with 1 - q, the probability is
    q^S (1 - q)^R + (1 - q)^S q^R for samples of S and R numbers. Its maximum over q is returned,
    which is 2 · 4^-S for R = S. No other law exceeds it for S, R >= 2: let p_1 <= p_2 be the two
    smallest probabilities of three or more values, and p_3 another. If one value gets both, the sum
    loses p_1^S p_2^R + p_2^S p_1^R. It gains 2 p_1 p_2^(S-1) p_3^R or more, which is at least as
    much, so two values are left in the end.
    """
    q = np.linspace(0, 1, 10_001)
    return float((q**num * (1 - q) ** other + (1 - q) ** num * q**other).max())


def _p_of_t(gap: float, variance: np.ndarray, freedom: np.ndarray) -> float:
    """Two-sided p-value of a difference by Student's t."""
    return float(2 * stdtr(freedom, -gap / np.sqrt(variance)))


def _rounding(*scores: np.ndarray) -> float:
    """Largest difference of two means that counts as rounding."""
    return _SMALL * max(1.0, *(float(np.abs(x).max()) for x in scores))


def _of_mean(x: Float[np.ndarray, "S ..."]) -> Float[np.ndarray, "..."]:
    """Estimated variance of the mean over the first axis; exactly 0 if all entries are equal."""
    if len(x) < 2:
        return np.zeros(x.shape[1:])
    spread = x.max(axis=0) - x.min(axis=0)
    equal = spread <= _SMALL * np.maximum(1.0, np.abs(x).max(axis=0))
    return np.asarray(np.where(equal, 0.0, x.var(axis=0, ddof=1) / len(x)))


def _satterthwaite(
    parts: Sequence[tuple[np.ndarray, int]], subtracted: Sequence[tuple[np.ndarray, int]] = ()
) -> tuple[np.ndarray, np.ndarray]:
    """Sum of independent estimates of variance, and its approximate degrees of freedom.

    Args:
        parts: Variances with their degrees of freedom.
        subtracted: Variances that are contained in several parts and are subtracted. The result is
            never below the largest part.
    """
    total = np.sum([v for v, _ in parts], axis=0) - np.sum([v for v, _ in subtracted], axis=0)
    terms = np.sum([v**2 / max(f, 1) for v, f in (*parts, *subtracted)], axis=0)
    every, each = (np.stack([np.asarray(x[k], float) for x in parts]) for k in (0, 1))
    largest = every.max(axis=0)
    freedom = np.divide(total**2, terms, out=np.ones_like(terms, float), where=terms > 0)
    # If the largest part alone is used, its own degrees of freedom apply.
    only = np.broadcast_to(each.reshape(-1, *[1] * (every.ndim - 1)), every.shape)
    own = np.take_along_axis(only, every.argmax(axis=0)[None], axis=0)[0]
    freedom = np.where(total > largest, np.maximum(freedom, each.min()), own)
    return np.asarray(np.maximum(total, largest)), np.asarray(freedom)


def _symmetric(
    centre: np.ndarray | np.floating,
    variance: np.ndarray | np.floating,
    freedom: np.ndarray | np.floating,
    confidence: float,
    kind: str,
) -> Interval:
    """Interval of Student's t around an estimate; no bounds where the variance is 0."""
    centre = np.asarray(centre, np.float64)
    known = np.asarray(variance) > 0
    if not known.any():
        return no_interval(centre)
    width = stdtrit(freedom, (1 + confidence) / 2) * np.sqrt(variance)
    half = np.where(known, width, np.nan)
    return Interval(centre, np.asarray(centre - half), np.asarray(centre + half), kind)
