"""How runs stand over the levels of a suite: normalised percentiles, participation, dominance.

Each level's mean return V becomes x = (V - low) / (high - low):

    high    the solver's optimal return; where it is unknown, the best mean return of the runs
    low     the mean return of untrained agents where they were evaluated too, else 0

Levels whose high is not above their low have no such score (they cannot be solved, or nobody earns
anything there), nor have levels of one run alone without an optimum. They are left out and named.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from rlgen.evaluation.episodes import Evaluation
from rlgen.evaluation.stats.bootstrap import DEFAULT, Bootstrap, Interval, level_means
from rlgen.evaluation.stats.percentiles import Dominance, Q, dominance, participation, percentiles
from rlgen.evaluation.stats.summary import check_comparable, some

FEW_ATTEMPTS = 16  # fewer episodes a level bias low percentiles noticeably
NO_SCALE = (
    "Returns are not normalised: on no level is an optimum, or the best of several runs, above "
    "0 or above untrained agents; compare with another run, or add --untrained"
)
_SMALL = 1e-6  # float32 optima: a smaller difference of high and low is none


class Scale(NamedTuple):
    """What is 0 and what is 1 on each of M levels."""

    low: Float[np.ndarray, " M"]
    high: Float[np.ndarray, " M"]  # NaN: no reference
    low_name: str
    high_name: str


class RunStanding(NamedTuple):
    """One run on the levels that have a normalised score."""

    run: str
    percentile: Interval  # [K], at the percentiles `Q`; no interval with one seed
    participation: Interval
    each_seed: Float[np.ndarray, "S K"]


class NormalisedScores(NamedTuple):
    """Runs on one suite by their normalised returns."""

    suite: str
    scale: Scale
    percentiles: tuple[int, ...]
    num_levels: int  # with a normalised score
    without_span: tuple[str, ...]  # levels left out: high not above low
    without_reference: tuple[str, ...]  # levels left out: no optimum, and no other run
    num_attempts: int  # of the run with the fewest
    runs: tuple[RunStanding, ...]
    dominance: tuple[Dominance, ...]  # of every two runs


def normalised_scores(
    evaluations: Sequence[Evaluation], bootstrap: Bootstrap = DEFAULT, seed: int = 0
) -> NormalisedScores | None:
    """Percentile curves, participation and dominance; None if no level has a normalised score.

    Intervals are over whole seeds, as an agent plays every level; dominance is resampled over
    levels, at most 1000 times. The last results are kept: table, files and report ask for the same.

    Raises:
        ValueError: no evaluations, labels that repeat, or different levels or kinds of score.
    """
    return _normalised_scores(tuple(evaluations), bootstrap, seed)


@lru_cache(maxsize=2)  # evaluations are told apart by identity and do not change
def _normalised_scores(
    evaluations: tuple[Evaluation, ...], bootstrap: Bootstrap, seed: int
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
    rng, reps = np.random.default_rng(seed), min(bootstrap.reps, 1000)
    return NormalisedScores(
        f"{runs[0].suite} v{runs[0].suite_version}",
        scale,
        Q,
        int(counts.sum()),
        tuple(names[~counts & ~unknown].tolist()),
        tuple(names[unknown].tolist()),
        min(e.shape[2] for e in runs),
        tuple(_of_run(e.run, x, bootstrap, seed) for e, x in zip(runs, scores, strict=True)),
        dominance(rng, {e.run: x for e, x in zip(runs, scores, strict=True)}, reps),
    )


def untrained_of(evaluations: Sequence[Evaluation]) -> Evaluation | None:
    """The agents before training among several runs, if they were evaluated too."""
    found = [e for e in evaluations if e.meta.get("update") == 0 and e.meta.get("env_steps") == 0]
    return found[0] if found and len(evaluations) > 1 else None


def scale_of(runs: Sequence[Evaluation], low: Evaluation | None = None) -> Scale:
    """The low and the high of every level.

    Args:
        runs: on the same levels; without a solver, the best of two or more is the reference.
        low: agents that know nothing, on the same levels; 0 without them.
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
        name += f" (on {num} level{'s' * (num > 1)} without one {of_runs})"
    floor = np.zeros(len(optimum)) if low is None else low.episode_return.mean(axis=(0, 2))
    low_name = "a return of 0" if low is None else f"the mean return of {low.run}"
    return Scale(floor, np.where(unknown, best, optimum), low_name, name)


def spans(scale: Scale) -> np.ndarray:
    """Which levels have a high above their low."""
    return scale.high - scale.low > _SMALL * np.maximum(1, np.abs(scale.high))


def normalise(e: Evaluation, scale: Scale) -> Float[np.ndarray, "S M"]:
    """(V - low) / (high - low) of each seed's mean return V; NaN where high is not above low."""
    span = np.where(spans(scale), scale.high - scale.low, np.nan)
    return (e.episode_return.mean(axis=-1) - scale.low) / span


def of_agents(bootstrap: Bootstrap, *scores: Float[np.ndarray, "_ _ _"]) -> Bootstrap:
    """The bootstrap with whole seeds drawn where every run has several, otherwise attempts.

    An agent plays every level: put together from the levels of several seeds, it would be one that
    nobody trained.
    """
    over = replace(bootstrap, over="auto").resolve(*scores)
    named = {"seeds": "whole-seeds", "none": "auto"}
    return replace(bootstrap, over=named.get(over, over), resample_levels=False)


def notes(found: NormalisedScores) -> list[str]:
    """What was divided by what, which levels are left out, and what to beware of."""
    told = [
        f"Normalised return: 0 is {found.scale.low_name}, 1 is {found.scale.high_name}; "
        f"{found.num_levels:,} levels."
    ]
    for names, why in (
        (found.without_span, "where 1 would not be above 0"),
        (found.without_reference, "where the optimum is unknown and there is no other run"),
    ):
        if names:
            told.append(f"Left out, {why}: {some(names)} ({len(names)} in all).")
    if found.num_attempts < FEW_ATTEMPTS:
        told.append(
            f"{found.num_attempts} episodes a level: chance makes the low percentiles look lower "
            f"than they are; take {FEW_ATTEMPTS} or more."
        )
    return told


def verdicts(found: NormalisedScores) -> list[str]:
    """A sentence for every two runs."""
    told = []
    for one in found.dominance:
        share, other = f"{100 * one.better_share:.0f} %", f"{100 * one.worse_share:.0f} %"
        if one.is_better or one.is_worse:
            names = (one.run, one.other) if one.is_better else (one.other, one.run)
            often = share if one.is_better else other
            told.append(
                f"{names[0]} is at least as good as {names[1]} at every percentile, and better at "
                f"one; so it is in {often} of resamples of the levels."
            )
            continue
        told.append(
            f"Neither {one.run} nor {one.other} is better at every percentile (in {share} and "
            f"{other} of resamples of the levels)."
        )
    return told


def _of_run(run: str, x: Float[np.ndarray, "S K"], bootstrap: Bootstrap, seed: int) -> RunStanding:
    rng, each_seed = np.random.default_rng(seed), percentiles(x)
    columns = np.concatenate([each_seed, participation(x)[:, None]], axis=1)
    both = of_agents(bootstrap, columns[..., None]).interval(rng, level_means, columns[..., None])
    curve = Interval(both.value[:-1], both.low[:-1], both.high[:-1], both.over)
    return RunStanding(run, curve, both.at(len(Q)), each_seed)
