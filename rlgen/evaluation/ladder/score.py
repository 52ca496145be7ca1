"""How runs do on each rung of the ladder, with intervals, and what a step up costs them."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from rlgen.evaluation.episodes import Evaluation, Json, plain, printable
from rlgen.evaluation.ladder.few_shot import Adaptation
from rlgen.evaluation.ladder.ladder import Ladder, Rung
from rlgen.evaluation.ladder.streams import digest
from rlgen.evaluation.stats.bootstrap import DEFAULT, Bootstrap, Interval, difference, iqm, mean

FORMAT = "rlgen-ladder-1"


class Score(NamedTuple):
    """One run on one rung. Intervals speak of the rung's distribution: levels are drawn too."""

    run: str
    rung: str
    name: str
    about: str
    num_levels: int
    mean: Interval
    iqm: Interval
    normalised: Interval | tuple[()]  # return over the optimal one; () where that is not known
    gap: Interval | tuple[()]  # of V1: V0 less V1; of V2 and V3: V1 less them; () without the other
    whole_seeds: Interval | tuple[()]  # the same gap, whole seeds drawn and the levels as they are
    look: int  # at these levels by this run; 0: they are not sealed


class Scores(NamedTuple):
    """Everything that is told of runs on a ladder."""

    ladder: Ladder
    score: str  # solve rate, relative return or return, the same on every rung
    meaning: str  # of the intervals
    runs: tuple[str, ...]
    scores: tuple[Score, ...]  # run by run, in the order of the rungs
    curves: tuple["Curve", ...]  # of few-shot adaptation

    def of(self, run: str) -> tuple[Score, ...]:
        """One run's scores."""
        return tuple(one for one in self.scores if one.run == run)

    def worst(self, run: str) -> Score:
        """The rung with the lowest mean."""
        return min(self.of(run), key=lambda one: float(one.mean.value))


class Curve(NamedTuple):
    """Mean scores of one run on one rung, after some updates on other levels of it."""

    run: str
    rung: str
    name: str
    updates: tuple[int, ...]
    env_steps: tuple[int, ...]  # of each seed
    num_adapt: int  # levels to adapt on
    num_levels: int  # levels to be scored on
    mean: tuple[Interval, ...]
    gain: Interval | tuple[()]  # the last point less the first; () where there is one point
    look: int  # at these levels by this run; 0: they are not sealed


def score_all(
    ladder: Ladder,
    played: Mapping[str, Sequence[Evaluation]],
    adapted: Mapping[str, Sequence[tuple[Rung, Adaptation]]],
    bootstrap: Bootstrap = DEFAULT,
) -> Scores:
    """Scores and gaps of runs.

    Args:
        ladder: that was climbed.
        played: by run, an evaluation of each of its rungs, in their order.
        adapted: by run, adaptation curves; none for runs without.
        bootstrap: how intervals are made.
    """
    every = [e for of_run in played.values() for e in of_run]
    kinds = {e.score[0] for e in every}
    kind = kinds.pop() if len(kinds) == 1 else "return"
    over = bootstrap.resolve(*(e.episode_return for e in every))
    with_levels = replace(bootstrap, resample_levels=True)
    seeds, attempts = (min(e.shape[axis] for e in every) for axis in (0, 2))
    scores = [
        one
        for run, of_run in played.items()
        for one in _of_run(run, ladder.of(run), of_run, kind, bootstrap)
    ]
    curves = [
        _curve(run, rung, one, kind, with_levels)
        for run, some in adapted.items()
        for rung, one in some
    ]
    meaning = with_levels.explain(over, seeds, attempts)
    return Scores(ladder, kind, meaning, tuple(played), tuple(scores), tuple(curves))


def to_dict(found: Scores) -> Json:
    """Everything as plain JSON values; NaN is null."""
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
    """A ladder as data: its rungs, their levels, and what was rejected."""

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
    """One row a run and rung."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    numbers = ("mean", "iqm", "normalised", "gap", "whole_seeds")
    heads = [f"{name}{end}" for name in numbers for end in ("", "_low", "_high")]
    writer.writerow(["run", "rung", "stream", "levels", "look", "score", *heads])
    for one in found.scores:
        cells = []
        for name in numbers:
            interval = getattr(one, name)
            cells += [_number(x) for x in interval[:3]] if interval else [""] * 3
        start = [_cell(one.run), one.rung, one.name, one.num_levels, one.look, found.score]
        writer.writerow(start + cells)
    return out.getvalue()


def _of_run(
    run: str, rungs: Sequence[Rung], played: Sequence[Evaluation], kind: str, bootstrap: Bootstrap
) -> list[Score]:
    matrices = [_matrix(e, kind) for e in played]
    first = {rung.rung: x for rung, x in reversed(list(zip(rungs, matrices, strict=True)))}
    levels = replace(bootstrap, resample_levels=True)
    found = []
    for rung, e, x in zip(rungs, played, matrices, strict=True):
        easier = {"V0": None, "V1": first.get("V0")}.get(rung.rung, first.get("V1"))
        gap, whole = ((), ()) if easier is None else _gaps(easier, x, bootstrap)
        relative = e.relative_return
        known = bool(np.isfinite(relative).all())
        found.append(
            Score(
                run,
                rung.rung,
                rung.name,
                rung.about,
                e.shape[1],
                levels.interval(_rng(), mean, x),
                levels.interval(_rng(), iqm, x),
                levels.interval(_rng(), mean, relative) if known else (),
                gap,
                whole,
                int(e.meta.get("look") or 0),
            )
        )
    return found


def _gaps(x: np.ndarray, y: np.ndarray, bootstrap: Bootstrap) -> tuple[Interval, Interval | tuple]:
    gap = replace(bootstrap, resample_levels=True).gap(_rng(), x, y)
    if len(x) < 2:
        return gap, ()
    return gap, replace(bootstrap, over="whole-seeds", resample_levels=False).gap(_rng(), x, y)


def _curve(run: str, rung: Rung, found: Adaptation, kind: str, bootstrap: Bootstrap) -> Curve:
    points = [_matrix(e, kind) for e in found.evaluations]
    means = tuple(bootstrap.interval(_rng(), mean, x) for x in points)
    gain = ()
    if len(points) > 1:
        change = difference(mean)
        gain = bootstrap.interval(_rng(), change, points[-1], points[0])
    steps = tuple(n * found.steps_per_update for n in found.updates)
    num_levels = points[0].shape[1]
    counts = (found.num_levels, num_levels)
    place = (run, rung.rung, rung.name)
    return Curve(*place, found.updates, steps, *counts, means, gain, found.look)


def _matrix(e: Evaluation, kind: str) -> np.ndarray:
    """Scores [S, M, A] of one kind."""
    return e.score[1] if e.score[0] == kind else e.episode_return


def _rng() -> np.random.Generator:
    return np.random.default_rng(0)


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
    """Text that a spreadsheet does not take for a formula."""
    text = printable(text)
    return f"'{text}" if text[:1] in ("=", "+", "-", "@") else text
