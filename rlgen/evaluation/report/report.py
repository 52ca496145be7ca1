"""One self-contained `report.html`: no network, no scripts, safe to open whoever made the run.

Every text that comes from a run is escaped, pictures are embedded, and the page's own policy
forbids it to load or run anything.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8
from matplotlib.figure import Figure

from rlgen.evaluation.episodes import Evaluation
from rlgen.evaluation.generalisation.gap import Gaps
from rlgen.evaluation.report import figures, html
from rlgen.evaluation.report import sections as sections
from rlgen.evaluation.report.curriculum_section import CurriculumSummary, curricula_section
from rlgen.evaluation.report.gap_section import gap_figure, gaps_section
from rlgen.evaluation.report.learning_curves import has_curves, learning_curves
from rlgen.evaluation.report.normalised_section import normalised_figures, normalised_section
from rlgen.evaluation.report.relative_section import agent_curves, is_meta_test, relative_section
from rlgen.evaluation.report.relative_section import has_curves as has_agent_curves
from rlgen.evaluation.report.results import write
from rlgen.evaluation.stats.bootstrap import DEFAULT, Bootstrap
from rlgen.evaluation.stats.cost import COSTS
from rlgen.evaluation.stats.cvar import CVaR
from rlgen.evaluation.stats.formatting import caveat, headline
from rlgen.evaluation.stats.relative import compare_all
from rlgen.evaluation.stats.summary import Summary, summarise

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
FIGURES = ("intervals", "profile", *LEARNING.values(), "agents", "generalisation")
_EPISODE, _CURRICULUM, _MEASURED = "episode-{}.gif", "curriculum-{}.png", "gap-over-time-{}.png"
_NORMALISED = "normalised-{}.png"
NOTHING: Mapping = MappingProxyType({})

Curves = Mapping[str, Sequence[Mapping]]


class Sections(NamedTuple):
    """Sections that others make, as HTML; "" where there is nothing to say."""

    relative: str
    gaps: str
    normalised_scores: str
    curricula: str


def write_report(
    folder: Path | str,
    evaluations: Sequence[Evaluation],
    images: Mapping[str, UInt8[np.ndarray, "H W 3"]] = NOTHING,
    gifs: Mapping[str, bytes] = NOTHING,
    curves: Curves = NOTHING,
    bootstrap: Bootstrap = DEFAULT,
    curricula: Mapping[str, CurriculumSummary] = NOTHING,
) -> Path:
    """Write `report.html` and its figures as files: `intervals.png`, `profile.png`, and so on.

    Args:
        folder: made if need be; replaces an earlier report in it.
        evaluations: runs on one suite; the first is what the others are compared with.
        images: a picture of each level, by its name; levels without one have no picture.
        gifs: episodes (see `images.gif_bytes`) by caption.
        curves: lines of `metrics.jsonl` (see `from_runs.metrics.read_metrics`) by run label.
        bootstrap: how intervals are made.
        curricula: what is told of each run's training (see `from_runs.curricula.tell`) by label,
            and where it has them its gaps and its worst levels, played again.

    Returns:
        The path of the page.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    summary = summarise(evaluations, bootstrap)
    drawn = draw(summary, curves)
    if has_agent_curves(evaluations):
        drawn["agents"] = themes(lambda theme: agent_curves(evaluations, theme))
    labels = [run.run for run in summary.runs]
    gaps = {labels.index(r): s.gaps for r, s in curricula.items() if isinstance(s.gaps, Gaps)}
    if gaps:
        drawn["generalisation"] = themes(lambda theme: gap_figure(gaps, theme))
    _write_pictures(folder, drawn, gifs, curricula)
    worst = [s.worst for s in curricula.values() if isinstance(s.worst, CVaR)]
    write_normalised(folder, evaluations, worst)
    path = folder / "report.html"
    told = Sections(
        relative_section(evaluations, compare_all(evaluations, bootstrap)),
        gaps_section(gaps, drawn.get("generalisation", NOTHING)),
        normalised_section(evaluations, bootstrap, worst),
        curricula_section(curricula, labels),
    )
    write(path, _page(summary, evaluations, images, gifs, drawn, told).encode())
    return path


def _write_pictures(
    folder: Path,
    drawn: Mapping[str, Mapping[str, bytes]],
    gifs: Mapping[str, bytes],
    curricula: Mapping[str, CurriculumSummary],
) -> None:
    """Every picture of the page as a file; those of an earlier page go."""
    for name, of_theme in drawn.items():
        write(folder / f"{name}.png", of_theme["light"])
    for i, gif in enumerate(gifs.values()):
        write(folder / _EPISODE.format(i), gif)
    pictures = {
        _CURRICULUM: [story.drawn for story in curricula.values() if story.drawn],
        _MEASURED: [story.measured for story in curricula.values() if story.measured],
    }
    for name, i, of_theme in (
        (n, i, x) for n, every in pictures.items() for i, x in enumerate(every)
    ):
        write(folder / name.format(i), of_theme["light"])
    numbered = {_EPISODE: len(gifs)} | {name: len(every) for name, every in pictures.items()}
    for path in _stale(folder, drawn, numbered):
        path.unlink(missing_ok=True)


def write_normalised(
    folder: Path, evaluations: Sequence[Evaluation], worst: Sequence[CVaR] = ()
) -> None:
    """The figures of how runs stand over the levels, as files; those of an earlier report go."""
    figures_of = normalised_figures(evaluations, worst)
    drawn = {_NORMALISED.format(name): of_theme for name, of_theme in figures_of.items()}
    for path in folder.glob(_NORMALISED.format("*")):
        if path.name not in drawn:
            path.unlink()
    for name, of_theme in drawn.items():
        write(folder / name, of_theme["light"])


def _page(
    summary: Summary,
    evaluations: Sequence[Evaluation],
    images: Mapping[str, np.ndarray],
    gifs: Mapping[str, bytes],
    drawn: dict[str, dict[str, bytes]],
    told: Sections,
) -> str:
    fresh = is_meta_test(evaluations)
    body = (
        sections.key_numbers(summary, evaluations),
        _picture(drawn, "intervals", "Scores and intervals of every run, overall and by level"),
        sections.aggregates(summary),
        told.relative,
        told.gaps,
        told.normalised_scores,
        sections.worst_section(summary, evaluations, gifs),
        sections.each_level(summary, "env steps trained" if fresh else "steps / optimal"),
        sections.gallery(summary, images),
        _picture(drawn, "profile", "Performance profile", "Performance profile", _PROFILE),
        _picture(drawn, "agents", "Learning curves of the agents", "The agents' lives", _LIVES),
        training_section(drawn),
        told.curricula,
        sections.method(summary, evaluations),
    )
    title = f"{summary.suite}: {', '.join(run.run for run in summary.runs)}"
    above = f"{'Meta-test' if fresh else 'Zero-shot evaluation'} on {summary.suite}"
    return html.frame(title, above, (headline(summary), caveat(summary, fresh)), body)


def training_section(drawn: Mapping[str, Mapping[str, bytes]]) -> str:
    """Learning curves against each cost that is known, one at a time; "" without any."""
    names = {cost: name for cost, name in LEARNING.items() if name in drawn}
    panels = {
        COST_NAMES[cost]: html.picture(drawn[name], f"Learning curves, {COSTS[cost]}")
        for cost, name in names.items()
    }
    return html.section("Training", html.tabs("training", panels), _LEARNING) if panels else ""


def _stale(folder: Path, drawn: Mapping, numbered: Mapping[str, int]) -> list[Path]:
    """Pictures of an earlier report that this one does not replace; of numbered ones, the rest."""
    gone = [folder / f"{name}.png" for name in FIGURES if name not in drawn]
    for name, i in numbered.items():
        while (folder / name.format(i)).exists():
            gone.append(folder / name.format(i))
            i += 1
    return gone


def draw(summary: Summary, curves: Curves) -> dict[str, dict[str, bytes]]:
    """PNG of each figure in both themes."""
    makers = {"intervals": lambda theme: figures.intervals(summary, theme)}
    if summary.score != "return":
        makers["profile"] = lambda theme: figures.profile(summary, theme)
    labels = [run.run for run in summary.runs]
    for cost, name in LEARNING.items():
        if has_curves(curves, cost):
            makers[name] = partial(_learning, curves, labels, cost)
    return {name: themes(make) for name, make in makers.items()}


def _learning(curves: Curves, labels: Sequence[str], cost: str, theme: str) -> Figure:
    return learning_curves(curves, theme, labels, cost)


def themes(make: Callable[[str], Figure]) -> dict[str, bytes]:
    """A figure as PNG in both themes."""
    return {theme: figures.png_bytes(make(theme)) for theme in figures.THEMES}


def _picture(drawn: dict, name: str, alt: str, title: str = "", note: str = "") -> str:
    """A figure that follows the reader's light or dark setting."""
    if name not in drawn:
        return ""
    return html.section(title, html.picture(drawn[name], alt), note)


_PROFILE = "Share of seeds and levels that score above each threshold: a higher line is better."
_LEARNING = (
    "Episodes met in training, as each run chose its levels: not the held-out levels above. Thick: "
    "the mean over the seeds in which episodes ended; thin: each seed."
)
_LIVES = (
    "Mean reward of a step while agents learn, over all levels: each rule thin, the mean thick."
)
