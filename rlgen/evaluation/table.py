"""Results in the terminal, readable at 80 columns."""

from collections.abc import Sequence

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from rlgen.evaluation.episodes import Evaluation, printable
from rlgen.evaluation.statistics import DEFAULT, Bootstrap
from rlgen.evaluation.summary import RunResult, Summary, hardest, summarise
from rlgen.evaluation.wording import AGGREGATES, interval_name, level_details, show_interval

MAX_LEVELS = 40  # rows; of a larger suite, the hardest
RUNS_ACROSS = 3  # columns of runs that fit beside the levels' names


def print_table(
    evaluations: Sequence[Evaluation],
    console: Console,
    bootstrap: Bootstrap = DEFAULT,
    seed: int = 0,
) -> None:
    """Print every level and the aggregates, and for several runs how they compare.

    Raises:
        ValueError: the runs cannot be compared (see `summary.summarise`).
    """
    summary = summarise(evaluations, bootstrap, seed)
    shown = hardest(summary, MAX_LEVELS)
    tables = [_one_run(summary, shown)] if len(summary.runs) == 1 else []
    if not tables:
        groups = range(0, len(summary.runs), RUNS_ACROSS)
        tables = [_levels(summary, shown, start) for start in groups] + [_runs(summary)]
    for table in tables:
        console.print(table)
    for note in _notes(summary, len(shown)):
        console.print(Text(note, style="dim"))


def _one_run(summary: Summary, shown: list[int]) -> Table:
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
            table.add_row(name, text, style="bold" if key == "iqm" else "")
    return table


def _levels(summary: Summary, shown: list[int], start: int) -> Table:
    """Levels by runs, from run `start` on; with two runs in all, also their difference."""
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
    """One row a run: IQM, difference from the first run, probability of improvement."""
    baseline = _cut(summary.runs[0].run, 14)
    columns = ("run", "IQM", f"IQM - {baseline}", "P(better)")
    table = _table("All levels", columns)
    table.add_row(*_iqm(summary, summary.runs[0]), "", "")
    for run, compared in zip(summary.runs[1:], summary.comparisons, strict=True):
        gap = show_interval(compared.iqm, summary.score, signed=True)
        table.add_row(*_iqm(summary, run), gap, f"{float(compared.improvement.value):.2f}")
        if not np.isnan(compared.iqm_whole_seeds.low):
            whole = show_interval(run.aggregate["iqm_whole_seeds"], summary.score)
            gap = show_interval(compared.iqm_whole_seeds, summary.score, signed=True)
            table.add_row("  whole seeds", whole, gap, "", style="dim")
    return table


def _iqm(summary: Summary, run: RunResult) -> tuple[Text, str]:
    return _name(run.run), show_interval(run.aggregate["iqm"], summary.score)


def _notes(summary: Summary, num_shown: int) -> list[str]:
    notes = [f"Interval: {summary.meaning}."]
    if summary.level_meaning != summary.meaning:
        notes.append(f"Levels: {summary.level_meaning}.")
    if summary.over == "seeds":
        notes.append("Whole seeds: the same seeds drawn for all levels; the safer interval.")
    if len(summary.runs) == 1 and summary.score == "solve rate":
        notes.append("Steps are those of solved episodes.")
    if summary.comparisons and summary.score != "return":
        notes.append("Differences of rates are in percentage points.")
    num_levels = len(summary.runs[0].levels)
    if num_shown < num_levels:
        notes.append(f"The {num_shown} hardest of {num_levels} levels; all are in results.csv.")
    return notes


def _table(title: str, columns: Sequence[str]) -> Table:
    heading = Text(title, style="bold")
    table = Table(title=heading, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for i, name in enumerate(columns):
        table.add_column(Text(name), justify="right" if i else "left", no_wrap=True)
    return table


def _name(text: str, limit: int = 22) -> Text:
    """A name as plain text: no markup, no control characters, cut to fit."""
    return Text(_cut(text, limit))


def _cut(text: str, limit: int) -> str:
    text = printable(text)
    return text if len(text) <= limit else text[: limit - 1] + "…"
