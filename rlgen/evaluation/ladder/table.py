"""Terminal output of the ladder and its scores, laid out for 80 columns."""

from collections.abc import Sequence

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from rlgen.evaluation.episodes import printable
from rlgen.evaluation.ladder.ladder import Ladder, Rung
from rlgen.evaluation.ladder.score import Scores
from rlgen.evaluation.ladder.streams import REASONS, digest
from rlgen.evaluation.stats.formatting import show, show_interval
from rlgen.evaluation.stats.intervals import Interval

_POINTS_ACROSS = 4  # points of a few-shot curve that fit into a row
_SHORT = ("again", "earlier", "unsolvable")  # column heads for `REASONS`, in the same order


def print_ladder(ladder: Ladder, console: Console) -> None:
    """Print a table with the numbers of accepted and of rejected levels of each stream.

    Notes below the table describe the levels of each stream.
    """
    title = f"The ladder of {ladder.family}"
    heads = ("", "stream", "levels", *_SHORT, "digest")
    table = _table(title, heads)
    every = (*_distinct(ladder), *ladder.rungs)
    for rung in every:
        table.add_row(rung.rung, Text(_cut(rung.name, 18)), *_facts(rung))
    console.print(table)
    sealed = [r.name for r in every if r.stream.suite.levels.split not in ("train", "validation")]
    notes = [f"{one.rung} {one.name}: levels {one.about}." for one in every]
    notes += [f"{one}." for one in ladder.missing]
    notes.append(
        f"Rejected levels by column: {'; '.join(map(': '.join, zip(_SHORT, _ABOUT, strict=True)))}."
    )
    notes += [f"Sealed: {', '.join(sealed)}."] if sealed else []
    _note(notes, console)


def print_scores(found: Scores, console: Console) -> None:
    """Print a table per run with mean, IQM and gap on each rung, adaptation curves and notes."""
    for run in found.runs:
        heads = ("", "stream", "levels", "mean", "IQM", "gap")
        table = _table(f"{printable(run)}: {_unit(found.score)} on the ladder", heads)
        worst = found.worst(run)
        for one in found.of(run):
            cells = [_shown(x, found.score) for x in (one.mean, one.iqm)]
            settled = one.gap_p_value <= 1 - found.confidence  # False for NaN
            gap = _shown(one.gap, found.score, signed=True) + " *" * settled
            name, style = Text(_cut(one.name, 14)), "bold" if one is worst else ""
            table.add_row(one.rung, name, str(one.num_levels), *cells, gap, style=style)
        console.print(table)
    for run in found.runs:
        curves = [one for one in found.curves if one.run == run]
        if curves:
            console.print(_few_shot(run, found))
    _note(notes(found), console)
    _note(access_counts(found), console)


def notes(found: Scores) -> list[str]:
    """Return sentences that explain the numbers."""
    points = "" if found.score == "return" else " in percentage points"
    told = [f"{name}: lowest mean on {found.worst(name).name}." for name in found.runs]
    told.append(
        f"Gap{points}: for V1, V0 minus V1; for V2 and V3, V1 minus the rung. "
        "A star marks a gap that is settled; the verdicts hold for all gaps together."
    )
    told.append(f"Interval: {found.meaning}.")
    told += [f"{one}." for one in found.ladder.missing]
    if found.curves:
        told.append(
            "Few-shot: mean score on levels of the rung after updates on other levels of the rung."
        )
    return told


def access_counts(found: Scores) -> list[str]:
    """Return a sentence for each run with the numbers of its evaluations on sealed streams.

    The evaluations of a run on a sealed stream are numbered from 1 (see
    `rlgen.runs.test_set_access`). Runs without such evaluations are left out.
    """
    told = []
    for run in found.runs:
        counts: dict[str, list[str]] = {}
        every = (*found.scores, *found.curves)
        for one in (each for each in every if each.run == run and each.look):
            counts.setdefault(f"{one.rung} {one.name}", []).append(str(one.look))
        parts = [f"{' and '.join(nums)} on {where}" for where, nums in counts.items()]
        told += [f"{run}: evaluation {', '.join(parts)}."] if parts else []
    return told


def _few_shot(run: str, found: Scores) -> Table:
    curves = [one for one in found.curves if one.run == run]
    updates = curves[0].updates
    shown = np.unique(np.linspace(0, len(updates) - 1, _POINTS_ACROSS).round().astype(int))
    heads = ("", "stream", *(f"after {updates[i]}" for i in shown), "gain")
    table = _table(f"{printable(run)}: few-shot, {_unit(found.score)}", heads)
    for one in curves:
        cells = [show(float(one.mean[i].value), found.score, 0, unit=False) for i in shown]
        gain = _shown(one.gain, found.score, signed=True)
        table.add_row(one.rung, Text(_cut(one.name, 14)), *cells, gain)
    return table


def _distinct(ladder: Ladder) -> list[Rung]:
    """Return the distinct V0 rungs of all runs; a V0 shared by several runs occurs once."""
    found: list[Rung] = []
    for rung in ladder.own.values():
        if all(rung is not one for one in found):
            found.append(rung)
    return found


def _facts(rung: Rung) -> list[str]:
    levels = rung.stream.suite.levels
    return [f"{len(levels):,}", *(f"{rung.stream.rejected[r]:,}" for r in REASONS), digest(levels)]


def _shown(one: Interval | tuple[()], score: str, signed: bool = False) -> str:
    """Format a number without its unit, which is in the title, so that six columns fit."""
    return show_interval(one, score, 0, signed, unit=False) if one else "-"


def _unit(score: str) -> str:
    return score if score == "return" else f"{score} in %"


def _table(title: str, heads: Sequence[str]) -> Table:
    heading = Text(title, style="bold")
    table = Table(title=heading, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for i, name in enumerate(heads):
        table.add_column(Text(name), justify="right" if i > 1 else "left", no_wrap=True)
    return table


def _note(lines: Sequence[str], console: Console) -> None:
    for line in lines:
        console.print(Text(printable(line), style="dim"))


def _cut(text: str, limit: int) -> str:
    text = printable(text)
    return text if len(text) <= limit else text[: limit - 1] + "…"


_ABOUT = ("occurred before in the stream", "occurred in an earlier stream", "cannot be solved")
