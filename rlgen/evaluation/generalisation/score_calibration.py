"""Calibration of level scores: their rank correlation with true regret and with learnability.

True regret is the solver's optimal return minus the mean return of the episodes that the agent
completed. Learnability is `p (1 - p)`, where p is the fraction of these episodes that were solved.
The score, true regret and learnability of a level are computed from the same rollout. Chance
effects that they share therefore raise the correlation. Levels on which no episode ended are left
out, although such levels are often hard.

Sources: Spearman, 1904, "The Proof and Measurement of Association between Two Things"; Tzannetos et
al., 2023, "Proximal Curriculum for Reinforcement Learning Agents", and Rutherford et al., 2024, "No
Regrets: Investigating and Improving Regret Approximations for Curriculum Discovery" (learnability).
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy import stats

from rlgen.evaluation.generalisation.level_facts import Facts
from rlgen.runs.curriculum_log import LevelLog

TENTHS = 10  # parts of the run for which correlations are computed
FEWEST = 5  # for fewer levels no rank correlation is computed
NO_SOLVER = "no true regret, since the environment has no solver"
NO_EPISODES = "nothing to compare scores with, since the student does not report its episodes"
CAVEAT = (
    "Scores and the quantities that they are compared with come from the same rollouts, so shared "
    "chance effects raise the correlation."
)


class Measure(NamedTuple):
    """Scores of K levels and the quantity that they are compared with."""

    name: str
    score: Float[np.ndarray, " K"]
    value: Float[np.ndarray, " K"]
    overall: float  # Spearman's rank correlation; NaN for too few levels or constant values
    tenths: Float[np.ndarray, "10"]  # rank correlation in each tenth of the run


class Calibration(NamedTuple):
    """Comparison of a run's level scores with true regret and learnability."""

    measures: tuple[Measure, ...]
    missing: str  # reason for a missing measure; "" if no measure is missing
    num_levels: int  # levels that were analysed
    num_used: int  # levels with a score and a completed episode
    ends: Float[np.ndarray, "10"]  # end of each tenth, in env steps (NaN where unknown)


def calibrate(log: LevelLog, facts: Facts) -> Calibration:
    """Compare scores with true regret and with learnability, where these are known."""
    score, num_levels = facts.of(log.score), len(facts.place[0])
    updates = np.arange(1, TENTHS + 1) * len(log.update) / TENTHS
    ends = log.env_steps[np.maximum(np.ceil(updates).astype(int) - 1, 0)]
    if not log.episodes:
        return Calibration((), NO_EPISODES, num_levels, 0, ends)
    num, num_success, mean_return = (
        facts.of(x) for x in (log.episodes.num, log.episodes.num_success, log.episodes.mean_return)
    )
    used = (num > 0) & np.isfinite(score)
    tenth = facts.place[0] * TENTHS // len(log.update)  # tenth in which the level was played
    rate = num_success / np.maximum(num, 1)
    values = {"learnability p (1 − p)": rate * (1 - rate)}  # noqa: RUF001
    solved = not isinstance(facts.optimal_return, tuple)
    if solved:
        values = {"true regret": facts.optimal_return - mean_return} | values
    measures = tuple(
        _measure(name, score[used], value[used], tenth[used]) for name, value in values.items()
    )
    return Calibration(measures, "" if solved else NO_SOLVER, num_levels, int(used.sum()), ends)


def rank_correlation(x: Float[np.ndarray, " K"], y: Float[np.ndarray, " K"]) -> float:
    """Spearman's rank correlation, with the mean rank for ties.

    It is NaN for fewer than 5 levels, or if all values of x or of y are equal.
    """
    if len(x) < FEWEST or np.ptp(x) == 0 or np.ptp(y) == 0:
        return float("nan")
    return float(np.asarray(stats.spearmanr(x, y))[0])


def words(found: Calibration) -> str:
    """Describe the result in a few sentences."""
    if not found.measures:
        return f"Calibration: {found.missing}."
    told = [f"{m.name} {signed(m.overall)}{_from_to(m.tenths)}" for m in found.measures]
    unfinished = found.num_levels - found.num_used
    sentences = [
        f"Rank correlation (Spearman) of a level's score with {', with '.join(told)}. It is "
        f"computed on {found.num_used:,} levels. {unfinished:,} further levels had no score or no "
        f"completed episode.",
        f"There is {found.missing}." if found.missing else "",
        CAVEAT,
    ]
    return " ".join(one for one in sentences if one)


def _measure(
    name: str,
    score: Float[np.ndarray, " K"],
    value: Float[np.ndarray, " K"],
    tenth: Int[np.ndarray, " K"],
) -> Measure:
    parts = [tenth == i for i in range(TENTHS)]
    tenths = np.array([rank_correlation(score[part], value[part]) for part in parts])
    return Measure(name, score, value, rank_correlation(score, value), tenths)


def signed(value: float) -> str:
    """Format a correlation with its sign; NaN becomes `unknown`."""
    return "unknown" if np.isnan(value) else f"{value:+.2f}".replace("-", "−")  # noqa: RUF001


def _from_to(tenths: Float[np.ndarray, "10"]) -> str:
    """Format the correlations in the first and last tenth; empty if no tenth has a value."""
    if np.isnan(tenths).all():
        return ""
    first, last = signed(tenths[0]), signed(tenths[-1])
    return f" ({first} in the run's first tenth, {last} in its last)"
