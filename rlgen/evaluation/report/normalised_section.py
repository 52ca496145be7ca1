"""Report section on classes of levels, percentiles and worst levels."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from rlgen.evaluation.report import html
from rlgen.evaluation.report.cvar_figure import cvar_figure
from rlgen.evaluation.report.figures import THEMES, add_legend, blank, both_themes
from rlgen.evaluation.stats.by_class import ByClass
from rlgen.evaluation.stats.cvar import CVaR, bias_notes
from rlgen.evaluation.stats.findings import Findings
from rlgen.evaluation.stats.normalised_scores import NO_SCALE, NormalisedScores, notes, verdicts
from rlgen.evaluation.stats.summary import some

# Maximum number of pairs of runs that get a sentence each. If there are more pairs, only pairs with
# the first run get a sentence.
MAX_VERDICTS = 10
KINDS = {
    "student": "Student's t over seeds",
    "attempts": "bootstrap over the attempts of this agent alone",
    "none": "unavailable",
}


class NormalisedData(NamedTuple):
    """Classes of levels, percentiles and worst levels of runs, which the template shows."""

    places: dict[str, int]  # index of each run among all runs of the page
    drawn: Mapping[str, html.Pictures]  # figures, see `normalised_figures`
    classes: ByClass | None
    labels: list[html.RunLabel]  # runs of `classes`
    interval_name: str  # name of the intervals of `classes`
    scores: NormalisedScores | None
    no_scale: str  # reason shown if there are no normalised scores
    notes: Sequence[str]
    verdicts: Sequence[str]
    worst: Sequence[CVaR]
    shares: tuple[int, ...]  # indices of fractions in `worst` that have distinct numbers of levels
    worst_heads: tuple[str, ...]
    bias_notes: Sequence[str]  # scores in `worst` that are upper bounds
    not_replayed: str  # runs that are not in `worst`


def normalised_section(
    found: Findings, drawn: Mapping[str, html.Pictures], worst: Sequence[CVaR] = ()
) -> html.Section | None:
    """Section on classes of levels, percentiles and worst levels; None if there are no data.

    Args:
        found: Findings on the report's runs. The first run is compared with the others.
        drawn: Figures, see `normalised_figures`.
        worst: CVaR of the runs that have it. A first evaluation selects the worst levels; their
            scores are measured in a second evaluation, which not every run has.
    """
    classes, scores = found.classes, found.normalised
    if not (classes or scores or worst):
        return None
    # Some parts of the section lack some runs, so colours depend on the index among all runs.
    places = {e.run: r for r, e in enumerate(found.evaluations)}
    told = verdicts(scores) if scores else []
    if scores and len(told) > MAX_VERDICTS:
        # The verdicts begin with the pairs that contain the first run.
        told = told[: len(scores.runs) - 1]
    runs = classes.runs if classes else ()
    shares, heads = _shares(worst[0]) if worst else ((), ())
    replayed = {one.run for one in worst}
    missing = [run for run in places if run not in replayed]
    data = NormalisedData(
        places,
        drawn,
        classes,
        [html.RunLabel(one.run, places[one.run]) for one in runs],
        KINDS[classes.kind] if classes else "",
        scores,
        NO_SCALE,
        notes(scores) if scores else (),
        told,
        worst,
        shares,
        ("", *heads),
        [note for one in worst for note in bias_notes(one, shares)],
        some(missing) if missing else "",
    )
    return html.Section("Classes, percentiles and worst levels", "normalised.html", data)


def _shares(one: CVaR) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """Indices of the fractions with distinct numbers of worst levels, and headings for them."""
    num_worst, kept = np.unique(one.num_worst, return_index=True)
    return tuple(map(int, kept)), tuple(f"{n:,} of {one.num_levels:,}" for n in num_worst)


def normalised_figures(found: Findings, worst: Sequence[CVaR] = ()) -> dict[str, html.Pictures]:
    """Draw `normalised-percentiles` and `normalised-cvar` if there are data, by file name.

    Args:
        found: Findings on the report's runs.
        worst: CVaR of the runs that have it. A first evaluation selects the worst levels; their
            scores are measured in a second evaluation, which not every run has.
    """
    places = {e.run: r for r, e in enumerate(found.evaluations)}
    drawn: dict[str, html.Pictures] = {}
    scores = found.normalised
    if scores is not None:
        drawn["normalised-percentiles"] = both_themes(partial(percentile_figure, scores, places))
    if worst:
        drawn["normalised-cvar"] = both_themes(partial(cvar_figure, worst))
    return drawn


def percentile_figure(
    found: NormalisedScores, places: Mapping[str, int] | None = None, theme: str = "light"
) -> Figure:
    """Draw the normalised return by percentile of the levels, from worst to best, with intervals.

    Args:
        found: Normalised scores of the runs.
        places: Index of each run among all runs of the page. The index determines the colour.
        theme: `light` or `dark`.
    """
    look = THEMES[theme]
    places = {one.run: r for r, one in enumerate(found.runs)} if places is None else places
    figure, (axes,) = blank(look, 3.4, [1.0])
    for one in found.runs:
        colour = look.runs[places[one.run] % len(look.runs)]
        value, low, high, _ = one.percentile
        axes.plot(found.percentiles, value, color=colour, linewidth=1.8, marker="o", markersize=3.5)
        axes.fill_between(found.percentiles, low, high, color=colour, alpha=0.2, linewidth=0)
    axes.grid(color=look.grid, linewidth=0.6)
    axes.set(xlim=(-1, 101), xlabel=f"percentile of {found.num_levels:,} levels, worst first")
    axes.set_ylabel("normalised return")
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    add_legend(figure, {places[one.run]: one.run for one in found.runs}, look, markers=False)
    return figure
