"""`metrics.jsonl`: one line an update, with every metric as a list over seeds.

    {"update": 7, "env_steps": {"train": …, "scout": …, "score": …}, "gradient_updates": …,
     "wall_seconds": …, "compile_seconds": …, "steps_per_second": …, "episode_return": [0.1, …], …}

Env steps are told apart by what they were for: `train`, learned from; `scout`, a look at new
levels; `score`, a look at known or edited ones; `antagonist`, of the students that are not
evaluated; `teacher`, of the one that builds levels; `evaluate`, of agents that a rule has trained,
to judge them. All are their sum.
Steps and gradient updates count from the start of the run, of one seed (the mean over seeds). Wall
seconds count the running program alone, compilation apart; within a chunk, whose updates run as one
program, they are interpolated. A metric that does not exist (a skipped update has no loss) is null.
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
"""How the names of counted metrics begin: env steps of one update, by kind."""
GRADIENT_STEPS = "gradient_steps"
"""The name of the counted metric of gradient steps."""
NO_STEPS: Mapping[str, float] = MappingProxyType({})

SKIPPED = "skipped_"
"""How the names of metrics begin that count what was left out because it was not a number."""

ALWAYS = ("weight", "score", "episode_return", "episode_length")
"""Metrics that exist in every update, also in one that trained nothing."""
OF_EPISODES = ("episode_return", "episode_length", "solve_rate")
"""But these only where an episode ended: of long tenancies many updates see no end."""


class Counters(NamedTuple):
    """What has been spent since the start of the run, by one seed (the mean over seeds)."""

    update: int = 0
    steps: Mapping[str, float] = NO_STEPS  # env steps by kind
    gradient_updates: float = 0.0
    wall_seconds: float = 0.0
    compile_seconds: float = 0.0

    @property
    def steps_total(self) -> float:
        """All env steps."""
        return sum(self.steps.values())


class Bad(NamedTuple):
    """The first quantity that stopped being a number."""

    update: int
    seed: int  # position among the run's seeds
    name: str


def advance(
    counters: Counters, metrics: Mapping[str, np.ndarray], seconds: float
) -> list[Counters]:
    """The counters after each update of a chunk, from its metrics `[U, S]`.

    Args:
        counters: before the chunk.
        metrics: of the chunk.
        seconds: that the chunk took.
    """
    num_updates = len(metrics["weight"])
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
    """Write a chunk's lines and force them to the disk, before any checkpoint claims them.

    Raises:
        OSError: no space.
    """
    rest = {
        name: values
        for name, values in metrics.items()
        if not name.startswith(COUNTED) and name != GRADIENT_STEPS
    }
    with open(path, "a") as file:
        for i, now in enumerate(after):
            line = {**_head(now, steps_per_second), **{n: _list(x[i]) for n, x in rest.items()}}
            file.write(json.dumps(line) + "\n")
        file.flush()
        os.fsync(file.fileno())


def cut(path: Path, update: int) -> None:
    """Drop the lines after an update, which a resumed run will write again; atomic.

    Lines come in the order of updates, so an unreadable one (cut by a kill) ends what is kept.
    """
    if not path.exists():
        return
    part = path.with_name(f".{path.name}.part")
    with open(path) as source, open(part, "w") as target:
        for line in source:
            if not _is_up_to(line, update):
                break
            target.write(line)
        target.flush()
        os.fsync(target.fileno())
    part.replace(path)


def read(path: Path) -> list[dict]:
    """All lines of a metrics file; a last line cut short by a kill is left out."""
    lines = path.read_text().splitlines() if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("}")]


def first_bad(
    before: int, metrics: Mapping[str, np.ndarray], finite: Mapping[str, np.ndarray]
) -> Bad | None:
    """The first metric `[U, S]`, or else parameter `[S]` at the chunk's end, that is not finite.

    An update that trained nothing has no learner metrics, so NaN is allowed there; so has one whose
    teacher was not paid no metrics of the teacher, one in which no agent's life ended none of lives
    (`lifetime_…`), and one whose meta-gradient was skipped none of it (`meta_…`); one in which no
    episode ended (`num_episodes`) has nothing to say of episodes.
    """
    trained = metrics["weight"] > 0
    ended = metrics.get("num_episodes", np.ones(trained.shape)) > 0
    teacher_learned = np.isfinite(metrics.get("teacher_return", np.full(trained.shape, np.nan)))

    counted = [x > 0 for name, x in metrics.items() if name.startswith(SKIPPED)]
    exist = {
        "teacher_": teacher_learned,
        "lifetime_": np.zeros_like(trained),  # of some lives alone: whose levels have no past, say
        "meta_": trained & ~np.any([np.zeros_like(trained), *counted], axis=0),
    }

    def exists(name: str) -> np.ndarray:
        kind = name.partition("_")[0] + "_"
        return (exist.get(kind, trained) | (name in ALWAYS)) & (ended | (name not in OF_EPISODES))

    wrong = {name: ~np.isfinite(x) & exists(name) for name, x in metrics.items()}
    hits = [(*np.argwhere(mask)[0].tolist(), name) for name, mask in wrong.items() if mask.any()]
    if hits:
        update, seed, name = min(hits, key=lambda hit: hit[0])
        return Bad(before + update + 1, seed, name)
    for name, good in finite.items():
        if not good.all():
            return Bad(before + len(trained), int(np.argmin(good)), f"parameter {name}")
    return None


def skipped(metrics: Mapping[str, np.ndarray]) -> list[str]:
    """A sentence for each kind of update that was skipped in a chunk `[U, S]`."""
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
    numbers = [float(f"{float(x):.7g}") for x in values]
    return [x if math.isfinite(x) else None for x in numbers]


def _is_up_to(line: str, update: int) -> bool:
    try:
        return json.loads(line)["update"] <= update
    except (ValueError, KeyError, TypeError):
        return False
