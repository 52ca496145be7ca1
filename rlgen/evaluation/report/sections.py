"""Numbers that the sections on one suite show, beside its statistics: see `SuiteData`."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, UInt8

from rlgen.evaluation.episodes import Evaluation, Json
from rlgen.evaluation.report.html import RunLabel
from rlgen.evaluation.report.images import image_bytes
from rlgen.evaluation.report.relative_section import is_meta_test
from rlgen.evaluation.stats.formatting import AGGREGATES
from rlgen.evaluation.stats.summary import LevelResult, RunResult, Summary, hardest

MAX_CARDS = 60  # levels in the gallery; of a larger suite, the hardest
NOT_TOLD = ("curve", "look")  # of what an evaluation says of itself: shown elsewhere

Images = Mapping[str, UInt8[np.ndarray, "H W 3"]]


class Played(NamedTuple):
    """Numbers of what was played by all runs together."""

    unit: str  # episodes, or agents that were trained
    total: int
    seeds: tuple[int, int]  # fewest and most of a run
    levels: int
    attempts: tuple[int, int]  # fewest and most of a run


class Protocol(NamedTuple):
    """What one run played, and what else is known of its evaluation."""

    run: str
    shape: tuple[int, int, int]  # seeds, levels, attempts
    unit: str
    meta: dict[str, Json]


class WorstLevel(NamedTuple):
    """The level on which a run has its lowest mean score; of those that tie the longest."""

    run: str
    level: LevelResult
    num_ties: int  # other levels of the same score
    worst_seed: float  # mean score of the seed that does worst on it
    optimal_steps: int  # -1: unknown


class Card(NamedTuple):
    """A level in the gallery."""

    level: int  # its place in the suite
    name: str
    png: bytes  # empty without a picture


class SuiteData(NamedTuple):
    """Runs on one suite, as templates show them."""

    evaluations: Sequence[Evaluation]
    summary: Summary
    labels: list[RunLabel]  # of all runs
    order: tuple[int, ...]  # places of the runs, the best by IQM first
    played: Played
    aggregates: dict[str, str]  # keys of the aggregates that every run has, by their names
    best: Bool[np.ndarray, "R M"]  # whether a run is the best, or one that ties, on a level
    steps_name: str  # head of the column of steps
    worst: tuple[WorstLevel, ...]
    episodes: Mapping[str, bytes]  # GIF by caption
    cards: tuple[Card, ...]
    access_counts: Sequence[str]
    protocols: tuple[Protocol, ...]


def suite_data(
    evaluations: Sequence[Evaluation],
    summary: Summary,
    images: Images,
    gifs: Mapping[str, bytes],
) -> SuiteData:
    """The numbers and pictures of runs on one suite.

    Args:
        evaluations: of the runs.
        summary: of the evaluations.
        images: a picture of each level, by its name; without any there is no gallery.
        gifs: episodes by caption.
    """
    runs, unit = summary.runs, "agents" if is_meta_test(evaluations) else "episodes"
    seeds, _, attempts = np.array([e.shape for e in evaluations]).T
    total = sum(e.episode_return.size for e in evaluations)
    num_levels = evaluations[0].shape[1]
    scores = np.array([[float(one.score.value) for one in run.levels] for run in runs])
    iqm = np.array([float(run.aggregate["iqm"].value) for run in runs])
    shown = {n: k for n, k in AGGREGATES.items() if all(k in run.aggregate for run in runs)}
    return SuiteData(
        evaluations,
        summary,
        [RunLabel(run.run, r) for r, run in enumerate(runs)],
        tuple(int(r) for r in np.argsort(-iqm, kind="stable")),
        Played(unit, total, _ends(seeds), num_levels, _ends(attempts)),
        shown,
        (scores == scores.max(axis=0)) & (scores > scores.min(axis=0)),
        "env steps trained" if unit == "agents" else "steps / optimal",
        tuple(_worst(e, run, row) for e, run, row in zip(evaluations, runs, scores, strict=True)),
        gifs,
        _cards(summary, images),
        access_counts(evaluations),
        tuple(_protocol(e) for e in evaluations),
    )


def access_counts(evaluations: Sequence[Evaluation]) -> list[str]:
    """Of each run that has had looks at a sealed suite, which look this one is."""
    told = {e.run: e.meta["look"] for e in evaluations if e.meta.get("look")}
    return [f"{run}: look {num} at this suite" for run, num in told.items()]


def _worst(e: Evaluation, run: RunResult, scores: Float[np.ndarray, " M"]) -> WorstLevel:
    """The worst level of a run, whose mean scores of levels are given."""
    worst = int(np.lexsort((-e.optimal_steps, scores))[0])
    seeds = e.score[1][:, worst].mean(axis=1)
    return WorstLevel(
        e.run,
        run.levels[worst],
        int((scores == scores.min()).sum()) - 1,
        float(seeds.min()),
        int(e.optimal_steps[worst]),
    )


def _cards(summary: Summary, images: Images) -> tuple[Card, ...]:
    names = [level.name for level in summary.runs[0].levels]
    chosen = hardest(summary, MAX_CARDS) if images else []
    pngs = {i: image_bytes(np.asarray(images[names[i]])) for i in chosen if names[i] in images}
    return tuple(Card(i, names[i], pngs.get(i, b"")) for i in chosen)


def _protocol(e: Evaluation) -> Protocol:
    meta = {name: value for name, value in e.meta.items() if name not in NOT_TOLD}
    return Protocol(e.run, e.shape, "agents" if is_meta_test([e]) else "episodes", meta)


def _ends(x: np.ndarray) -> tuple[int, int]:
    return int(x.min()), int(x.max())
