"""Returns relative to those of a baseline learner on the same levels, with intervals.

A run that learns an update rule has one rule per training seed, and each rule trains agents on
every level.
The baseline learner trains several groups of agents on the same levels. On each level, the mean
return of a rule's agents is divided by the mean return of all agents of the baseline. If the
baseline's mean return on a level is not positive, the level has no ratio. Levels without a ratio
are left out and counted. The statistic `below` is the fraction of the ratios, over rules and
levels, that are less than `THRESHOLD`.

Intervals resample the rules and, independently, the baseline's groups of agents (see
`rlgen.evaluation.stats.bootstrap.Bootstrap`), so they include the uncertainty of the rules and of
the baseline. If the baseline's mean return on a level is not positive in a resample, the level has
no ratio in that resample.

Source: Jackson et al., 2023, "Discovering General Reinforcement Learning Algorithms with
Adversarial Environment Design" (the fraction of levels on which the return is below a given
fraction of A2C's return).
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from rlgen.evaluation.episodes import Evaluation
from rlgen.evaluation.stats.bootstrap import DEFAULT, Bootstrap, Interval

THRESHOLD = 0.75  # fraction of the baseline's mean return


class Relative(NamedTuple):
    """Returns of one run relative to the baseline or to the optimum."""

    run: str
    to: str  # the baseline's label, or "optimum"
    mean: Interval  # mean of the ratios over seeds and levels
    iqm: Interval
    below: Interval  # fraction of the ratios, over seeds and levels, that are below the threshold
    whole_seeds: dict[str, Interval]  # intervals that resample whole seeds, by name; or {}
    num_levels: int  # levels with a ratio
    num_excluded: int  # levels without a ratio
    levels: Float[np.ndarray, " M"]  # ratio of mean returns on each level; NaN without a ratio


NAMES = ("mean", "iqm", "below")


def baseline_of(evaluations: Sequence[Evaluation]) -> Evaluation | None:
    """Return the baseline's evaluation; None if no evaluation is marked as the baseline."""
    return next((e for e in evaluations if e.meta.get("baseline") is True), None)


def compare_all(
    evaluations: Sequence[Evaluation], bootstrap: Bootstrap = DEFAULT, seed: int = 0
) -> tuple[Relative, ...]:
    """Compare runs with the baseline and, if optimal returns are known, with the optimum.

    The baseline itself is compared only with the optimum. If there is no baseline, the result is
    empty.
    """
    baseline = baseline_of(evaluations)
    if baseline is None:
        return ()
    scores = [e.episode_return for e in evaluations]
    over = bootstrap.resolve(*scores)  # one resampling unit for all, so intervals are comparable
    bootstrap = bootstrap if over == "none" else replace(bootstrap, over=over)
    others = [e for e in evaluations if e is not baseline]
    found = [relative_to(e, baseline, bootstrap, seed) for e in others]
    if np.isfinite(baseline.optimal_return).any():
        found += [relative_to_optimum(e, bootstrap, seed) for e in evaluations]
    return tuple(found)


def relative_to(
    evaluation: Evaluation, baseline: Evaluation, bootstrap: Bootstrap = DEFAULT, seed: int = 0
) -> Relative:
    """Compute the returns of one run relative to the baseline.

    Raises:
        ValueError: The agents of the run and of the baseline were trained on different levels.
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
    """Compute the returns of one run relative to the levels' optimal returns.

    Levels whose optimal return is unknown or not positive are left out.
    """
    # A divisor of 0 marks a level without a ratio; NaN > 0 is False.
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
    if num and min(len(x) for x in pair) > 1:  # run and divisor need two seeds each
        drawn = replace(bootstrap, over="whole-seeds")
        wide = drawn.interval(np.random.default_rng(seed), aggregates, *pair)
        whole = {name: wide.at(i) for i, name in enumerate(NAMES)}
    mean, iqm, below = (together.at(i) for i in range(len(NAMES)))
    return Relative(e.run, to, mean, iqm, below, whole, num, len(counts) - num, levels)


def aggregates(
    x: Float[np.ndarray, "*B S M"], divisor: Float[np.ndarray, "*B S2 M"]
) -> Float[np.ndarray, "*B 3"]:
    """Mean and IQM of the ratios of S seeds and M levels, and the fraction below `THRESHOLD`.

    Each ratio is `x` divided by the mean of `divisor` over its S2 seeds on the same level. If this
    mean is not positive, the level is left out.
    """
    mean = divisor.mean(axis=-2, keepdims=True)
    known = np.broadcast_to(mean > 0, x.shape)
    # The number of known ratios differs between resamples. Unknown ratios are infinite, so that
    # sorting puts them last and `place < num` selects the known ones.
    ratio = np.divide(x, mean, out=np.full(x.shape, np.inf), where=known)
    ratio = np.sort(ratio.reshape(*x.shape[:-2], -1), axis=-1)
    num = known.sum(axis=(-2, -1))[..., None]  # [..., 1]
    place = np.arange(ratio.shape[-1])
    below = ((ratio < THRESHOLD) & (place < num)).sum(axis=-1)
    cut = num // 4
    means = [_mean(ratio, place < num), _mean(ratio, (place >= cut) & (place < num - cut))]
    return np.stack([*means, below / np.maximum(num[..., 0], 1)], axis=-1)


def _mean(x: Float[np.ndarray, "*B K"], where: np.ndarray) -> Float[np.ndarray, "*B"]:
    """Mean of the selected entries; 0 if none is selected."""
    # A product with the mask would be NaN, because the entries that are left out are infinite.
    total = np.where(where, x, 0.0).sum(axis=-1)
    return np.asarray(total / np.maximum(where.sum(axis=-1), 1))


def _nothing() -> Interval:
    """Return an interval of NaN for the case that no level has a ratio."""
    nan = np.full(len(NAMES), np.nan)
    return Interval(nan, nan, nan, "none")
