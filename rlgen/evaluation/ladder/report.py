"""The report of `rlgen ladder` and its figures: scores by rung and adaptation curves."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from rlgen.evaluation.ladder.score import Score, Scores
from rlgen.evaluation.ladder.streams import REASONS, digest
from rlgen.evaluation.ladder.table import access_counts, notes
from rlgen.evaluation.report import html
from rlgen.evaluation.report.figures import MARKERS, THEMES, add_legend, blank, png_bytes, short
from rlgen.evaluation.stats.formatting import show, show_interval, show_p
from rlgen.evaluation.stats.intervals import Interval

FILES = ("ladder.png", "few-shot.png")


def write_page(folder: Path, found: Scores) -> Path:
    """Write `report.html`, `ladder.png` and, with adaptation curves, `few-shot.png`."""
    makers = {"ladder": partial(ladder_figure, found)}
    if found.curves:
        makers["few-shot"] = partial(few_shot_figure, found)
    drawn = {name: {t: png_bytes(make(t)) for t in THEMES} for name, make in makers.items()}
    files = {f"{name}.png": of_theme["light"] for name, of_theme in drawn.items()}
    return html.write_page(folder, _page(found, drawn), files, FILES)


def ladder_figure(found: Scores, theme: str = "light") -> Figure:
    """Draw mean scores with intervals: one row per stream, with one mark per run in each row."""
    look, num = THEMES[theme], len(found.runs)
    rows = list(dict.fromkeys((one.rung, one.name) for one in found.scores))
    names = _rows_of(rows)
    step = max(0.3, 0.13 * num + 0.1)
    figure, (axes,) = blank(look, step * len(names) + 1.1, [1.0])
    for r, run in enumerate(found.runs):
        colour = look.runs[r % len(look.runs)]
        for one in found.of(run):
            # Runs are spaced over 0.72 of a row's height, centred on the row.
            y = names.index(_row_of(one)) + (r - (num - 1) / 2) * 0.72 / num
            axes.plot([one.mean.low, one.mean.high], [y, y], color=colour, lw=2.6, alpha=0.55)
            marker = MARKERS[r % len(MARKERS)]
            axes.plot(one.mean.value, y, marker, color=colour, markersize=5, clip_on=False)
    axes.set_yticks(range(len(names)), [short(name) for name in names])
    axes.set_ylim(len(names) - 0.4, -0.6)  # the first rung at the top
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color=look.grid, linewidth=0.6)
    axes.set_xlabel(f"mean {found.score} with interval")
    axes.xaxis.set_major_locator(MaxNLocator(5))
    if found.score != "return":
        axes.xaxis.set_major_formatter(PercentFormatter(1))
    if found.score == "solve rate":
        axes.set_xlim(-0.01, 1.01)
    add_legend(figure, dict(enumerate(found.runs)), look)
    return figure


def few_shot_figure(found: Scores, theme: str = "light") -> Figure:
    """Draw mean scores against updates, with one panel per stream and one line per run."""
    look = THEMES[theme]
    rungs = list(dict.fromkeys((one.rung, one.name) for one in found.curves))
    figure, every = blank(look, 1.75 * len(rungs) + 0.9, [1.0] * len(rungs))
    for axes, place in zip(every, rungs, strict=True):
        for one in (c for c in found.curves if (c.rung, c.name) == place):
            r = found.runs.index(one.run)
            colour = look.runs[r % len(look.runs)]
            value, low, high = np.array([m[:3] for m in one.mean]).T
            marker = MARKERS[r % len(MARKERS)]
            axes.plot(one.updates, value, color=colour, marker=marker, markersize=4, lw=1.8)
            axes.fill_between(one.updates, low, high, color=colour, alpha=0.2, linewidth=0)
        axes.set_title(short(" ".join(place)), loc="left", color=look.ink, fontsize=10)
        axes.grid(color=look.grid, linewidth=0.6)
        if found.score != "return":
            axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        if found.score == "solve rate":
            axes.set_ylim(-0.03, 1.03)
    every[-1].set_xlabel("updates on other levels of the rung")
    add_legend(figure, dict(enumerate(found.runs)), look)
    return figure


def headline(found: Scores) -> str:
    """State the first run's mean score on its first rung, on V1 and on its worst rung."""
    run = found.runs[0]
    scores = found.of(run)
    first, worst = scores[0], found.worst(run)
    told = f"{run}: {_value(first.mean, found)} on {_where(first)}"
    steps = [one for one in scores if one.rung == "V1" and one is not first]
    told += "".join(f", {_value(one.mean, found)} on {_where(one)}" for one in steps)
    if worst not in (first, *steps):
        told += f", and at worst {_value(worst.mean, found)} on {_where(worst)}"
    return f"{told} (mean {found.score})"


def _page(found: Scores, drawn: Mapping[str, html.Pictures]) -> html.Page:
    """Assemble the sections of the page."""
    figure = html.Figure(drawn["ladder"], "Mean scores of every run on each rung")
    sections = [html.Section("", "figure.html", figure)]
    for r, run in enumerate(found.runs):
        sections.append(html.Section(f"Rungs of {run}", "table.html", _rungs(found, r)))
    if found.curves:
        figure = html.Figure(drawn["few-shot"], "Adaptation curves on each rung", _FEW_SHOT)
        sections.append(html.Section("Few-shot", "few_shot.html", (figure, _curves(found))))
    sections.append(html.Section("Streams", "table.html", _streams(found)))
    told = (*notes(found), *access_counts(found))
    sections.append(html.Section("Notes on the numbers", "bullets.html", told))
    title = f"{found.ladder.family}: the ladder of {', '.join(found.runs)}"
    above = f"The protocol ladder of {found.ladder.family}"
    return html.Page(title, above, headline(found), _settled(found), sections)


def _settled(found: Scores) -> str:
    """List those gaps of the first run that differ from zero by the corrected test."""
    tested = [one for one in found.of(found.runs[0]) if not np.isnan(one.gap_p_value)]
    if not tested:
        return (
            "No gap was tested: one seed was trained, there is a single rung, or no score differs "
            "from another."
        )
    settled = [one.name for one in tested if one.gap_p_value <= 1 - found.confidence]
    return (
        f"Gaps that are settled at {100 * found.confidence:g} % for all gaps together, over seeds "
        f"and levels: {', '.join(settled) or 'none'}."
    )


def _rungs(found: Scores, r: int) -> html.Table:
    """Table of run r with one row per rung."""
    heads = ["rung", "levels", "mean", "IQM", "of optimal", "gap", "p", "look"]
    rows = []
    for one in found.of(found.runs[r]):
        cells = [f"{one.num_levels:,}", *(_cell(x, found.score) for x in (one.mean, one.iqm))]
        cells.append(_cell(one.normalised, "relative return"))
        cells.append(_cell(one.gap, found.score, signed=True))
        cells.append(show_p(one.gap_p_value))
        cells.append(str(one.look) if one.look else "not sealed")
        rows.append([html.RunLabel(f"{one.rung} {one.name}", r), *cells])
    return html.Table(heads, rows)


def _curves(found: Scores) -> html.Table:
    """Table of the first and last point of every curve, and the gain between them."""
    heads = ["rung", "run", "before", "after", "updates", "env steps", "gain"]
    rows = []
    for one in found.curves:
        label = html.RunLabel(one.run, found.runs.index(one.run))
        ends = (_cell(one.mean[0], found.score), _cell(one.mean[-1], found.score))
        counts = (f"{one.updates[-1]:,}", f"{one.env_steps[-1]:,}")
        gain = _cell(one.gain, found.score, signed=True)
        rows.append([f"{one.rung} {one.name}", label, *ends, *counts, gain])
    return html.Table(heads, rows)


def _streams(found: Scores) -> html.Table:
    """Table with one row per stream: its levels, its numbers of rejected levels, and its digest."""
    heads = ["stream", "levels", "number", *REASONS, "digest"]
    rows = []
    every = [*((f" of {run}", rung) for run, rung in found.ladder.own.items())]
    every += [("", rung) for rung in found.ladder.rungs]
    for of_run, rung in every:
        levels, rejected = rung.stream.suite.levels, rung.stream.rejected
        counts = [f"{len(levels):,}", *(f"{rejected[name]:,}" for name in REASONS)]
        rows.append([f"{rung.rung} {rung.name}{of_run}", rung.about, *counts, digest(levels)])
    return html.Table(heads, rows, _STREAMS)


def _rows_of(places: Sequence[tuple[str, str]]) -> list[str]:
    """Names of a figure's rows, ordered by rung; V0 of all runs is a single row."""
    names = dict.fromkeys("V0" if rung == "V0" else f"{rung} {name}" for rung, name in places)
    return sorted(names, key=lambda name: name[:2])  # stable: keeps the order in a rung


def _row_of(one: Score) -> str:
    return "V0" if one.rung == "V0" else f"{one.rung} {one.name}"


def _cell(one: Interval | tuple[()], score: str, signed: bool = False) -> str:
    return show_interval(one, score, 1, signed) if isinstance(one, Interval) else "-"


def _value(one: Interval, found: Scores) -> str:
    return show(float(one.value), found.score)


def _where(one: Score) -> str:
    return f"{one.rung} ({one.name})"


_FEW_SHOT = (
    "The policy keeps its learner, optimiser state and settings. It continues to learn on a few "
    "levels of the rung and is scored on the other levels of the rung. Random numbers are the same "
    "for all runs."
)
_STREAMS = (
    "No two streams share a level; levels are identified by their hashes. The columns between the "
    "number of levels and the digest count rejected levels, with one column per reason."
)
