"""How well scores tell what they are meant to tell: true regret, and learnability.

True regret is the optimal return that a solver knows less the mean return of the episodes that the
agent completed; learnability is `p (1 - p)` of its share p of solved ones. Both are of the very
rollout that was scored, so luck that they share with the score raises the correlation; and levels
on which no episode ended, which are often the hard ones, are left out.

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

TENTHS = 10
FEWEST = 5  # levels of which a rank correlation is told
NO_SOLVER = "no true regret, since the environment has no solver"
NO_EPISODES = "nothing to compare scores with, since the student does not report its episodes"
CAVEAT = (
    "Scores and what they are compared with come from the same rollouts: luck that they share "
    "raises the correlation."
)


class Measure(NamedTuple):
    """Scores against one quantity, of K levels."""

    name: str
    score: Float[np.ndarray, " K"]
    value: Float[np.ndarray, " K"]
    overall: float  # Spearman's rank correlation; NaN of too few levels, or if all are equal
    tenths: Float[np.ndarray, "10"]  # the same in each tenth of the run


class Calibration(NamedTuple):
    """What scores were worth, by the levels looked at."""

    measures: tuple[Measure, ...]
    missing: str  # why a measure is not there; "" if both are
    num_levels: int  # looked at
    num_used: int  # scored, and with a completed episode
    ends: Float[np.ndarray, "10"]  # of the tenths, in env steps (NaN where unknown)


def calibrate(log: LevelLog, facts: Facts) -> Calibration:
    """Compare scores with true regret and learnability, where these are known."""
    score, num_levels = facts.of(log.score), len(facts.place[0])
    updates = np.arange(1, TENTHS + 1) * len(log.update) / TENTHS
    ends = log.env_steps[np.maximum(np.ceil(updates).astype(int) - 1, 0)]
    if not log.episodes:
        return Calibration((), NO_EPISODES, num_levels, 0, ends)
    num, num_success, mean_return = (
        facts.of(x) for x in (log.episodes.num, log.episodes.num_success, log.episodes.mean_return)
    )
    used = (num > 0) & np.isfinite(score)
    tenth = facts.place[0] * TENTHS // len(log.update)
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
    """Spearman's, ties sharing their mean rank; NaN of fewer than 5 levels or if all are equal."""
    if len(x) < FEWEST or np.ptp(x) == 0 or np.ptp(y) == 0:
        return float("nan")
    return float(np.asarray(stats.spearmanr(x, y))[0])


def words(found: Calibration) -> str:
    """The result in a few sentences."""
    if not found.measures:
        return f"Calibration: {found.missing}."
    told = [f"{m.name} {signed(m.overall)}{_from_to(m.tenths)}" for m in found.measures]
    unfinished = found.num_levels - found.num_used
    sentences = [
        f"Rank correlation (Spearman) of a level's score with {', with '.join(told)}; of "
        f"{found.num_used:,} levels, without {unfinished:,} that had no score or no completed "
        f"episode.",
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
    """A correlation with its sign; `unknown` where it is not a number."""
    return "unknown" if np.isnan(value) else f"{value:+.2f}".replace("-", "−")  # noqa: RUF001


def _from_to(tenths: Float[np.ndarray, "10"]) -> str:
    """First and last tenth of the run, if any has a value."""
    if np.isnan(tenths).all():
        return ""
    first, last = signed(tenths[0]), signed(tenths[-1])
    return f" ({first} in the run's first tenth, {last} in its last)"
