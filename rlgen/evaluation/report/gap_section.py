"""Show generalisation gaps and level information: terminal table, report section and figures.

A gap has two sides, train and test: the score on the run's training set and the score on a suite.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator, PercentFormatter
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from rlgen.evaluation.episodes import printable
from rlgen.evaluation.generalisation.gap import Gap, Gaps, LevelInformation
from rlgen.evaluation.report import html
from rlgen.evaluation.report.figures import MARKERS, THEMES, Theme, add_legend, blank
from rlgen.evaluation.report.learning_curves import Series, draw_curve, series
from rlgen.evaluation.stats.formatting import show, show_interval
from rlgen.evaluation.stats.intervals import Interval

HEADS = ("run", "train", "test", "gap", "information", "shift gap")
SIDES = {"train": "-", "test": "--"}  # line styles


class GapData(NamedTuple):
    """Gaps of runs, which the template shows."""

    note: str
    table: html.Table
    drawn: html.Pictures


def print_gaps(every: Sequence[Gaps], console: Console) -> None:
    """Print a table of gaps with one row per run, and a note that explains its numbers."""
    if not every:
        return
    title = Text("Generalisation from the training set", style="bold")
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for i, name in enumerate(HEADS):
        table.add_column(Text(name), justify="right" if i else "left", no_wrap=True)
    for gaps in every:
        table.add_row(Text(_cut(gaps.run)), *_cells(gaps))
    console.print(table)
    console.print(Text(notes(every), style="dim"))


def gaps_section(every: Mapping[int, Gaps], drawn: html.Pictures) -> html.Section | None:
    """Section of the report on generalisation gaps; None if `every` is empty.

    Args:
        every: Gaps by the run's index among all runs of the report.
        drawn: Figure of the gaps, see `gap_figure`.
    """
    if not every:
        return None
    rows = [[html.RunLabel(gaps.run, r), *_cells(gaps)] for r, gaps in every.items()]
    data = GapData(notes(list(every.values())), html.Table(HEADS, rows), drawn)
    return html.Section("Generalisation", "generalisation.html", data)


def notes(every: Sequence[Gaps]) -> str:
    """Sentences that explain the columns and the intervals in the table of gaps."""
    first = every[0]
    score, gap = of_score(first)
    parts = [f"train: {score} on the training set ({_played(every)}); test: {score} on the suite"]
    if first.num_unseen < first.num_suite:
        # Levels of the suite that also occur in the training set do not count as unseen.
        parts[0] += (
            f" ({first.num_unseen} of {first.num_suite} levels; the other levels are in the "
            "training set)"
        )
    parts[0] += "; gap: train minus test"
    if score != "return":
        parts[0] += ", in percentage points"
    over = "levels only, for this agent alone" if len(gap.per_seed) == 1 else "seeds and levels"
    parts.append(f"intervals: 95 % by Student's t over {over}")
    parts.append(
        "if the suite and the training set come from different distributions, the gap includes "
        "the effect of this difference"
    )
    parts.append(
        "information: information about the level in the policy's features, in nats; the maximum "
        "is ln n for n levels"
    )
    parts.append(
        "shift gap: return on levels sampled as in training, minus return on the training set"
    )
    return ". ".join(part[0].upper() + part[1:] for part in parts) + "."


def of_score(gaps: Gaps) -> tuple[str, Gap]:
    """Return the name and the gap of the solve rate or, if that is unknown, of the return."""
    if isinstance(gaps.solve_rate, Gap):
        return "solve rate", gaps.solve_rate
    return "return", gaps.returns


def gap_figure(every: Mapping[int, Gaps], theme: str = "light") -> Figure:
    """Draw training score, test score and gap of every run, with intervals.

    If level information was measured, a third panel shows each seed's gap against the information.

    Args:
        every: Gaps by the index of the run among all runs. The index determines the run's colour.
        theme: `light` or `dark`.
    """
    look, shown = THEMES[theme], list(every.items())
    score = of_score(shown[0][1])[0]
    informed = [
        (r, gaps, gaps.information)
        for r, gaps in shown
        if isinstance(gaps.information, LevelInformation)
    ]
    rows = 0.75 + 0.34 * len(shown)
    heights = [rows + 0.34 * len(shown), rows, *([2.4] if informed else [])]
    figure, axes = blank(look, 0.7 + sum(heights), heights)
    for row, (r, gaps) in enumerate(shown):
        gap = of_score(gaps)[1]
        # The two rows of a run, train and test, are adjacent; the space between runs is larger.
        _whisker(axes[0], gap.train, 2 * row, r, look, filled=True)
        _whisker(axes[0], gap.test, 2 * row + 0.8, r, look, filled=False)
        _whisker(axes[1], gap.gap, row, r, look, filled=True)
    ticks = [y for row in range(len(shown)) for y in (2 * row, 2 * row + 0.8)]
    axes[0].set_yticks(ticks, ["train", "test"] * len(shown))
    axes[1].set_yticks(range(len(shown)), ["gap"] * len(shown))
    axes[0].set_xlabel(score)
    axes[1].set_xlabel(f"{score}, train - test")
    axes[1].axvline(0, color=look.ink, linewidth=0.8)
    # Only the first two panels have rows. The third panel is a scatter plot.
    for one, last in zip(axes, (ticks[-1], len(shown) - 1), strict=False):
        one.set_ylim(last + 0.5, -0.5)
        one.grid(axis="x", color=look.grid, linewidth=0.6)
        _in_unit(one, score)
    for r, gaps, information in informed:
        points = (information.per_seed, of_score(gaps)[1].per_seed)
        axes[2].plot(*points, MARKERS[r % len(MARKERS)], color=look.runs[r % len(look.runs)])
        axes[2].set(xlabel="level information, nats (each seed)", ylabel="gap")
        axes[2].grid(color=look.grid, linewidth=0.6)
        if score != "return":
            axes[2].yaxis.set_major_formatter(PercentFormatter(1))
    add_legend(figure, {r: gaps.run for r, gaps in shown}, look)
    return figure


def gap_curves(lines: Sequence[Mapping], theme: str = "light") -> Figure | None:
    """Draw train and test scores, their gap, and level information over the course of training.

    Args:
        lines: Lines of a run's `generalisation.jsonl`.
        theme: `light` or `dark`.

    Returns:
        The figure; None if no line has any of these numbers.
    """
    look = THEMES[theme]
    solved = any("train_solve_rate" in line for line in lines)
    score = "solve_rate" if solved else "return"
    names = {
        "solve rate" if solved else "return": {f"{side}_{score}": side for side in SIDES},
        "gap": {"solve_rate_gap" if solved else "gap": "train"},
        "information, nats": {"level_information": "train"},
    }
    panels = {
        title: [(side, series(lines, key)) for key, side in keys.items()]
        for title, keys in names.items()
    }
    panels = {t: p for t, p in panels.items() if any(len(found[0]) for _, found in p)}
    if not panels:
        return None
    figure, every = blank(look, 0.5 + 1.7 * len(panels), [1.0] * len(panels))
    for axes, (title, shown) in zip(every, panels.items(), strict=True):
        _panel(axes, title, shown, look)
        if solved and not title.startswith("information"):
            axes.yaxis.set_major_formatter(PercentFormatter(1))
    found = [one for shown in panels.values() for _, one in shown]
    every[-1].set_xlabel(next(unit for x, _, unit in found if len(x)))
    return figure


def _panel(axes: Axes, title: str, shown: Sequence[tuple[str, Series]], look: Theme) -> None:
    """Draw a line for each side in `shown`; if both train and test are shown, add a legend."""
    for i, (side, (x, y, _)) in enumerate(shown):
        draw_curve(axes, x, y, look.runs[i], SIDES[side])
        if len(shown) > 1 and len(x):
            axes.plot([], [], SIDES[side], color=look.runs[i], label=side)
    axes.set_ylabel(title)
    axes.grid(color=look.grid, linewidth=0.6)
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.set_xlim(left=0)
    if len(shown) > 1:
        axes.legend(frameon=False, labelcolor=look.ink, fontsize=9)


def _cells(gaps: Gaps) -> tuple[str, ...]:
    score, gap = of_score(gaps)
    information = "-"
    if isinstance(gaps.information, LevelInformation):
        known, most = float(gaps.information.per_seed.mean()), gaps.information.most
        information = "-" if np.isnan(known) else f"{known:.2f} of {most:.2f}"
    shift = np.mean(gaps.shift_gap) if len(gaps.shift_gap) else np.nan
    return (
        show(float(gap.train.value), score),
        show(float(gap.test.value), score),
        show_interval(gap.gap, score, signed=True),
        information,
        show(float(shift), "return", signed=True),
    )


def _played(every: Sequence[Gaps]) -> str:
    told = {
        f"{g.num_levels} levels"
        if g.num_played == g.num_levels
        else f"a random {g.num_played} of {g.num_levels} levels"
        for g in every
    }
    return told.pop() if len(told) == 1 else "each run's own"


def _whisker(axes: Axes, one: Interval, y: float | int, r: int, look: Theme, filled: bool) -> None:
    colour = look.runs[r % len(look.runs)]
    axes.plot([one.low, one.high], [y, y], color=colour, linewidth=2.6, alpha=0.55)
    face = colour if filled else look.paper
    marker = MARKERS[r % len(MARKERS)]
    axes.plot(one.value, y, marker, color=colour, markerfacecolor=face, markersize=5, clip_on=False)


def _in_unit(axes: Axes, score: str) -> None:
    axes.xaxis.set_major_locator(MaxNLocator(5))
    if score != "return":
        axes.xaxis.set_major_formatter(PercentFormatter(1))


def _cut(text: str, limit: int = 18) -> str:
    text = printable(text)
    return text if len(text) <= limit else text[: limit - 1] + "…"
