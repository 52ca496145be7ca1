"""Write, read and check `metrics.jsonl`, which has one line per update.

    {"update": 7, "env_steps": {"train": …, "scout": …, "score": …}, "gradient_updates": …,
     "wall_seconds": …, "compile_seconds": …, "steps_per_second": …, "episode_return": [0.1, …], …}

Env steps are counted by kind:

- `train`: steps that contribute gradients;
- `scout`: steps that evaluate new levels;
- `score`: steps that evaluate known or edited levels;
- `antagonist`: steps of the students that are not evaluated after training;
- `teacher`: steps of the teacher that builds levels;
- `evaluate`: steps that evaluate the agents trained by a rule;
- `surplus`: steps that were executed but not used, because an agent's lifetime was over.

The total number of env steps is the sum over all kinds.

A metric such as `episode_return` is a list with one value per seed. Env steps and gradient updates
are counted from the start of the run and averaged over seeds. Wall seconds exclude compilation. The
updates of a chunk run as one program, so their wall seconds are interpolated. If a metric does not
exist in an update, such as the loss of an update without training, its value is null.
"""

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

COUNTED = "steps_"
"""Prefix of the metrics that count the env steps of one update; each metric counts one kind."""
GRADIENT_STEPS = "gradient_steps"
"""Name of the metric that counts the gradient steps of one update."""
NO_STEPS: Mapping[str, float] = MappingProxyType({})

SKIPPED = "skipped_"
"""Prefix of the metrics that count skipped parts of an update.

A part is skipped if its result is not finite.
"""

ALWAYS = ("weight", "episode_return", "episode_length")
"""Metrics that exist in every update, even if the update does not train.

A metric that a student averages over a count is missing nevertheless where the count is 0.
"""
OF_LEVELS = ("score", "pool_score", "shift_gap")
"""Means over levels, which are missing in updates in which no level has a value."""
NO_COUNTS: Mapping[str, str] = MappingProxyType({})


class Counters(NamedTuple):
    """Cost since the start of the run; steps and gradient updates are means over seeds."""

    update: int = 0
    steps: Mapping[str, float] = NO_STEPS  # env steps, by kind
    gradient_updates: float = 0.0
    wall_seconds: float = 0.0
    compile_seconds: float = 0.0

    @property
    def steps_total(self) -> float:
        """Env steps of all kinds together."""
        return sum(self.steps.values())


class Bad(NamedTuple):
    """First metric or parameter that is not finite."""

    update: int
    seed: int  # index among the run's seeds
    name: str


def advance(
    counters: Counters, metrics: Mapping[str, np.ndarray], seconds: float
) -> list[Counters]:
    """Compute the counters after each of the U updates of a chunk.

    Args:
        counters: Counters before the chunk.
        metrics: Metrics of the chunk, [U, S] each.
        seconds: Duration of the chunk.
    """
    num_updates = len(metrics["weight"])
    # With some methods, seeds differ in their number of steps, so take the mean over seeds, [U].
    per = {n.removeprefix(COUNTED): x.mean(1) for n, x in metrics.items() if n.startswith(COUNTED)}
    taken = metrics.get(GRADIENT_STEPS, np.zeros((num_updates, 1))).mean(1)
    after = []
    for i in range(num_updates):
        counters = counters._replace(
            update=counters.update + 1,
            gradient_updates=counters.gradient_updates + float(taken[i]),
            wall_seconds=counters.wall_seconds + seconds / num_updates,
            steps={kind: counters.steps.get(kind, 0.0) + float(x[i]) for kind, x in per.items()},
        )
        after.append(counters)
    return after


def append(
    path: Path, after: list[Counters], metrics: Mapping[str, np.ndarray], steps_per_second: float
) -> None:
    """Append a chunk's lines and flush them to disk.

    The checkpoint of the chunk is written later, so it never contains updates whose lines are
    missing.

    Args:
        path: The metrics file.
        after: Counters after each update of the chunk.
        metrics: Metrics of the chunk, [U, S] each.
        steps_per_second: Env steps per second of all seeds during the chunk.

    Raises:
        OSError: The file cannot be written, for example because the disk is full.
    """
    rest = {
        name: values
        for name, values in metrics.items()
        if not name.startswith(COUNTED) and name != GRADIENT_STEPS
    }
    # In append mode, an interruption can truncate only the new lines. `cut` drops truncated lines.
    with open(path, "a") as file:
        for i, now in enumerate(after):
            line = {**_head(now, steps_per_second), **{n: _list(x[i]) for n, x in rest.items()}}
            file.write(json.dumps(line) + "\n")
        file.flush()
        os.fsync(file.fileno())


def cut(path: Path, update: int) -> None:
    """Atomically drop the lines after `update`, which a resumed run will write again.

    A line can be unreadable if the process was killed while writing it. Because lines are ordered
    by update, the first unreadable line and all later lines are dropped as well.
    """
    if not path.exists():
        return
    # The new content is written to a second file, so an interruption leaves the old file complete.
    part = path.with_name(f".{path.name}.part")
    with open(path) as source, open(part, "w") as target:
        for line in source:
            # An unreadable line counts as later than `update`.
            if not _is_up_to(line, update):
                break
            target.write(line)
        target.flush()
        os.fsync(target.fileno())
    part.replace(path)


def read(path: Path) -> list[dict]:
    """Read all lines of a metrics file except truncated ones."""
    lines = path.read_text().splitlines() if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("}")]


def first_bad(
    before: int,
    metrics: Mapping[str, np.ndarray],
    finite: Mapping[str, np.ndarray],
    averaged_over: Mapping[str, str] = NO_COUNTS,
) -> Bad | None:
    """Find the first non-finite metric; if all metrics are finite, the first non-finite parameter.

    NaN is allowed for metrics that do not exist in an update:

    - learner metrics, if the update did not train;
    - `teacher_…`, if the teacher received no reward;
    - `lifetime_…`, in every update;
    - `meta_…`, if the meta-gradient was skipped;
    - metrics in `averaged_over`, if their count is 0, such as metrics of episodes if no episode
      ended;
    - metrics in `OF_LEVELS`, in every update.

    Args:
        before: Number of updates before the chunk.
        metrics: Metrics of the chunk, [U, S] each.
        finite: For each parameter after the chunk, whether all its values are finite, [S] each.
        averaged_over: Names of counts by name of metric; see `Student.averaged_over`.
    """
    there = _masks(metrics, averaged_over)
    wrong = {name: ~np.isfinite(x) & there[name] for name, x in metrics.items()}
    hits = [(*np.argwhere(mask)[0].tolist(), name) for name, mask in wrong.items() if mask.any()]
    if hits:
        # `hits` has the first bad update of each metric; report the earliest of these updates.
        update, seed, name = min(hits, key=lambda hit: hit[0])
        return Bad(before + update + 1, seed, name)
    for name, good in finite.items():
        if not good.all():
            return Bad(before + len(metrics["weight"]), int(np.argmin(good)), f"parameter {name}")
    return None


def _masks(
    metrics: Mapping[str, np.ndarray], averaged_over: Mapping[str, str]
) -> dict[str, np.ndarray]:
    """Masks [U, S] of the updates and seeds in which each metric must be finite."""
    trained = metrics["weight"] > 0
    teacher_learned = np.isfinite(metrics.get("teacher_return", np.full(trained.shape, np.nan)))
    counted = [x > 0 for name, x in metrics.items() if name.startswith(SKIPPED)]
    exist = {
        "teacher_": teacher_learned,
        # These metrics are never required, because some of them exist only for some lifetimes, such
        # as lifetimes on new levels.
        "lifetime_": np.zeros_like(trained),
        # `any` needs at least one array: the zeros are for students without `skipped_…` metrics.
        "meta_": trained & ~np.any([np.zeros_like(trained), *counted], axis=0),
    }

    def exists(name: str) -> np.ndarray:
        if name in averaged_over:
            return metrics[averaged_over[name]] > 0
        kind = name.partition("_")[0] + "_"
        return (exist.get(kind, trained) | (name in ALWAYS)) & (name not in OF_LEVELS)

    return {name: exists(name) for name in metrics}


def skipped(metrics: Mapping[str, np.ndarray]) -> list[str]:
    """Describe in sentences which parts of a chunk's updates were skipped; metrics are [U, S]."""
    told = []
    for name, values in metrics.items():
        num = round(float(values.sum())) if name.startswith(SKIPPED) else 0
        if num == 0:
            continue
        what = name.removeprefix(SKIPPED).replace("_", " ").replace("meta ", "meta-")
        verb = "were not finite and were" if num > 1 else "was not finite and was"
        told.append(f"{num:,} {what if num > 1 else what.removesuffix('s')} {verb} skipped")
    return told


def _head(now: Counters, steps_per_second: float) -> dict:
    return {
        "update": now.update,
        "env_steps": {kind: round(x, 3) for kind, x in now.steps.items()},
        "gradient_updates": round(now.gradient_updates, 3),
        "wall_seconds": round(now.wall_seconds, 3),
        "compile_seconds": round(now.compile_seconds, 3),
        "steps_per_second": round(steps_per_second, 1),
    }


def _list(values: np.ndarray) -> list[float | None]:
    numbers = [float(f"{float(x):.7g}") for x in values]  # float32 has about 7 digits
    return [x if math.isfinite(x) else None for x in numbers]


def _is_up_to(line: str, update: int) -> bool:
    try:
        return json.loads(line)["update"] <= update
    except (ValueError, KeyError, TypeError):
        return False
