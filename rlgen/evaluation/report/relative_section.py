"""What a meta-test found, in words, as a table, as a section of the report and as learning curves.

Everything is told from evaluations alone, so that saved results can be told again.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from rlgen.evaluation.episodes import Evaluation, printable
from rlgen.evaluation.report import html
from rlgen.evaluation.report.figures import THEMES, add_legend, blank
from rlgen.evaluation.stats.formatting import show_interval
from rlgen.evaluation.stats.relative import THRESHOLD, Relative

_PER_CENT = f"{100 * THRESHOLD:g}"
HEADS = ("mean", "IQM", f"levels below {_PER_CENT} %", "levels")


class RelativeData(NamedTuple):
    """Returns relative to others, as a template shows them."""

    notes: list[str]
    tables: dict[str, html.Table]  # by what returns are divided by


def is_meta_test(evaluations: Sequence[Evaluation]) -> bool:
    """Whether the scores are of agents that were trained for the purpose."""
    return all("lifetime" in e.meta for e in evaluations)


def sentence(evaluations: Sequence[Evaluation]) -> str:
    """What was done, in words."""
    first = evaluations[0]
    lives = sorted(set(first.meta["lifetime"].values()))
    span = f"{lives[0]:,}" if len(lives) == 1 else f"{lives[0]:,} to {lives[-1]:,}"
    seeds, _, attempts = first.shape
    rules = "1 rule" if seeds == 1 else f"each of {seeds} rules"
    workers, steps = first.meta["num_workers"], first.meta["num_steps"]
    returns = first.meta["returns"]
    how = "exact" if returns == "exact" else f"the {returns}"
    learners = [printable(e.run) for e in evaluations if e.meta.get("baseline")]
    others = f" {', '.join(learners)} trained its agents in the same way." if learners else ""
    return (
        f"On every level, {attempts} fresh agent{'s' * (attempts > 1)} learned by {rules}, frozen, "
        f"for {span} updates from {workers} workers of {steps} steps; "
        f"their final returns are {how}.{others}"
    )


def print_relative(
    evaluations: Sequence[Evaluation], relatives: Sequence[Relative], console: Console
) -> None:
    """Print the returns relative to the baseline and to the optimum."""
    heads = ("", "mean", "IQM", f"levels \nbelow {_PER_CENT} %", "levels")
    for to in dict.fromkeys(one.to for one in relatives):
        heading = Text(f"Return relative to {printable(to)}", style="bold")
        table = Table(title=heading, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
        for i, name in enumerate(heads):
            table.add_column(Text(name), justify="right" if i else "left", no_wrap=True)
        for one, cells in _rows(relatives, to, digits=0):
            name = "  whole seeds" if one is None else printable(one.run)[:22]
            table.add_row(Text(name), *cells, style="dim" if one is None else "")
        console.print(table)
    for note in (sentence(evaluations), *notes(relatives)):
        console.print(Text(note, style="dim"))


def notes(relatives: Sequence[Relative]) -> list[str]:
    """What the numbers leave out."""
    told = []
    for to, num, total in dict.fromkeys(
        (one.to, one.num_excluded, one.num_excluded + one.num_levels) for one in relatives
    ):
        what = "has no positive optimum" if to == "optimum" else f"{printable(to)} earned nothing"
        where = "that" if to == "optimum" else "on which"
        if num:
            told.append(f"{num} of {total} levels, {where} {what}, are left out of the ratios.")
    return told


def relative_section(
    evaluations: Sequence[Evaluation], relatives: Sequence[Relative]
) -> html.Section | None:
    """The part of the report on returns relative to others; None without a baseline."""
    if not relatives:
        return None
    places = {e.run: r for r, e in enumerate(evaluations)}
    tables = {}
    for to in dict.fromkeys(one.to for one in relatives):
        rows = []
        for one, cells in _rows(relatives, to):
            head = "whole seeds" if one is None else html.RunLabel(one.run, places[one.run])
            rows.append([head, *cells])
        tables[to] = html.Table(["", *HEADS], rows)
    data = RelativeData([sentence(evaluations), *notes(relatives)], tables)
    return html.Section("Against other learners and the optimum", "relative.html", data)


def has_curves(evaluations: Sequence[Evaluation]) -> bool:
    """Whether there is anything for `agent_curves` to draw."""
    return any("curve" in e.meta for e in evaluations)


def agent_curves(evaluations: Sequence[Evaluation], theme: str = "light") -> Figure:
    """Mean reward of a step over the agents' lives: each rule thin, their mean thick."""
    look = THEMES[theme]
    names = list(evaluations[0].meta["curve"])
    figure, every = blank(look, 0.9 + 2.2 * len(names), [1.0] * len(names))
    for axes, name in zip(every, names, strict=True):
        for r, e in enumerate(evaluations):
            _draw_curve(axes, e, name, look.runs[r % len(look.runs)])
        axes.grid(color=look.grid, linewidth=0.6)
        axes.set_title(name, loc="left", color=look.ink, fontsize=10)
        axes.set_ylabel("reward a step")
        axes.set_xlim(0, None)
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    every[-1].set_xlabel("updates of an agent")
    add_legend(figure, {r: e.run for r, e in enumerate(evaluations)}, look, markers=False)
    return figure


def _draw_curve(axes: Any, evaluation: Evaluation, name: str, colour: str) -> None:
    curve = np.array(evaluation.meta["curve"][name], float)  # [S, K]
    life, parts = evaluation.meta["lifetime"][name], curve.shape[1]
    x = (np.arange(parts) + 0.5) * life / parts  # middle of each part
    if len(curve) > 1:
        axes.plot(x, curve.T, color=colour, linewidth=0.7, alpha=0.4)
    axes.plot(x, curve.mean(axis=0), color=colour, linewidth=1.9)


def _rows(
    relatives: Sequence[Relative], to: str, digits: int = 1
) -> list[tuple[Relative | None, list[str]]]:
    """Each run's cells relative to one baseline; None heads those of whole seeds, below it."""
    rows: list[tuple[Relative | None, list[str]]] = []
    for one in (x for x in relatives if x.to == to):
        rows.append((one, _cells(one, digits)))
        if one.whole_seeds:
            rows.append((None, [*_cells(one._replace(**one.whole_seeds), digits)[:3], ""]))
    return rows


def _cells(one: Relative, digits: int) -> list[str]:
    """Mean, interquartile mean, share of levels below, and levels that count."""
    shown = [show_interval(x, "ratio", digits) for x in (one.mean, one.iqm, one.below)]
    return [*shown, f"{one.num_levels} of {one.num_levels + one.num_excluded}"]
