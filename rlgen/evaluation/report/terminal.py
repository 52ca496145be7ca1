"""Print the results of an evaluation in the terminal, at most 80 columns wide."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from rlgen.evaluation.episodes import Evaluation, printable
from rlgen.evaluation.stats.by_class import ByClass
from rlgen.evaluation.stats.cvar import CVaR, bias_notes
from rlgen.evaluation.stats.findings import Findings
from rlgen.evaluation.stats.formatting import (
    AGGREGATES,
    caveat,
    interval_name,
    level_details,
    show_interval,
)
from rlgen.evaluation.stats.normalised_scores import NO_SCALE, NormalisedScores
from rlgen.evaluation.stats.summary import RunResult, Summary, hardest, some

MAX_LEVELS = 40  # rows of the table of levels; of a larger suite, the hardest levels are shown
RUNS_ACROSS = 3  # number of runs whose columns fit next to the level names
FEWEST_LEVELS = 8  # minimum number of levels for showing the worst class and participation
_SHARES_ACROSS = 3  # number of columns, one per fraction of the levels, next to the run names


class _Details(NamedTuple):
    """Statistics that are shown for suites with many levels; None if not available."""

    classes: ByClass | None
    normalised_scores: NormalisedScores | None


def print_table(found: Findings, console: Console) -> None:
    """Print the scores on each level and their aggregates; several runs are also compared.

    Args:
        found: Result of `findings.analyse`.
        console: Console to print to.
    """
    summary = found.summary
    shown = hardest(summary, MAX_LEVELS)
    details, many = _Details(None, None), len(summary.runs[0].levels) >= FEWEST_LEVELS
    if many:
        details = _Details(found.classes, found.normalised)
    tables = [_one_run(summary, shown, details)] if len(summary.runs) == 1 else []
    if not tables:
        # With several runs, the table of levels is split into tables that are at most 80 wide.
        groups = range(0, len(summary.runs), RUNS_ACROSS)
        tables = [_levels(summary, shown, start) for start in groups] + [_runs(summary)]
        tables += [_normalised_scores(summary, details)] if any(details) else []
    for table in tables:
        console.print(table)
    last = [f"{NO_SCALE}."] if many and details.normalised_scores is None else []
    for note in _notes(summary, found.evaluations[0], len(shown)) + _notes_of(details) + last:
        console.print(Text(note, style="dim"))


def print_worst(results: Sequence[CVaR], console: Console) -> None:
    """Print the mean score of each run on its worst levels, for up to three fractions of levels."""
    if not results:
        return
    num_levels, score = results[0].num_levels, results[0].score
    # On a small suite, several fractions give the same number of levels, which is shown once. If
    # too many numbers remain, evenly spaced ones are chosen.
    _, kept = np.unique(results[0].num_worst, return_index=True)
    picked = np.linspace(0, len(kept) - 1, min(_SHARES_ACROSS, len(kept))).round().astype(int)
    kept = kept[np.unique(picked)]
    heads = [f"{results[0].num_worst[k]:,} of {num_levels:,}" for k in kept]
    table = _table(f"{score.capitalize()} on the worst levels, played again", ["run", *heads])
    for one in results:
        cells = (show_interval(one.mean.at(int(k)), score) for k in kept)
        table.add_row(_name(one.run, 18), *cells)
    console.print(table)
    console.print(
        Text("Worst levels are chosen per seed; intervals: Student's t over seeds.", style="dim")
    )
    for note in (x for one in results for x in bias_notes(one, kept.tolist())):
        console.print(Text(printable(note), style="dim"))


def _one_run(summary: Summary, shown: list[int], details: _Details) -> Table:
    run, score = summary.runs[0], summary.score
    title = f"{printable(run.run)} on {printable(summary.suite)}"
    last = ("return", "of\noptimal", "steps /\noptimal")
    heading = f"{summary.score}\n[{interval_name(summary, short=True)}]"
    table = _table(title, ("level", heading, *last))
    for level in (run.levels[i] for i in shown):
        scored = show_interval(level.score, score, 0)
        table.add_row(_name(level.name), scored, *level_details(level, score))
    table.add_section()
    for name, key in AGGREGATES.items():
        if key in run.aggregate:
            text = show_interval(run.aggregate[key], score)
            table.add_row(name, text, style="bold" if key == "mean" else "")
    if details.classes:
        worst, mean = _worst_class(details.classes, 0)
        table.add_row(_name(f"worst: {worst}"), mean)
    if details.normalised_scores:
        share = details.normalised_scores.runs[0].participation
        table.add_row("participation", show_interval(share, "ratio"))
    return table


def _normalised_scores(summary: Summary, details: _Details) -> Table:
    """Table with one row per run: the run's worst class of levels and its participation."""
    shares = (
        {}
        if details.normalised_scores is None
        else {x.run: x for x in details.normalised_scores.runs}
    )
    table = _table("Worst class of levels", ("run", "class", summary.score, "participation"))
    for r, run in enumerate(summary.runs):
        worst = _worst_class(details.classes, r) if details.classes else ("-", "-")
        found = shares.get(run.run)
        share = "-" if found is None else show_interval(found.participation, "ratio", 0)
        table.add_row(_name(run.run, 18), _cut(worst[0], 18), worst[1], share)
    return table


def _worst_class(found: ByClass, r: int) -> tuple[str, str]:
    """Name of the class on which run r scores lowest, and the run's mean score on this class."""
    run = found.runs[r]
    place = [one.name for one in found.classes].index(run.worst)
    return run.worst, show_interval(run.mean.at(place), found.score, 0)


def _levels(summary: Summary, shown: list[int], start: int) -> Table:
    """Table of scores with a row per level and columns of runs, beginning with run `start`.

    If there are exactly two runs, the table also has a column with the difference.
    """
    runs = summary.runs[start : start + RUNS_ACROSS]
    columns = ["level", *(_cut(run.run, 16) for run in runs)]
    pair = len(summary.runs) == 2
    title = f"{printable(summary.suite)}: {summary.score} [{interval_name(summary, short=True)}]"
    table = _table(title, columns + ["difference"] * pair)
    for i in shown:
        cells = [show_interval(run.levels[i].score, summary.score, 0) for run in runs]
        if pair:
            gap = summary.comparisons[0].levels.at(i)
            cells.append(show_interval(gap, summary.score, 0, signed=True))
        table.add_row(_name(runs[0].levels[i].name), *cells)
    return table


def _runs(summary: Summary) -> Table:
    """Table with one row per run: mean, difference from the first run, probability of improvement.

    A second, dim row shows the IQM. A star marks a settled difference.
    """
    baseline = _cut(summary.runs[0].run, 14)
    columns = ("run", "mean", f"mean - {baseline}", "P(better)")
    table = _table("All levels", columns)
    for run, compared in zip(summary.runs, (None, *summary.comparisons), strict=True):
        cells, below = ["", ""], ["", ""]
        if compared:
            gap = show_interval(compared.mean, summary.score, signed=True)
            cells = [gap + " *" * compared.is_settled, f"{float(compared.improvement.value):.2f}"]
            below[0] = show_interval(compared.iqm, summary.score, signed=True)
        mean, iqm = (show_interval(run.aggregate[k], summary.score) for k in ("mean", "iqm"))
        table.add_row(_name(run.run, 18), mean, *cells)
        table.add_row("  IQM", iqm, *below, style="dim")
    return table


def _notes(summary: Summary, first: Evaluation, num_shown: int) -> list[str]:
    notes = [f"Interval: {summary.meaning}."]
    weakness = caveat(summary)
    notes += [weakness] if weakness else []
    if len(summary.runs) == 1 and summary.score == "solve rate":
        notes.append("Steps are means over solved episodes" + _unsolved(summary.runs[0]) + ".")
    known = np.isfinite(first.optimal_return)
    if summary.score == "return" and known.any():
        names = [name for name, ok in zip(first.level_names, known, strict=True) if not ok]
        why = f"unknown: {some(names)}" if names else "not positive everywhere"
        notes.append(f"The score is the return, because the optimum is {why}.")
    if summary.comparisons:
        points = "in percentage points; " if summary.score != "return" else ""
        num = len(summary.comparisons)
        corrected = f", corrected for {num} comparisons (Holm)" if num > 1 else ""
        notes.append(
            f"Differences are {points}a star marks a settled one: p at most "
            f"{1 - summary.confidence:.2g} in Welch's test{corrected}."
        )
    num_levels = len(summary.runs[0].levels)
    if num_shown < num_levels:
        notes.append(
            f"Only the {num_shown} hardest of {num_levels} levels are shown; results.csv lists all "
            "levels."
        )
    return notes


def _unsolved(run: RunResult) -> str:
    """Note that names the levels that some seeds never solved, and names these seeds."""
    found = [
        f"{one.name} (seed {_listed(one.unsolved_by)})" for one in run.levels if one.unsolved_by
    ]
    return f", without seeds that solved none: {printable(some(found))}" if found else ""


def _listed(seeds: Sequence[int]) -> str:
    return ", ".join(map(str, seeds[:5])) + ", …" * (len(seeds) > 5)


def _notes_of(details: _Details) -> list[str]:
    notes = []
    if details.classes:
        notes.append(
            f"Worst: the worst class of levels by {details.classes.by}, chosen and scored with the "
            "same episodes."
        )
    if details.normalised_scores:
        left = (
            *details.normalised_scores.without_span,
            *details.normalised_scores.without_reference,
        )
        without = f" (without {some(left)})" if left else ""
        scale = details.normalised_scores.scale
        notes.append(
            f"Participation: fraction of levels where the run exceeds {scale.low_name}{without}."
        )
    return [printable(note) for note in notes]


def _table(title: str, columns: Sequence[str]) -> Table:
    heading = Text(title, style="bold")
    table = Table(title=heading, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for i, name in enumerate(columns):
        table.add_column(Text(name), justify="right" if i else "left", no_wrap=True)
    return table


def _name(text: str, limit: int = 22) -> Text:
    """Name without control characters, truncated to `limit` letters."""
    # The result is a `Text`, because rich would interpret brackets in a `str` as markup.
    return Text(_cut(text, limit))


def _cut(text: str, limit: int) -> str:
    text = printable(text)
    return text if len(text) <= limit else text[: limit - 1] + "…"
