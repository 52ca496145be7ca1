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
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator
from scipy import stats

from rlgen.evaluation.figures import THEMES, Theme, dress
from rlgen.evaluation.level_facts import Facts
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
    told = [f"{m.name} {_signed(m.overall)}{_from_to(m.tenths)}" for m in found.measures]
    unfinished = found.num_levels - found.num_used
    sentences = [
        f"Rank correlation (Spearman) of a level's score with {', with '.join(told)}; of "
        f"{found.num_used:,} levels, without {unfinished:,} that had no score or no completed "
        f"episode.",
        f"There is {found.missing}." if found.missing else "",
        CAVEAT,
    ]
    return " ".join(one for one in sentences if one)


def calibration_figure(found: Calibration, theme: str = "light") -> Figure:
    """Scores against each measure, and the rank correlation over the run.

    Raises:
        ValueError: there is nothing to compare scores with.
    """
    if not found.measures or not found.num_used:
        raise ValueError(found.missing or "no level was scored and had a completed episode")
    look = THEMES[theme]
    rows = len(found.measures)
    figure = Figure(figsize=(5.4, 2.35 * rows + 0.75), facecolor=look.paper, layout="constrained")
    axes = figure.subplots(rows, 2, squeeze=False)
    for (left, right), measure in zip(axes, found.measures, strict=True):
        dress(left, look)
        dress(right, look)
        _scatter(left, measure, look)
        _over_time(right, measure, found.ends, look)
    figure.suptitle(
        f"Score against {' and '.join(m.name for m in found.measures)}",
        color=look.ink, fontsize=10, x=0.01, ha="left",
    )  # fmt: skip
    left_out = found.num_levels - found.num_used
    note = (
        f"{found.num_used:,} levels; {left_out:,} without a score or a completed episode are left "
        "out.\nScore and measure are of the same rollout: luck they share raises the correlation."
    )
    figure.supxlabel(note, color=look.ink, fontsize=7.5, x=0.01, ha="left")
    return figure


def _measure(
    name: str,
    score: Float[np.ndarray, " K"],
    value: Float[np.ndarray, " K"],
    tenth: Int[np.ndarray, " K"],
) -> Measure:
    parts = [tenth == i for i in range(TENTHS)]
    tenths = np.array([rank_correlation(score[part], value[part]) for part in parts])
    return Measure(name, score, value, rank_correlation(score, value), tenths)


def _scatter(axes: Axes, measure: Measure, look: Theme) -> None:
    """Every level as a dot; median and quartiles of each tenth of the levels by score."""
    axes.plot(
        measure.score, measure.value, ".", color=look.runs[0], alpha=0.25, markersize=3,
        markeredgewidth=0, rasterized=True,
    )  # fmt: skip
    order = np.argsort(measure.score, kind="stable")
    for part in np.array_split(order, min(TENTHS, max(len(order) // FEWEST, 1))):
        low, middle, high = np.percentile(measure.value[part], (25, 50, 75))
        x = np.median(measure.score[part])
        axes.plot([x, x], [low, high], color=look.ink, linewidth=1.2)
        axes.plot(x, middle, "o", color=look.ink, markersize=3.5)
    axes.grid(color=look.grid, linewidth=0.6)
    axes.set_xlabel("score")
    axes.set_ylabel(measure.name)
    axes.xaxis.set_major_locator(MaxNLocator(5))


def _over_time(axes: Axes, measure: Measure, ends: Float[np.ndarray, "10"], look: Theme) -> None:
    """The correlation in each tenth of the run."""
    known = bool(np.isfinite(ends).all())
    x = ends if known else np.arange(1, TENTHS + 1)
    axes.axhline(0, color=look.ink, linewidth=0.6)
    axes.plot(x, measure.tenths, "o-", color=look.runs[1], markersize=3.5, linewidth=1.6)
    axes.grid(color=look.grid, linewidth=0.6)
    axes.set_ylim(-1.05, 1.05)
    axes.set_xlim(0, 1.03 * x[-1])
    axes.set_ylabel("rank correlation")
    axes.set_title(f"whole run: {_signed(measure.overall)}", color=look.ink, fontsize=9, loc="left")
    axes.set_xlabel("env steps" if known else "tenth of the run")
    if known:
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))


def _signed(value: float) -> str:
    return "unknown" if np.isnan(value) else f"{value:+.2f}".replace("-", "−")  # noqa: RUF001


def _from_to(tenths: Float[np.ndarray, "10"]) -> str:
    """First and last tenth of the run, if any has a value."""
    if np.isnan(tenths).all():
        return ""
    first, last = _signed(tenths[0]), _signed(tenths[-1])
    return f" ({first} in the run's first tenth, {last} in its last)"
