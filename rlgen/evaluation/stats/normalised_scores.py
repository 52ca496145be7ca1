"""Normalised returns of runs over a suite's levels: percentiles, participation, dominance.

Each level's mean return V becomes x = (V - low) / (high - low). The two reference returns are:

    high    the solver's optimal return; if it is unknown, the best mean return of several runs
    low     the mean return of untrained agents; if these were not evaluated, 0

A level has no normalised score in two cases. In the first case, its high reference is not above its
low reference, because the level cannot be solved or no run earns a return on it. In the second
case, its optimal return is unknown and there is only one run. Levels without a normalised score are
left out, and the results name them.

`rlgen.evaluation.stats.percentiles` defines participation and dominance.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from rlgen.evaluation.episodes import Evaluation
from rlgen.evaluation.stats.intervals import Interval, student
from rlgen.evaluation.stats.percentiles import Dominance, Q, dominance, participation, percentiles
from rlgen.evaluation.stats.settings import DEFAULT, Intervals
from rlgen.evaluation.stats.summary import check_comparable, some

FEW_ATTEMPTS = 16  # with fewer episodes per level, low percentiles are noticeably biased
NO_SCALE = (
    "Returns are not normalised, because no level has a high reference return above its low one. "
    "The high reference is the optimal return or, if it is unknown, the best return of several "
    "runs. The low reference is the return of untrained agents, or 0. Compare with another run, or "
    "add --untrained"
)
_SMALL = 1e-6  # high - low below this fraction of max(1, |high|) counts as 0: optima are float32


class Scale(NamedTuple):
    """Reference returns on each of M levels: `low` is normalised to 0, and `high` to 1."""

    low: Float[np.ndarray, " M"]
    high: Float[np.ndarray, " M"]  # NaN if the optimum is unknown and there is one run
    low_name: str  # description of `low` for notes
    high_name: str  # description of `high` for notes


class RunStanding(NamedTuple):
    """Statistics of one run over the levels that have a normalised score."""

    run: str
    percentile: Interval  # [K], at the percentiles `Q`
    participation: Interval
    each_seed: Float[np.ndarray, "S K"]  # percentiles of each seed


class NormalisedScores(NamedTuple):
    """Statistics of the normalised returns of runs on one suite."""

    suite: str
    scale: Scale
    percentiles: tuple[int, ...]
    num_levels: int  # levels with a normalised score
    without_span: tuple[str, ...]  # levels that are left out because high is not above low
    without_reference: tuple[str, ...]  # levels that are left out because high is NaN
    num_attempts: int  # smallest number of attempts per level of any run
    runs: tuple[RunStanding, ...]  # without the untrained agents
    dominance: tuple[Dominance, ...]  # one per pair of runs


def normalised_scores(
    evaluations: Sequence[Evaluation], intervals: Intervals = DEFAULT, seed: int = 0
) -> NormalisedScores | None:
    """Compute percentile curves, participation and dominance of runs.

    Intervals are Student's t over the seeds' own numbers, because one agent plays every level; with
    one seed there is no interval. For the uncertainty of dominance, levels are resampled at most
    1000 times. The latest results are cached, because the table, the files and the report use the
    same results.

    Returns:
        The statistics, or None if no level has a normalised score.

    Raises:
        ValueError: There are no evaluations, two evaluations have the same label, or the
            evaluations differ in their levels or in their kind of score.
    """
    return _normalised_scores(tuple(evaluations), intervals, seed)


@lru_cache(maxsize=2)  # evaluations are immutable and hashed by identity
def _normalised_scores(
    evaluations: tuple[Evaluation, ...], intervals: Intervals, seed: int
) -> NormalisedScores | None:
    check_comparable(evaluations)
    low = untrained_of(evaluations)
    runs = [e for e in evaluations if e is not low]
    scale = scale_of(runs, low)
    counts = spans(scale)
    if not counts.any():
        return None
    names = np.array(runs[0].level_names)
    unknown = np.isnan(scale.high)
    scores = [normalise(e, scale)[:, counts] for e in runs]
    rng, reps = np.random.default_rng(seed), min(intervals.reps, 1000)
    return NormalisedScores(
        f"{runs[0].suite} v{runs[0].suite_version}",
        scale,
        Q,
        int(counts.sum()),
        tuple(names[~counts & ~unknown].tolist()),
        tuple(names[unknown].tolist()),
        min(e.shape[2] for e in runs),
        tuple(_of_run(e.run, x, intervals.confidence) for e, x in zip(runs, scores, strict=True)),
        dominance(rng, {e.run: x for e, x in zip(runs, scores, strict=True)}, reps),
    )


def untrained_of(evaluations: Sequence[Evaluation]) -> Evaluation | None:
    """Return the evaluation of untrained agents; None if it is missing or the only evaluation."""
    found = [e for e in evaluations if e.is_untrained]
    return found[0] if found and len(evaluations) > 1 else None


def scale_of(runs: Sequence[Evaluation], low: Evaluation | None = None) -> Scale:
    """Return the low and the high reference return of every level.

    Args:
        runs: Evaluations on the same levels. If a level's optimal return is unknown and there are
            two or more runs, the high reference is the best mean return of these runs.
        low: Evaluation of untrained agents on the same levels. If it is missing, the low reference
            is 0 on every level.
    """
    optimum = runs[0].optimal_return
    unknown = ~np.isfinite(optimum)
    best = np.full(len(optimum), np.nan)
    if len(runs) > 1:
        best = np.max([e.episode_return.mean(axis=(0, 2)) for e in runs], axis=0)
    of_runs = "the best mean return of these runs"
    name = of_runs if unknown.all() else "the optimal return"
    if unknown.any() and not unknown.all() and len(runs) > 1:
        num = int(unknown.sum())
        name += f" (on {num} level{'s' * (num > 1)} with an unknown optimum: {of_runs})"
    floor = np.zeros(len(optimum)) if low is None else low.episode_return.mean(axis=(0, 2))
    low_name = "a return of 0" if low is None else f"the mean return of {low.run}"
    return Scale(floor, np.where(unknown, best, optimum), low_name, name)


def spans(scale: Scale) -> np.ndarray:
    """Return a mask [M] of the levels whose high reference return is above the low one.

    The mask is False where the high reference return is NaN.
    """
    return scale.high - scale.low > _SMALL * np.maximum(1, np.abs(scale.high))


def normalise(e: Evaluation, scale: Scale) -> Float[np.ndarray, "S M"]:
    """Compute (V - low) / (high - low) from each seed's mean return V.

    The result is NaN on levels whose high reference return is not above the low one.
    """
    span = np.where(spans(scale), scale.high - scale.low, np.nan)
    return (e.episode_return.mean(axis=-1) - scale.low) / span


def notes(found: NormalisedScores) -> list[str]:
    """Return notes on reference returns, omitted levels, and the bias caused by few attempts."""
    told = [
        f"Normalised return: 0 is {found.scale.low_name}, 1 is {found.scale.high_name}; "
        f"{found.num_levels:,} levels."
    ]
    for names, why in (
        (found.without_span, "because the return for 1 is not above the return for 0"),
        (found.without_reference, "because the optimum is unknown and there is no other run"),
    ):
        if names:
            told.append(f"Levels left out {why}: {some(names)} ({len(names)} in all).")
    if found.num_attempts < FEW_ATTEMPTS:
        told.append(
            f"With {found.num_attempts} episodes per level, chance makes the low percentiles look "
            f"lower than they are. Use {FEW_ATTEMPTS} or more episodes (--attempts)."
        )
    return told


def verdicts(found: NormalisedScores) -> list[str]:
    """Return one sentence on dominance for each pair of runs."""
    told = []
    for one in found.dominance:
        share, other = f"{100 * one.better_share:.0f} %", f"{100 * one.worse_share:.0f} %"
        if one.is_better or one.is_worse:
            names = (one.run, one.other) if one.is_better else (one.other, one.run)
            often = share if one.is_better else other
            told.append(
                f"{names[0]} is at least as good as {names[1]} at every percentile, and better at "
                f"one or more; this holds in {often} of resamples of the levels."
            )
            continue
        told.append(
            f"Neither {one.run} nor {one.other} dominates the other (at least as good at every "
            f"percentile, and better at one or more). In {share} of resamples of the levels "
            f"{one.run} dominates, and in {other} {one.other} does."
        )
    return told


def _of_run(run: str, x: Float[np.ndarray, "S K"], confidence: float) -> RunStanding:
    each_seed = percentiles(x)
    share = student(participation(x), confidence).clipped(0.0, 1.0)
    return RunStanding(run, student(each_seed, confidence), share, each_seed)
