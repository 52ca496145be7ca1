"""Figures of the exploration study: solve rates, visited positions, and bonuses in an episode.

The dial of a task is the parameter that controls how much structure the levels of the task share.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from _exploration_run import Cell, Task, make_env
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from rlgen.evaluation.report.figures import MARKERS, THEMES, WIDTH, add_legend, dress
from rlgen.evaluation.stats.aggregates import iqm, mean
from rlgen.evaluation.stats.intervals import Interval, no_interval, student

LOOK = THEMES["light"]
Cells = Mapping[str, Mapping[str, Cell]]  # by task and bonus


def interval_of(scores: np.ndarray, aggregate: Any = mean) -> Interval:
    """Return the mean over seeds of an aggregate of scores [S, M], with its 95 % t interval.

    The scores are solve rates, so the interval is clipped to the range from 0 to 1. Seeds with a
    NaN, which have a value without any ended episode, are left out. If no seed remains, all entries
    are NaN.
    """
    scores = scores[np.isfinite(scores).all(axis=1)]
    if not len(scores):
        return no_interval(np.nan)
    return student(aggregate(scores[:, None, :])).clipped(0.0, 1.0)


def overall(cells: Cells, bonus: str) -> Interval | None:
    """Return the interquartile mean of the solve rates with a bonus over tasks and dial values.

    If a task was not trained with the bonus, the result is None.
    """
    if any(bonus not in of_task for of_task in cells.values()):
        return None
    every = [of_task[bonus].trained for of_task in cells.values()]  # [V, S] each
    num_seeds = min(x.shape[1] for x in every)
    return interval_of(np.concatenate([x[:, :num_seeds] for x in every]).T, iqm)


def winners(cells: Cells, tasks: Mapping[str, Task]) -> Figure:
    """Draw the fraction of episodes solved at the end of training, for each task along its dial."""
    names = _bonuses(cells)
    figure = Figure(
        figsize=(WIDTH, 0.8 + 2.2 * len(cells)), facecolor=LOOK.paper, layout="constrained"
    )
    every = figure.subplots(len(cells), 1, squeeze=False)[:, 0]
    for axes, (name, of_task) in zip(every, cells.items(), strict=True):
        dress(axes, LOOK)
        task, at = tasks[name], np.arange(len(tasks[name].values))
        for i, bonus in enumerate(names):
            if bonus not in of_task:
                continue
            found = [interval_of(row[:, None]) for row in of_task[bonus].trained]
            value, low, high = (np.array([float(p[k]) for p in found]) for k in range(3))
            axes.errorbar(
                at + 0.06 * (i - len(names) / 2),
                value,
                np.nan_to_num(np.stack([value - low, high - value])),
                color=_colour(i),
                marker=MARKERS[i % len(MARKERS)],
                markersize=5,
                linewidth=1.5,
            )
        axes.set_xticks(at, [said_of(task, value) for value in task.values])
        axes.set_xlabel(task.dial)
        axes.set_ylim(-0.03, 1.03)
        axes.yaxis.set_major_formatter(PercentFormatter(1))
        axes.grid(axis="y", color=LOOK.grid, linewidth=0.6)
        axes.set_title(name, loc="left", color=LOOK.ink, fontsize=10)
        axes.set_ylabel("episodes solved")
    add_legend(figure, dict(enumerate(names)), LOOK)
    return figure


def visits(name: str, task: Task, of_task: Mapping[str, Cell]) -> Figure:
    """Draw the positions that trained agents visit: a row per bonus, a column per dial value."""
    env = make_env(task)
    seen = _picture(env, np.sum([cell.visits.sum(0) for cell in of_task.values()], axis=0)) > 0
    crop = tuple(_around(np.flatnonzero(seen.any(axis))) for axis in (1, 0))
    rows, columns = len(of_task), len(task.values)
    figure = Figure(
        figsize=(0.6 + 1.5 * columns, 0.6 + 1.5 * rows), facecolor=LOOK.paper, layout="constrained"
    )
    every = figure.subplots(rows, columns, squeeze=False)
    for i, (bonus, cell) in enumerate(of_task.items()):
        for v, axes in enumerate(every[i]):
            shown = np.log1p(_picture(env, cell.visits[v])[crop])
            axes.imshow(shown, cmap="magma", interpolation="none", aspect="auto")
            axes.set(xticks=[], yticks=[])
            if i == 0:
                said = f"{task.dial} {said_of(task, task.values[v])}"
                axes.set_title(said, color=LOOK.ink, fontsize=8)
        every[i, 0].set_ylabel(bonus, color=LOOK.ink, fontsize=8)
    figure.suptitle(f"{name}: visits in 16 episodes (log scale)", color=LOOK.ink, fontsize=10)
    return figure


def episode(name: str, task: Task, of_task: Mapping[str, Cell]) -> Figure:
    """Draw the raw bonus of each step of an episode after training, by value of the dial."""
    paid = {b: cell.paid for b, cell in of_task.items() if np.isfinite(cell.paid).any()}
    figure = Figure(
        figsize=(WIDTH, 0.6 + 1.5 * len(paid)), facecolor=LOOK.paper, layout="constrained"
    )
    every = figure.subplots(len(paid), 1, squeeze=False, sharex=True)[:, 0]
    for axes, (bonus, rows) in zip(every, paid.items(), strict=True):
        dress(axes, LOOK)
        for v, row in enumerate(rows):
            axes.plot(row, color=_colour(v), linewidth=1)
        axes.set_title(f"{name}: {bonus}", loc="left", color=LOOK.ink, fontsize=9)
        axes.set_ylabel("raw bonus")
    every[-1].set_xlabel("step of the episode")
    heads = {v: f"{task.dial} {said_of(task, value)}" for v, value in enumerate(task.values)}
    add_legend(figure, heads, LOOK, markers=False)
    return figure


def _picture(env: Any, visits: np.ndarray) -> np.ndarray:
    """Arrange visits to positions as an image: a grid, or one row per corridor without the hub."""
    if hasattr(env, "num_corridors"):
        return visits[1:].reshape(env.num_corridors, env.length)
    return visits.reshape(getattr(env, "sides", (1, visits.size)))


def _around(at: np.ndarray) -> slice:
    """Return the slice of an axis that contains the given positions and one more on either side."""
    return slice(max(int(at.min()) - 1, 0), int(at.max()) + 2)


def _bonuses(cells: Cells) -> list[str]:
    return list(dict.fromkeys(bonus for of_task in cells.values() for bonus in of_task))


def _colour(i: int) -> str:
    return LOOK.runs[i % len(LOOK.runs)]


def said_of(task: Task, value: float) -> str:
    """Format a value of a task's dial."""
    return "unlimited" if task.dial == "contexts" and value == 0 else f"{value:g}"
