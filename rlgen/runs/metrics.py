"""Write, read and check `metrics.jsonl`: one line per update, each metric a list over seeds.

    {"update": 7, "env_steps": {"train": …, "scout": …, "score": …}, "gradient_updates": …,
     "wall_seconds": …, "compile_seconds": …, "steps_per_second": …, "episode_return": [0.1, …], …}

Env steps are counted by purpose: `train`, steps that contribute gradients; `scout`, evaluation of
new levels; `score`, evaluation of known or edited levels; `antagonist`, steps of the students that
are not evaluated; `teacher`, steps of the teacher that builds levels; `evaluate`, evaluation of the
agents that a rule has trained. The total is their sum.

Steps and gradient updates are cumulative since the start of the run and those of one seed (the mean
over seeds). Wall seconds are the time of the running program without compilation; within a chunk,
whose updates run as one program, they are interpolated. A metric that does not exist (for example
the loss of an update without training) is null.
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
"""Prefix of the metrics that count the env steps of one update, by kind."""
GRADIENT_STEPS = "gradient_steps"
"""Name of the metric that counts the gradient steps of one update."""
NO_STEPS: Mapping[str, float] = MappingProxyType({})

SKIPPED = "skipped_"
"""Prefix of the metrics that count parts of an update skipped because they were not finite."""

ALWAYS = ("weight", "score", "episode_return", "episode_length")
"""Metrics that exist in every update, also in one without training."""
OF_EPISODES = ("episode_return", "episode_length", "solve_rate")
"""Metrics that exist only if an episode ended, which need not happen in every update."""


class Counters(NamedTuple):
    """Cumulative cost since the start of the run, of one seed (the mean over seeds)."""

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
    # Mean over seeds, [U]: under some methods seeds differ in their number of steps.
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
    """Append a chunk's lines and flush them to disk, so that no checkpoint is ahead of them.

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
    # Appended, so that an interruption can truncate only these lines; `cut` drops such a line.
    with open(path, "a") as file:
        for i, now in enumerate(after):
            line = {**_head(now, steps_per_second), **{n: _list(x[i]) for n, x in rest.items()}}
            file.write(json.dumps(line) + "\n")
        file.flush()
        os.fsync(file.fileno())


def cut(path: Path, update: int) -> None:
    """Atomically drop the lines after `update`, which a resumed run will write again.

    Lines are ordered by update, so everything from the first unreadable line on (truncated when the
    process was killed) is dropped as well.
    """
    if not path.exists():
        return
    # Rewritten next to the file, so that an interruption leaves the complete old one.
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
    """Read all lines of a metrics file, leaving out a truncated last line."""
    lines = path.read_text().splitlines() if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("}")]


def first_bad(
    before: int, metrics: Mapping[str, np.ndarray], finite: Mapping[str, np.ndarray]
) -> Bad | None:
    """Find the first metric [U, S], or else parameter [S] after the chunk, that is not finite.

    NaN is allowed for metrics that do not exist in an update:

    - learner metrics, if the update did not train;
    - `teacher_…`, if the teacher received no reward;
    - `lifetime_…`, if no agent's lifetime ended;
    - `meta_…`, if the meta-gradient was skipped;
    - metrics of episodes, if no episode ended (`num_episodes` is 0).
    """
    trained = metrics["weight"] > 0
    ended = metrics.get("num_episodes", np.ones(trained.shape)) > 0
    teacher_learned = np.isfinite(metrics.get("teacher_return", np.full(trained.shape, np.nan)))

    counted = [x > 0 for name, x in metrics.items() if name.startswith(SKIPPED)]
    exist = {
        "teacher_": teacher_learned,
        # Never required: some exist only for a part of the lifetimes, such as those on new levels.
        "lifetime_": np.zeros_like(trained),
        # The array of zeros covers students without `skipped_…` metrics.
        "meta_": trained & ~np.any([np.zeros_like(trained), *counted], axis=0),
    }

    def exists(name: str) -> np.ndarray:
        kind = name.partition("_")[0] + "_"
        return (exist.get(kind, trained) | (name in ALWAYS)) & (ended | (name not in OF_EPISODES))

    # [U, S] masks; updates and seeds differ in which metrics exist.
    wrong = {name: ~np.isfinite(x) & exists(name) for name, x in metrics.items()}
    hits = [(*np.argwhere(mask)[0].tolist(), name) for name, mask in wrong.items() if mask.any()]
    if hits:
        # `hits` has the first update of each bad metric; report the earliest of them.
        update, seed, name = min(hits, key=lambda hit: hit[0])
        return Bad(before + update + 1, seed, name)
    for name, good in finite.items():
        if not good.all():
            return Bad(before + len(trained), int(np.argmin(good)), f"parameter {name}")
    return None


def skipped(metrics: Mapping[str, np.ndarray]) -> list[str]:
    """Sentences on the parts of updates that were skipped in a chunk with metrics [U, S]."""
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
