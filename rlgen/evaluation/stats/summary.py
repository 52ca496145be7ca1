"""Summary of evaluations on one suite: aggregates, levels and comparisons, all with intervals."""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from rlgen.evaluation.episodes import Evaluation, hex_hash
from rlgen.evaluation.stats.aggregates import (
    iqm,
    level_means,
    mean,
    median,
    optimality_gap,
    performance_profile,
)
from rlgen.evaluation.stats.intervals import (
    Interval,
    holm,
    no_interval,
    welch_p,
    with_binomial,
)
from rlgen.evaluation.stats.settings import DEFAULT, Intervals

TAU = np.linspace(0, 1, 101)  # thresholds of the performance profile
RANGES = {"solve rate": (0.0, 1.0), "relative return": (-np.inf, 1.0)}
"""Range of the true mean of each kind of score; intervals are clipped to it."""


class LevelResult(NamedTuple):
    """Result of one run on one level: means over seeds and attempts, NaN where unknown."""

    name: str
    hash: str
    score: Interval
    mean_return: float
    relative_return: float
    mean_length: float  # steps per episode, over all episodes
    solved_length: float  # steps per solved episode, averaged over seeds with a solved episode
    optimal_steps: float
    # Indices of the seeds that never solve the level, if another seed solves it; otherwise ().
    unsolved_by: tuple[int, ...] = ()


class RunResult(NamedTuple):
    """Results of one run: aggregates by name, and levels in the order of the suite.

    An aggregate is the mean of the seeds' own aggregates over the levels. The main one is `mean`.
    """

    run: str
    aggregate: dict[str, Interval]  # mean, iqm, median, optimality_gap, return
    profile: Interval  # [K], fraction of the scores above each threshold in TAU
    levels: tuple[LevelResult, ...]
    is_untrained: bool  # whether these are agents before their first update


class Comparison(NamedTuple):
    """Differences between two runs on the same levels: `run` minus `baseline`.

    The intervals of `mean`, `iqm` and `levels` are Welch's (see `rlgen.evaluation.stats.intervals.
    welch`). Those of `mean` and `iqm` have a confidence level at which the interval of `mean`
    excludes 0 if and only if the difference is settled. There is no such interval if the seeds of
    each run are all equal. If the settings ask for a bootstrap, the intervals are those of the
    bootstrap, but the test remains Welch's, so the two can disagree.
    """

    run: str
    baseline: str
    mean: Interval
    iqm: Interval
    improvement: Interval  # probability of improvement of `run` over `baseline`
    levels: Interval  # [M], difference on each level, not corrected for the number of levels
    # p-value of Welch's test of the means, corrected for the number of comparisons (Holm). It is
    # NaN if either run has one seed.
    p_value: float
    confidence: float  # confidence level of the intervals of `mean` and `iqm`
    is_settled: bool  # whether `p_value` is at most 1 minus the confidence level of the summary


class Summary(NamedTuple):
    """Summary of evaluations on one suite."""

    suite: str
    score: str  # solve rate, relative return or return
    confidence: float
    kind: str  # kind of the intervals: student, stratified, whole-seeds, attempts or none
    num_seeds: int  # smallest number of seeds of any run
    meaning: str  # description of the intervals
    runs: tuple[RunResult, ...]
    comparisons: tuple[Comparison, ...]  # each run after the first, minus the first run


def summarise(
    evaluations: Sequence[Evaluation], intervals: Intervals = DEFAULT, seed: int = 0
) -> Summary:
    """Compute aggregates and intervals of evaluations, and compare each with the first evaluation.

    Equal arguments give equal results, because every random generator starts from `seed`.

    Raises:
        ValueError: There are no evaluations, two evaluations have the same label, or the
            evaluations differ in their levels or in their kind of score.
    """
    check_comparable(evaluations)
    first = evaluations[0]
    seeds, attempts = (min(e.shape[axis] for e in evaluations) for axis in (0, 2))
    kind = intervals.resolve(*(e.episode_return for e in evaluations))
    meaning = intervals.explain(kind, seeds, attempts, first.score[0] == "solve rate")
    if any(e.shape[::2] != (seeds, attempts) for e in evaluations):
        meaning += f" (the smallest numbers of any run are given; {_numbers(evaluations)})"
    return Summary(
        f"{first.suite} v{first.suite_version}",
        first.score[0],
        intervals.confidence,
        kind,
        seeds,
        meaning,
        tuple(_summarise_run(e, intervals, seed) for e in evaluations),
        compare_all([(e, first) for e in evaluations[1:]], intervals, seed),
    )


def compare_all(
    pairs: Sequence[tuple[Evaluation, Evaluation]], intervals: Intervals = DEFAULT, seed: int = 0
) -> tuple[Comparison, ...]:
    """Compare the two runs of each pair on the same levels; the seeds of the runs are independent.

    The tests are corrected for the number of pairs.

    Raises:
        ValueError: The two runs of a pair have the same label, or differ in their levels or in
            their kind of score.
    """
    for pair in pairs:
        check_comparable(pair)
    of_seeds = [[e.score[1].mean(axis=(1, 2)) for e in pair] for pair in pairs]
    corrected = holm([welch_p(x, y) for x, y in of_seeds], intervals.confidence)
    return tuple(
        _compare(*pair, intervals, seed, float(p), float(level))
        for pair, p, level in zip(pairs, *corrected, strict=True)
    )


def compare(
    evaluation: Evaluation, baseline: Evaluation, intervals: Intervals = DEFAULT, seed: int = 0
) -> Comparison:
    """Compare two runs on the same levels; see `compare_all`."""
    return compare_all([(evaluation, baseline)], intervals, seed)[0]


def _compare(
    e: Evaluation,
    baseline: Evaluation,
    intervals: Intervals,
    seed: int,
    p_value: float,
    confidence: float,
) -> Comparison:
    rng = np.random.default_rng(seed)
    (score, x), y = e.score, baseline.score[1]
    corrected = replace(intervals, confidence=confidence)
    low, high = RANGES.get(score, (-np.inf, np.inf))
    bounds = (low - high, high - low)  # range of a difference
    return Comparison(
        e.run,
        baseline.run,
        corrected.difference(rng, mean, x, y).clipped(*bounds),
        corrected.difference(rng, iqm, x, y).clipped(*bounds),
        intervals.improvement(rng, x, y),
        intervals.difference(rng, level_means, x, y).clipped(*bounds),
        p_value,
        confidence,
        p_value <= 1 - intervals.confidence,  # False for NaN
    )


def hardest(summary: Summary, limit: int) -> list[int]:
    """Indices of the `limit` levels with the lowest mean score over runs, in the suite's order.

    If there are at most `limit` levels, all are returned.
    """
    scores = np.mean([[level.score.value for level in run.levels] for run in summary.runs], axis=0)
    return sorted(np.argsort(scores, kind="stable")[:limit].tolist())


def _summarise_run(e: Evaluation, intervals: Intervals, seed: int) -> RunResult:
    rng = np.random.default_rng(seed)
    name, x = e.score
    bounds = RANGES.get(name, (-np.inf, np.inf))
    functions = (mean, iqm, median, optimality_gap)

    # One set of resamples serves all four aggregates.
    def aggregates(matrix: np.ndarray) -> np.ndarray:
        return np.stack([function(matrix) for function in functions], axis=-1)

    together = intervals.of(rng, aggregates, x)
    aggregate = {function.__name__: together.at(i) for i, function in enumerate(functions)}
    gap = aggregate.pop("optimality_gap")
    scores = intervals.of(rng, level_means, x)
    levels = [scores.at(i) for i in range(e.shape[1])]
    if name == "solve rate":
        aggregate["mean"], levels = _exact(e, aggregate["mean"], scores, intervals.confidence)
        gap = _mirrored(aggregate["mean"])  # rates are at most 1, so the gap is 1 - mean
    aggregate = {key: one.clipped(*bounds) for key, one in aggregate.items()}
    if name != "return":  # a plain return has no target of 1
        aggregate["optimality_gap"] = gap.clipped(1 - bounds[1], 1 - bounds[0])
    aggregate["return"] = intervals.of(rng, mean, e.episode_return)
    # The profile is the costliest statistic. Its band is only drawn, so 1000 resamples suffice.
    coarse = replace(intervals, reps=min(intervals.reps, 1000))
    profile = coarse.of(rng, lambda m: performance_profile(m, TAU), x).clipped(0.0, 1.0)
    of_levels = _level_results(e, [one.clipped(*bounds) for one in levels])
    return RunResult(e.run, aggregate, profile, of_levels, e.is_untrained)


def _exact(
    e: Evaluation, overall: Interval, levels: Interval, confidence: float
) -> tuple[Interval, list[Interval]]:
    """Use exact binomial intervals of the pooled episodes where seeds show no variation.

    This is the case if all seeds have the same solve rate, or if there is only one seed.
    """
    solved = e.score[1].sum(axis=(0, 2)).round().astype(np.int64)
    trials = e.shape[0] * e.shape[2]
    if e.shape[0] == 1:
        overall, levels = no_interval(overall.value), no_interval(levels.value)
    each = [
        with_binomial(levels.at(i), np.asarray(k), trials, confidence) for i, k in enumerate(solved)
    ]
    total = np.asarray(solved.sum())
    return with_binomial(overall, total, trials * e.shape[1], confidence), each


def _mirrored(one: Interval) -> Interval:
    """Return the interval of 1 minus a number."""
    return Interval(1 - one.value, 1 - one.high, 1 - one.low, one.kind)


def _level_results(e: Evaluation, scores: Sequence[Interval]) -> tuple[LevelResult, ...]:
    steps = e.solved_length
    solved = np.isfinite(steps)
    count = solved.sum(axis=0)
    total = np.where(solved, steps, 0.0).sum(axis=0)
    columns = (  # [M] each, in the order of the fields of `LevelResult`
        e.episode_return.mean(axis=(0, 2)),
        e.relative_return.mean(axis=(0, 2)),
        e.length.mean(axis=(0, 2)),
        np.divide(total, count, out=np.full(count.shape, np.nan), where=count > 0),
        np.where(e.optimal_steps < 0, np.nan, e.optimal_steps),
    )
    return tuple(
        LevelResult(
            name,
            hex_hash(e.level_hashes[i]),
            scores[i],
            *(float(column[i]) for column in columns),
            unsolved_by=tuple(np.flatnonzero(~solved[:, i]).tolist()) if count[i] else (),
        )
        for i, name in enumerate(e.level_names)
    )


def check_comparable(evaluations: Sequence[Evaluation]) -> None:
    """Check that evaluations can be compared.

    Raises:
        ValueError: There are no evaluations, two evaluations have the same label, or the
            evaluations differ in their levels or in their kind of score.
    """
    if not evaluations:
        raise ValueError("no evaluations; give at least one run")
    first = evaluations[0]
    labels = [e.run for e in evaluations]
    if len(set(labels)) < len(labels):
        raise ValueError(f"runs must have different labels; got {labels}")
    for e in evaluations[1:]:
        if e.level_names != first.level_names or (e.level_hashes != first.level_hashes).any():
            raise ValueError(
                f"{e.run!r} and {first.run!r} were evaluated on different levels "
                f"({e.suite} {e.suite_version}, {first.suite} {first.suite_version}; "
                f"{_differences(e, first)}); evaluate both with the same --suite"
            )
        if e.score[0] != first.score[0]:
            raise ValueError(
                f"{e.run!r} is scored by {e.score[0]} and {first.run!r} by {first.score[0]}; "
                "compare runs of a single environment family"
            )


def some(names: Sequence[str], most: int = 3) -> str:
    """List the first `most` names and the number of the remaining ones."""
    rest = len(names) - most
    return ", ".join(map(repr, names[:most])) + (f" and {rest} more" if rest > 0 else "")


def _differences(e: Evaluation, other: Evaluation) -> str:
    """Describe how the levels of two evaluations differ: missing levels, content or order."""
    own, others = set(e.level_names), set(other.level_names)
    told = []
    for one, there, known in ((e, other, own), (other, e, others)):
        lacking = [name for name in there.level_names if name not in known]
        told += [f"{one.run!r} lacks {some(lacking)}"] if lacking else []
    if told:
        return "; ".join(told)
    hashes = dict(zip(other.level_names, map(hex_hash, other.level_hashes), strict=True))
    pairs = zip(e.level_names, map(hex_hash, e.level_hashes), strict=True)
    changed = [name for name, bits in pairs if hashes[name] != bits]
    return f"{some(changed)} differ in content" if changed else "the order differs"


def _numbers(evaluations: Sequence[Evaluation]) -> str:
    """List the numbers of seeds and attempts of each run."""
    counts = (f"{e.run} {e.shape[0]} seeds and {e.shape[2]} attempts" for e in evaluations)
    return ", ".join(counts)
