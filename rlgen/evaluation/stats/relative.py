"""Returns relative to a baseline learner's on the same levels, with intervals.

Of each level, the mean return of a rule's agents is divided by the mean return of all the
baseline's agents there. Levels where the baseline's mean return is not positive have no ratio: they
are left out, and counted. `below` is the share of levels, mean over rules, on which the agents'
mean return is less than `THRESHOLD` of the baseline's.

Intervals draw the rule's seeds and, independently, the baseline's groups of agents (see
`statistics.Bootstrap`), so that they hold the uncertainty of both. In a resample in which the
baseline's mean return on a level is not positive, that level has no ratio either.

Source: Jackson et al., 2023, "Discovering General Reinforcement Learning Algorithms with
Adversarial Environment Design" (the share of levels below a part of A2C's return).
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from rlgen.evaluation.episodes import Evaluation
from rlgen.evaluation.stats.bootstrap import DEFAULT, Bootstrap, Interval

THRESHOLD = 0.75


class Relative(NamedTuple):
    """One run against the baseline, or against the optimum."""

    run: str
    to: str  # the baseline's label, or "optimum"
    mean: Interval  # of the ratios of seeds and levels
    iqm: Interval
    below: Interval  # share of levels whose ratio is below the threshold
    whole_seeds: dict[str, Interval]  # the same with seeds drawn for all levels at once; or empty
    num_levels: int  # with a ratio
    num_excluded: int  # without
    levels: Float[np.ndarray, " M"]  # ratio of each level, mean over seeds; NaN: none


NAMES = ("mean", "iqm", "below")


def baseline_of(evaluations: Sequence[Evaluation]) -> Evaluation | None:
    """The evaluation that the others are to be divided by, if there is one."""
    return next((e for e in evaluations if e.meta.get("baseline") is True), None)


def compare_all(
    evaluations: Sequence[Evaluation], bootstrap: Bootstrap = DEFAULT, seed: int = 0
) -> tuple[Relative, ...]:
    """Every run against the baseline and, where optima are known, all against them."""
    baseline = baseline_of(evaluations)
    if baseline is None:
        return ()
    scores = [e.episode_return for e in evaluations]
    over = bootstrap.resolve(*scores)  # one way of resampling for all, so that they mean the same
    bootstrap = bootstrap if over == "none" else replace(bootstrap, over=over)
    others = [e for e in evaluations if e is not baseline]
    found = [relative_to(e, baseline, bootstrap, seed) for e in others]
    if np.isfinite(baseline.optimal_return).any():
        found += [relative_to_optimum(e, bootstrap, seed) for e in evaluations]
    return tuple(found)


def relative_to(
    evaluation: Evaluation, baseline: Evaluation, bootstrap: Bootstrap = DEFAULT, seed: int = 0
) -> Relative:
    """One run against the baseline.

    Raises:
        ValueError: they were not trained on the same levels.
    """
    if (
        evaluation.level_names != baseline.level_names
        or (evaluation.level_hashes != baseline.level_hashes).any()
    ):
        raise ValueError(
            f"{evaluation.run!r} and {baseline.run!r} were trained on different levels; "
            "evaluate both with the same --suite"
        )
    return _relative(evaluation, baseline.run, baseline.episode_return, bootstrap, seed)


def relative_to_optimum(
    evaluation: Evaluation, bootstrap: Bootstrap = DEFAULT, seed: int = 0
) -> Relative:
    """One run against the levels' optimal returns; levels without a positive one are left out."""
    optimum = np.where(evaluation.optimal_return > 0, evaluation.optimal_return, 0.0)
    divisor = np.broadcast_to(optimum[None, :, None], evaluation.shape)
    return _relative(evaluation, "optimum", divisor, bootstrap, seed)


def _relative(
    e: Evaluation,
    to: str,
    divisor: Float[np.ndarray, "S2 M A2"],
    bootstrap: Bootstrap,
    seed: int,
) -> Relative:
    counts = divisor.mean(axis=(0, 2)) > 0
    levels = np.full(e.shape[1], np.nan)
    levels[counts] = e.episode_return.mean(axis=(0, 2))[counts] / divisor.mean(axis=(0, 2))[counts]
    num = int(counts.sum())
    pair = (e.episode_return[:, counts], divisor[:, counts])
    together, whole = _nothing(), {}
    if num:
        together = bootstrap.interval(np.random.default_rng(seed), aggregates, *pair)
    if num and min(len(x) for x in pair) > 1:
        drawn = replace(bootstrap, over="whole-seeds")
        wide = drawn.interval(np.random.default_rng(seed), aggregates, *pair)
        whole = {name: wide.at(i) for i, name in enumerate(NAMES)}
    mean, iqm, below = (together.at(i) for i in range(len(NAMES)))
    return Relative(e.run, to, mean, iqm, below, whole, num, len(counts) - num, levels)


def aggregates(
    x: Float[np.ndarray, "*B S M"], divisor: Float[np.ndarray, "*B S2 M"]
) -> Float[np.ndarray, "*B 3"]:
    """Mean and interquartile mean of the ratios of S seeds and M levels, and the share below.

    Levels where the divisor's mean over its seeds is not positive are left out.
    """
    mean = divisor.mean(axis=-2, keepdims=True)
    known = np.broadcast_to(mean > 0, x.shape)
    ratio = np.divide(x, mean, out=np.full(x.shape, np.inf), where=known)
    ratio = np.sort(ratio.reshape(*x.shape[:-2], -1), axis=-1)  # what is not known comes last
    num = known.sum(axis=(-2, -1))[..., None]
    place = np.arange(ratio.shape[-1])
    below = ((ratio < THRESHOLD) & (place < num)).sum(axis=-1)
    cut = num // 4
    means = [_mean(ratio, place < num), _mean(ratio, (place >= cut) & (place < num - cut))]
    return np.stack([*means, below / np.maximum(num[..., 0], 1)], axis=-1)


def _mean(x: Float[np.ndarray, "*B K"], where: np.ndarray) -> Float[np.ndarray, "*B"]:
    total = np.where(where, x, 0.0).sum(axis=-1)
    return np.asarray(total / np.maximum(where.sum(axis=-1), 1))


def _nothing() -> Interval:
    nan = np.full(len(NAMES), np.nan)
    return Interval(nan, nan, nan, "none")
