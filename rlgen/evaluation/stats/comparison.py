"""Ranking of several methods on one suite, with all pairwise differences.

The confidence level holds for all differences simultaneously. With K methods there are K(K - 1)/2
pairs, and each pair gets an equal part of the error probability (Bonferroni's inequality).

A difference is called settled if its interval excludes zero. If both methods have several seeds, a
second interval, which resamples whole seeds, must exclude zero too.
"""

from collections.abc import Sequence
from dataclasses import replace
from itertools import permutations
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from rlgen.evaluation.episodes import Evaluation
from rlgen.evaluation.stats.bootstrap import DEFAULT, Bootstrap, Interval, iqm
from rlgen.evaluation.stats.formatting import show
from rlgen.evaluation.stats.summary import compare


class Pair(NamedTuple):
    """Comparison of two methods on the same levels: `run` minus `other`."""

    run: str
    other: str
    iqm: Interval
    iqm_whole_seeds: Interval  # bounds are NaN if either method has one seed
    improvement: Interval  # probability of improvement of `run` over `other`
    num_better: int  # levels on which the mean of `run` is higher
    num_worse: int  # levels on which the mean of `run` is lower
    is_settled: bool

    def turned(self) -> "Pair":
        """Return the same comparison with the two methods exchanged."""
        return Pair(
            self.other,
            self.run,
            _turned(self.iqm, 0.0),
            _turned(self.iqm_whole_seeds, 0.0),
            _turned(self.improvement, 1.0),
            self.num_worse,
            self.num_better,
            self.is_settled,
        )


class Place(NamedTuple):
    """A method's rank by IQM, and the range of ranks compatible with the settled differences."""

    run: str
    iqm: Interval
    rank: int  # 1 is the best
    best: int  # 1 + number of methods that are better by a settled difference
    worst: int  # number of methods - number of methods that are worse by a settled difference


class Ranking(NamedTuple):
    """Methods in descending order of IQM, and their pairwise differences."""

    score: str  # solve rate, relative return or return
    confidence: float  # confidence level of all differences together, and of each method's IQM
    over: str  # resampling unit: seeds, whole-seeds, attempts or none
    places: tuple[Place, ...]
    pairs: tuple[Pair, ...]  # each pair once: the method with the higher IQM minus the other

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
    evaluations: Sequence[Evaluation], bootstrap: Bootstrap = DEFAULT, seed: int = 0
) -> Ranking:
    """Rank two or more methods by IQM and compute every pairwise difference with its interval.

    Raises:
        ValueError: There are fewer than two methods, two methods have the same label, or the
            methods differ in their levels or in their kind of score.
    """
    if len(evaluations) < 2:
        raise ValueError(f"a ranking needs two methods or more, got {len(evaluations)}")
    # One resampling unit for all methods, so that their intervals are comparable.
    over = bootstrap.resolve(*(e.episode_return for e in evaluations))
    bootstrap = bootstrap if over == "none" else replace(bootstrap, over=over)
    iqm = [_iqm(e, bootstrap, seed) for e in evaluations]
    order = sorted(range(len(iqm)), key=lambda i: -float(iqm[i].value))  # ties keep input order
    num_pairs = len(order) * (len(order) - 1) // 2
    # Bonferroni: an error probability of (1 - confidence) / num_pairs for each pair.
    each = replace(bootstrap, confidence=1 - (1 - bootstrap.confidence) / num_pairs)
    pairs = tuple(
        _pair(evaluations[i], evaluations[j], each, seed)
        for a, i in enumerate(order)
        for j in order[a + 1 :]
    )
    lost = {e.run: sum(p.is_settled and p.other == e.run for p in pairs) for e in evaluations}
    won = {e.run: sum(p.is_settled and p.run == e.run for p in pairs) for e in evaluations}
    places = []
    for position, i in enumerate(order):
        run = evaluations[i].run
        best, worst = 1 + lost[run], len(order) - won[run]
        places.append(Place(run, iqm[i], position + 1, best, worst))
    score = evaluations[0].score[0]
    return Ranking(score, bootstrap.confidence, over, tuple(places), pairs)


def sentences(ranking: Ranking) -> dict[str, list[str]]:
    """Describe every difference in a sentence.

    The sentences are grouped under "Settled", "Not settled" and "No interval". Empty groups are
    left out.
    """
    found: dict[str, list[str]] = {"Settled": [], "Not settled": [], "No interval": []}
    for pair in ranking.pairs:
        known = "Settled" if pair.is_settled else "Not settled"
        kind = "No interval" if np.isnan(pair.iqm.low) else known
        found[kind].append(_told(pair, ranking))
    return {kind: told for kind, told in found.items() if told}


def answer(ranking: Ranking, suite: str) -> str:
    """Name the best method, and state which of its differences from the others are settled.

    A difference is settled if its intervals exclude zero.
    """
    best = ranking.places[0]
    span = _span(best.iqm, ranking.score, signed=False)
    head = f"{best.run} comes first on {suite} with a {ranking.score} of "
    head += f"{show(float(best.iqm.value), ranking.score)} (interquartile mean{span})"
    pairs = [ranking.pair(best.run, place.run) for place in ranking.places[1:]]
    beaten = [pair.other for pair in pairs if pair.is_settled]
    others = [pair.other for pair in pairs if not pair.is_settled]
    if not others:
        return (
            f"{head}, and is better than {_listed(beaten)} by a settled difference (its intervals "
            "exclude 0)."
        )
    if not beaten:
        return (
            f"{head}, but its difference from {_listed(others)} is not settled (no interval, or an "
            "interval that contains 0)."
        )
    return (
        f"{head}. It is better than {_listed(beaten)} by a settled difference (its intervals "
        f"exclude 0). Its difference from {_listed(others)} is not settled."
    )


def together(ranking: Ranking) -> str:
    """State the confidence level of the differences and the number of pairs that it covers."""
    per_cent = f"{100 * ranking.confidence:g} %"
    num = len(ranking.pairs)
    return per_cent if num == 1 else f"{per_cent} for all {num} pairs together"


def _told(pair: Pair, ranking: Ranking) -> str:
    unit = "" if ranking.score == "return" else " points"
    value = f"{show(float(pair.iqm.value), ranking.score, signed=True)}{unit}"
    span = _span(pair.iqm, ranking.score)
    won = f"P(better) {show(float(pair.improvement.value), 'solve rate', 0)}"
    levels = f"higher on {pair.num_better} levels, lower on {pair.num_worse}"
    wide = ""
    if pair.iqm.excludes_zero and not pair.is_settled:  # the whole-seeds interval contains zero
        wide = f"; over whole seeds{_span(pair.iqm_whole_seeds, ranking.score)}"
    verb = "is better than" if pair.is_settled else "against"
    return f"{pair.run} {verb} {pair.other}: {value}{span}{wide}; {won}; {levels}."


def _span(one: Interval, score: str, signed: bool = True) -> str:
    if np.isnan(one.low):
        return ""
    low, high = (show(float(x), score, signed=signed) for x in (one.low, one.high))
    return f" ({low} to {high})" if signed else f", {low} to {high}"


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _iqm(e: Evaluation, bootstrap: Bootstrap, seed: int) -> Interval:
    return bootstrap.interval(np.random.default_rng(seed), iqm, e.score[1])


def _pair(e: Evaluation, other: Evaluation, bootstrap: Bootstrap, seed: int) -> Pair:
    found = compare(e, other, bootstrap, seed)
    gap = found.levels.value
    return Pair(
        e.run,
        other.run,
        found.iqm,
        found.iqm_whole_seeds,
        found.improvement,
        int((gap > 0).sum()),
        int((gap < 0).sum()),
        found.is_clear,
    )


def _turned(one: Interval, total: float) -> Interval:
    """Return the interval of `total - value`, in which the two bounds are exchanged."""
    return Interval(total - one.value, total - one.high, total - one.low, one.over)
