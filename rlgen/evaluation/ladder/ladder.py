"""The protocol ladder: what a score is a score of, from the levels of training to new worlds.

    V0  the levels that the run was trained on
    V1  new levels of the training distribution
    V2  outside it: larger, denser, beyond the range of a parameter
    V3  new combinations: layouts, rules or structures that training never put together

Each rung is a stream of levels (see `rlgen.evaluation.ladder.streams`), and no two share one. What
lies on V2 and V3 an environment states as data, by its method `ladder`.

Source of the idea: the ladder of multi-task and meta-learning benchmarks, Yu et al., 2020,
"Meta-World: A Benchmark and Evaluation for Multi-Task and Meta Reinforcement Learning".
Differs from it: disjointness is enforced by the levels' hashes, not trusted to seeds.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, UInt32

from rlgen.evaluation.generalisation.level_facts import open_log
from rlgen.evaluation.generalisation.unseen_levels import training_set, unseen_levels
from rlgen.evaluation.ladder.streams import Stream, draw_streams, suite_stream
from rlgen.evaluation.suites import family_of, load_suite
from rlgen.levels import DistributionShift, Suite, make_level_set, words
from rlgen.protocols import LevelEnv
from rlgen.runs.curriculum_log import has_log
from rlgen.types import PyTree

RUNGS = ("V0", "V1", "V2", "V3")

_HASHED = 4096  # levels at once


class Rung(NamedTuple):
    """A stream of levels and where it stands."""

    rung: str  # V0 to V3
    name: str  # trained-on, train, validation, test, or the shift's own
    about: str  # what its levels are, after "levels"
    stream: Stream


class Trained(NamedTuple):
    """The levels that a run was trained on, as far as they are known."""

    level: PyTree  # [M, ...] distinct ones
    hashes: UInt32[np.ndarray, "M 2"]
    about: str


class Ladder(NamedTuple):
    """What runs are tested on, from the familiar to the strange."""

    family: str
    own: Mapping[str, Rung]  # V0 of each run; no two need share a level
    rungs: tuple[Rung, ...]  # for all runs, the same levels
    missing: tuple[str, ...]  # sentences: which rungs are not there, and why

    def of(self, run: str) -> tuple[Rung, ...]:
        """One run's rungs, in their order."""
        return (*((self.own[run],) if run in self.own else ()), *self.rungs)


def trained_on(run: Path, loaded: Any, allow_imports: bool = False) -> Trained | None:
    """The levels of a run's training: its finite set, else those in its log; None if unknown.

    Args:
        run: its folder.
        loaded: see `rlgen.evaluation.zero_shot.load_states`.
        allow_imports: as everywhere.
    """
    known = training_set(loaded.curriculum)
    if known is not None:
        about = f"of the {len(known):,} that it was trained on"
        return Trained(jax.device_get(known.level), np.asarray(known.hash), about)
    if not has_log(run):
        return None
    _, log = open_log(run, allow_imports)
    met = np.flatnonzero((log.weight > 0).ravel())
    if not len(met):
        return None
    level = jax.tree.map(lambda x: x.reshape(log.weight.size, *x.shape[3:])[met], log.level)
    hashes = _hashes(loaded.env, level)
    first = np.sort(np.unique(words(hashes), return_index=True)[1])
    about = f"that it met in training, of {len(first):,} in its log"
    return Trained(jax.tree.map(lambda x: x[first], level), hashes[first], about)


def climb(
    env: Any,
    num_levels: int,
    trained: Mapping[str, Trained | None] = MappingProxyType({}),
    curricula: Sequence[Any] = (),
    chosen: Sequence[str] = RUNGS,
    validation: bool = False,
) -> Ladder:
    """The rungs of an environment, for some runs or, without any, in general.

    Args:
        env: as it was trained in.
        num_levels: of each stream.
        trained: by run; their levels make its V0, and occur on no other rung of any run. Of a run
            of which they are not known (None), V0 is the stream `train`.
        curricula: of the runs; a set of levels that were not sampled from the family has its own
            test set.
        chosen: rungs that are wanted.
        validation: V1 is the stream `validation`, and there are no V2 and V3. Without runs both are
            there, to be shown.

    Raises:
        ValueError: an unknown rung, less than one level, or a family with too few.
    """
    check(num_levels, chosen)
    env = env.for_evaluation()
    known = {run: one for run, one in trained.items() if one is not None}
    taken = {word for one in known.values() for word in words(one.hashes)}
    own = {run: _familiar(env, one, num_levels) for run, one in known.items()}
    new, why = _new_levels(env, num_levels, curricula, taken)
    if "train" in new and len(known) < max(len(trained), 1):
        train = Rung("V0", "train", "like those of training", new["train"])
        own |= {run: train for run in trained if run not in known} if trained else {"": train}
    name = "validation" if validation and "validation" in new else "test"
    names = [name] if trained else ["validation", "test"]
    about = "of the training distribution, but new"
    rungs = [Rung("V1", name, about, new[name]) for name in names if name in new]
    missing = [f"V1: {why}"] if why else []
    if not validation:
        beyond, without = _beyond(env, num_levels, taken, chosen)
        rungs, missing = rungs + beyond, missing + without
    rungs = tuple(one for one in rungs if one.rung in chosen)
    return Ladder(family_of(env), own if "V0" in chosen else {}, rungs, tuple(missing))


def check(num_levels: int, chosen: Sequence[str]) -> None:
    """Refuse what cannot be asked for.

    Raises:
        ValueError: an unknown rung or none, or less than one level.
    """
    if num_levels < 1:
        raise ValueError(f"levels must be at least 1, got {num_levels}; 100 are usual")
    for name in chosen:
        if name not in RUNGS:
            raise ValueError(f"unknown rung {name!r}; known: {', '.join(RUNGS)}")
    if not chosen:
        raise ValueError(f"no rung is asked for; choose from {', '.join(RUNGS)}")


def shifts_of(env: LevelEnv) -> dict[str, DistributionShift]:
    """What an environment says lies beyond its training distribution; {} if nothing."""
    return dict(env.ladder())


def shifted(env: Any, name: str, shift: DistributionShift, num: int, taken: set[int]) -> Stream:
    """The stream `ood-NAME` of a shift; of a suite at most as many levels as it has.

    Raises:
        ValueError: it names neither a suite nor fields, or both, or has too few levels.
    """
    if bool(shift.suite) == bool(shift.fields):
        raise ValueError(f"the shift {name} of {family_of(env)} needs a suite or fields, not both")
    if shift.suite:
        return suite_stream(load_suite(env, shift.suite), f"ood-{name}", num, taken)
    return draw_streams(replace(env, **shift.fields), [f"ood-{name}"], num, taken)[0]


def _beyond(
    env: Any, num: int, taken: set[int], chosen: Sequence[str]
) -> tuple[list[Rung], list[str]]:
    """V2 and V3, in the environment's own order."""
    shifts = shifts_of(env)
    wanted = {name: shift for name, shift in shifts.items() if shift.rung in chosen}
    rungs = [
        Rung(shift.rung, name, shift.about, shifted(env, name, shift, num, taken))
        for name, shift in sorted(wanted.items(), key=lambda one: one[1].rung)
    ]
    stated = {shift.rung for shift in shifts.values()}
    lacking = [rung for rung in ("V2", "V3") if rung in chosen and rung not in stated]
    return rungs, [f"{rung}: {family_of(env)} states no such levels" for rung in lacking]


def _familiar(env: Any, trained: Trained, num: int) -> Rung:
    """V0 of one run: at most `num` of its levels, evenly spread; solved anew, as sets need not."""
    rows = np.linspace(0, len(trained.hashes) - 1, min(2 * num, len(trained.hashes)))
    rows = np.unique(rows.round().astype(int))
    level = jax.tree.map(lambda x: jnp.asarray(np.asarray(x)[rows]), trained.level)
    suite = Suite(f"{family_of(env)}/trained-on", env, make_level_set(env, level))
    stream = suite_stream(suite, "trained-on", num, set())
    levels = replace(stream.suite.levels, split="train")
    stream = stream._replace(suite=stream.suite._replace(levels=levels))
    return Rung("V0", "trained-on", trained.about, stream)


def _new_levels(
    env: Any, num: int, curricula: Sequence[Any], taken: set[int]
) -> tuple[dict[str, Stream], str]:
    """Streams of the training distribution by name; what is missing, and why."""
    samplers = [one.sampler for one in curricula]
    fixed = [x for x in samplers if x.level_set is not None and not x.is_set_sampled]
    if fixed:
        others = unseen_levels(env, fixed[0], num)
        if others is None:
            return {}, "the training set is from elsewhere, and no others like it are known"
        suite = Suite(f"{family_of(env)}/test", env, replace(others, version="1"))
        return {"test": suite_stream(suite, "test", num, taken)}, ""
    if is_one_level(env):
        only = make_level_set(env, jax.tree.map(lambda x: x[None], env.sample_level(_key())))
        train = suite_stream(Suite("", env, only), "train", 1, set())
        return {"train": train}, f"{family_of(env)} has a single level: there is nothing but V0"
    names = ("train", "validation", "test")
    return dict(zip(names, draw_streams(env, names, num, taken), strict=True)), ""


def is_one_level(env: LevelEnv) -> bool:
    """Whether whatever an environment samples is one and the same."""
    level = jax.jit(jax.vmap(env.sample_level))(jax.random.split(_key(), 16))
    return all(bool((x == x[:1]).all()) for x in map(np.asarray, jax.tree.leaves(level)))


def _hashes(env: LevelEnv, level: PyTree) -> UInt32[np.ndarray, "M 2"]:
    num = jax.tree.leaves(level)[0].shape[0]
    size = min(_HASHED, num)
    call = jax.jit(jax.vmap(env.level_hash))
    found = []
    for start in range(0, num, size):
        at = np.minimum(np.arange(start, start + size), num - 1)
        found.append(np.asarray(call(jax.tree.map(lambda x, at=at: jnp.asarray(x[at]), level))))
    return np.concatenate(found)[:num]


def _key() -> Array:
    return jax.random.key(0)
