"""Write the report of `rlgen compare`: scores, differences and costs of methods.

The module `rlgen.evaluation.stats.comparison` defines when a difference is settled.
"""

import csv
import io
from collections.abc import Sequence
from functools import partial
from itertools import permutations
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from rlgen.evaluation.episodes import Evaluation, plain, printable
from rlgen.evaluation.report import figures
from rlgen.evaluation.report.figures import THEMES, Theme, both_themes
from rlgen.evaluation.report.html import Page, Section, write_page
from rlgen.evaluation.report.normalised_section import normalised_section
from rlgen.evaluation.report.report import (
    NOTHING,
    PROFILE,
    SUITE_FILES,
    Curves,
    figure_section,
    gallery_section,
    light,
    suite_figures,
    training_section,
)
from rlgen.evaluation.report.results import to_json
from rlgen.evaluation.report.sections import Images, suite_data
from rlgen.evaluation.stats.comparison import (
    Pair,
    Place,
    Ranking,
    answer,
    rank,
    sentences,
    together,
)
from rlgen.evaluation.stats.cost import KINDS, Cost
from rlgen.evaluation.stats.findings import analyse
from rlgen.evaluation.stats.formatting import caveat
from rlgen.evaluation.stats.intervals import Interval
from rlgen.evaluation.stats.settings import DEFAULT, Intervals

MOST_NUMBERED = 12  # maximum number of methods for which the cells of the matrix show numbers


class Compared(NamedTuple):
    """Results of comparing several methods."""

    evaluations: tuple[Evaluation, ...]  # one per method, with the seeds of all its runs
    ranking: Ranking
    costs: tuple[Cost, ...]
    notes: tuple[str, ...] = ()  # caveats, see `rlgen.evaluation.stats.pooling.unlike`


def compared(
    evaluations: Sequence[Evaluation],
    costs: Sequence[Cost],
    notes: Sequence[str] = (),
    intervals: Intervals = DEFAULT,
) -> Compared:
    """Rank the methods and add their costs.

    The function `stats.comparison.rank` documents the errors.
    """
    return Compared(tuple(evaluations), rank(evaluations, intervals), tuple(costs), tuple(notes))


class ComparisonData(NamedTuple):
    """Ranking, differences and costs, which the templates show."""

    ranking: Ranking
    places: dict[str, int]  # index of each method in the given order; it determines the colour
    sentences: dict[str, list[str]]  # sentences on all differences, grouped by verdict
    together: str  # joint confidence of the verdicts on differences, in words
    costs: tuple[Cost, ...]
    kinds: list[str]  # kinds of env steps that at least one method took
    kind_heads: list[str]  # column headings of `kinds`


def write_comparison(
    folder: Path | str,
    found: Compared,
    images: Images = NOTHING,
    curves: Curves = NOTHING,
    intervals: Intervals = DEFAULT,
) -> Path:
    """Write `report.html`, its figures, `comparison.json` and `comparison.csv`.

    Args:
        folder: Output folder, created if missing. An earlier comparison in the folder is replaced.
        found: Result of `compared`.
        images: Pictures of levels by level name.
        curves: Lines of metrics by method, see `rlgen.evaluation.stats.cost.pool_metrics`.
        intervals: Settings of the intervals.

    Returns:
        Path of the page.
    """
    page, files = comparison_page(found, images, curves, intervals)
    files["comparison.csv"] = to_csv(found).encode()
    return write_page(folder, page, files, (*SUITE_FILES, "improvement.png"))


def comparison_page(
    found: Compared, images: Images, curves: Curves, intervals: Intervals
) -> tuple[Page, dict[str, bytes]]:
    """Return the page of the comparison, and the figures by file name.

    For the arguments, see `write_comparison`. All numbers and figures are computed before the page
    is assembled. Sections without data are omitted.
    """
    names = [e.run for e in found.evaluations]
    analysed = analyse(found.evaluations, intervals)
    suite = suite_data(found.evaluations, analysed.summary, images, NOTHING)
    drawn = suite_figures(analysed, curves)
    drawn["improvement"] = both_themes(partial(matrix_figure, found.ranking, names))
    data = _comparison_data(found)
    sections = (
        Section("In short", "key_numbers.html", suite),
        Section("Ranking", "ranking.html", data),
        Section("Which differences are settled", "differences.html", data),
        figure_section(drawn, "intervals", "Scores and intervals of every method"),
        figure_section(drawn, "improvement", _ALT, "Pairwise comparison", _MATRIX),
        Section("Training cost", "costs.html", data),
        figure_section(drawn, "profile", _PROFILES, "Performance profiles", PROFILE),
        normalised_section(analysed, drawn),
        training_section(drawn),
        Section("Worst levels", "worst_levels.html", suite),
        Section("Each level", "each_level.html", suite),
        gallery_section(suite),
        Section("All levels", "aggregates.html", suite),
        Section("How it was measured", "method.html", suite),
    )
    summary = suite.summary
    page = Page(
        f"{summary.suite}: {', '.join(names)}",
        f"{len(names)} methods on {summary.suite}",
        answer(found.ranking, f"the {suite.played.levels} levels of {summary.suite}"),
        " ".join(one for one in (caveat(summary), *found.notes) if one),
        [section for section in sections if section],
    )
    return page, light(drawn)


def _comparison_data(found: Compared) -> ComparisonData:
    ranking, kinds = found.ranking, _kinds(found.costs)
    return ComparisonData(
        ranking,
        {e.run: place for place, e in enumerate(found.evaluations)},
        sentences(ranking),
        together(ranking),
        found.costs,
        kinds,
        [f"{kind} steps" for kind in kinds],
    )


def to_dict(found: Compared, intervals: Intervals = DEFAULT) -> dict[str, Any]:
    """Content of `comparison.json`; NaN becomes null.

    The content has all entries of `rlgen eval --json`, and the entry `comparison`.
    """
    ranking = found.ranking
    names = [e.run for e in found.evaluations]
    block = {
        "verdicts": together(ranking),
        "ranking": [_fields(place) for place in ranking.places],
        "pairs": [_fields(pair) for pair in ranking.pairs],
        # Methods are in the given order. The diagonal is NaN, which `plain` converts to null.
        "improvement": {"runs": names, "matrix": ranking.improvement(names)},
        "costs": [cost._asdict() | {"total_steps": cost.total_steps} for cost in found.costs],
        "sentences": sentences(ranking),
        "notes": list(found.notes),
    }
    return to_json(found.evaluations, intervals) | {"comparison": plain(block)}


def _fields(record: Place | Pair) -> dict[str, Any]:
    """Convert a record to a dict, and intervals in it to dicts."""
    fields = record._asdict().items()
    return {name: x._asdict() if isinstance(x, Interval) else x for name, x in fields}


def to_csv(found: Compared) -> str:
    """CSV table with one row per method, in the order of the ranking."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    kinds = _kinds(found.costs)
    places = ("rank", "best_rank", "worst_rank", "run", "score", "mean", "low", "high", "iqm")
    spent = (*(f"{kind}_steps" for kind in kinds), "gradient_updates", "wall_seconds")
    writer.writerow((*places, "seeds", "update", *spent))
    of_run = {cost.run: cost for cost in found.costs}
    for place in found.ranking.places:
        cost = of_run[place.run]
        steps = [cost.env_steps.get(kind, float("nan")) for kind in kinds]
        numbers = [*place.mean[:3], place.iqm.value, cost.seeds, cost.update, *steps]
        numbers += [cost.gradient_updates, cost.wall_seconds]
        start = [place.rank, place.best, place.worst, _cell(place.run), found.ranking.score]
        writer.writerow(start + ["" if np.isnan(x) else f"{float(x):.8g}" for x in numbers])
    return out.getvalue()


def matrix_figure(ranking: Ranking, names: Sequence[str], theme: str = "light") -> Figure:
    """Draw the matrix of probabilities that the row's method beats the column's method.

    The probability is that a random seed of one method beats a random seed of the other method on a
    random level. Numbers are shown if there are at most `MOST_NUMBERED` methods, intervals if there
    are at most five.
    """
    look, num = THEMES[theme], len(names)
    size = min(max(0.62 * num, 1.6), 4.2)
    figure, (axes,) = figures.blank(look, size + 1.3, [1.0])
    found = ranking.improvement(names)
    # The diagonal is NaN and stays blank. The middle of the colour map is 0.5: no difference.
    shown = np.ma.masked_invalid(found)
    axes.imshow(shown, cmap="PuOr", vmin=0, vmax=1, aspect="auto")
    labels = [figures.short(name, 16) for name in names]
    axes.set_xticks(
        range(num), labels, rotation=30 if num > 3 else 0, ha="right" if num > 3 else "center"
    )
    axes.set_yticks(range(num), labels)
    axes.set(xlabel="… beats one of", ylabel="a seed of …")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.xaxis.set_minor_locator(NullLocator())
    if num <= MOST_NUMBERED:
        _numbers(axes, ranking, names, look)
    return figure


def _numbers(axes: Any, ranking: Ranking, names: Sequence[str], look: Theme) -> None:
    """Write a number into each cell, and an interval if there are at most five methods."""
    for i in range(len(names)):
        axes.text(i, i, "-", ha="center", va="center", color=look.ink)
    # The cells (i, j) and (j, i) add up to 1, because a tie counts half in both.
    for i, j in permutations(range(len(names)), 2):
        one = ranking.pair(names[i], names[j]).improvement
        text = f"{float(one.value):.2f}"
        if len(names) <= 5 and not np.isnan(one.low):
            text += f"\n{float(one.low):.2f}-{float(one.high):.2f}"
        # The cells, and so the text on them, have the same colours in both themes. The ends of the
        # colour map are dark.
        dark = abs(float(one.value) - 0.5) > 0.3
        axes.text(
            j, i, text, ha="center", va="center", fontsize=9 if len(names) <= 8 else 7,
            color="#ffffff" if dark else "#22262b",
        )  # fmt: skip


def _cell(text: str) -> str:
    """Escape text that a spreadsheet would interpret as a formula."""
    text = printable(text)
    return f"'{text}" if text[:1] in ("=", "+", "-", "@") else text


def _kinds(costs: Sequence[Cost]) -> list[str]:
    """Kinds of env steps that any method took, in the order of `KINDS`; other kinds come last."""
    taken = {kind for cost in costs for kind, x in cost.env_steps.items() if x}
    return [*(kind for kind in KINDS if kind in taken), *sorted(taken - set(KINDS))]


_ALT = "Probability of improvement of each method over every other method"
_PROFILES = "Performance profiles of all methods"
_MATRIX = (
    "Probability that a random seed of the row's method beats a random seed of the column's method "
    "on a random level. A tie counts half. If the probability is above one half, the row's method "
    "is better."
)
