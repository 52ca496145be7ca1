"""The page of `rlgen compare`, its figures and its files: what methods are worth and cost."""

import csv
import io
from collections.abc import Mapping, Sequence
from itertools import permutations
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import UInt8
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from rlgen.evaluation.episodes import Evaluation, plain, printable
from rlgen.evaluation.report import figures, html
from rlgen.evaluation.report import sections as sections
from rlgen.evaluation.report.figures import THEMES, Theme
from rlgen.evaluation.report.normalised_section import normalised_section
from rlgen.evaluation.report.report import (
    LEARNING,
    Curves,
    draw,
    themes,
    training_section,
    write_normalised,
)
from rlgen.evaluation.report.results import to_json, write
from rlgen.evaluation.stats.bootstrap import DEFAULT, Bootstrap
from rlgen.evaluation.stats.comparison import Place, Ranking, answer, rank, sentences, together
from rlgen.evaluation.stats.cost import KINDS, Cost
from rlgen.evaluation.stats.formatting import caveat, show_interval
from rlgen.evaluation.stats.summary import Summary, summarise

MOST_NUMBERED = 12  # methods in a matrix that still has numbers
MOST_TOLD = 12  # differences that are listed without a click
NOTHING: Mapping = MappingProxyType({})
FIGURES = ("intervals", "profile", "improvement", *LEARNING.values())


class Compared(NamedTuple):
    """Everything that is told of several methods."""

    evaluations: tuple[Evaluation, ...]  # one a method, seeds of its runs together
    ranking: Ranking
    costs: tuple[Cost, ...]
    notes: tuple[str, ...] = ()  # what a reader must know first; see `comparison_methods.unlike`


def compared(
    evaluations: Sequence[Evaluation],
    costs: Sequence[Cost],
    notes: Sequence[str] = (),
    bootstrap: Bootstrap = DEFAULT,
) -> Compared:
    """The ranking of methods beside what they cost; see `comparison.rank` for what is refused."""
    return Compared(tuple(evaluations), rank(evaluations, bootstrap), tuple(costs), tuple(notes))


def write_comparison(
    folder: Path | str,
    found: Compared,
    images: Mapping[str, UInt8[np.ndarray, "H W 3"]] = NOTHING,
    curves: Curves = NOTHING,
    bootstrap: Bootstrap = DEFAULT,
) -> Path:
    """Write `report.html`, its figures, `comparison.json` and `comparison.csv`.

    Args:
        folder: made if need be; replaces an earlier comparison in it.
        found: see `compared`.
        images: a picture of each level, by its name.
        curves: lines of metrics by method (see `comparison_cost.pool_metrics`).
        bootstrap: how intervals are made.

    Returns:
        The path of the page.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    summary = summarise(found.evaluations, bootstrap)
    drawn = draw(summary, curves)
    names = [e.run for e in found.evaluations]
    drawn["improvement"] = themes(lambda theme: matrix_figure(found.ranking, names, theme))
    for name in FIGURES:
        if name in drawn:
            write(folder / f"{name}.png", drawn[name]["light"])
        else:
            (folder / f"{name}.png").unlink(missing_ok=True)
    write_normalised(folder, found.evaluations)
    write(folder / "comparison.csv", to_csv(found).encode())
    path = folder / "report.html"
    normalised_scores = normalised_section(found.evaluations, bootstrap)
    write(path, _page(found, summary, images, drawn, normalised_scores).encode())
    return path


def to_dict(found: Compared, bootstrap: Bootstrap = DEFAULT) -> dict[str, Any]:
    """What `rlgen eval --json` says of these methods, and `comparison` beside it; NaN is null."""
    ranking = found.ranking
    names = [e.run for e in found.evaluations]
    block = {
        "intervals_of_differences": together(ranking),
        "ranking": [place._asdict() | {"iqm": place.iqm._asdict()} for place in ranking.places],
        "pairs": [
            {
                name: x._asdict() if hasattr(x, "_asdict") else x
                for name, x in pair._asdict().items()
            }
            for pair in ranking.pairs
        ],
        "improvement": {"runs": names, "matrix": ranking.improvement(names)},
        "costs": [cost._asdict() | {"total_steps": cost.total_steps} for cost in found.costs],
        "sentences": sentences(ranking),
        "notes": list(found.notes),
    }
    return to_json(found.evaluations, bootstrap) | {"comparison": plain(block)}


def to_csv(found: Compared) -> str:
    """One row a method, in the order of the ranking."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    kinds = _kinds(found.costs)
    places = ("rank", "best_rank", "worst_rank", "run", "score", "iqm", "low", "high")
    spent = (*(f"{kind}_steps" for kind in kinds), "gradient_updates", "wall_seconds")
    writer.writerow((*places, "seeds", "update", *spent))
    of_run = {cost.run: cost for cost in found.costs}
    for place in found.ranking.places:
        cost = of_run[place.run]
        steps = [cost.env_steps.get(kind, float("nan")) for kind in kinds]
        numbers = [*place.iqm[:3], cost.seeds, cost.update, *steps]
        numbers += [cost.gradient_updates, cost.wall_seconds]
        start = [place.rank, place.best, place.worst, _cell(place.run), found.ranking.score]
        writer.writerow(start + ["" if np.isnan(x) else f"{float(x):.8g}" for x in numbers])
    return out.getvalue()


def matrix_figure(ranking: Ranking, names: Sequence[str], theme: str = "light") -> Figure:
    """How probably a seed of each row's method beats one of each column's, as a coloured matrix."""
    look, num = THEMES[theme], len(names)
    size = min(max(0.62 * num, 1.6), 4.2)
    figure, (axes,) = figures.blank(look, size + 1.3, [1.0])
    found = ranking.improvement(names)
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
    """Each cell's number, and where there is room its interval."""
    for i in range(len(names)):
        axes.text(i, i, "-", ha="center", va="center", color=look.ink)
    for i, j in permutations(range(len(names)), 2):
        one = ranking.pair(names[i], names[j]).improvement
        text = f"{float(one.value):.2f}"
        if len(names) <= 5 and not np.isnan(one.low):
            text += f"\n{float(one.low):.2f}-{float(one.high):.2f}"
        dark = abs(float(one.value) - 0.5) > 0.3  # the ends of the colour map are dark
        axes.text(
            j, i, text, ha="center", va="center", fontsize=9 if len(names) <= 8 else 7,
            color="#ffffff" if dark else "#22262b",
        )  # fmt: skip


def _page(
    found: Compared,
    summary: Summary,
    images: Mapping[str, np.ndarray],
    drawn: dict[str, dict[str, bytes]],
    normalised_scores: str,
) -> str:
    ranking, names = found.ranking, [e.run for e in found.evaluations]
    about = f"Intervals of differences hold with {together(ranking)}."
    body = (
        sections.key_numbers(summary, found.evaluations),
        html.section("Ranking", _ranking(ranking, names), _RANKING),
        html.section("Which differences are settled", _differences(ranking), about),
        html.section("", html.picture(drawn["intervals"], "Scores and intervals of every method")),
        html.section("Each against each", html.picture(drawn["improvement"], _ALT), _MATRIX),
        html.section("What training cost", _costs(found.costs, names), _COSTS),
        _profile(drawn),
        normalised_scores,
        training_section(drawn),
        sections.worst_section(summary, found.evaluations, NOTHING),
        sections.each_level(summary, "steps / optimal"),
        sections.gallery(summary, images),
        sections.aggregates(summary),
        sections.method(summary, found.evaluations),
    )
    title = f"{summary.suite}: {', '.join(names)}"
    lead = answer(ranking, f"the {len(summary.runs[0].levels)} levels of {summary.suite}")
    below = " ".join(one for one in (caveat(summary), *found.notes) if one)
    return html.frame(title, f"{len(names)} methods on {summary.suite}", (lead, below), body)


def _ranking(ranking: Ranking, names: Sequence[str]) -> str:
    rows = []
    for place in ranking.places:
        label = html.label(names.index(place.run), place.run)
        score = show_interval(place.iqm, ranking.score)
        rows.append([label, str(place.rank), score, ranks(place)])
    return html.table(["method", "rank", f"IQM of {ranking.score}", "ranks left open"], rows)


def ranks(place: Place) -> str:
    """The ranks that settled differences leave to a method."""
    alone = place.best == place.worst
    return f"{place.best}" if alone else f"{place.best} to {place.worst}"


def _differences(ranking: Ranking) -> str:
    """Every difference in words; of many pairs those that are not settled are folded."""
    blocks = []
    for title, told in sentences(ranking).items():
        items = "".join(f"<li>{html.text(one)}</li>" for one in told)
        listed = f'<ul class="plain">{items}</ul>'
        many = len(told) > MOST_TOLD
        head = f"{title} ({len(told)})"
        blocks.append(html.folded(head, listed) if many else f"<h3>{html.text(head)}</h3>{listed}")
    return "".join(blocks)


def _costs(costs: Sequence[Cost], names: Sequence[str]) -> str:
    kinds = _kinds(costs)
    heads = ["", "seeds", *(f"{kind} steps" for kind in kinds), "all steps", "gradient updates"]
    heads += ["seconds", "compiling", "device"]
    rows = []
    for cost in costs:
        steps = [cost.env_steps.get(kind, 0.0 if cost.env_steps else np.nan) for kind in kinds]
        numbers = [*steps, cost.total_steps, cost.gradient_updates, cost.wall_seconds]
        shown = [count(x) for x in (*numbers, cost.compile_seconds)]
        label = html.label(names.index(cost.run), cost.run)
        rows.append([label, str(cost.seeds), *shown, html.text(", ".join(cost.devices))])
    return html.table(heads, rows)


def _cell(text: str) -> str:
    """Text that a spreadsheet does not take for a formula."""
    text = printable(text)
    return f"'{text}" if text[:1] in ("=", "+", "-", "@") else text


def _kinds(costs: Sequence[Cost]) -> list[str]:
    """Kinds of env steps that any method took, the known ones in their order."""
    taken = {kind for cost in costs for kind, x in cost.env_steps.items() if x}
    return [*(kind for kind in KINDS if kind in taken), *sorted(taken - set(KINDS))]


def count(x: float) -> str:
    """A number of steps or seconds, in whole; a dash where it is not known."""
    return "-" if np.isnan(x) else f"{x:,.0f}"


def _profile(drawn: Mapping[str, Mapping[str, bytes]]) -> str:
    if "profile" not in drawn:
        return ""
    picture = html.picture(drawn["profile"], "Performance profiles of all methods")
    return html.section("Performance profiles", picture, _PROFILE)


_ALT = "Probability of improvement of each method over each other one"
_RANKING = (
    "By interquartile mean, each with its own interval. Ranks left open: those that the method "
    "may have with the differences that are settled."
)
_MATRIX = (
    "Probability that a random seed of the row's method beats one of the column's on a random "
    "level; a tie counts half. Over one half: the row is better."
)
_COSTS = (
    "Up to the checkpoint that was played. Env steps and gradient updates are of one seed; seconds "
    "are of all seeds together, compilation apart, and tell as much of the device as of the method."
)
_PROFILE = "Share of seeds and levels that score above each threshold: a higher line is better."
