"""Summary of evaluations on one suite: aggregates, levels and comparisons, all with intervals."""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from rlgen.evaluation.episodes import Evaluation, hex_hash
from rlgen.evaluation.stats.bootstrap import (
    DEFAULT,
    Bootstrap,
    Interval,
    difference,
    iqm,
    level_means,
    mean,
    median,
    optimality_gap,
    performance_profile,
    probability_of_improvement,
    wilson,
)

TAU = np.linspace(0, 1, 101)  # thresholds of the performance profile


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
    """Results of one run: aggregates by name, and levels in the order of the suite."""

    run: str
    aggregate: dict[str, Interval]  # mean, iqm, median, optimality_gap, return, iqm_whole_seeds
    profile: Interval  # [K], fraction of the scores above each threshold in TAU
    levels: tuple[LevelResult, ...]


class Comparison(NamedTuple):
    """Differences between two runs on the same levels: `run` minus `baseline`."""

    run: str
    baseline: str
    mean: Interval
    iqm: Interval
    iqm_whole_seeds: Interval  # bounds are NaN if either run has one seed
    improvement: Interval  # probability of improvement of `run` over `baseline`
    levels: Interval  # [M], difference on each level

    @property
    def is_clear(self) -> bool:
        """True if zero lies outside the interval of the IQM and outside its whole-seeds interval.

        If there is no whole-seeds interval, only the first condition applies.
        """
        wide = self.iqm_whole_seeds
        return self.iqm.excludes_zero and (wide.excludes_zero or bool(np.isnan(wide.low)))


class Summary(NamedTuple):
    """Summary of evaluations on one suite."""

    suite: str
    score: str  # solve rate, relative return or return
    confidence: float
    over: str  # resampling unit: seeds, whole-seeds, attempts or none
    over_levels: bool  # whether levels are resampled too
    meaning: str  # description of the intervals of aggregates
    level_meaning: str  # description of the intervals of single levels
    runs: tuple[RunResult, ...]
    comparisons: tuple[Comparison, ...]  # each run after the first, minus the first run


def summarise(
    evaluations: Sequence[Evaluation], bootstrap: Bootstrap = DEFAULT, seed: int = 0
) -> Summary:
    """Compute aggregates and intervals of evaluations, and compare each with the first evaluation.

    Equal arguments give equal results, because every random generator starts from `seed`.

    Raises:
        ValueError: There are no evaluations, two evaluations have the same label, or the
            evaluations differ in their levels or in their kind of score.
    """
    check_comparable(evaluations)
    # One resampling unit for all runs, so that their intervals are comparable.
    over = bootstrap.resolve(*(e.episode_return for e in evaluations))
    bootstrap = bootstrap if over == "none" else replace(bootstrap, over=over)
    first = evaluations[0]
    seeds, attempts = (min(e.shape[axis] for e in evaluations) for axis in (0, 2))
    meaning = bootstrap.explain(over, seeds, attempts)
    if any(e.shape[::2] != (seeds, attempts) for e in evaluations):
        meaning += f" (the smallest numbers of any run are given; {_numbers(evaluations)})"
    per_level = meaning
    if over == "attempts" and seeds == 1 and not isinstance(first.success, tuple):
        per_level = (
            f"1 seed: {bootstrap.confidence * 100:g} % Wilson interval over the {attempts} attempts"
        )
    return Summary(
        f"{first.suite} v{first.suite_version}",
        first.score[0],
        bootstrap.confidence,
        over,
        bootstrap.resample_levels,
        meaning,
        per_level,
        tuple(_summarise_run(e, bootstrap, seed) for e in evaluations),
        tuple(compare(e, first, bootstrap, seed) for e in evaluations[1:]),
    )


def compare(
    evaluation: Evaluation, baseline: Evaluation, bootstrap: Bootstrap = DEFAULT, seed: int = 0
) -> Comparison:
    """Compare two runs on the same levels, with independently resampled seeds."""
    check_comparable((evaluation, baseline))
    rng = np.random.default_rng(seed)
    x, y = evaluation.score[1], baseline.score[1]
    of_iqm = difference(iqm)
    of_levels = replace(bootstrap, resample_levels=False)
    iqms = bootstrap.interval(rng, of_iqm, x, y)
    unknown = np.full_like(iqms.value, np.nan)
    wide = Interval(iqms.value, unknown, unknown, "none")
    if min(len(x), len(y)) > 1:
        wide = replace(bootstrap, over="whole-seeds").interval(rng, of_iqm, x, y)
    return Comparison(
        evaluation.run,
        baseline.run,
        bootstrap.interval(rng, difference(mean), x, y),
        iqms,
        wide,
        bootstrap.interval(rng, probability_of_improvement, x, y),
        of_levels.interval(rng, difference(level_means), x, y),
    )


def hardest(summary: Summary, limit: int) -> list[int]:
    """Indices of the `limit` levels with the lowest mean score over runs, in the suite's order.

    If there are at most `limit` levels, all are returned.
    """
    scores = np.mean([[level.score.value for level in run.levels] for run in summary.runs], axis=0)
    return sorted(np.argsort(scores, kind="stable")[:limit].tolist())


def _summarise_run(e: Evaluation, bootstrap: Bootstrap, seed: int) -> RunResult:
    rng = np.random.default_rng(seed)
    x = e.score[1]
    num_seeds = e.shape[0]
    functions = (mean, iqm, median, optimality_gap)

    # One set of resamples serves all four aggregates.
    def aggregates(matrix: np.ndarray) -> np.ndarray:
        return np.stack([function(matrix) for function in functions], axis=-1)

    together = bootstrap.interval(rng, aggregates, x)
    aggregate = {function.__name__: together.at(i) for i, function in enumerate(functions)}
    aggregate["return"] = bootstrap.interval(rng, mean, e.episode_return)
    if num_seeds > 1:
        whole = replace(bootstrap, over="whole-seeds")
        aggregate["iqm_whole_seeds"] = whole.interval(rng, iqm, x)
    if e.score[0] == "return":
        del aggregate["optimality_gap"]  # a plain return has no target of 1
    # The profile is the costliest statistic. Its band is only drawn, so 1000 resamples suffice.
    coarse = replace(bootstrap, reps=min(bootstrap.reps, 1000))
    profile = coarse.interval(rng, lambda m: performance_profile(m, TAU), x)
    of_levels = replace(bootstrap, resample_levels=False)
    scores = of_levels.interval(rng, level_means, x)
    if scores.over == "attempts" and num_seeds == 1 and e.score[0] == "solve rate":
        # If all attempts fail or all succeed, a bootstrap interval has width 0. Wilson's does not.
        solved = x.sum(axis=(0, 2)).astype(np.int64)
        bounds = wilson(solved, e.shape[2], bootstrap.confidence)
        scores = Interval(scores.value, *bounds, scores.over)
    return RunResult(e.run, aggregate, profile, _level_results(e, scores))


def _level_results(e: Evaluation, scores: Interval) -> tuple[LevelResult, ...]:
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
            scores.at(i),
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
