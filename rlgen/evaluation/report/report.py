"""Report on one suite: all numbers are computed first, then the page is rendered.

The file `report.html` uses no network and no scripts. It is therefore safe to open even if the run
comes from an untrusted source.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from types import MappingProxyType

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
from rlgen.evaluation.report.training_overlap import overlap_warnings
from rlgen.evaluation.stats.cost import COSTS
from rlgen.evaluation.stats.cvar import CVaR
from rlgen.evaluation.stats.findings import Findings, analyse
from rlgen.evaluation.stats.formatting import caveat, headline
from rlgen.evaluation.stats.settings import DEFAULT, Intervals

LEARNING = {
    "env_steps": "learning",
    "gradient_updates": "learning-gradient-updates",
    "wall_seconds": "learning-seconds",
}  # file names of the learning curves, by the quantity on their x axis
COST_NAMES = {
    "env_steps": "env steps",
    "gradient_updates": "gradient updates",
    "wall_seconds": "seconds",
}
SUITE_FILES = (
    *(f"{name}.png" for name in ("intervals", "profile", *LEARNING.values())),
    "normalised-*.png",
)
"""File name patterns of the figures that `suite_figures` draws."""
FILES = (
    *SUITE_FILES,
    *("agents.png", "generalisation.png"),
    *("episode-[0-9]*.gif", "curriculum-[0-9]*.png", "gap-over-time-[0-9]*.png"),
)
NOTHING: Mapping = MappingProxyType({})

Curves = Mapping[str, Sequence[Mapping]]
Stories = Mapping[str, CurriculumSummary]


def write_report(
    folder: Path | str,
    evaluations: Sequence[Evaluation],
    images: Images = NOTHING,
    gifs: Mapping[str, bytes] = NOTHING,
    curves: Curves = NOTHING,
    intervals: Intervals = DEFAULT,
    curricula: Stories = NOTHING,
) -> Path:
    """Write `report.html`, and its figures as separate files such as `intervals.png`.

    Args:
        folder: Output folder, created if missing. An earlier report in the folder is replaced.
        evaluations: Evaluations of runs on one suite. The first run is compared with the others.
        images: Pictures of levels by level name; levels may be missing.
        gifs: Recorded episodes (see `images.gif_bytes`), by caption.
        curves: Lines of `metrics.jsonl` (see `from_runs.metrics.read_metrics`), by run label.
        intervals: Settings of the intervals.
        curricula: Curriculum summaries (see `from_runs.curricula.tell`) by run label; runs may be
            missing. If gaps or scores on worst levels were measured, the summaries contain them.

    Returns:
        Path of the page.
    """
    page, files = report_page(analyse(evaluations, intervals), images, gifs, curves, curricula)
    return write_page(folder, page, files, FILES)


def report_page(
    found: Findings,
    images: Images = NOTHING,
    gifs: Mapping[str, bytes] = NOTHING,
    curves: Curves = NOTHING,
    curricula: Stories = NOTHING,
) -> tuple[Page, dict[str, bytes]]:
    """Return the page of the report, and the other files by name.

    For the arguments, see `write_report`. All numbers and figures are computed before the page is
    assembled. Sections without data are omitted.
    """
    summary, labels = found.summary, [run.run for run in found.summary.runs]
    # The keys are indices of runs. The index of a run determines its colour in figures and tables.
    gaps = {labels.index(n): s.gaps for n, s in curricula.items() if isinstance(s.gaps, Gaps)}
    worst = [s.worst for s in curricula.values() if isinstance(s.worst, CVaR)]
    suite = suite_data(found.evaluations, summary, images, gifs)
    drawn = suite_figures(found, curves, worst)
    if has_agent_curves(found.evaluations):
        drawn["agents"] = both_themes(partial(agent_curves, found.evaluations))
    if gaps:
        drawn["generalisation"] = both_themes(partial(gap_figure, gaps))
    fresh = suite.played.unit == "agents"  # True for a meta-test, in which rules train new agents
    sections = (
        Section("In short", "key_numbers.html", suite),
        figure_section(drawn, "intervals", _INTERVALS),
        Section("All levels", "aggregates.html", suite),
        relative_section(found.evaluations, found.relatives),
        gaps_section(gaps, drawn.get("generalisation", NOTHING)),
        normalised_section(found, drawn, worst),
        Section("Worst levels", "worst_levels.html", suite),
        Section("Each level", "each_level.html", suite),
        gallery_section(suite),
        figure_section(drawn, "profile", "Performance profile", "Performance profile", PROFILE),
        figure_section(drawn, "agents", _AGENTS, "Agents' learning curves", _LIVES),
        training_section(drawn),
        curricula_section(curricula, labels),
        Section("How it was measured", "method.html", suite),
    )
    page = Page(
        f"{summary.suite}: {', '.join(labels)}",
        f"{'Meta-test' if fresh else 'Zero-shot evaluation'} on {summary.suite}",
        headline(summary),
        " ".join([*overlap_warnings(found.evaluations), caveat(summary)]).strip(),
        [section for section in sections if section],  # a section without data is None
    )
    return page, light(drawn) | _numbered(gifs, curricula)


def suite_figures(
    found: Findings, curves: Curves, worst: Sequence[CVaR] = ()
) -> dict[str, Pictures]:
    """Draw the figures of runs on one suite, by file name; figures without data are omitted."""
    summary, labels = found.summary, [e.run for e in found.evaluations]
    # Each maker takes a theme and draws a figure.
    makers = {"intervals": partial(figures.intervals, summary)}
    # The thresholds of a performance profile lie in [0, 1], but returns have no fixed range.
    if summary.score != "return":
        makers["profile"] = partial(figures.profile, summary)
    for cost, name in LEARNING.items():
        if has_curves(curves, cost):
            makers[name] = partial(learning_curves, curves, labels=labels, cost=cost)
    drawn: dict[str, Pictures] = {name: both_themes(make) for name, make in makers.items()}
    return drawn | normalised_figures(found, worst)


def training_section(drawn: Mapping[str, Pictures]) -> Section | None:
    """Section with learning curves, one figure per kind of cost; None if there is no figure."""
    panels = {
        COST_NAMES[cost]: Figure(drawn[name], f"Learning curves, {COSTS[cost]}")
        for cost, name in LEARNING.items()
        if name in drawn
    }
    return Section("Training", "training.html", panels) if panels else None


def gallery_section(data: SuiteData) -> Section | None:
    """Section with the pictures of the levels; None if there are no pictures."""
    title = f"The levels, with {data.summary.score}"
    return Section(title, "gallery.html", data) if data.cards else None


def figure_section(
    drawn: Mapping[str, Pictures], name: str, alt: str, title: str = "", note: str = ""
) -> Section | None:
    """Section with a single figure; None if `drawn` lacks it."""
    return Section(title, "figure.html", Figure(drawn[name], alt, note)) if name in drawn else None


def light(drawn: Mapping[str, Pictures]) -> dict[str, bytes]:
    """PNG files of the figures in the light theme, by file name."""
    return {f"{name}.png": of_theme["light"] for name, of_theme in drawn.items()}


def _numbered(gifs: Mapping[str, bytes], curricula: Stories) -> dict[str, bytes]:
    """Files of episodes and curricula, by file name; the names are numbered from 0."""
    stories = curricula.values()
    kinds = {
        "episode-{}.gif": list(gifs.values()),
        "curriculum-{}.png": [one.drawn["light"] for one in stories if one.drawn],
        "gap-over-time-{}.png": [one.measured["light"] for one in stories if one.measured],
    }
    return {k.format(i): x for k, every in kinds.items() for i, x in enumerate(every)}


PROFILE = (
    "Fraction of all pairs of a seed and a level that score above each threshold. A higher line is "
    "better."
)
_INTERVALS = "Scores and intervals of every run, overall and on each level"
_AGENTS = "Learning curves of the agents"
_LIVES = (
    "Mean reward per step over all levels while the agents learn. "
    "Thin lines show single rules, thick lines the mean over rules."
)
