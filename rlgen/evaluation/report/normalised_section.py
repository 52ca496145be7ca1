"""What an average over levels hides, for the report: classes, percentiles, the worst levels."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from rlgen.evaluation.episodes import Evaluation
from rlgen.evaluation.report import html
from rlgen.evaluation.report.cvar_figure import cvar_figure
from rlgen.evaluation.report.figures import THEMES, add_legend, blank, png_bytes
from rlgen.evaluation.stats.bootstrap import DEFAULT, Bootstrap, Interval
from rlgen.evaluation.stats.by_class import ByClass, by_class
from rlgen.evaluation.stats.cvar import CVaR
from rlgen.evaluation.stats.formatting import show_interval
from rlgen.evaluation.stats.normalised_scores import (
    NO_SCALE,
    NormalisedScores,
    normalised_scores,
    notes,
    verdicts,
)
from rlgen.evaluation.stats.summary import some

MAX_VERDICTS = 10  # pairs of runs that are told of; of more, those with the first run
OVER = {"whole-seeds": "over whole seeds", "attempts": "over attempts only", "none": "not there"}


def normalised_section(
    evaluations: Sequence[Evaluation],
    bootstrap: Bootstrap = DEFAULT,
    worst: Sequence[CVaR] = (),
) -> str:
    """A part of the report; "" if there is nothing to say.

    Args:
        evaluations: of the report; the first is what the others are compared with.
        bootstrap: its `reps` and `confidence` are used.
        worst: of the runs whose worst levels were played again.
    """
    classes, found = by_class(evaluations, bootstrap), normalised_scores(evaluations, bootstrap)
    drawn = normalised_figures(evaluations, worst, found)
    places = {e.run: r for r, e in enumerate(evaluations)}
    parts = [
        _classes(classes, places) if classes else "",
        _percentiles(found, places, drawn) if found else "",
        _worst(worst, places, drawn) if worst else "",
    ]
    if not any(parts):
        return ""
    note = "" if found else f"{NO_SCALE}."
    return html.section("From the worst level up", "".join(parts), note)


def normalised_figures(
    evaluations: Sequence[Evaluation],
    worst: Sequence[CVaR] = (),
    found: NormalisedScores | None = None,
) -> dict[str, dict[str, bytes]]:
    """PNG by name, `percentiles` and `cvar`, and theme; what there is nothing to draw of is absent.

    Args:
        evaluations: of the report.
        worst: of the runs whose worst levels were played again.
        found: what `normalised_scores` says of the evaluations, if it has been asked.
    """
    found = normalised_scores(evaluations) if found is None else found
    places = {e.run: r for r, e in enumerate(evaluations)}
    drawn: dict[str, dict[str, bytes]] = {}
    if found is not None:
        pictures = {theme: percentile_figure(found, places, theme) for theme in THEMES}
        drawn["percentiles"] = {theme: png_bytes(one) for theme, one in pictures.items()}
    if worst:
        drawn["cvar"] = {theme: png_bytes(cvar_figure(worst, theme)) for theme in THEMES}
    return drawn


def percentile_figure(
    found: NormalisedScores, places: Mapping[str, int] | None = None, theme: str = "light"
) -> Figure:
    """Normalised return from the worst level to the best one, with intervals; higher is better.

    Args:
        found: of the runs.
        places: of the runs among all that the reader sees, for their colours.
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


def _classes(found: ByClass, places: Mapping[str, int]) -> str:
    heads = [found.by, "levels", *(html.label(places[one.run], one.run) for one in found.runs)]
    rows = [
        [
            html.text(one.name),
            f"{len(one.levels):,}",
            *(_shown(run.mean.at(c), found.score, one.name == run.worst) for run in found.runs),
        ]
        for c, one in enumerate(found.classes)
    ]
    gaps = [show_interval(run.gap, found.score, signed=True) for run in found.runs]
    rows.append(["best less worst", "", *map(html.text, gaps)])
    unit = "" if found.score == "return" else " in points;"
    note = f"Mean {found.score} of levels that are alike; best less worst{unit} intervals "
    note += f"{OVER.get(found.over, found.over)}. Bold: the run's worst class."
    if not all(one.counts for one in found.classes):
        note += " Levels without a solution do not count as a class to be worst or best at."
    title = f"By {found.by}"
    return f"<h3>{html.text(title)}</h3>{html.table(heads, rows)}{_note(note)}"


def _shown(one: Interval, score: str, bold: bool) -> str:
    text = html.text(show_interval(one, score))
    return f"<b>{text}</b>" if bold else text


def _percentiles(
    found: NormalisedScores, places: Mapping[str, int], drawn: Mapping[str, Mapping[str, bytes]]
) -> str:
    shown = (0, 10, 50)
    heads = ["", "participation", "worst level", *(f"{q}th percentile" for q in shown[1:])]
    rows = []
    for one in found.runs:
        cells = [one.participation]
        cells += [one.percentile.at(found.percentiles.index(q)) for q in shown]
        label = html.label(places[one.run], one.run)
        rows.append([label, *(html.text(show_interval(x, "ratio")) for x in cells)])
    told = verdicts(found)
    if len(told) > MAX_VERDICTS:
        told = told[: len(found.runs) - 1]
    picture = html.picture(drawn["percentiles"], "Normalised return by percentile of the levels")
    body = html.table(heads, rows) + picture
    if told:
        body += f'<ul class="plain">{"".join(f"<li>{html.text(t)}</li>" for t in told)}</ul>'
    note = " ".join([*notes(found), _PARTICIPATION])
    return f"<h3>Percentiles of levels</h3>{body}{_note(note)}"


def _worst(
    worst: Sequence[CVaR], places: Mapping[str, int], drawn: Mapping[str, Mapping[str, bytes]]
) -> str:
    first = worst[0]
    _, kept = np.unique(first.num_worst, return_index=True)
    heads = ["", *(f"{n:,} of {first.num_levels:,}" for n in first.num_worst[kept])]
    rows = []
    for one in worst:
        cells = (html.text(show_interval(one.mean.at(int(k)), one.score)) for k in kept)
        rows.append([html.label(places.get(one.run, 0), one.run), *cells])
    missing = [run for run in places if run not in {one.run for one in worst}]
    note = _CVAR + (f" Not played again: {some(missing)}." if missing else "")
    title = f"<h3>Mean {html.text(first.score)} on the worst levels (CVaR)</h3>"
    picture = html.picture(drawn["cvar"], "Score on the worst levels against their share")
    return title + html.table(heads, rows) + picture + _note(note)


def _note(words: str) -> str:
    return f'<p class="note">{html.text(words)}</p>'


_PARTICIPATION = (
    "Participation: share of levels on which an agent is better than 0. Every seed has its own "
    "curve, and the run's is their mean; intervals draw whole seeds."
)
_CVAR = (
    "Each seed's worst levels, found by one evaluation and measured by another with fresh keys, so "
    "that bad luck does not count as difficulty; intervals draw whole seeds."
)
