"""The report on one suite: all numbers are computed first, then the page is rendered from them.

`report.html` is self-contained: no network, no scripts, safe to open whoever made the run.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from rlgen.evaluation.episodes import Evaluation
from rlgen.evaluation.generalisation.gap import Gaps
from rlgen.evaluation.report import figures
from rlgen.evaluation.report.curriculum_section import CurriculumSummary, curricula_section
from rlgen.evaluation.report.figures import both_themes
from rlgen.evaluation.report.gap_section import gap_figure, gaps_section
from rlgen.evaluation.report.html import Figure, Page, Pictures, Section, write_page
from rlgen.evaluation.report.learning_curves import has_curves, learning_curves
from rlgen.evaluation.report.normalised_section import normalised_figures, normalised_section
from rlgen.evaluation.report.relative_section import agent_curves, relative_section
from rlgen.evaluation.report.relative_section import has_curves as has_agent_curves
from rlgen.evaluation.report.sections import Images, SuiteData, suite_data
from rlgen.evaluation.stats.bootstrap import DEFAULT, Bootstrap
from rlgen.evaluation.stats.cost import COSTS
from rlgen.evaluation.stats.cvar import CVaR
from rlgen.evaluation.stats.findings import Findings, analyse
from rlgen.evaluation.stats.formatting import caveat, headline

LEARNING = {
    "env_steps": "learning",
    "gradient_updates": "learning-gradient-updates",
    "wall_seconds": "learning-seconds",
}  # figures by what their abscissa is
COST_NAMES = {
    "env_steps": "env steps",
    "gradient_updates": "gradient updates",
    "wall_seconds": "seconds",
}
SUITE_FILES = (
    *(f"{name}.png" for name in ("intervals", "profile", *LEARNING.values())),
    "normalised-*.png",
)
"""Patterns of the files of `suite_figures`."""
FILES = (
    *SUITE_FILES,
    *("agents.png", "generalisation.png"),
    *("episode-[0-9]*.gif", "curriculum-[0-9]*.png", "gap-over-time-[0-9]*.png"),
)
NOTHING: Mapping = MappingProxyType({})

Curves = Mapping[str, Sequence[Mapping]]
Stories = Mapping[str, CurriculumSummary]


class ReportData(NamedTuple):
    """Everything that the report on one suite shows: numbers, texts and pictures."""

    found: Findings
    suite: SuiteData
    gaps: dict[int, Gaps]  # by the run's place, of runs over a finite training set
    worst: list[CVaR]  # of runs whose worst levels were played again
    curricula: Stories
    drawn: dict[str, Pictures]  # figures by the names of their files


def write_report(
    folder: Path | str,
    evaluations: Sequence[Evaluation],
    images: Images = NOTHING,
    gifs: Mapping[str, bytes] = NOTHING,
    curves: Curves = NOTHING,
    bootstrap: Bootstrap = DEFAULT,
    curricula: Stories = NOTHING,
) -> Path:
    """Write `report.html` and its figures as files: `intervals.png`, `profile.png`, and so on.

    Args:
        folder: made if need be; replaces an earlier report in it.
        evaluations: runs on one suite; the first is what the others are compared with.
        images: a picture of each level, by its name; levels without one have no picture.
        gifs: episodes (see `images.gif_bytes`) by caption.
        curves: lines of `metrics.jsonl` (see `from_runs.metrics.read_metrics`) by run label.
        bootstrap: how intervals are made.
        curricula: of each run that kept any (see `from_runs.curricula.tell`) by label, with its
            gaps and its worst levels where these were measured.

    Returns:
        The path of the page.
    """
    data = report_data(analyse(evaluations, bootstrap), images, gifs, curves, curricula)
    return write_page(folder, report_page(data), _files(data), FILES)


def report_data(
    found: Findings,
    images: Images = NOTHING,
    gifs: Mapping[str, bytes] = NOTHING,
    curves: Curves = NOTHING,
    curricula: Stories = NOTHING,
) -> ReportData:
    """Everything that the report shows; for the arguments see `write_report`."""
    places = {run.run: r for r, run in enumerate(found.summary.runs)}
    gaps = {places[run]: s.gaps for run, s in curricula.items() if isinstance(s.gaps, Gaps)}
    worst = [s.worst for s in curricula.values() if isinstance(s.worst, CVaR)]
    drawn = suite_figures(found, curves, worst)
    if has_agent_curves(found.evaluations):
        drawn["agents"] = both_themes(partial(agent_curves, found.evaluations))
    if gaps:
        drawn["generalisation"] = both_themes(partial(gap_figure, gaps))
    suite = suite_data(found.evaluations, found.summary, images, gifs)
    return ReportData(found, suite, gaps, worst, curricula, drawn)


def report_page(data: ReportData) -> Page:
    """The parts of the report; those of which there is nothing are left out."""
    found, suite, drawn = data.found, data.suite, data.drawn
    labels = [label.run for label in suite.labels]
    fresh = suite.played.unit == "agents"
    sections = (
        Section("In short", "key_numbers.html", suite),
        figure_section(drawn, "intervals", _INTERVALS),
        Section("All levels", "aggregates.html", suite),
        relative_section(found.evaluations, found.relatives),
        gaps_section(data.gaps, drawn.get("generalisation", NOTHING)),
        normalised_section(found, drawn, data.worst),
        Section("Worst levels", "worst_levels.html", suite),
        Section("Each level", "each_level.html", suite),
        gallery_section(suite),
        figure_section(drawn, "profile", "Performance profile", "Performance profile", PROFILE),
        figure_section(drawn, "agents", _AGENTS, "The agents' lives", _LIVES),
        training_section(drawn),
        curricula_section(data.curricula, labels),
        Section("How it was measured", "method.html", suite),
    )
    return Page(
        f"{found.summary.suite}: {', '.join(labels)}",
        f"{'Meta-test' if fresh else 'Zero-shot evaluation'} on {found.summary.suite}",
        headline(found.summary),
        caveat(found.summary, fresh),
        [section for section in sections if section],
    )


def suite_figures(
    found: Findings, curves: Curves, worst: Sequence[CVaR] = ()
) -> dict[str, Pictures]:
    """Figures of runs on one suite by their files' names; what there is nothing of is absent."""
    summary, labels = found.summary, [e.run for e in found.evaluations]
    makers = {"intervals": partial(figures.intervals, summary)}
    if summary.score != "return":
        makers["profile"] = partial(figures.profile, summary)
    for cost, name in LEARNING.items():
        if has_curves(curves, cost):
            makers[name] = partial(learning_curves, curves, labels=labels, cost=cost)
    drawn: dict[str, Pictures] = {name: both_themes(make) for name, make in makers.items()}
    return drawn | normalised_figures(found, worst)


def training_section(drawn: Mapping[str, Pictures]) -> Section | None:
    """Learning curves against each cost that is known, one at a time; None without any."""
    panels = {
        COST_NAMES[cost]: Figure(drawn[name], f"Learning curves, {COSTS[cost]}")
        for cost, name in LEARNING.items()
        if name in drawn
    }
    return Section("Training", "training.html", panels) if panels else None


def gallery_section(data: SuiteData) -> Section | None:
    """Pictures of the levels; None without pictures."""
    title = f"The levels, with {data.summary.score}"
    return Section(title, "gallery.html", data) if data.cards else None


def figure_section(
    drawn: Mapping[str, Pictures], name: str, alt: str, title: str = "", note: str = ""
) -> Section | None:
    """A part that is a figure; None where the figure is not drawn."""
    return Section(title, "figure.html", Figure(drawn[name], alt, note)) if name in drawn else None


def light(drawn: Mapping[str, Pictures]) -> dict[str, bytes]:
    """Files of figures, in the light theme."""
    return {f"{name}.png": of_theme["light"] for name, of_theme in drawn.items()}


def _files(data: ReportData) -> dict[str, bytes]:
    """Figures, episodes and curricula by the names of their files."""
    stories = data.curricula.values()
    kinds = {
        "episode-{}.gif": list(data.suite.episodes.values()),
        "curriculum-{}.png": [one.drawn["light"] for one in stories if one.drawn],
        "gap-over-time-{}.png": [one.measured["light"] for one in stories if one.measured],
    }
    numbered = {k.format(i): x for k, every in kinds.items() for i, x in enumerate(every)}
    return light(data.drawn) | numbered


PROFILE = "Share of seeds and levels that score above each threshold: a higher line is better."
_INTERVALS = "Scores and intervals of every run, overall and by level"
_AGENTS = "Learning curves of the agents"
_LIVES = (
    "Mean reward of a step while agents learn, over all levels: each rule thin, the mean thick."
)
