"""Scores of runs on each rung of the ladder, and gaps between rungs, with intervals."""

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from rlgen.evaluation.episodes import Evaluation, Json, plain, printable
from rlgen.evaluation.ladder.few_shot import Adaptation
from rlgen.evaluation.ladder.ladder import Ladder, Rung
from rlgen.evaluation.ladder.streams import digest
from rlgen.evaluation.stats.aggregates import iqm
from rlgen.evaluation.stats.intervals import (
    Interval,
    family,
    family_aggregate,
    family_gap,
    family_gap_p,
    holm,
    with_binomial,
)
from rlgen.evaluation.stats.summary import RANGES

FORMAT = "rlgen-ladder-1"


class Score(NamedTuple):
    """Scores of one run on one rung.

    A rung represents a distribution of levels, so all intervals describe random seeds and random
    levels (see `rlgen.evaluation.stats.intervals.family`). With one seed they cover only levels.
    """

    run: str
    rung: str
    name: str
    about: str
    num_levels: int
    mean: Interval
    iqm: Interval  # mean of the seeds' own IQMs over levels
    normalised: Interval | tuple[()]  # return / optimal return; () if some optimum is unknown
    # Gap in score, with the same seeds on both sides. On the rung V1 it is V0 minus V1. On V2 and
    # V3 it is V1 minus this rung. The gap is () on V0, and also if the easier rung, V0 or V1, is
    # missing.
    gap: Interval | tuple[()]
    # p-value of the test that the gap is 0, corrected for the number of gaps of all runs (Holm). It
    # is NaN without a gap or with one seed.
    gap_p_value: float
    look: int  # how many times this run has been scored on these levels; 0 if not sealed


class Scores(NamedTuple):
    """Results of runs on a ladder."""

    ladder: Ladder
    score: str  # solve rate, relative return or return, the same on every rung
    meaning: str  # description of the intervals
    confidence: float  # confidence level of the intervals, and of all verdicts on gaps together
    runs: tuple[str, ...]
    scores: tuple[Score, ...]  # run by run, in the order of the rungs
    curves: tuple["Curve", ...]  # few-shot adaptation curves

    def of(self, run: str) -> tuple[Score, ...]:
        """Return one run's scores in the order of its rungs."""
        return tuple(one for one in self.scores if one.run == run)

    def worst(self, run: str) -> Score:
        """Return the run's score on the rung with its lowest mean."""
        return min(self.of(run), key=lambda one: float(one.mean.value))


class Curve(NamedTuple):
    """Adaptation curve: a run's mean scores on a rung after updates on other levels of the rung."""

    run: str
    rung: str
    name: str
    updates: tuple[int, ...]
    env_steps: tuple[int, ...]  # per seed, at each point
    num_adapt: int  # levels to adapt on
    num_levels: int  # levels to score on
    mean: tuple[Interval, ...]  # one per point
    # Last point minus first point of the same seeds on the same levels; () with a single point.
    gain: Interval | tuple[()]
    look: int  # how many times this run has been scored on these levels; 0 if not sealed


def score_all(
    ladder: Ladder,
    played: Mapping[str, Sequence[Evaluation]],
    adapted: Mapping[str, Sequence[tuple[Rung, Adaptation]]],
    confidence: float = 0.95,
) -> Scores:
    """Compute the scores and gaps of runs.

    Args:
        ladder: The ladder on which the runs were tested.
        played: Evaluations by run, in the order of the run's rungs.
        adapted: Adaptation curves by run. Runs without curves may be missing.
        confidence: Confidence level of the intervals, between 0 and 1.
    """
    every = [e for of_run in played.values() for e in of_run]
    # Gaps need the same kind of score on all rungs. If the kinds differ, plain returns are used.
    kinds = {e.score[0] for e in every}
    kind = kinds.pop() if len(kinds) == 1 else "return"
    scores = [
        one
        for run, of_run in played.items()
        for one in _of_run(run, ladder.of(run), of_run, kind, confidence)
    ]
    corrected = holm([one.gap_p_value for one in scores], confidence)
    scores = [
        one._replace(gap_p_value=float(p)) for one, p in zip(scores, corrected.p, strict=True)
    ]
    curves = [
        _curve(run, rung, one, kind, confidence)
        for run, some in adapted.items()
        for rung, one in some
    ]
    seeds = min(e.shape[0] for e in every)
    facts = (_meaning(seeds, confidence), confidence, tuple(played))
    return Scores(ladder, kind, *facts, tuple(scores), tuple(curves))


def _meaning(seeds: int, confidence: float) -> str:
    per_cent = f"{100 * confidence:g} %"
    if seeds == 1:
        return f"1 seed: {per_cent} by Student's t over levels only, for this agent alone"
    return f"{per_cent} by Student's t over {seeds} seeds and over levels, drawn together"


def to_dict(found: Scores) -> Json:
    """Convert the results to plain JSON values; NaN becomes null."""
    return plain(
        {
            "format": FORMAT,
            **ladder_dict(found.ladder),
            "score": found.score,
            "intervals": found.meaning,
            "runs": {
                run: {
                    "rungs": [_fields(one) for one in found.of(run)],
                    "worst": found.worst(run).name,
                }
                for run in found.runs
            },
            "few_shot": [_fields(one) for one in found.curves],
        }
    )


def ladder_dict(ladder: Ladder) -> dict[str, Any]:
    """Convert a ladder to plain data, which describes its rungs and counts their levels."""

    def rung(one: Rung) -> dict[str, Any]:
        levels = one.stream.suite.levels
        return {
            "rung": one.rung,
            "stream": one.name,
            "levels": f"levels {one.about}",
            "num_levels": len(levels),
            "rejected": one.stream.rejected,
            "digest": digest(levels),
            "version": levels.version,
            "sealed": levels.split not in ("train", "validation"),
        }

    return {
        "family": ladder.family,
        "rungs": [rung(one) for one in ladder.rungs],
        "own": {run: rung(one) for run, one in ladder.own.items()},
        "missing": list(ladder.missing),
    }


def to_csv(found: Scores) -> str:
    """Return CSV text with one row for each run and rung."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    numbers = ("mean", "iqm", "normalised", "gap")
    heads = [f"{name}{end}" for name in numbers for end in ("", "_low", "_high")]
    writer.writerow(["run", "rung", "stream", "levels", "look", "score", *heads, "gap_p_value"])
    for one in found.scores:
        cells = []
        for name in numbers:
            interval = getattr(one, name)
            cells += [_number(x) for x in interval[:3]] if interval else [""] * 3
        start = [_cell(one.run), one.rung, one.name, one.num_levels, one.look, found.score]
        writer.writerow([*start, *cells, _number(one.gap_p_value)])
    return out.getvalue()


def _of_run(
    run: str, rungs: Sequence[Rung], played: Sequence[Evaluation], kind: str, confidence: float
) -> list[Score]:
    matrices = [_matrix(e, kind) for e in played]
    # The order is reversed, so that the first stream of a rung overwrites its later streams.
    first = {rung.rung: x for rung, x in reversed(list(zip(rungs, matrices, strict=True)))}
    low, high = RANGES.get(kind, (-np.inf, np.inf))
    found = []
    for rung, e, x in zip(rungs, played, matrices, strict=True):
        # V0 has no gap, V1 is compared with V0, and V2 and V3 are compared with V1.
        easier = {"V0": None, "V1": first.get("V0")}.get(rung.rung, first.get("V1"))
        gap, p_value = (), np.nan
        if easier is not None:
            gap = family_gap(easier, x, confidence).clipped(low - high, high - low)
            p_value = family_gap_p(easier, x) if len(x) > 1 else np.nan
        relative = e.relative_return.mean(axis=-1)
        known = bool(np.isfinite(relative).all())
        found.append(
            Score(
                run,
                rung.rung,
                rung.name,
                rung.about,
                e.shape[1],
                _mean(x, e, kind, confidence),
                family_aggregate(iqm, x, confidence).clipped(low, high),
                family(relative, confidence) if known else (),
                gap,
                p_value,
                int(e.meta.get("look") or 0),
            )
        )
    return found


def _mean(x: Float[np.ndarray, "S M"], e: Evaluation, kind: str, confidence: float) -> Interval:
    """Mean score with its interval; the exact binomial one if no score differs from another."""
    found = family(x, confidence).clipped(*RANGES.get(kind, (-np.inf, np.inf)))
    if kind != "solve rate":
        return found
    solved = e.score[1]
    return with_binomial(found, np.asarray(solved.sum(), int), solved.size, confidence)


def _curve(run: str, rung: Rung, found: Adaptation, kind: str, confidence: float) -> Curve:
    points = [_matrix(e, kind) for e in found.evaluations]
    means = tuple(
        _mean(x, e, kind, confidence) for x, e in zip(points, found.evaluations, strict=True)
    )
    # The same seeds play the same levels before and after, so each pair contributes its difference.
    low, high = RANGES.get(kind, (-np.inf, np.inf))
    gain = ()
    if len(points) > 1:
        gain = family(points[-1] - points[0], confidence).clipped(low - high, high - low)
    steps = tuple(n * found.steps_per_update for n in found.updates)
    num_levels = points[0].shape[1]
    counts = (found.num_levels, num_levels)
    place = (run, rung.rung, rung.name)
    return Curve(*place, found.updates, steps, *counts, means, gain, found.look)


def _matrix(e: Evaluation, kind: str) -> np.ndarray:
    """Scores [S, M] of the given kind, or returns if the evaluation has another score."""
    scores = e.score[1] if e.score[0] == kind else e.episode_return
    return scores.mean(axis=-1, dtype=np.float64)


def _fields(record: Score | Curve) -> dict[str, Any]:
    def convert(x: Any) -> Any:
        if isinstance(x, Interval):
            return x._asdict()
        if isinstance(x, tuple):
            return [convert(one) for one in x] if x else None
        return x

    return {name: convert(x) for name, x in record._asdict().items()}


def _number(x: Any) -> str:
    return "" if np.isnan(x) else f"{float(x):.6g}"


def _cell(text: str) -> str:
    """Escape text that a spreadsheet would interpret as a formula."""
    text = printable(text)
    return f"'{text}" if text[:1] in ("=", "+", "-", "@") else text
