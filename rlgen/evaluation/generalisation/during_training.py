"""Generalisation gap during training over a finite level set, written to `generalisation.jsonl`.

The gap is the mean return on training levels minus the mean return on unseen levels. It is measured
between two chunks. A chunk is a group of updates that run as one compiled program. Each measurement
writes one line. The following entries are lists over seeds, and "test" means unseen levels:

    train_return, test_return, gap   undiscounted; the gap is train_return - test_return
    train_solve_rate, test_solve_rate, solve_rate_gap   if the environment defines success
    level_information   in nats, at most `max_information`; see `level_information`
    level_information_raw   level information before it is clipped at 0

The line also contains `update` and `env_steps` as in `metrics.jsonl`, the numbers of training and
of unseen levels, and the numbers of episodes on both kinds of levels. The entry `evaluation_steps`
is the number of env steps of one seed in this measurement. These steps are not counted anywhere
else.

One episode is played on each unseen level. Two episodes are played on each training level, because
the level information needs two. If no unseen levels are known (see `unseen_levels`), the entries
for unseen levels are missing.
"""

import json
import math
import os
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from rlgen import registry
from rlgen.curriculum import Curriculum
from rlgen.evaluation.generalisation.level_information import (
    heldout,
    in_halves,
    play_on,
    some_features,
)
from rlgen.evaluation.generalisation.unseen_levels import some_levels, training_set, unseen_levels
from rlgen.levels import LevelSet
from rlgen.protocols import Learner, LevelEnv
from rlgen.runs.callbacks import ActiveRun, Callback, Chunk
from rlgen.runs.metrics import Counters, cut
from rlgen.runs.spec import Plan, RunSpec
from rlgen.types import Key, PyTree, TrainState

FILE = "generalisation.jsonl"
NEVER = -1  # value of `gap_every` that disables measuring

MEASUREMENTS = 20  # approximate number per run, by default
SHARE = 0.2  # target of the ratio: env steps of all measurements / env steps of training
FEWEST, MOST = 32, 128  # smallest and largest number of levels of each kind that are played
LONGEST = 1024  # largest number of steps that are played of an episode
KEPT_STEPS = 16  # steps per slot from which the level information is estimated

_STREAM = 0x6A9  # base of the measurements' random keys
_EPISODES = {"train": 2, "test": 1}  # episodes on each level


class Size(NamedTuple):
    """Interval between measurements and number of levels."""

    every: int  # chunks between two measurements
    num_levels: int  # largest number of training levels, and of unseen levels, that are played


class GapTracker:
    """Measures the generalisation gap of a run at intervals.

    The program that plays the levels is compiled at the first measurement.
    """

    def __init__(self, spec: RunSpec, env: Any, curriculum: Curriculum, length: Plan, size: Size):
        """Choose the training levels and the unseen levels; no episode is played yet."""
        self.size, self.length, self.done = size, length, 0
        self.seconds, self.compile_seconds = 0.0, 0.0
        chosen = training_set(curriculum)
        assert chosen is not None
        train = some_levels(chosen, size.num_levels)
        test = unseen_levels(env, curriculum.sampler, size.num_levels)
        sides = {"train": train} if test is None else {"train": train, "test": test}
        self.num_levels = {side: len(levels) for side, levels in sides.items()}
        self.num_steps = _limit(sides)
        self._policy = curriculum.student.policy
        self._env, self._sides = env, sides
        self._seeds = spec.seed + np.arange(spec.seeds)
        self._run: Any = None

    def is_due(self, update: int) -> bool:
        """Return whether to measure after this update, which must be the last update of a chunk."""
        chunks = update // self.length.chunk
        return chunks % self.size.every == 0 or update == self.length.num_updates

    def measure(self, path: Path, states: TrainState, now: Counters) -> None:
        """Measure the policies of S seeds and append one line to `generalisation.jsonl`.

        Args:
            path: Run folder.
            states: Training states of S seeds, [S, ...].
            now: Counters of the run at this update.

        Raises:
            OSError: The line cannot be written, for example because the disk is full.
        """
        start = time.perf_counter()
        learner, policy = self._policy(states.student)
        # Copied through the host: training states may be sharded over devices, this program is not.
        policy = jax.tree.map(jnp.asarray, jax.device_get(policy))
        if self.done == 0:
            run = _program(self._env, learner, self._sides, self.num_steps, self._seeds)
            self._run = run.lower(policy, jnp.int32(0)).compile()
            self.compile_seconds = time.perf_counter() - start
            start = time.perf_counter()
        found = jax.device_get(self._run(policy, jnp.int32(now.update)))
        head = {
            "update": now.update,
            "env_steps": {kind: round(x, 3) for kind, x in now.steps.items()},
        }
        slots = {side: _EPISODES[side] * num for side, num in self.num_levels.items()}
        line = head | {name: _list(x) for name, x in found.items()}
        if "level_information" in found:
            line["max_information"] = float(f"{math.log(self.num_levels['train']):.7g}")
        line |= {f"{side}_levels": num for side, num in self.num_levels.items()}
        line |= {f"{side}_episodes": num for side, num in slots.items()}
        line["evaluation_steps"] = self.num_steps * sum(slots.values())
        _append(path / FILE, line)
        self.seconds += time.perf_counter() - start
        self.done += 1

    def first_words(self) -> str:
        """Describe the planned measurements, for the start of the run."""
        sides = {"train": "training", "test": "unseen"}
        told = " and ".join(f"{num} {sides[side]}" for side, num in self.num_levels.items())
        every = self.size.every * self.length.chunk
        return f"measuring the generalisation gap every {every} updates on {told} levels"

    def last_words(self) -> str:
        """Report the number of measurements and their duration, for the end of the run."""
        times = "time" if self.done == 1 else "times"
        return (
            f"measured the generalisation gap {self.done} {times} in {self.seconds:.1f} s, plus "
            f"{self.compile_seconds:.1f} s of compilation"
        )


class GapTracking(Callback):
    """Measures the generalisation gap of runs over a finite training set, about 20 times per run.

    Writes `generalisation.jsonl` in the run folder. `gap_every` of the run's spec sets the interval
    between measurements.
    """

    def __init__(self):
        self._tracker: GapTracker | None = None

    def start(self, run: ActiveRun, update: int) -> str:
        """Choose the levels, and delete an interrupted run's measurements that follow `update`."""
        cut(run.path / FILE, update)
        self._tracker = prepare(run.spec, run.env, run.curriculum, run.length)
        return self._tracker.first_words() if self._tracker else ""

    def after_chunk(self, run: ActiveRun, chunk: Chunk) -> None:
        """Measure the gap if a measurement is due."""
        if self._tracker and self._tracker.is_due(chunk.now.update):
            self._tracker.measure(run.path, chunk.states, chunk.now)

    def finish(self, run: ActiveRun) -> str:
        """Return a report of the number and duration of measurements; "" if none were made."""
        return self._tracker.last_words() if self._tracker and self._tracker.done else ""


def prepare(spec: RunSpec, env: Any, curriculum: Curriculum, length: Plan) -> GapTracker | None:
    """Create the tracker of a run.

    Returns None if the run has no finite training set, if measuring is disabled, or if the run is
    too short.
    """
    chosen = training_set(curriculum)
    if chosen is None or spec.gap_every == NEVER:
        return None
    size = size_of(spec.gap_every, length, _limit({"train": chosen}))
    return GapTracker(spec, env, curriculum, length, size) if size is not None else None


def size_of(gap_every: int, length: Plan, num_steps: int) -> Size | None:
    """Choose the interval between measurements and the number of levels.

    All measurements together take at most a fraction `SHARE` of the training's env steps, so a
    short run is measured less often and on fewer levels. If `gap_every` is set, it is always used.
    At least `FEWEST` levels are then played, even if the env steps exceed the fraction `SHARE`.

    Args:
        gap_every: Chunks between measurements, or 0 for about twenty measurements.
        length: Length of the run.
        num_steps: Steps of the longest episode.

    Returns:
        The interval and the number of levels, or None if `gap_every` is 0 and the run is too short
        for a single measurement.
    """
    num_chunks = length.num_updates // length.chunk
    per_level = num_steps * sum(_EPISODES.values())
    # Number of levels that all measurements together may play.
    affordable = SHARE * length.num_updates * length.steps_per_update / per_level
    if gap_every == 0:
        wanted = min(MEASUREMENTS, num_chunks, int(affordable / FEWEST))
        if wanted == 0:
            return None
        gap_every = math.ceil(num_chunks / wanted)
    times = math.ceil(num_chunks / gap_every)
    return Size(gap_every, int(np.clip(affordable / times, FEWEST, MOST)))


def _limit(sides: dict[str, LevelSet]) -> int:
    """Steps to play: the longest time limit of any level, at most `LONGEST`."""
    limits = [np.max(np.asarray(x.level.max_steps_in_episode)) for x in sides.values()]
    return min(int(max(limits)), LONGEST)


def _program(
    env: LevelEnv,
    learner: Learner,
    sides: dict[str, LevelSet],
    num_steps: int,
    seeds: np.ndarray,
) -> Any:
    """Return a jitted function `(policies [S, ...], update) -> measurements [S] by name`."""
    # The slots are in the order train, train, test. `in_halves` separates the two copies of the
    # training levels.
    repeated = [x.level for side, x in sides.items() for _ in range(_EPISODES[side])]
    level = jax.tree.map(lambda *x: jnp.concatenate(x), *repeated)
    num_train = len(sides["train"])
    place = {"train": slice(2 * num_train), "test": slice(2 * num_train, None)}

    def one(key: Key, state: PyTree) -> dict[str, Array]:
        key_play, key_pick = jax.random.split(key)
        played = play_on(key_play, env, learner, state, level, num_steps)
        of_first = jnp.cumsum(played.first, axis=0) == 1  # [T, N], steps of the first episode
        total = (played.reward * of_first).sum(0)
        each = {"return": total}
        if registry.has(env, LevelEnv.success):
            solved = env.success(total, (played.terminated & of_first).any(0))
            each["solve_rate"] = solved.astype(jnp.float32)
        told = {f"{side}_{n}": x[place[side]].mean() for n, x in each.items() for side in sides}
        if "test" in sides:
            gaps = {name: told[f"train_{name}"] - told[f"test_{name}"] for name in each}
            told |= {"gap" if n == "return" else f"{n}_gap": x for n, x in gaps.items()}
        if learner.offers(Learner.features):
            obs, first = jax.tree.map(lambda x: x[:, place["train"]], (played.obs, played.first))
            feature = some_features(key_pick, learner, state, obs, first, KEPT_STEPS)
            found = heldout(*in_halves(feature, num_train), num_train)
            told |= {"level_information": found.nats, "level_information_raw": found.raw}
        return told

    def every(policies: PyTree, update: Array) -> dict[str, Array]:
        stream = jax.vmap(jax.random.fold_in, in_axes=(None, 0))
        keys = stream(jax.random.key(_STREAM), jnp.asarray(seeds))
        keys = jax.vmap(jax.random.fold_in, in_axes=(0, None))(keys, update)
        if len(seeds) > 1:
            return jax.vmap(one)(keys, policies)
        # A vmap axis of size 1 would only slow down the matrix products.
        alone = one(keys[0], jax.tree.map(lambda x: x[0], policies))
        return {name: x[None] for name, x in alone.items()}

    return jax.jit(every)


def _append(path: Path, line: dict) -> None:
    with open(path, "a") as file:
        file.write(json.dumps(line) + "\n")
        file.flush()
        os.fsync(file.fileno())  # written to disk before the run continues


def _list(values: np.ndarray) -> list[float | None]:
    """Round to seven significant digits, the float32 precision; non-finite values become None."""
    return [float(f"{float(x):.7g}") if np.isfinite(x) else None for x in values]
