"""Ranking of several methods on one suite, with all pairwise differences.

Each difference of two methods is tested with Welch's test over the seeds' own mean scores. The
p-values are corrected with Holm's procedure, so that all verdicts hold together. A difference is
called settled if its corrected p-value is at most 1 minus the confidence level.
"""

from collections.abc import Sequence
from itertools import permutations
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from rlgen.evaluation.episodes import Evaluation
from rlgen.evaluation.stats.formatting import show, show_p, ties
from rlgen.evaluation.stats.intervals import Interval
from rlgen.evaluation.stats.settings import DEFAULT, Intervals
from rlgen.evaluation.stats.summary import Comparison, Summary, compare_all, summarise


class Pair(NamedTuple):
    """Comparison of two methods on the same levels: `run` minus `other`.

    See `rlgen.evaluation.stats.summary.Comparison` for the intervals and the p-value.
    """

    run: str
    other: str
    mean: Interval
    iqm: Interval
    improvement: Interval  # probability of improvement of `run` over `other`
    num_better: int  # levels on which the mean of `run` is higher
    num_worse: int  # levels on which the mean of `run` is lower
    p_value: float  # corrected for the number of pairs; NaN if either method has one seed
    confidence: float  # confidence level of the intervals of `mean` and `iqm`
    is_settled: bool

    def turned(self) -> "Pair":
        """Return the same comparison with the two methods exchanged."""
        return self._replace(
            run=self.other,
            other=self.run,
            mean=_turned(self.mean, 0.0),
            iqm=_turned(self.iqm, 0.0),
            improvement=_turned(self.improvement, 1.0),
            num_better=self.num_worse,
            num_worse=self.num_better,
        )


class Place(NamedTuple):
    """A method's rank by mean score, and the range of ranks that settled differences allow.

    Methods with equal scores have the same rank.
    """

    run: str
    mean: Interval
    iqm: Interval
    rank: int  # 1 + number of methods with a higher score
    best: int  # 1 + number of methods that are better by a settled difference
    worst: int  # number of methods - number of methods that are worse by a settled difference


class Ranking(NamedTuple):
    """Methods in descending order of their mean score, and their pairwise differences."""

    score: str  # solve rate, relative return or return
    confidence: float  # of each method's interval, and of all verdicts on differences together
    kind: str  # kind of the intervals of the methods, such as student
    places: tuple[Place, ...]
    pairs: tuple[Pair, ...]  # each pair once: the method with the higher score minus the other

    def pair(self, run: str, other: str) -> Pair:
        """Return the comparison `run` minus `other`.

        Raises:
            KeyError: The ranking does not contain this pair.
        """
        for one in self.pairs:
            if (one.run, one.other) == (run, other):
                return one
            if (one.run, one.other) == (other, run):
                return one.turned()
        raise KeyError(f"{run} and {other}")

    def improvement(self, runs: Sequence[str]) -> Float[np.ndarray, "K K"]:
        """Probability that the row's method beats the column's method; NaN on the diagonal.

        Rows and columns are in the order of `runs`. Entry (j, i) is 1 minus entry (i, j).
        """
        found = np.full((len(runs), len(runs)), np.nan)
        for i, j in permutations(range(len(runs)), 2):
            found[i, j] = self.pair(runs[i], runs[j]).improvement.value
        return found


def rank(
    evaluations: Sequence[Evaluation], intervals: Intervals = DEFAULT, seed: int = 0
) -> Ranking:
    """Rank two or more methods by mean score and test every pairwise difference.

    Raises:
        ValueError: There are fewer than two methods, two methods have the same label, or the
            methods differ in their levels or in their kind of score.
    """
    if len(evaluations) < 2:
        raise ValueError(f"a ranking needs two methods or more, got {len(evaluations)}")
    summary = summarise(evaluations, intervals, seed)
    value = [float(run.aggregate["mean"].value) for run in summary.runs]
    order = sorted(range(len(value)), key=lambda i: -value[i])  # ties keep input order
    pairs = [(i, j) for place, i in enumerate(order) for j in order[place + 1 :]]
    found = compare_all([(evaluations[i], evaluations[j]) for i, j in pairs], intervals, seed)
    every = tuple(_pair(one) for one in found)
    places = tuple(_place(summary, i, every) for i in order)
    return Ranking(summary.score, intervals.confidence, summary.kind, places, every)


def sentences(ranking: Ranking) -> dict[str, list[str]]:
    """Describe every difference in a sentence.

    The sentences are grouped under "Settled", "Not settled" and "No test". Empty groups are left
    out. There is no test if a method has one seed.
    """
    found: dict[str, list[str]] = {"Settled": [], "Not settled": [], "No test": []}
    for pair in ranking.pairs:
        known = "Settled" if pair.is_settled else "Not settled"
        kind = "No test" if np.isnan(pair.p_value) else known
        found[kind].append(_told(pair, ranking))
    return {kind: told for kind, told in found.items() if told}


def answer(ranking: Ranking, suite: str) -> str:
    """Name the best method or methods, and state which differences from others are settled."""
    top = [place for place in ranking.places if place.rank == 1]
    best, others = top[0], ranking.places[len(top) :]
    value = show(float(best.mean.value), ranking.score)
    if len(top) > 1:
        names = _listed([place.run for place in top])
        head = f"{names} have the same {ranking.score} on {suite}, {value} (mean)"
        if not others:
            return f"{head}. No method comes first."
        return f"{head}. {_against(best.run, ranking, [place.run for place in others])}"
    span = _span(best.mean, ranking.score, signed=False)
    head = f"{best.run} comes first on {suite} with a {ranking.score} of {value} (mean{span})"
    return f"{head}. {_against(best.run, ranking, [place.run for place in others])}"


def together(ranking: Ranking) -> str:
    """State the confidence level of the verdicts and the number of pairs that it covers."""
    per_cent = f"{100 * ranking.confidence:g} %"
    num = len(ranking.pairs)
    return per_cent if num == 1 else f"{per_cent} for all {num} pairs together"


def _against(best: str, ranking: Ranking, others: Sequence[str]) -> str:
    """State from which other methods the difference of the best method is settled."""
    pairs = [ranking.pair(best, run) for run in others]
    beaten = [pair.other for pair in pairs if pair.is_settled]
    rest = [pair.other for pair in pairs if not pair.is_settled]
    untested = [pair.other for pair in pairs if np.isnan(pair.p_value)]
    told = []
    if beaten:
        told.append(f"It is better than {_listed(beaten)} by a settled difference.")
    if rest:
        why = ", because a method has one seed" if untested == rest else ""
        told.append(f"Its difference from {_listed(rest)} is not settled{why}.")
    return " ".join(told)


def _told(pair: Pair, ranking: Ranking) -> str:
    unit = "" if ranking.score == "return" else " points"
    value = f"{show(float(pair.mean.value), ranking.score, signed=True)}{unit}"
    tested = "" if np.isnan(pair.p_value) else f", {show_p(pair.p_value)}"
    won = f"P(better) {show(float(pair.improvement.value), 'solve rate', 0)}"
    levels = f"higher on {pair.num_better} levels, lower on {pair.num_worse}"
    verb = "is better than" if pair.is_settled else "against"
    span = _span(pair.mean, ranking.score)
    return f"{pair.run} {verb} {pair.other}: {value}{span}{tested}; {won}; {levels}."


def _span(one: Interval, score: str, signed: bool = True) -> str:
    if not one.is_known:
        return ""
    low, high = (show(float(x), score, signed=signed) for x in (one.low, one.high))
    return f" ({low} to {high})" if signed else f", {low} to {high}"


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _place(summary: Summary, i: int, pairs: Sequence[Pair]) -> Place:
    run = summary.runs[i]
    value = float(run.aggregate["mean"].value)
    every = [float(other.aggregate["mean"].value) for other in summary.runs]
    better = sum(x > value and not ties(x, value) for x in every)
    lost = sum(pair.is_settled and pair.other == run.run for pair in pairs)
    won = sum(pair.is_settled and pair.run == run.run for pair in pairs)
    mean, iqm = run.aggregate["mean"], run.aggregate["iqm"]
    return Place(run.run, mean, iqm, better + 1, lost + 1, len(every) - won)


def _pair(found: Comparison) -> Pair:
    gap = found.levels.value
    return Pair(
        found.run,
        found.baseline,
        found.mean,
        found.iqm,
        found.improvement,
        int((gap > 0).sum()),
        int((gap < 0).sum()),
        found.p_value,
        found.confidence,
        found.is_settled,
    )


def _turned(one: Interval, total: float) -> Interval:
    """Return the interval of `total - value`, in which the two bounds are exchanged."""
    return Interval(total - one.value, total - one.high, total - one.low, one.kind)
