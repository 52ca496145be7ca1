"""One self-contained `report.html`: no network, no scripts, safe to open whoever made the run.

Every text that comes from a run is escaped, pictures are embedded, and the page's own policy
forbids it to load or run anything.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import numpy as np
from jaxtyping import UInt8
from matplotlib.figure import Figure

from rlgen.evaluation import figures, page
from rlgen.evaluation.curriculum_report import Story, curricula_section
from rlgen.evaluation.curves import has_curves, learning_curves
from rlgen.evaluation.episodes import Evaluation, hex_hash
from rlgen.evaluation.generalisation import Gaps
from rlgen.evaluation.generalisation_report import gap_figure, gaps_section
from rlgen.evaluation.images import image_bytes
from rlgen.evaluation.relative import compare_all
from rlgen.evaluation.relative_report import agent_curves, is_meta_test, relative_section
from rlgen.evaluation.relative_report import has_curves as has_agent_curves
from rlgen.evaluation.results import write
from rlgen.evaluation.statistics import DEFAULT, Bootstrap
from rlgen.evaluation.summary import Comparison, Summary, hardest, summarise
from rlgen.evaluation.wording import AGGREGATES, aside, headline, level_details, show, show_interval

MAX_CARDS = 60  # levels in the gallery; of a larger suite, the hardest
FIGURES = ("intervals", "profile", "learning", "agents", "generalisation")
_EPISODE, _CURRICULUM, _MEASURED = "episode-{}.gif", "curriculum-{}.png", "gap-over-time-{}.png"
NOTHING: Mapping = MappingProxyType({})

Curves = Mapping[str, Sequence[Mapping]]


def write_report(
    folder: Path | str,
    evaluations: Sequence[Evaluation],
    images: Mapping[str, UInt8[np.ndarray, "H W 3"]] = NOTHING,
    gifs: Mapping[str, bytes] = NOTHING,
    curves: Curves = NOTHING,
    bootstrap: Bootstrap = DEFAULT,
    curricula: Mapping[str, Story] = NOTHING,
) -> Path:
    """Write `report.html` and its figures as files: `intervals.png`, `profile.png`, and so on.

    Args:
        folder: made if need be; replaces an earlier report in it.
        evaluations: runs on one suite; the first is what the others are compared with.
        images: a picture of each level, by its name; levels without one have no picture.
        gifs: episodes (see `images.gif_bytes`) by caption.
        curves: lines of `metrics.jsonl` (see `curves.read_metrics`) by run label.
        bootstrap: how intervals are made.
        curricula: what is told of each run's training (see `curriculum_report.tell`) by label, and
            where it has them its gaps.

    Returns:
        The path of the page.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    summary = summarise(evaluations, bootstrap)
    drawn = _draw(summary, curves)
    if has_agent_curves(evaluations):
        drawn["agents"] = _themes(lambda theme: agent_curves(evaluations, theme))
    labels = [run.run for run in summary.runs]
    gaps = {labels.index(r): s.gaps for r, s in curricula.items() if isinstance(s.gaps, Gaps)}
    if gaps:
        drawn["generalisation"] = _themes(lambda theme: gap_figure(gaps, theme))
    _write_pictures(folder, drawn, gifs, curricula)
    path = folder / "report.html"
    told = (
        relative_section(evaluations, compare_all(evaluations, bootstrap)),
        gaps_section(gaps, drawn.get("generalisation", NOTHING)),
        curricula_section(curricula, labels),
    )
    write(path, _page(summary, evaluations, images, gifs, drawn, told).encode())
    return path


def _write_pictures(
    folder: Path,
    drawn: Mapping[str, Mapping[str, bytes]],
    gifs: Mapping[str, bytes],
    curricula: Mapping[str, Story],
) -> None:
    """Every picture of the page as a file; those of an earlier page go."""
    for name, themes in drawn.items():
        write(folder / f"{name}.png", themes["light"])
    for i, gif in enumerate(gifs.values()):
        write(folder / _EPISODE.format(i), gif)
    pictures = {
        _CURRICULUM: [story.drawn for story in curricula.values() if story.drawn],
        _MEASURED: [story.measured for story in curricula.values() if story.measured],
    }
    for name, i, themes in (
        (n, i, x) for n, every in pictures.items() for i, x in enumerate(every)
    ):
        write(folder / name.format(i), themes["light"])
    numbered = {_EPISODE: len(gifs)} | {name: len(every) for name, every in pictures.items()}
    for path in _stale(folder, drawn, numbered):
        path.unlink(missing_ok=True)


def _page(
    summary: Summary,
    evaluations: Sequence[Evaluation],
    images: Mapping[str, np.ndarray],
    gifs: Mapping[str, bytes],
    drawn: dict[str, dict[str, bytes]],
    told: tuple[str, str, str],
) -> str:
    relative, gaps, curricula = told
    fresh = is_meta_test(evaluations)
    sections = (
        relative,
        _aggregates(summary),
        _picture(drawn, "intervals", "Scores and intervals of every run, overall and by level"),
        gaps,
        _levels(summary, "env steps trained" if fresh else "steps / optimal"),
        _gallery(summary, images),
        _episodes(gifs),
        _picture(drawn, "profile", "Performance profile", "Performance profile", _PROFILE),
        _picture(drawn, "agents", "Learning curves of the agents", "The agents' lives", _LIVES),
        _picture(drawn, "learning", "Learning curves", "Training", _LEARNING),
        curricula,
        _method(summary, evaluations),
    )
    title = f"{summary.suite}: {', '.join(run.run for run in summary.runs)}"
    above = f"{'Meta-test' if fresh else 'Zero-shot evaluation'} on {summary.suite}"
    return page.frame(title, above, (headline(summary), aside(summary, fresh)), sections)


def _stale(folder: Path, drawn: Mapping, numbered: Mapping[str, int]) -> list[Path]:
    """Pictures of an earlier report that this one does not replace; of numbered ones, the rest."""
    gone = [folder / f"{name}.png" for name in FIGURES if name not in drawn]
    for name, i in numbered.items():
        while (folder / name.format(i)).exists():
            gone.append(folder / name.format(i))
            i += 1
    return gone


def _draw(summary: Summary, curves: Curves) -> dict[str, dict[str, bytes]]:
    """PNG of each figure in both themes."""
    makers = {"intervals": lambda theme: figures.intervals(summary, theme)}
    if summary.score != "return":
        makers["profile"] = lambda theme: figures.profile(summary, theme)
    labels = [run.run for run in summary.runs]
    if has_curves(curves):
        makers["learning"] = lambda theme: learning_curves(curves, theme, labels)
    return {name: _themes(make) for name, make in makers.items()}


def _themes(make: Callable[[str], Figure]) -> dict[str, bytes]:
    return {theme: figures.png_bytes(make(theme)) for theme in figures.THEMES}


def _aggregates(summary: Summary) -> str:
    """Aggregates by runs, and how the other runs differ from the first."""
    runs, score = summary.runs, summary.score
    labels = [page.label(r, run.run) for r, run in enumerate(runs)]
    rows = [
        [name, *(show_interval(run.aggregate[key], score) for run in runs)]
        for name, key in AGGREGATES.items()
        if all(key in run.aggregate for run in runs)
    ]
    rows.append(
        ["mean return", *(show_interval(run.aggregate["return"], "return") for run in runs)]
    )
    blocks = [page.table(["", *labels], rows)]
    if summary.comparisons:
        rows = [
            [
                name,
                *(show_interval(getattr(c, key), score, signed=True) for c in summary.comparisons),
            ]
            for name, key in AGGREGATES.items()
            if key in Comparison._fields
        ]
        better = (show_interval(c.improvement, "solve rate", 0) for c in summary.comparisons)
        rows.append(["P(better)", *better])
        unit = "" if score == "return" else ", in percentage points"
        title = f"<h3>Difference from {page.text(runs[0].run)}{unit}</h3>"
        blocks.append(title + page.table(["", *labels[1:]], rows))
    return page.section("All levels", "".join(blocks))


def _levels(summary: Summary, steps: str) -> str:
    """All levels: for one run in detail, for several the scores, with each run's detail folded."""
    blocks = []
    if len(summary.runs) > 1:
        names = [level.name for level in summary.runs[0].levels]
        columns = [
            [show_interval(level.score, summary.score, 0) for level in run.levels]
            for run in summary.runs
        ]
        heads = ["level", *(page.label(r, run.run) for r, run in enumerate(summary.runs))]
        if len(summary.runs) == 2:
            gaps = summary.comparisons[0].levels
            shown = (gaps.at(i) for i in range(len(names)))
            columns.append([show_interval(gap, summary.score, 0, signed=True) for gap in shown])
            heads.append("difference")
        cells = zip(map(page.text, names), *columns, strict=True)
        blocks.append(page.table(heads, [list(row) for row in cells]))
    for run in summary.runs:
        heads = ["level", summary.score, "return", "of optimal", steps]
        rows = [
            [
                page.text(level.name),
                show_interval(level.score, summary.score, 0),
                *level_details(level, summary.score),
            ]
            for level in run.levels
        ]
        table = page.table(heads, rows)
        folded = page.folded(f"{run.run} in detail", table)
        blocks.append(folded if len(summary.runs) > 1 else table)
    return page.section("Each level", "".join(blocks))


def _gallery(summary: Summary, images: Mapping[str, np.ndarray]) -> str:
    if not images:
        return ""
    cards = []
    for i in hardest(summary, MAX_CARDS):
        name = summary.runs[0].levels[i].name
        picture = ""
        if name in images:
            source = page.embed("png", image_bytes(np.asarray(images[name])))
            picture = f'<img src="{source}" alt="Map of {page.text(name)}">'
        scores = "".join(
            f"<li>{page.label(r, run.run)}<span>"
            f"{show(float(run.levels[i].score.value), summary.score, 0)}</span></li>"
            for r, run in enumerate(summary.runs)
        )
        cards.append(
            f"<figure>{picture}<figcaption>{page.text(name)}<ul>{scores}</ul></figcaption></figure>"
        )
    total = len(summary.runs[0].levels)
    note = f"The {len(cards)} hardest of {total} levels." if len(cards) < total else ""
    body = f'<div class="gallery">{"".join(cards)}</div>'
    return page.section(f"The levels, with {summary.score}", body, note)


def _episodes(gifs: Mapping[str, bytes]) -> str:
    shown = "".join(
        f'<figure><img src="{page.embed("gif", gif)}" alt="Episode: {page.text(caption)}">'
        f"<figcaption>{page.text(caption)}</figcaption></figure>"
        for caption, gif in gifs.items()
    )
    return page.section("Episodes", f'<div class="episodes">{shown}</div>') if gifs else ""


def _value(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _picture(drawn: dict, name: str, alt: str, title: str = "", note: str = "") -> str:
    """A figure that follows the reader's light or dark setting."""
    if name not in drawn:
        return ""
    return page.section(title, page.picture(drawn[name], alt), note)


def _method(summary: Summary, evaluations: Sequence[Evaluation]) -> str:
    facts = [("Interval", f"{summary.meaning}.")]
    if summary.level_meaning != summary.meaning:
        facts.append(("Interval of a level", f"{summary.level_meaning}."))
    if "iqm_whole_seeds" in summary.runs[0].aggregate:
        facts.append(("Whole seeds", _WHOLE_SEEDS))
    seeds = min(e.shape[0] for e in evaluations)
    if summary.over in ("seeds", "whole-seeds") and seeds < 10:
        facts.append(("Few seeds", f"{seeds} seeds. {_FEW_SEEDS}"))
    facts += [("IQM", _IQM), ("P(better)", _BETTER), ("Optimality gap", _GAP)]
    for e in evaluations:
        num_seeds, num_levels, attempts = e.shape
        what = "agents" if is_meta_test([e]) else "episodes"
        played = f"{num_seeds} × {num_levels} × {attempts} {what} (seeds × levels × attempts)"  # noqa: RUF001
        rest = [f"{name}: {_value(value)}" for name, value in e.meta.items() if name != "curve"]
        facts.append((e.run, "; ".join([played, *rest])))
    items = "".join(f"<dt>{page.text(k)}</dt><dd>{page.text(v)}</dd>" for k, v in facts)
    first = evaluations[0]
    rows = [
        [page.text(name), f"<code>{hex_hash(bits)}</code>", str(steps) if steps >= 0 else "-"]
        for name, bits, steps in zip(
            first.level_names, first.level_hashes, first.optimal_steps, strict=True
        )
    ]
    hashes = page.table(["level", "hash", "optimal steps"], rows)
    folded = page.folded("Hashes of the levels", hashes)
    return page.section("How it was measured", f"<dl>{items}</dl>{folded}")


_PROFILE = "Share of seeds and levels that score above each threshold: a higher line is better."
_LEARNING = "Episodes met in training, as each run chose its levels: not the held-out levels above."
_LIVES = (
    "Mean reward of a step while agents learn, over all levels: each rule thin, the mean thick."
)
_IQM = "Interquartile mean: the mean over seeds and levels without the lowest and highest quarter."
_BETTER = "Probability that a random seed beats one of the first run on a level; a tie counts half."
_GAP = "How far scores fall short of 1 on average."
_WHOLE_SEEDS = (
    "The same seeds are drawn for all levels. One agent plays every level, so where some seeds are "
    "better everywhere, this wider interval is the one to trust."
)
_FEW_SEEDS = (
    "A bootstrap over few is narrower than it claims to be: in simulation, intervals over whole "
    "seeds meant to hold the truth 95 times in 100 held it 75 times with 3 seeds, 83 with 5 and 90 "
    "with 10."
)
