"""Scores by class of level, and the worst class: what an average over all levels hides.

Levels are put into classes by how hard they are: quantile bins of the optimal number of steps, or
of any feature of theirs; by their names where neither is known. Levels of which it is unknown are a
class of their own, and so are levels that cannot be solved.

Source: Zhang, Jain and Jamieson, 2020, "Learning to Actively Learn: A Robust Approach" (the worst
case over classes of equally hard problems, each compared with what can be had there).
Differs from it: nothing is trained for it; classes are of levels, told apart by their solutions.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from rlgen.evaluation.episodes import Evaluation
from rlgen.evaluation.stats.bootstrap import DEFAULT, Bootstrap, Interval, level_means
from rlgen.evaluation.stats.cvar import worst_means
from rlgen.evaluation.stats.normalised_scores import of_agents
from rlgen.evaluation.stats.summary import check_comparable

MOST_CLASSES = 5
FEWEST_LEVELS = 4  # of a class, on average
MOST_NAMES = 12  # classes by name


class Class(NamedTuple):
    """Levels that are alike."""

    name: str
    levels: Int[np.ndarray, " K"]  # their places in the suite
    counts: bool  # for the worst class; levels that cannot be solved do not


class ClassScores(NamedTuple):
    """One run's mean score of each class."""

    run: str
    mean: Interval  # [C]
    best: str  # names of classes, of those that count
    worst: str
    gap: Interval  # mean of the best class less that of the worst one


class ByClass(NamedTuple):
    """Runs on the classes of a suite."""

    by: str  # what the classes are made by, such as "optimal steps"
    score: str  # solve rate, relative return or return
    over: str  # what the intervals draw: whole-seeds, attempts or none
    classes: tuple[Class, ...]
    runs: tuple[ClassScores, ...]


def by_class(
    evaluations: Sequence[Evaluation],
    bootstrap: Bootstrap = DEFAULT,
    seed: int = 0,
    feature: tuple[str, Float[np.ndarray, " M"]] | tuple[()] = (),
) -> ByClass | None:
    """Mean score of each class by run; None where all levels are of one class.

    Args:
        evaluations: runs on the same levels.
        bootstrap: its `reps` and `confidence` are used; whole seeds are drawn, of one seed the
            attempts.
        seed: of the bootstrap's draws.
        feature: name and value of each level, NaN where unknown; by default the optimal steps, and
            where none are known the levels' names.

    Raises:
        ValueError: runs that cannot be compared, or a feature of another number of levels.
    """
    check_comparable(evaluations)
    by, classes = classes_of(evaluations[0], feature)
    if sum(one.counts for one in classes) < 2:
        return None
    bootstrap = of_agents(bootstrap, *(e.episode_return for e in evaluations))
    runs = tuple(_of_run(e, classes, bootstrap, seed) for e in evaluations)
    return ByClass(by, evaluations[0].score[0], runs[0].mean.over, classes, runs)


def classes_of(
    e: Evaluation, feature: tuple[str, Float[np.ndarray, " M"]] | tuple[()] = ()
) -> tuple[str, tuple[Class, ...]]:
    """What the levels of a suite are told apart by, and their classes; each is in exactly one."""
    if feature:
        name, values = feature[0], np.asarray(feature[1], np.float64)
        if values.shape != (e.shape[1],):
            raise ValueError(
                f"{name} has shape {values.shape}, the suite {e.shape[1]} levels; give one value "
                "for each, NaN where it is unknown"
            )
        return name, _by_value(values, name, "")
    if (e.optimal_steps < 0).all():
        return "name", by_name(e.level_names)
    steps = np.where(e.optimal_steps < 0, np.nan, e.optimal_steps)
    unsolvable = (e.optimal_steps < 0) & (e.optimal_return == 0)
    known = _by_value(np.where(unsolvable, np.nan, steps), "steps", " steps", unsolvable)
    if not unsolvable.any():
        return "optimal steps", known
    never = Class("no solution", np.flatnonzero(unsolvable), False)
    return "optimal steps", (*known, never)


def by_quantiles(value: Float[np.ndarray, " M"], num: int) -> Int[np.ndarray, " M"]:
    """Number of each value's quantile bin, from 0; at most `num`, fewer where values tie.

    Equal values share a bin, whose upper edge is the smallest value with at least a share i/num of
    all at or below it.
    """
    shares = np.arange(1, num) / num
    edges = np.quantile(value, shares, method="inverted_cdf") if num > 1 else np.zeros(0)
    _, found = np.unique(np.searchsorted(edges, value, side="left"), return_inverse=True)
    return found


def by_name(names: Sequence[str]) -> tuple[Class, ...]:
    """Classes by the names without their last number; one class if they say nothing of the levels.

    They say nothing if there are fewer than two levels a class, or more than 12 classes.
    """
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
    """How far an agent's worst share of each class falls short of a reference agent's.

    Of each class, the reference's mean score on the α·K levels where it is worst, less the
    agent's where that is worst. The largest entry is one robust number, which levels that nobody
    solves do not swamp.

    Args:
        own: scores of two independent evaluations of S agents: the first ranks levels, the second
            measures them.
        other: of R reference agents, on the same levels.
        classes: of these levels.
        alpha: share of a class, at least one level.
    """
    found = []
    for one in classes:
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
    """Quantile bins of what is known, and one class of what is not."""
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
    e: Evaluation, classes: Sequence[Class], bootstrap: Bootstrap, seed: int
) -> ClassScores:
    weight = np.zeros((e.shape[1], len(classes)))
    for c, one in enumerate(classes):
        weight[one.levels, c] = 1 / len(one.levels)
    of_class = e.score[1].mean(axis=(0, 2)) @ weight
    counting = [c for c, one in enumerate(classes) if one.counts]
    worst = min(counting, key=lambda c: of_class[c])
    best = max(counting, key=lambda c: of_class[c])
    columns = np.concatenate([weight, weight[:, [best]] - weight[:, [worst]]], axis=1)

    rng, score = np.random.default_rng(seed), e.score[1]
    if bootstrap.over == "whole-seeds":  # the same draws of far fewer numbers
        both = bootstrap.interval(rng, level_means, (score.mean(axis=-1) @ columns)[..., None])
    else:
        both = bootstrap.interval(rng, lambda x: level_means(x) @ columns, score)
    mean = Interval(both.value[:-1], both.low[:-1], both.high[:-1], both.over)
    return ClassScores(e.run, mean, classes[best].name, classes[worst].name, both.at(-1))
