"""Collect the data that the report sections on one suite show, see `SuiteData`.

A look is one evaluation of a run on a sealed suite, see `rlgen.runs.test_set_access`.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, UInt8

from rlgen.evaluation.episodes import Evaluation, Json
from rlgen.evaluation.report.html import RunLabel
from rlgen.evaluation.report.images import image_bytes
from rlgen.evaluation.report.relative_section import is_meta_test
from rlgen.evaluation.report.training_overlap import KEY, overlap_sentences
from rlgen.evaluation.stats.formatting import AGGREGATES
from rlgen.evaluation.stats.summary import LevelResult, RunResult, Summary, hardest

MAX_CARDS = 60  # levels in the gallery; of a larger suite, the hardest levels are shown
NOT_TOLD = (
    "curve",
    "look",
    "optimum_is_bound",
    KEY,
)  # keys of `Evaluation.meta` that the report shows in other sections

Images = Mapping[str, UInt8[np.ndarray, "H W 3"]]


class Played(NamedTuple):
    """Amount of data in the evaluations of all runs."""

    unit: str  # "episodes", or "agents" in a meta-test
    total: int
    seeds: tuple[int, int]  # minimum and maximum over runs
    levels: int
    attempts: tuple[int, int]  # minimum and maximum over runs


class Protocol(NamedTuple):
    """Amount of data of one run, and the metadata of its evaluation."""

    run: str
    shape: tuple[int, int, int]  # seeds, levels, attempts
    unit: str
    meta: dict[str, Json]


class WorstLevel(NamedTuple):
    """Level on which a run has its lowest mean score.

    Among tied levels, it is the one with the longest optimal solution.
    """

    run: str
    level: LevelResult
    num_ties: int  # number of other levels with the same mean score
    worst_seed: float  # mean score of the worst seed on this level
    optimal_steps: int  # -1 if unknown


class Card(NamedTuple):
    """One level in the gallery."""

    level: int  # index in the suite
    name: str
    png: bytes  # empty if the level has no picture


class SuiteData(NamedTuple):
    """Data on the runs of one suite, which the templates show."""

    evaluations: Sequence[Evaluation]
    summary: Summary
    labels: list[RunLabel]  # one per run
    order: tuple[int, ...]  # indices of the runs by decreasing mean score
    played: Played
    aggregates: dict[str, str]  # aggregates that every run has: display name to key
    best: Bool[np.ndarray, "R M"]  # whether a run has or shares the highest score on a level
    steps_name: str  # heading of the column of steps
    worst: tuple[WorstLevel, ...]
    episodes: Mapping[str, bytes]  # GIFs by caption
    cards: tuple[Card, ...]
    access_counts: Sequence[str]
    overlaps: Sequence[str]
    protocols: tuple[Protocol, ...]


def suite_data(
    evaluations: Sequence[Evaluation],
    summary: Summary,
    images: Images,
    gifs: Mapping[str, bytes],
) -> SuiteData:
    """Collect the numbers and pictures of runs on one suite.

    Args:
        evaluations: Evaluations of the runs.
        summary: Summary of the evaluations.
        images: Pictures of levels by level name; if empty, there is no gallery.
        gifs: Recorded episodes as GIFs, by caption.
    """
    runs, unit = summary.runs, "agents" if is_meta_test(evaluations) else "episodes"
    seeds, _, attempts = np.array([e.shape for e in evaluations]).T
    total = sum(e.episode_return.size for e in evaluations)
    num_levels = evaluations[0].shape[1]
    scores = np.array([[float(one.score.value) for one in run.levels] for run in runs])
    means = np.array([float(run.aggregate["mean"].value) for run in runs])
    shown = {n: k for n, k in AGGREGATES.items() if all(k in run.aggregate for run in runs)}
    return SuiteData(
        evaluations,
        summary,
        [RunLabel(run.run, r) for r, run in enumerate(runs)],
        tuple(int(r) for r in np.argsort(-means, kind="stable")),
        Played(unit, total, _ends(seeds), num_levels, _ends(attempts)),
        shown,
        # [R, M]. If all runs have the same score on a level, no run is marked.
        (scores == scores.max(axis=0)) & (scores > scores.min(axis=0)),
        "env steps trained" if unit == "agents" else "steps / optimal",
        tuple(_worst(e, run, row) for e, run, row in zip(evaluations, runs, scores, strict=True)),
        gifs,
        _cards(summary, images),
        access_counts(evaluations),
        overlap_sentences(evaluations),
        tuple(_protocol(e) for e in evaluations),
    )


def access_counts(evaluations: Sequence[Evaluation]) -> list[str]:
    """For each run on a sealed suite, state in a sentence the number of this evaluation."""
    told = {e.run: e.meta["look"] for e in evaluations if e.meta.get("look")}
    return [f"{run}: evaluation {num} on this suite" for run, num in told.items()]


def _worst(e: Evaluation, run: RunResult, scores: Float[np.ndarray, " M"]) -> WorstLevel:
    """Worst level of a run, given its mean score on each level."""
    # The last key of `lexsort` is the primary one: lowest score, then longest optimal solution.
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
