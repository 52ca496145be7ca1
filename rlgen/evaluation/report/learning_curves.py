"""Draw learning curves from the `metrics.jsonl` of runs, against the cost of training.

Env steps (of every kind except evaluation) and gradient updates are counted per seed. Seconds are
the running time, without compilation, of the program that trains all seeds in parallel.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, PercentFormatter

from rlgen.evaluation.report.figures import THEMES, add_legend, blank
from rlgen.evaluation.stats.cost import COSTS

Series = tuple[Float[np.ndarray, " K"], Float[np.ndarray, "K S"], str]
"""Positions on the x axis, the values of each seed, and the unit of the x axis."""
POINTS = 150  # maximum number of points of a learning curve; if there are more, bins are averaged
POINTS_OF_LIVES = 30  # maximum for metrics of ended lifetimes, which are missing in most updates


def learning_curves(
    curves: Mapping[str, Sequence[Mapping]],
    theme: str = "light",
    labels: Sequence[str] = (),
    cost: str = "env_steps",
) -> Figure:
    """Draw training metrics against cost: one panel per metric, with the mean and each seed.

    The metrics are the solve rate and the return of episodes. For runs that learn a rule, they are
    the rewards, final returns and algorithmic regret of the rule's agents.

    Args:
        curves: Lines of each run's `metrics.jsonl` (see `from_runs.metrics.read_metrics`). Missing
            lines and numbers are skipped.
        theme: `light` or `dark`.
        labels: Runs in the order of the other figures, so that each run has its usual colour.
        cost: Quantity on the x axis, one of `COSTS`.

    Raises:
        ValueError: `cost` is unknown, or no run has a line with any of the metrics.
    """
    look, panels = THEMES[theme], _panels(curves, cost)
    figure, all_axes = blank(look, 0.8 + 2.3 * len(panels), [1.0] * len(panels))
    # Runs without curves are kept in the list, because the index of a run determines its colour.
    labels = [*labels, *(run for run in curves if run not in labels)]
    nothing = series((), "")
    found = [(x[-1], unit) for runs in panels.values() for x, _, unit in runs.values() if len(x)]
    # All panels have the same x axis, which ends at the end of the longest run.
    end, units = max(x for x, _ in found), {unit for _, unit in found}
    for axes, (key, runs) in zip(all_axes, panels.items(), strict=True):
        for r, run in enumerate(labels):
            x, y, _ = runs.get(run, nothing)
            draw_curve(axes, x, y, look.runs[r % len(look.runs)])
        axes.grid(color=look.grid, linewidth=0.6)
        axes.set_ylabel(_CURVES[key])
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        axes.set_xlim(0, 1.02 * max(end, 1))
    if "solve_rate" in panels:
        all_axes[0].set_ylim(-0.02, 1.02)
        all_axes[0].yaxis.set_major_formatter(PercentFormatter(1))
    for axes in all_axes[:-1]:
        axes.tick_params(labelbottom=False)
    all_axes[-1].set_xlabel(" or ".join(sorted(units)))
    drawn = {r: run for r, run in enumerate(labels) if run in curves}
    add_legend(figure, drawn, look, markers=False)
    return figure


def _panels(curves: Mapping[str, Sequence[Mapping]], cost: str) -> dict[str, dict[str, Series]]:
    """Series of all runs, for each metric that at least one run has.

    Raises:
        ValueError: `cost` is unknown, or no run has any of the metrics.
    """
    if cost not in COSTS:
        raise ValueError(f"unknown cost={cost!r}; choose one of {', '.join(COSTS)}")
    every = {
        key: {run: series(lines, key, cost) for run, lines in curves.items()} for key in _CURVES
    }
    found = {key: runs for key, runs in every.items() if any(len(x) for x, _, _ in runs.values())}
    if not found:
        raise ValueError(
            f"no learning curve: the metrics contain none of {', '.join(_CURVES)} with {cost}"
        )
    return found


def has_curves(curves: Mapping[str, Sequence[Mapping]], cost: str = "env_steps") -> bool:
    """Return whether any run has a metric that `learning_curves` can draw."""
    return any(len(series(lines, key, cost)[0]) for lines in curves.values() for key in _CURVES)


_CURVES = {
    "solve_rate": "solve rate, training",
    "episode_return": "return, training",
    # Metrics of runs that learn a rule:
    "reward": "agents' reward per step",
    "lifetime_return": "return at end of lifetime",
    "lifetime_regret": "algorithmic regret",
}
# Metrics that are means over a number that differs between lines, and the metric with this number.
_COUNTS = {"episode_return": "num_episodes", "lifetime_return": "lifetimes_ended"}


def series(lines: Sequence[Mapping], key: str, cost: str = "env_steps") -> Series:
    """Extract a metric and the positions on the x axis from the lines that have both.

    If no line has env steps, updates are used instead.

    Args:
        lines: Lines of a run's metrics.
        key: Name of the metric.
        cost: Quantity on the x axis, one of `COSTS`.

    Returns:
        Positions [K], values of each seed [K, S], and the unit of the positions.
    """
    steps = any("env_steps" in line for line in lines)
    unit = "update" if cost == "env_steps" and not steps else cost
    rows = [(_number(line.get(unit)), _numbers(line.get(key)), _count(line, key)) for line in lines]
    rows = [row for row in rows if np.isfinite(row[0]) and np.isfinite(row[1]).any()]
    seeds = max((len(y) for _, y, _ in rows), default=0)
    rows = [row for row in rows if len(row[1]) == seeds]  # every row must have all S seeds
    x = np.array([x for x, _, _ in rows], float)
    # `reshape` gives y two axes even if there are no rows.
    y = np.array([y for _, y, _ in rows], float).reshape(len(rows), seeds)
    weight = np.array([np.broadcast_to(num, seeds) for _, _, num in rows], float)
    points = POINTS_OF_LIVES if key.startswith("lifetime_") else POINTS
    return *_binned(x, y, weight.reshape(y.shape), points), COSTS.get(unit, "updates")


def _count(line: Mapping, key: str) -> Float[np.ndarray, " S"]:
    """Weight of a line in a mean over lines: the number of episodes for the return, otherwise 1."""
    num = _numbers(line.get(_COUNTS.get(key, "")))
    return num if np.isfinite(num).all() else np.ones(1)


def _binned(
    x: np.ndarray, y: np.ndarray, weight: np.ndarray, points: int
) -> tuple[np.ndarray, np.ndarray]:
    if len(x) <= points:
        return x, y
    # Take the mean over each bin of rows, ignoring NaN. `reduceat` sums from one start to the next.
    starts = np.linspace(0, len(x), points, endpoint=False).astype(int)
    count = np.add.reduceat(np.isfinite(y) * weight, starts)
    total = np.add.reduceat(np.nan_to_num(y) * weight, starts)
    values = np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)
    return np.add.reduceat(x, starts) / np.diff(starts, append=len(x)), values


def draw_curve(axes: Axes, x: np.ndarray, y: np.ndarray, colour: str, style: str = "-") -> None:
    """Draw the mean over seeds as a thick line; if there are several seeds, also thin lines."""
    if not len(x):
        return
    if y.shape[1] > 1:
        axes.plot(x, y, style, color=colour, linewidth=0.7, alpha=0.4)
    # `np.nanmean` is not used, because it warns if no seed has a value.
    count = np.isfinite(y).sum(axis=1)
    mean = np.divide(np.nansum(y, axis=1), count, out=np.full(len(x), np.nan), where=count > 0)
    axes.plot(x, mean, style, color=colour, linewidth=1.9)


def _number(x: object) -> float:
    """Return a number, or the sum of a dict's values except `evaluate`; NaN for other input."""
    if isinstance(x, Mapping):
        return sum(_number(value) for name, value in x.items() if name != "evaluate")
    return float(x) if isinstance(x, int | float) else np.nan


def _numbers(x: object) -> Float[np.ndarray, " S"]:
    """Return one number per seed; null becomes NaN, and a single number counts as one seed."""
    values = x if isinstance(x, list | tuple) else [x]
    return np.array([_number(value) for value in values], float)
