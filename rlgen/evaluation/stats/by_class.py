"""Scores of runs on classes of levels, with the best and the worst class of each run.

An average over all levels conceals the worst class. A class is a group of levels of similar
difficulty. By default the classes are quantile bins of the optimal number of steps. If this number
is unknown for all levels, levels with similar names form a class. The caller can choose another
feature, whose quantile bins are then the classes. Levels whose number of steps or feature value is
unknown form a separate class. Levels that cannot be solved form one more class.

Source: Zhang, Jain and Jamieson, 2020, "Learning to Actively Learn: A Robust Approach" (the worst
case over classes of equally hard problems, where the result on each class is relative to the best
result that can be attained on this class).
Differs from Zhang et al.: classes are used only for evaluation and not for training. They consist
of levels and are defined by the solutions of these levels.
"""

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from rlgen.evaluation.episodes import Evaluation
from rlgen.evaluation.stats.aggregates import level_means
from rlgen.evaluation.stats.cvar import worst_means
from rlgen.evaluation.stats.intervals import Interval
from rlgen.evaluation.stats.settings import DEFAULT, Intervals
from rlgen.evaluation.stats.summary import RANGES, check_comparable

MOST_CLASSES = 5
FEWEST_LEVELS = 4  # smallest average number of levels per class
MOST_NAMES = 12  # largest number of classes that are formed by name


class Class(NamedTuple):
    """A class of similar levels."""

    name: str
    levels: Int[np.ndarray, " K"]  # indices of the levels in the suite
    counts: bool  # whether the class can be best or worst; False for unsolvable levels


class ClassScores(NamedTuple):
    """One run's mean score on each class."""

    run: str
    mean: Interval  # [C]
    best: str  # name of the class with the highest mean, among classes with `counts`
    worst: str  # name of the class with the lowest mean, among classes with `counts`
    gap: Interval  # mean of the best class minus mean of the worst class


class ByClass(NamedTuple):
    """Scores of runs on the classes of a suite."""

    by: str  # feature that defines the classes, such as "optimal steps"
    score: str  # solve rate, relative return or return
    kind: str  # kind of the intervals: student, attempts or none
    classes: tuple[Class, ...]
    runs: tuple[ClassScores, ...]


def by_class(
    evaluations: Sequence[Evaluation],
    intervals: Intervals = DEFAULT,
    seed: int = 0,
    feature: tuple[str, Float[np.ndarray, " M"]] | tuple[()] = (),
) -> ByClass | None:
    """Compute the mean score of every run on each class of levels.

    Args:
        evaluations: Evaluations of runs on the same levels.
        intervals: Settings of the intervals. Only `reps` and `confidence` are used, because one
            agent plays all classes: the intervals are Student's t over seeds or, if a run has one
            seed, a bootstrap over its attempts.
        seed: Seed of the bootstrap's generator.
        feature: Name of a feature and its value for each level (NaN where unknown). By default the
            feature is the optimal number of steps or, if that is unknown for all levels, the name.

    Returns:
        The scores, or None if fewer than two classes can be best or worst (see `Class.counts`).

    Raises:
        ValueError: The runs cannot be compared, or the feature does not have one value per level.
    """
    check_comparable(evaluations)
    by, classes = classes_of(evaluations[0], feature)
    if sum(one.counts for one in classes) < 2:
        return None
    over_seeds = replace(intervals, kind="student")
    kind = over_seeds.resolve(*(e.episode_return for e in evaluations))
    runs = tuple(_of_run(e, classes, over_seeds, seed) for e in evaluations)
    return ByClass(by, evaluations[0].score[0], kind, classes, runs)


def classes_of(
    e: Evaluation, feature: tuple[str, Float[np.ndarray, " M"]] | tuple[()] = ()
) -> tuple[str, tuple[Class, ...]]:
    """Return the name of the feature that defines a suite's classes, and the classes.

    Each level is in exactly one class.

    Raises:
        ValueError: The feature does not have one value per level.
    """
    if feature:
        name, values = feature[0], np.asarray(feature[1], np.float64)
        if values.shape != (e.shape[1],):
            raise ValueError(
                f"{name} has shape {values.shape} but the suite has {e.shape[1]} levels; give one "
                "value per level, and NaN where the value is unknown"
            )
        return name, _by_value(values, name, "")
    if (e.optimal_steps < 0).all():
        return "name", by_name(e.level_names)
    steps = np.where(e.optimal_steps < 0, np.nan, e.optimal_steps)
    # -1 steps mean unsolvable or unknown. Only unsolvable levels also have an optimal return of 0.
    unsolvable = (e.optimal_steps < 0) & (e.optimal_return == 0)
    known = _by_value(np.where(unsolvable, np.nan, steps), "steps", " steps", unsolvable)
    if not unsolvable.any():
        return "optimal steps", known
    never = Class("no solution", np.flatnonzero(unsolvable), False)
    return "optimal steps", (*known, never)


def by_quantiles(value: Float[np.ndarray, " M"], num: int) -> Int[np.ndarray, " M"]:
    """Return the index of each value's quantile bin, starting at 0.

    There are at most `num` bins. There are fewer if values tie, because equal values share a bin.
    The upper edge of the i-th bin is the smallest value x for which at least a fraction i/num of
    all values is at most x.
    """
    shares = np.arange(1, num) / num
    edges = np.quantile(value, shares, method="inverted_cdf") if num > 1 else np.zeros(0)
    # Ties can leave bins empty. The inverse of `unique` numbers the nonempty bins consecutively.
    _, found = np.unique(np.searchsorted(edges, value, side="left"), return_inverse=True)
    return found


def by_name(names: Sequence[str]) -> tuple[Class, ...]:
    """Form classes of levels whose names differ only in a trailing number (`rooms-1`, `rooms-2`).

    If this gives fewer than two levels per class on average, or more than 12 classes, all levels
    form one class instead.
    """
    # A name that is only a number is not shortened.
    stems = [re.sub(r"[\s_\-#.]*\d+$", "", name) or name for name in names]
    found = {stem: [i for i, s in enumerate(stems) if s == stem] for stem in dict.fromkeys(stems)}
    if 2 * len(found) > len(names) or len(found) > MOST_NAMES:
        found = {"all levels": list(range(len(names)))}
    return tuple(Class(stem, np.array(rows), True) for stem, rows in found.items())


def shortfall(
    own: tuple[Float[np.ndarray, "S M"], Float[np.ndarray, "S M"]],
    other: tuple[Float[np.ndarray, "R M"], Float[np.ndarray, "R M"]],
    classes: Sequence[Class],
    alpha: float = 0.1,
) -> Float[np.ndarray, " C"]:
    """CVaR of reference agents minus CVaR of the agents, on each class.

    For one agent and a class of K levels, CVaR (conditional value at risk) is the agent's mean
    score on its α·K worst levels of the class. The CVaR of several agents is the mean over these
    agents. The largest entry of the result is a robust single number, because levels that no agent
    solves do not dominate it.

    Args:
        own: Scores of S agents in two independent evaluations. The first evaluation ranks the
            levels, and the second measures the scores on the worst levels.
        other: Scores of R reference agents in two independent evaluations on the same levels.
        classes: Classes of these levels.
        alpha: Fraction α of the levels of a class that counts as worst. At least one level is used.
    """
    found = []
    for one in classes:
        # 1e-9 is added because a product such as 0.29 * 100 can lie just below a whole number.
        num = np.array([max(1, int(np.floor(alpha * len(one.levels) + 1e-9)))])
        reference, agent = (
            float(worst_means(ranking[:, one.levels], measured[:, one.levels], num).mean())
            for ranking, measured in (other, own)
        )
        found.append(reference - agent)
    return np.array(found)


def _by_value(
    value: Float[np.ndarray, " M"], what: str, unit: str, elsewhere: np.ndarray | None = None
) -> tuple[Class, ...]:
    """Form classes from quantile bins of the known values, and one class of unknown values.

    Args:
        value: Value of each level, NaN where unknown.
        what: Name of the feature, used in the name of the class of unknown values.
        unit: Text appended to the names of the bins.
        elsewhere: Mask of levels with value NaN that the caller puts into another class.
    """
    known = np.flatnonzero(~np.isnan(value))
    num = max(1, min(MOST_CLASSES, len(known) // FEWEST_LEVELS))
    found = []
    if len(known):
        bins = by_quantiles(value[known], num)
        for b in range(bins.max() + 1):
            rows = known[bins == b]
            low, high = (f"{x:.4g}" for x in (value[rows].min(), value[rows].max()))
            name = low if low == high else f"{low} to {high}"
            found.append(Class(name + unit, rows, True))
    unknown = np.isnan(value) if elsewhere is None else np.isnan(value) & ~elsewhere
    if unknown.any():
        found.append(Class(f"{what} unknown", np.flatnonzero(unknown), True))
    return tuple(found)


def _of_run(
    e: Evaluation, classes: Sequence[Class], intervals: Intervals, seed: int
) -> ClassScores:
    weight = np.zeros((e.shape[1], len(classes)))  # [M, C]: column c averages class c
    for c, one in enumerate(classes):
        weight[one.levels, c] = 1 / len(one.levels)
    of_class = e.score[1].mean(axis=(0, 2)) @ weight
    counting = [c for c, one in enumerate(classes) if one.counts]
    worst = min(counting, key=lambda c: of_class[c])
    best = max(counting, key=lambda c: of_class[c])
    # [M, C + 1]: the last column computes the best class's mean minus the worst class's mean.
    columns = np.concatenate([weight, weight[:, [best]] - weight[:, [worst]]], axis=1)

    rng, score = np.random.default_rng(seed), e.score[1]
    both = intervals.of(rng, lambda x: level_means(x) @ columns, score)
    mean = Interval(both.value[:-1], both.low[:-1], both.high[:-1], both.kind)
    bounds = RANGES.get(e.score[0], (-np.inf, np.inf))
    names = (classes[best].name, classes[worst].name)
    return ClassScores(e.run, mean.clipped(*bounds), *names, both.at(-1))
