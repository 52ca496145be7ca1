"""Show the results of a meta-test: text, terminal tables, a report section and learning curves.

A meta-test trains fresh agents with learned rules (see `rlgen.evaluation.meta.meta_test`). All
results are computed from evaluations alone, so reports can also be made from saved results.
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
    """Data that the template for relative returns shows."""

    notes: list[str]
    tables: dict[str, html.Table]  # by the label of the denominator


def is_meta_test(evaluations: Sequence[Evaluation]) -> bool:
    """Return whether all evaluations are meta-tests, in which new agents are trained."""
    return all("lifetime" in e.meta for e in evaluations)


def sentence(evaluations: Sequence[Evaluation]) -> str:
    """Describe the meta-test in one or two sentences."""
    first = evaluations[0]  # all evaluations share the protocol
    lives = sorted(set(first.meta["lifetime"].values()))
    span = f"{lives[0]:,}" if len(lives) == 1 else f"{lives[0]:,} to {lives[-1]:,}"
    seeds, _, attempts = first.shape
    rules = "1 rule" if seeds == 1 else f"each of {seeds} rules"
    workers, steps = first.meta["num_workers"], first.meta["num_steps"]
    returns = first.meta["returns"]
    how = "exact" if returns == "exact" else f"the {returns}"
    learners = [printable(e.run) for e in evaluations if e.meta.get("baseline")]
    others = f" {', '.join(learners)} trained agents in the same way." if learners else ""
    return (
        f"On every level, {rules} trained {attempts} fresh agent{'s' * (attempts > 1)} for {span} "
        f"updates, with {workers} parallel environments per agent and {steps} steps of each per "
        f"update. Rules did not change. The agents' final returns are {how}.{others}"
    )


def print_relative(
    evaluations: Sequence[Evaluation], relatives: Sequence[Relative], console: Console
) -> None:
    """Print one table with returns relative to the baseline, and one relative to the optimum."""
    heads = ("", "mean", "IQM", f"levels \nbelow {_PER_CENT} %", "levels")
    # One table per denominator, in order of appearance.
    for to in dict.fromkeys(one.to for one in relatives):
        heading = Text(f"Return relative to {printable(to)}", style="bold")
        table = Table(title=heading, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
        for i, name in enumerate(heads):
            table.add_column(Text(name), justify="right" if i else "left", no_wrap=True)
        for one in (x for x in relatives if x.to == to):
            table.add_row(Text(printable(one.run)[:22]), *_cells(one, digits=0))
        console.print(table)
    for note in (sentence(evaluations), *notes(relatives)):
        console.print(Text(note, style="dim"))


def notes(relatives: Sequence[Relative]) -> list[str]:
    """Sentences on the levels that have no relative return."""
    told = []
    for to, num, total in dict.fromkeys(
        (one.to, one.num_excluded, one.num_excluded + one.num_levels) for one in relatives
    ):
        what = (
            "no positive optimum" if to == "optimum" else f"{printable(to)} has a mean return <= 0"
        )
        where = "with" if to == "optimum" else "on which"
        if num:
            told.append(f"The ratios exclude {num} of {total} levels {where} {what}.")
    return told


def relative_section(
    evaluations: Sequence[Evaluation], relatives: Sequence[Relative]
) -> html.Section | None:
    """Section of the report on relative returns; None if there are no relative returns."""
    if not relatives:
        return None
    places = {e.run: r for r, e in enumerate(evaluations)}
    tables = {}
    for to in dict.fromkeys(one.to for one in relatives):
        rows = [
            [html.RunLabel(one.run, places[one.run]), *_cells(one, digits=1)]
            for one in relatives
            if one.to == to
        ]
        tables[to] = html.Table(["", *HEADS], rows)
    data = RelativeData([sentence(evaluations), *notes(relatives)], tables)
    return html.Section("Against other learners and the optimum", "relative.html", data)


def has_curves(evaluations: Sequence[Evaluation]) -> bool:
    """Return whether any evaluation has a curve that `agent_curves` can draw."""
    return any("curve" in e.meta for e in evaluations)


def agent_curves(evaluations: Sequence[Evaluation], theme: str = "light") -> Figure:
    """Draw the mean reward per step over the agents' lifetimes.

    Thin lines show single rules, thick lines the mean over rules. Each suite has its own panel.
    """
    look = THEMES[theme]
    names = list(evaluations[0].meta["curve"])
    figure, every = blank(look, 0.9 + 2.2 * len(names), [1.0] * len(names))
    for axes, name in zip(every, names, strict=True):
        for r, e in enumerate(evaluations):
            _draw_curve(axes, e, name, look.runs[r % len(look.runs)])
        axes.grid(color=look.grid, linewidth=0.6)
        axes.set_title(name, loc="left", color=look.ink, fontsize=10)
        axes.set_ylabel("reward per step")
        axes.set_xlim(0, None)
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    every[-1].set_xlabel("updates of each agent")
    add_legend(figure, {r: e.run for r, e in enumerate(evaluations)}, look, markers=False)
    return figure


def _draw_curve(axes: Any, evaluation: Evaluation, name: str, colour: str) -> None:
    curve = np.array(evaluation.meta["curve"][name], float)  # [S, K]
    life, parts = evaluation.meta["lifetime"][name], curve.shape[1]
    x = (np.arange(parts) + 0.5) * life / parts  # middle of each part of the lifetime
    if len(curve) > 1:
        axes.plot(x, curve.T, color=colour, linewidth=0.7, alpha=0.4)
    axes.plot(x, curve.mean(axis=0), color=colour, linewidth=1.9)


def _cells(one: Relative, digits: int) -> list[str]:
    """Mean, IQM, fraction of ratios below the threshold, and number of levels with a ratio."""
    shown = [show_interval(x, "ratio", digits) for x in (one.mean, one.iqm, one.below)]
    return [*shown, f"{one.num_levels} of {one.num_levels + one.num_excluded}"]
