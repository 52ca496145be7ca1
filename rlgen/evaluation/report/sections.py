"""The sections of the report on one suite: key numbers, tables, gallery, worst levels, method."""

import json
from collections.abc import Mapping, Sequence

import numpy as np

from rlgen.evaluation.episodes import Evaluation, hex_hash
from rlgen.evaluation.report import html
from rlgen.evaluation.report.images import image_bytes
from rlgen.evaluation.report.relative_section import is_meta_test
from rlgen.evaluation.stats.formatting import (
    AGGREGATES,
    interval_name,
    level_details,
    show,
    show_interval,
)
from rlgen.evaluation.stats.summary import Comparison, Summary, hardest

MAX_CARDS = 60  # levels in the gallery; of a larger suite, the hardest
MAX_NUMBERS = 6  # runs among the key numbers; of more, the best
NOT_TOLD = ("curve", "look")  # of what an evaluation says of itself: told elsewhere


def access_counts(evaluations: Sequence[Evaluation]) -> list[str]:
    """Of each run that has had looks at a sealed suite, which look this one is."""
    told = {e.run: e.meta["look"] for e in evaluations if e.meta.get("look")}
    return [f"{run}: look {num} at this suite" for run, num in told.items()]


def key_numbers(summary: Summary, evaluations: Sequence[Evaluation]) -> str:
    """Each run's score with its interval, how often it has looked, and how much was played."""
    order = sorted(range(len(summary.runs)), key=lambda r: -summary.runs[r].aggregate["iqm"].value)
    facts = []
    for r in order[:MAX_NUMBERS]:
        run, look = summary.runs[r], evaluations[r].meta.get("look")
        value, _, span = show_interval(run.aggregate["iqm"], summary.score).partition(" [")
        rest = [f"[{span}" if span else "no interval"]
        rest += [f"look {look} at this suite"] if look else []
        facts.append((html.label(r, run.run), value, "; ".join(rest)))
    seeds = sorted({e.shape[0] for e in evaluations})
    attempts = sorted({e.shape[2] for e in evaluations})
    what = "agents" if is_meta_test(evaluations) else "episodes"
    played = sum(e.episode_return.size for e in evaluations)
    spans = [f"{a[0]:,}" if len(a) == 1 else f"{a[0]:,} to {a[-1]:,}" for a in (seeds, attempts)]
    levels = evaluations[0].shape[1]
    rest = f"{spans[0]} seeds × {levels:,} levels × {spans[1]} attempts"  # noqa: RUF001
    facts.append((what.capitalize(), f"{played:,}", rest))
    note = f"Interquartile mean of the {summary.score}, {interval_name(summary)}."
    left = len(order) - MAX_NUMBERS
    note += f" The best {MAX_NUMBERS} of {len(order)} runs." if left > 0 else ""
    return html.section("In short", html.numbers(facts), note)


def aggregates(summary: Summary) -> str:
    """Aggregates by runs, and how the other runs differ from the first."""
    runs, score = summary.runs, summary.score
    labels = [html.label(r, run.run) for r, run in enumerate(runs)]
    rows = [
        [name, *(show_interval(run.aggregate[key], score) for run in runs)]
        for name, key in AGGREGATES.items()
        if all(key in run.aggregate for run in runs)
    ]
    rows.append(
        ["mean return", *(show_interval(run.aggregate["return"], "return") for run in runs)]
    )
    blocks = [html.table(["", *labels], rows)]
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
        title = f"<h3>Difference from {html.text(runs[0].run)}{unit}</h3>"
        blocks.append(title + html.table(["", *labels[1:]], rows))
    return html.section("All levels", "".join(blocks))


def each_level(summary: Summary, steps: str) -> str:
    """All levels: for one run in detail, for several the scores, with each run's detail folded.

    Args:
        summary: of the evaluations.
        steps: what the column of steps is called.
    """
    several = len(summary.runs) > 1
    blocks = [_scores_of_levels(summary)] if several else []
    for run in summary.runs:
        heads = ["level", summary.score, "return", "of optimal", steps]
        rows = [
            [
                html.text(level.name),
                show_interval(level.score, summary.score, 0),
                *level_details(level, summary.score),
            ]
            for level in run.levels
        ]
        table = html.table(heads, rows)
        folded = html.folded(f"{run.run} in detail", table)
        blocks.append(folded if several else table)
    return html.section("Each level", "".join(blocks), _BEST if several else "")


def _scores_of_levels(summary: Summary) -> str:
    """Levels by runs, the best of each level bold; of two runs also their difference."""
    names = [level.name for level in summary.runs[0].levels]
    scores = np.array([[float(one.score.value) for one in run.levels] for run in summary.runs])
    best = (scores == scores.max(axis=0)) & (scores > scores.min(axis=0))
    columns = []
    for run, bold in zip(summary.runs, best, strict=True):
        cells = [show_interval(level.score, summary.score, 0) for level in run.levels]
        columns.append([f"<b>{c}</b>" if b else c for c, b in zip(cells, bold, strict=True)])
    heads = ["level", *(html.label(r, run.run) for r, run in enumerate(summary.runs))]
    if len(summary.runs) == 2:
        gaps = summary.comparisons[0].levels
        shown = (gaps.at(i) for i in range(len(names)))
        columns.append([show_interval(gap, summary.score, 0, signed=True) for gap in shown])
        heads.append("difference")
    cells = zip(map(html.text, names), *columns, strict=True)
    return html.table(heads, [list(row) for row in cells])


def gallery(summary: Summary, images: Mapping[str, np.ndarray]) -> str:
    """Pictures of the levels with every run's score; "" without pictures."""
    if not images:
        return ""
    cards = []
    for i in hardest(summary, MAX_CARDS):
        name = summary.runs[0].levels[i].name
        picture = ""
        if name in images:
            source = html.embed("png", image_bytes(np.asarray(images[name])))
            picture = f'<img src="{source}" alt="Map of {html.text(name)}">'
        scores = "".join(
            f"<li>{html.label(r, run.run)}<span>"
            f"{show(float(run.levels[i].score.value), summary.score, 0)}</span></li>"
            for r, run in enumerate(summary.runs)
        )
        cards.append(
            f"<figure>{picture}<figcaption>{html.text(name)}<ul>{scores}</ul></figcaption></figure>"
        )
    total = len(summary.runs[0].levels)
    note = f"The {len(cards)} hardest of {total} levels." if len(cards) < total else ""
    body = f'<div class="gallery">{"".join(cards)}</div>'
    return html.section(f"The levels, with {summary.score}", body, note)


def worst_section(
    summary: Summary, evaluations: Sequence[Evaluation], gifs: Mapping[str, bytes]
) -> str:
    """Each run's worst level in a table, and episodes."""
    rows = []
    for r, (run, e) in enumerate(zip(summary.runs, evaluations, strict=True)):
        scores = np.array([float(level.score.value) for level in run.levels])
        low = scores.min()
        worst = int(np.lexsort((-e.optimal_steps, scores))[0])
        others = int((scores == low).sum()) - 1
        also = f" and {others} more" if others else ""
        level = run.levels[worst]
        seeds = e.score[1][:, worst].mean(axis=1)
        spread = f"{show(float(seeds.min()), summary.score, 0)}"
        rows.append(
            [
                html.label(r, run.run),
                html.text(level.name + also),
                show_interval(level.score, summary.score, 0),
                spread,
                "-" if np.isnan(level.optimal_steps) else f"{level.optimal_steps:.0f}",
            ]
        )
    heads = ["", "worst level", summary.score, "its worst seed", "optimal steps"]
    shown = "".join(
        f'<figure><img src="{html.embed("gif", gif)}" alt="Episode: {html.text(caption)}">'
        f"<figcaption>{html.text(caption)}</figcaption></figure>"
        for caption, gif in gifs.items()
    )
    episodes = f'<h3>Episodes</h3><div class="episodes">{shown}</div>' if gifs else ""
    return html.section("Worst levels", html.table(heads, rows) + episodes, _WORST)


def method(summary: Summary, evaluations: Sequence[Evaluation]) -> str:
    """What intervals and aggregates mean, what was played, and the hashes of the levels."""
    facts = [("Interval", f"{summary.meaning}.")]
    if summary.level_meaning != summary.meaning:
        facts.append(("Interval of a level", f"{summary.level_meaning}."))
    if "iqm_whole_seeds" in summary.runs[0].aggregate:
        facts.append(("Whole seeds", _WHOLE_SEEDS))
    seeds = min(e.shape[0] for e in evaluations)
    if summary.over in ("seeds", "whole-seeds") and seeds < 10:
        facts.append(("Few seeds", f"{seeds} seeds. {_FEW_SEEDS}"))
    if access_counts(evaluations):
        facts.append(("Looks", f"{'; '.join(access_counts(evaluations))}. {_LOOKS}"))
    facts += [("IQM", _IQM), ("P(better)", _BETTER), ("Optimality gap", _GAP)]
    for e in evaluations:
        num_seeds, num_levels, attempts = e.shape
        what = "agents" if is_meta_test([e]) else "episodes"
        played = f"{num_seeds} × {num_levels} × {attempts} {what} (seeds × levels × attempts)"  # noqa: RUF001
        rest = [
            f"{name}: {_value(value)}" for name, value in e.meta.items() if name not in NOT_TOLD
        ]
        facts.append((e.run, "; ".join([played, *rest])))
    items = "".join(f"<dt>{html.text(k)}</dt><dd>{html.text(v)}</dd>" for k, v in facts)
    first = evaluations[0]
    rows = [
        [html.text(name), f"<code>{hex_hash(bits)}</code>", str(steps) if steps >= 0 else "-"]
        for name, bits, steps in zip(
            first.level_names, first.level_hashes, first.optimal_steps, strict=True
        )
    ]
    hashes = html.table(["level", "hash", "optimal steps"], rows)
    folded = html.folded("Hashes of the levels", hashes)
    return html.section("How it was measured", f"<dl>{items}</dl>{folded}")


def _value(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


_BEST = "Bold: the best run of a level, or those that tie, whatever the intervals say."
_WORST = (
    "By the mean over seeds and attempts; of levels that tie, the one of the longest optimum. "
    "Chosen and measured by the same episodes, a worst level looks a little worse than it is."
)
_LOOKS = (
    "How often a run has been tested on this suite. Whoever chooses by what a test says makes it "
    "tell less of levels that were never seen."
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
