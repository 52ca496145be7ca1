"""Conditional value at risk (CVaR): an agent's mean score on its own worst levels.

The worst levels are selected in one evaluation, and the scores on them are measured in another. If
one evaluation were used for both steps, the estimate would be biased downwards, because some levels
would be selected by bad luck.

With few attempts, the estimate is biased upwards, because some of the worst levels are not
selected. `rlgen.evaluation.stats.selection_bias` estimates this bias, and how many attempts each
fraction of the levels needs.

Source: Rutherford et al., 2024, "No Regrets: Investigating and Improving Regret Approximations for
Curriculum Discovery", section 5 (risk of failure on the worst α % of levels).
Differs from the code of Rutherford et al. in two points. First, many levels tie in the first
evaluation, because most levels are solved in all attempts. The result is the exact mean over all
orders of the tied levels, whereas the code of Rutherford et al. keeps the order of the suite.
Second, the interval is Student's t over seeds, whereas their code computes a standard error.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Bool, Float, Int

from rlgen.evaluation.episodes import Evaluation
from rlgen.evaluation.stats.intervals import Interval, student
from rlgen.evaluation.stats.selection_bias import SelectionBias, estimate
from rlgen.evaluation.stats.summary import RANGES
from rlgen.evaluation.zero_shot import Policies, evaluate
from rlgen.levels import Suite

ALPHAS = (1e-4, 1e-3, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
"""Default fractions of the levels, as in Rutherford et al."""


class CVaR(NamedTuple):
    """Mean score of one run on its worst levels, for several fractions of the levels."""

    run: str
    suite: str
    score: str  # solve rate, relative return or return
    num_levels: int  # M
    alpha: Float[np.ndarray, " K"]  # requested fractions of the levels
    num_worst: Int[np.ndarray, " K"]  # number of worst levels for each fraction, at least 1
    each_seed: Float[np.ndarray, "S K"]
    mean: Interval  # [K], mean over seeds
    num_attempts: int  # attempts on each level in the evaluation that ranked the levels
    selection_bias: SelectionBias

    @property
    def is_upper_bound(self) -> Bool[np.ndarray, " K"]:
        """True for each fraction whose estimated bias of the mean exceeds the tolerance."""
        return self.selection_bias.bias > self.selection_bias.tolerance


def cvar(
    first: Evaluation,
    second: Evaluation,
    alpha: Sequence[float] = ALPHAS,
    confidence: float = 0.95,
) -> CVaR:
    """Mean score in the second evaluation on the α·M levels that were worst in the first one.

    The worst levels are selected separately for each training seed. The interval is Student's t
    over seeds; with one seed there is no interval.

    Args:
        first: Evaluation that ranks the levels.
        second: Evaluation of the same policies on the same suite with another evaluation seed.
        alpha: Fractions α of the M levels, above 0 and at most 1. The product α·M is rounded down,
            and at least one level is used.
        confidence: Confidence level of the interval, between 0 and 1.

    Raises:
        ValueError: A fraction is out of range, the two evaluations differ in policies or levels,
            both evaluations used the same random numbers, or the levels were ranked by one attempt.
    """
    check_attempts(first.shape[2])
    _check_pair(first, second)
    shares = np.asarray(alpha, np.float64)
    if not shares.size or not ((shares > 0) & (shares <= 1)).all():
        raise ValueError(f"each alpha must be above 0 and at most 1 (0.01 is 1 %), got {alpha}")
    (name, ranking), (_, measured) = first.score, second.score
    num_levels = first.shape[1]
    # 1e-9 is added because 0.29 * 100 is slightly below 29 in floating point.
    num_worst = np.maximum(np.floor(shares * num_levels + 1e-9), 1).astype(np.int64)
    each_seed = worst_means(ranking.mean(axis=-1), measured.mean(axis=-1), num_worst)
    mean = student(each_seed, confidence).clipped(*RANGES.get(name, (-np.inf, np.inf)))
    attempts = np.concatenate([ranking, measured], axis=-1)
    bias = estimate(attempts, first.shape[2], num_worst / num_levels)
    facts = (first.run, first.suite, name, num_levels, shares, num_worst)
    return CVaR(*facts, each_seed, mean, first.shape[2], bias)


def check_attempts(num: int) -> None:
    """Refuse to rank levels by one attempt; call this before playing.

    Raises:
        ValueError: `num` is below 2.
    """
    if num < 2:
        raise ValueError(
            f"CVaR needs at least 2 attempts on each level to find the worst levels, got {num}; "
            "use 10 attempts or more"
        )


def bias_notes(one: CVaR, shown: Sequence[int]) -> list[str]:
    """State which mean scores are upper bounds, their bias, and how many attempts are needed.

    Args:
        one: CVaR of one run.
        shown: Indices of the fractions to report.

    Returns:
        One sentence for each fraction whose estimated bias exceeds the tolerance.
    """
    is_rate = one.score != "return"
    notes = []
    for k in (k for k in shown if one.is_upper_bound[k]):
        bias, needed = float(one.selection_bias.bias[k]), int(one.selection_bias.needed[k])
        amount = f"{100 * bias:.1f} points" if is_rate else f"{bias:.3g}"
        worst = f"{int(one.num_worst[k]):,} of {one.num_levels:,} levels"
        notes.append(
            f"{one.run}, {worst}: an upper bound, about {amount} too high, because "
            f"{one.num_attempts} attempts rank the levels with noise; about {needed:,} attempts "
            "are needed."
        )
    return notes


def worst_levels(
    policies: Policies,
    suite: Suite,
    first: Evaluation,
    attempts: int | None = None,
    seed: int | None = None,
    progress: Callable[[int, int], None] = lambda done, of: None,
    alpha: Sequence[float] = ALPHAS,
) -> CVaR:
    """Evaluate policies on a suite a second time, with new random keys, and compute their CVaR.

    Args:
        policies: The policies that `first` evaluated.
        suite: The suite of `first`. All levels of the suite are played, because every seed has
            different worst levels.
        first: Evaluation that ranks the levels.
        attempts: Episodes on each level. The default is the number in `first`.
        seed: Seed of the second evaluation, which must differ from the seed of `first`. The default
            is the seed of `first` plus 1.
        progress: Callback that receives the number of episodes done and the total.
        alpha: Fractions of the levels.

    Raises:
        ValueError: The policies, the suite or the seed do not match `first`, or `first` has one
            attempt on each level. This is checked before any episode is played.
    """
    check_attempts(first.shape[2])
    seed = int(first.meta.get("evaluation_seed") or 0) + 1 if seed is None else seed
    _check_again(policies, suite, first, seed)
    attempts = first.shape[2] if attempts is None else attempts
    second = evaluate(policies, suite, attempts, seed, progress)
    return cvar(first, second, alpha)


def worst_means(
    ranking: Float[np.ndarray, "S M"],
    measured: Float[np.ndarray, "S M"],
    num_worst: Int[np.ndarray, " K"],
) -> Float[np.ndarray, "S K"]:
    """Mean of `measured` over the levels with the lowest `ranking`, for each seed.

    If levels tie, the result is the exact mean over all orders of the tied levels. If only k of the
    tied levels fit among the worst levels, every choice of k tied levels is equally likely. These k
    levels then contribute k times the mean of `measured` over all tied levels.

    Args:
        ranking: Scores that select the worst levels.
        measured: Scores that are averaged.
        num_worst: Numbers of worst levels, each from 1 to M.

    Raises:
        ValueError: A score is NaN. Sorting would rank a level with NaN as the best level.
    """
    for what, x in (("ranking", ranking), ("measured", measured)):
        if np.isnan(x).any():
            seed, level = (int(i) for i in np.argwhere(np.isnan(x))[0])
            raise ValueError(
                f"the {what} score of seed {seed} on level {level} is not a number; evaluate again"
            )
    found = np.empty((len(ranking), len(num_worst)))
    for s, (rank, value) in enumerate(zip(ranking, measured, strict=True)):
        _, tie, size = np.unique(rank, return_inverse=True, return_counts=True)
        of_tie = np.bincount(tie, value) / size  # mean of each tie, in ascending order of rank
        total = np.cumsum(np.repeat(of_tie, size))  # [M], expected sums over the lowest levels
        found[s] = total[num_worst - 1] / num_worst
    return found


def _check_again(policies: Policies, suite: Suite, first: Evaluation, seed: int) -> None:
    """Raise an error if a second evaluation would not be comparable with the first.

    This is called before any episode is played.
    """
    if first.meta.get("evaluation_seed") == seed:
        raise ValueError(_same_luck(seed))
    facts = {
        "run": (first.run, policies.label),
        "update": (first.meta.get("update"), policies.meta.get("update")),
        "number of seeds": (first.shape[0], jax.tree.leaves(policies.states)[0].shape[0]),
        "suite": (first.suite, suite.name),
        "suite version": (first.suite_version, suite.levels.version),
        "number of levels": (first.shape[1], len(suite.levels)),
    }
    advice = "pass the policies and the suite of the first evaluation"
    for what, (one, other) in facts.items():
        if one != other:
            found = f"{one!r} and {other!r}"
            raise ValueError(f"CVaR needs evaluations with the same {what}, got {found}; {advice}")
    if (np.asarray(suite.levels.hash) != first.level_hashes).any():
        raise ValueError(f"CVaR needs evaluations on the same levels of {suite.name}; {advice}")


def _check_pair(first: Evaluation, second: Evaluation) -> None:
    """Raise an error unless these are two independent evaluations of one run on one suite."""
    advice = "evaluate one run twice on the same suite, with different seeds"
    pairs = {
        "run": (first.run, second.run),
        "update": (first.meta.get("update"), second.meta.get("update")),
        "suite": (first.suite, second.suite),
        "suite version": (first.suite_version, second.suite_version),
        "number of seeds": (first.shape[0], second.shape[0]),
        "number of levels": (first.shape[1], second.shape[1]),
        "score": (first.score[0], second.score[0]),
    }
    for what, (one, other) in pairs.items():
        if one != other:
            found = f"{one!r} and {other!r}"
            raise ValueError(f"CVaR needs evaluations with the same {what}, got {found}; {advice}")
    if (first.level_hashes != second.level_hashes).any():
        raise ValueError(f"CVaR needs evaluations on the same levels of {first.suite}; {advice}")
    seeds = [e.meta.get("evaluation_seed") for e in (first, second)]
    if first is second or (seeds[0] is not None and seeds[0] == seeds[1]):
        raise ValueError(_same_luck(seeds[0]))


def _same_luck(seed: object) -> str:
    return (
        f"CVaR needs evaluations with different seeds, got {seed} twice. With one seed, the worst "
        "levels would be selected and measured with the same random numbers; evaluate one run "
        "twice on the same suite, with different seeds"
    )
