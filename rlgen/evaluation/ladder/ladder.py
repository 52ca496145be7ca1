"""The protocol ladder: rungs of levels, ordered by distance from the training distribution.

    V0  levels that the run was trained on
    V1  new levels of the training distribution
    V2  levels outside this distribution: larger, denser, or with a parameter outside its range
    V3  new combinations: layouts, rules or structures that training never combined

A rung has one or more streams, which are named sets of levels (see
`rlgen.evaluation.ladder.streams`). No two streams share a level. The method `ladder` of an
environment describes the levels of V2 and V3 (see `rlgen.levels.DistributionShift`).

Source of the idea: the ladder of multi-task and meta-learning benchmarks, Yu et al., 2020,
"Meta-World: A Benchmark and Evaluation for Multi-Task and Meta Reinforcement Learning".
Differs from Meta-World: streams are kept disjoint by the hashes of their levels, not by seeds.
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
from rlgen.levels import DistributionShift, Suite, hash_levels, make_level_set, words
from rlgen.observations import misread
from rlgen.protocols import LevelEnv
from rlgen.runs.curriculum_log import has_log
from rlgen.types import PyTree

RUNGS = ("V0", "V1", "V2", "V3")


class Rung(NamedTuple):
    """One stream of levels, with the rung that it belongs to."""

    rung: str  # V0 to V3
    name: str  # trained-on, train, validation, test, or the name of a distribution shift
    about: str  # description of the levels, to be read after the word "levels"
    stream: Stream


class Trained(NamedTuple):
    """The levels that a run was trained on, as far as they are known."""

    level: PyTree  # [M, ...], distinct
    hashes: UInt32[np.ndarray, "M 2"]
    about: str  # description of the levels, to be read after the word "levels"


class Ladder(NamedTuple):
    """The rungs on which runs are tested, ordered by distance from the training distribution."""

    family: str
    own: Mapping[str, Rung]  # V0 of each run; its levels may differ between runs
    rungs: tuple[Rung, ...]  # V1 to V3, with the same levels for all runs
    missing: tuple[str, ...]  # sentences that name missing rungs and the reason

    def of(self, run: str) -> tuple[Rung, ...]:
        """Return one run's rungs in order, starting with its V0 if there is one."""
        return (*((self.own[run],) if run in self.own else ()), *self.rungs)


def trained_on(run: Path, loaded: Any, allow_imports: bool = False) -> Trained | None:
    """Return the levels of a run's finite training set or, if it has none, of its curriculum log.

    Args:
        run: Run folder.
        loaded: The loaded run (see `rlgen.evaluation.zero_shot.load_states`).
        allow_imports: Whether to import modules from outside rlgen that the run's record names.

    Returns:
        The levels, or None if the run has neither a finite set nor logged levels with positive
        weight.
    """
    known = training_set(loaded.curriculum)
    if known is not None:
        about = f"from the {len(known):,} that the run was trained on"
        return Trained(jax.device_get(known.level), np.asarray(known.hash), about)
    if not has_log(run):
        return None
    _, log = open_log(run, allow_imports)
    met = np.flatnonzero((log.weight > 0).ravel())  # logged slots whose levels were trained on
    if not len(met):
        return None
    # [U, S, n, ...] (update, seed, slot) flattened to one axis.
    level = jax.tree.map(lambda x: x.reshape(log.weight.size, *x.shape[3:])[met], log.level)
    hashes = hash_levels(loaded.env, level)
    first = np.sort(np.unique(words(hashes), return_index=True)[1])
    about = f"that the run was trained on, from {len(first):,} in its log"
    return Trained(jax.tree.map(lambda x: x[first], level), hashes[first], about)


def climb(
    env: Any,
    num_levels: int,
    trained: Mapping[str, Trained | None] = MappingProxyType({}),
    curricula: Sequence[Any] = (),
    chosen: Sequence[str] = RUNGS,
    validation: bool = False,
) -> Ladder:
    """Build an environment's ladder for the given runs, or for display if there are no runs.

    Args:
        env: Environment as configured for training.
        num_levels: Number of levels in each stream.
        trained: Training levels of each run. They form the V0 of the run and are excluded from the
            other rungs of every run. If the training levels of a run are unknown (None), its V0 is
            the stream `train`.
        curricula: Curricula of the runs. If a training set was not sampled from the family, V1
            consists of levels from the environment's suite `test`.
        chosen: Rungs to build.
        validation: If True, V1 is the stream `validation` instead of `test`, and V2 and V3 are
            omitted. If there are no runs, V1 has both of these streams, so that both can be shown.

    Raises:
        ValueError: A rung is unknown, the number of levels is less than one, or the family has too
            few levels.
    """
    check(num_levels, chosen)
    env = env.for_evaluation()
    known = {run: one for run, one in trained.items() if one is not None}
    # Hashes of levels that no further stream may contain. Every stream adds those of its levels.
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
    """Check the arguments of a ladder.

    Raises:
        ValueError: A rung is unknown, no rung is given, or the number of levels is less than one.
    """
    if num_levels < 1:
        raise ValueError(f"levels must be at least 1, got {num_levels}; the usual number is 100")
    for name in chosen:
        if name not in RUNGS:
            raise ValueError(f"unknown rung {name!r}; known: {', '.join(RUNGS)}")
    if not chosen:
        raise ValueError(f"no rung is given; choose from {', '.join(RUNGS)}")


def shifts_of(env: LevelEnv) -> dict[str, DistributionShift]:
    """Return the distribution shifts that an environment defines, by name; {} if none."""
    return dict(env.ladder())


def shifted(env: Any, name: str, shift: DistributionShift, num: int, taken: set[int]) -> Stream:
    """Build the stream `ood-NAME` of a distribution shift.

    If the shift names a suite, the stream has at most as many levels as the suite.

    Raises:
        ValueError: The shift names both a suite and fields or neither of them, or it has too few
            levels.
    """
    if bool(shift.suite) == bool(shift.fields):
        raise ValueError(f"the shift {name} of {family_of(env)} needs either a suite or fields")
    if shift.suite:
        return suite_stream(load_suite(env, shift.suite), f"ood-{name}", num, taken)
    return draw_streams(replace(env, **shift.fields), [f"ood-{name}"], num, taken)[0]


def _beyond(
    env: Any, num: int, taken: set[int], chosen: Sequence[str]
) -> tuple[list[Rung], list[str]]:
    """Build the streams of V2 and then of V3, and say what is missing and why.

    Levels whose observations the agents would misread are left out.

    Within a rung, streams are in the order in which the environment lists them.
    """
    shifts = shifts_of(env)
    wanted = {name: shift for name, shift in shifts.items() if shift.rung in chosen}
    rungs, missing = [], []
    for name, shift in sorted(wanted.items(), key=lambda one: one[1].rung):
        stream = shifted(env, name, shift, num, taken)
        why = misread(env, stream.suite)
        if why:
            missing.append(f"{shift.rung}: agents would misread {name}: {why}")
        else:
            rungs.append(Rung(shift.rung, name, shift.about, stream))
    stated = {shift.rung for shift in shifts.values()}
    lacking = [rung for rung in ("V2", "V3") if rung in chosen and rung not in stated]
    missing += [f"{rung}: {family_of(env)} defines no such levels" for rung in lacking]
    return rungs, missing


def _familiar(env: Any, trained: Trained, num: int) -> Rung:
    """Build V0 of one run from at most `num` evenly spaced levels of its training levels.

    The levels are solved again, because a training set need not contain optima.
    """
    # Twice as many candidates as needed, because unsolvable ones are rejected.
    rows = np.linspace(0, len(trained.hashes) - 1, min(2 * num, len(trained.hashes)))
    rows = np.unique(rows.round().astype(int))
    level = jax.tree.map(lambda x: jnp.asarray(np.asarray(x)[rows]), trained.level)
    suite = Suite(f"{family_of(env)}/trained-on", env, make_level_set(env, level))
    stream = suite_stream(suite, "trained-on", num, set())
    levels = replace(stream.suite.levels, split="train")  # so that evaluations are not counted
    stream = stream._replace(suite=stream.suite._replace(levels=levels))
    return Rung("V0", "trained-on", trained.about, stream)


def _new_levels(
    env: Any, num: int, curricula: Sequence[Any], taken: set[int]
) -> tuple[dict[str, Stream], str]:
    """Build the streams of the training distribution.

    Returns:
        The streams by name, and the reason why V1 is missing, or "" if V1 exists.
    """
    samplers = [one.sampler for one in curricula]
    fixed = [x for x in samplers if x.level_set is not None and not x.is_set_sampled]
    if fixed:
        others = unseen_levels(env, fixed[0], num)
        if others is None:
            return (
                {},
                "the training set is not sampled from the family; no similar levels are known",
            )
        suite = Suite(f"{family_of(env)}/test", env, replace(others, version="1"))
        return {"test": suite_stream(suite, "test", num, taken)}, ""
    if is_one_level(env):
        only = make_level_set(env, jax.tree.map(lambda x: x[None], env.sample_level(_key())))
        train = suite_stream(Suite("", env, only), "train", 1, set())
        return {"train": train}, f"{family_of(env)} has a single level, so V0 is the only rung"
    names = ("train", "validation", "test")
    return dict(zip(names, draw_streams(env, names, num, taken), strict=True)), ""


def is_one_level(env: LevelEnv) -> bool:
    """Return whether 16 sampled levels of an environment are all equal."""
    level = jax.jit(jax.vmap(env.sample_level))(jax.random.split(_key(), 16))
    return all(bool((x == x[:1]).all()) for x in map(np.asarray, jax.tree.leaves(level)))


def _key() -> Array:
    return jax.random.key(0)
