"""Returns relative to those of a baseline learner on the same levels, with intervals.

A run that learns an update rule has one rule per training seed, and each rule trains agents on
every level.
The baseline learner trains several groups of agents on the same levels. On each level, the mean
return of a rule's agents is divided by the mean return of all agents of the baseline. If the
baseline's mean return on a level is not positive, the level has no ratio. Levels without a ratio
are left out and counted. The statistic `below` is the fraction of the ratios, over rules and
levels, that are less than `THRESHOLD`.

The numbers of a run are means over its rules of each rule's own number. Intervals are Student's t:
the variance is the sum of a part over the rules and a part over the baseline's groups of agents,
which is estimated by leaving out one group at a time (jackknife). If the baseline has one group,
its part is missing. With one rule there is no interval over rules: the attempts of the rule and of
the baseline are resampled, and the interval describes only these agents.

Source: Jackson et al., 2023, "Discovering General Reinforcement Learning Algorithms with
Adversarial Environment Design" (the fraction of levels on which the return is below a given
fraction of A2C's return).
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from rlgen.evaluation.episodes import Evaluation
from rlgen.evaluation.stats.bootstrap import Bootstrap
from rlgen.evaluation.stats.intervals import Interval, jackknife_t, no_interval
from rlgen.evaluation.stats.settings import DEFAULT, Intervals

THRESHOLD = 0.75  # fraction of the baseline's mean return


class Relative(NamedTuple):
    """Returns of one run relative to the baseline or to the optimum."""

    run: str
    to: str  # the baseline's label, or "optimum"
    mean: Interval  # mean of the ratios over levels
    iqm: Interval
    below: Interval  # fraction of the levels whose ratio is below the threshold
    per_seed: Float[np.ndarray, "S 3"]  # mean, IQM and fraction of each seed; their means are above
    num_levels: int  # levels with a ratio
    num_excluded: int  # levels without a ratio
    levels: Float[np.ndarray, " M"]  # ratio of mean returns on each level; NaN without a ratio


NAMES = ("mean", "iqm", "below")


def baseline_of(evaluations: Sequence[Evaluation]) -> Evaluation | None:
    """Return the baseline's evaluation; None if no evaluation is marked as the baseline."""
    return next((e for e in evaluations if e.meta.get("baseline") is True), None)


def compare_all(
    evaluations: Sequence[Evaluation], intervals: Intervals = DEFAULT, seed: int = 0
) -> tuple[Relative, ...]:
    """Compare runs with the baseline and, if optimal returns are known, with the optimum.

    The baseline itself is compared only with the optimum. If there is no baseline, the result is
    empty.
    """
    baseline = baseline_of(evaluations)
    if baseline is None:
        return ()
    others = [e for e in evaluations if e is not baseline]
    found = [relative_to(e, baseline, intervals, seed) for e in others]
    if np.isfinite(baseline.optimal_return).any():
        found += [relative_to_optimum(e, intervals, seed) for e in evaluations]
    return tuple(found)


def relative_to(
    evaluation: Evaluation, baseline: Evaluation, intervals: Intervals = DEFAULT, seed: int = 0
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
    return _relative(evaluation, baseline.run, baseline.episode_return, intervals, seed)


def relative_to_optimum(
    evaluation: Evaluation, intervals: Intervals = DEFAULT, seed: int = 0
) -> Relative:
    """Compute the returns of one run relative to the levels' optimal returns.

    Levels whose optimal return is unknown or not positive are left out.
    """
    # A divisor of 0 marks a level without a ratio; NaN > 0 is False.
    optimum = np.where(evaluation.optimal_return > 0, evaluation.optimal_return, 0.0)
    divisor = np.broadcast_to(optimum[None, :, None], evaluation.shape)
    return _relative(evaluation, "optimum", divisor, intervals, seed)


def _relative(
    e: Evaluation,
    to: str,
    divisor: Float[np.ndarray, "S2 M A2"],
    intervals: Intervals,
    seed: int,
) -> Relative:
    counts = divisor.mean(axis=(0, 2)) > 0
    levels = np.full(e.shape[1], np.nan)
    levels[counts] = e.episode_return.mean(axis=(0, 2))[counts] / divisor.mean(axis=(0, 2))[counts]
    num = int(counts.sum())
    per_seed = np.full((e.shape[0], len(NAMES)), np.nan)
    found = no_interval(per_seed[0])
    if num:
        x, y = e.episode_return[:, counts], divisor[:, counts]
        matrix, groups = (one.mean(axis=-1, dtype=np.float64) for one in (x, y))
        per_seed = aggregates(matrix[:, None], groups)
        found = no_interval(per_seed.mean(axis=0))
        if len(x) > 1:
            # A level without a ratio when a group is left out is excluded there.
            found = jackknife_t(
                per_seed,
                lambda some: aggregates(matrix[:, None], some).mean(axis=0),
                groups,
                intervals.confidence,
            )
        elif min(x.shape[2], y.shape[2]) > 1:
            over_agents = Bootstrap("attempts", False, intervals.reps, intervals.confidence)
            found = over_agents.interval(np.random.default_rng(seed), aggregates, x, y)
    mean, iqm, below = (found.at(i) for i in range(len(NAMES)))
    below = below.clipped(0.0, 1.0)
    return Relative(e.run, to, mean, iqm, below, per_seed, num, len(counts) - num, levels)


def aggregates(
    x: Float[np.ndarray, "*#B S M"], divisor: Float[np.ndarray, "*#B S2 M"]
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
