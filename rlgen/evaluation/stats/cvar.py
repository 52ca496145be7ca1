"""Conditional value at risk: how an agent does on the levels that it does worst on.

The worst levels are found in one evaluation and measured in another. Measured in the one that chose
them they would look harder than they are: bad luck is what got some of them chosen.

Source: Rutherford et al., 2024, "No Regrets: Investigating and Improving Regret Approximations for
Curriculum Discovery", section 5 (risk of failure on the worst α % of levels).
Differs from their code: levels that tie in the first evaluation (most are at 100 %) are taken in
every order at once, by the exact mean over all orders, and not in the order of the suite; the
interval is a bootstrap over seeds and not a standard error.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Float, Int

from rlgen.evaluation.episodes import Evaluation
from rlgen.evaluation.stats.bootstrap import DEFAULT, Bootstrap, Interval, level_means
from rlgen.evaluation.zero_shot import Policies, evaluate
from rlgen.levels import Suite

ALPHAS = (1e-4, 1e-3, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
"""Shares of levels that are published."""


class CVaR(NamedTuple):
    """The mean score of one run on its worst levels, for several shares of them."""

    run: str
    suite: str
    score: str  # solve rate, relative return or return
    num_levels: int  # M
    alpha: Float[np.ndarray, " K"]  # shares asked for
    num_worst: Int[np.ndarray, " K"]  # levels they come to, at least 1
    each_seed: Float[np.ndarray, "S K"]
    mean: Interval  # [K], over seeds


def cvar(
    rng: np.random.Generator,
    first: Evaluation,
    second: Evaluation,
    alpha: Sequence[float] = ALPHAS,
    bootstrap: Bootstrap = DEFAULT,
) -> CVaR:
    """The second evaluation's mean score on the α·M levels that were worst in the first.

    Each training seed has worst levels of its own. The interval is over whole seeds; there is none
    with one seed.

    Args:
        rng: the source of the bootstrap's draws.
        first: ranks the levels.
        second: the same policies on the same suite, with another seed of the evaluation.
        alpha: shares of the M levels, above 0 and at most 1; rounded down, to at least one level.
        bootstrap: its `reps` and `confidence` are used.

    Raises:
        ValueError: a share out of range, or evaluations that are not two of the same policies on
            the same levels, or that share their random numbers.
    """
    _check_pair(first, second)
    shares = np.asarray(alpha, np.float64)
    if not shares.size or not ((shares > 0) & (shares <= 1)).all():
        raise ValueError(f"alpha must be shares above 0 and at most 1 (0.01 is 1 %), got {alpha}")
    (name, ranking), (_, measured) = first.score, second.score
    num_levels = first.shape[1]
    # 0.29 * 100 is a little less than 29.
    num_worst = np.maximum(np.floor(shares * num_levels + 1e-9), 1).astype(np.int64)
    each_seed = worst_means(ranking.mean(axis=-1), measured.mean(axis=-1), num_worst)
    over = "whole-seeds" if len(each_seed) > 1 else "auto"
    whole = replace(bootstrap, over=over, resample_levels=False)
    mean = whole.interval(rng, level_means, each_seed[..., None])
    return CVaR(first.run, first.suite, name, num_levels, shares, num_worst, each_seed, mean)


def worst_levels(
    policies: Policies,
    suite: Suite,
    first: Evaluation,
    attempts: int | None = None,
    seed: int | None = None,
    progress: Callable[[int, int], None] = lambda done, of: None,
    alpha: Sequence[float] = ALPHAS,
) -> CVaR:
    """Play a suite once more, with fresh keys, and say how the policies do where they did worst.

    Args:
        policies: those that `first` is of.
        suite: the one that `first` is on; all is played: each seed has worst levels of its own.
        first: ranks the levels.
        attempts: episodes on each level; as many as in `first` by default.
        seed: of the second evaluation's random numbers, another than the first's; by default the
            next one.
        progress: called with the episodes done and all of them.
        alpha: shares of the levels.

    Raises:
        ValueError: before anything is played, if the policies, the suite or the seed are not fit.
    """
    seed = int(first.meta.get("evaluation_seed") or 0) + 1 if seed is None else seed
    _check_again(policies, suite, first, seed)
    attempts = first.shape[2] if attempts is None else attempts
    second = evaluate(policies, suite, attempts, seed, progress)
    return cvar(np.random.default_rng(seed), first, second, alpha)


def worst_means(
    ranking: Float[np.ndarray, "S M"],
    measured: Float[np.ndarray, "S M"],
    num_worst: Int[np.ndarray, " K"],
) -> Float[np.ndarray, "S K"]:
    """Mean of `measured` over the levels of lowest `ranking`, by seed; ties in random order.

    That is the mean over all orders of levels that tie: if only some of a tie are among the worst,
    each is with equal probability, and so counts with the mean of its tie.

    Raises:
        ValueError: a score is not a number; as a rank it would pass for the best.
    """
    for what, x in (("ranking", ranking), ("measured", measured)):
        if np.isnan(x).any():
            seed, level = (int(i) for i in np.argwhere(np.isnan(x))[0])
            raise ValueError(f"{what} of seed {seed} on level {level} is not a number")
    found = np.empty((len(ranking), len(num_worst)))
    for s, (rank, value) in enumerate(zip(ranking, measured, strict=True)):
        _, tie, size = np.unique(rank, return_inverse=True, return_counts=True)
        of_tie = np.bincount(tie, value) / size  # by rising rank
        total = np.cumsum(np.repeat(of_tie, size))
        found[s] = total[num_worst - 1] / num_worst
    return found


def _check_again(policies: Policies, suite: Suite, first: Evaluation, seed: int) -> None:
    """Refuse a second evaluation that could not be put beside the first; nothing is played yet."""
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
    advice = "give the policies and the suite of the first evaluation"
    for what, (one, other) in facts.items():
        if one != other:
            found = f"{one!r} and {other!r}"
            raise ValueError(f"CVaR of evaluations whose {what} differs, {found}; {advice}")
    if (np.asarray(suite.levels.hash) != first.level_hashes).any():
        raise ValueError(f"CVaR of evaluations on different levels of {suite.name}; {advice}")


def _check_pair(first: Evaluation, second: Evaluation) -> None:
    """Refuse what are not two independent evaluations of one run."""
    advice = "evaluate the same run twice on one suite, with another seed"
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
            raise ValueError(f"CVaR of evaluations whose {what} differs, {found}; {advice}")
    if (first.level_hashes != second.level_hashes).any():
        raise ValueError(f"CVaR of evaluations on different levels of {first.suite}; {advice}")
    seeds = [e.meta.get("evaluation_seed") for e in (first, second)]
    if first is second or (seeds[0] is not None and seeds[0] == seeds[1]):
        raise ValueError(_same_luck(seeds[0]))


def _same_luck(seed: object) -> str:
    return (
        f"CVaR of two evaluations with the same seed, {seed}: the levels would be chosen and "
        "measured by the same luck; evaluate the same run twice on one suite, with another seed"
    )
