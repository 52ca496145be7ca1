"""Runs that are to be played and compared: opened, checked before anything is played, and played.

Everything that can be refused is refused here, by the name of the run: a folder that cannot be
read, an environment other than the first run's, a suite that a run cannot play, seeds that would
count twice.
"""

import dataclasses
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import jax

from rlgen import config
from rlgen.evaluation import zero_shot
from rlgen.evaluation.episodes import Evaluation
from rlgen.evaluation.suites import family_of
from rlgen.evaluation.zero_shot import Policies
from rlgen.levels import Suite
from rlgen.protocols import LevelEnv, Student
from rlgen.runs import checkpoint, folder
from rlgen.runs.spec import RunSpec
from rlgen.runs.test_set_access import FILE, OPEN, accesses, count_access

Progress = Callable[[int, int], None]


class Opened(NamedTuple):
    """A run folder whose record and checkpoint have been found whole."""

    path: Path
    record: dict[str, Any]
    spec: RunSpec
    env: Any
    update: int  # of the checkpoint
    env_steps: float  # of one seed, that far
    is_rule: bool  # it learned a rule, not a policy

    @property
    def seeds(self) -> range:
        """Of training."""
        return range(self.spec.seed, self.spec.seed + self.spec.seeds)


@contextmanager
def naming(run: Path | str) -> Iterator[None]:
    """Put the run's name before an error that does not say it."""
    try:
        yield
    except ValueError as error:
        if str(run) in str(error):
            raise
        raise ValueError(f"{run}: {error}") from error


def open_run(run: Path, at: int | None = None, allow_imports: bool = False) -> Opened:
    """A run's record and the record of one checkpoint, with every checksum compared.

    Args:
        run: the folder.
        at: update of the checkpoint; the newest by default.
        allow_imports: import modules from outside rlgen that the run's record names.

    Raises:
        ValueError: not a run, a damaged record, no checkpoint, or a damaged or foreign one.
    """
    with naming(run):
        record = folder.read(run)
        spec, env, curriculum = rebuild(run, record, allow_imports)
        known = checkpoint.updates(run)
        if not known:
            raise ValueError(f"{run} has no checkpoint yet; train it further")
        update = known[-1] if at is None else at
        meta = checkpoint.read_meta(run, update)
        if meta["run"] != folder.fingerprint(record):
            raise ValueError(
                f"checkpoint {update} of {run} belongs to another run than its config.json, or "
                "that file was edited"
            )
    steps = sum(meta["counters"]["steps"].values())
    is_rule = curriculum.student.offers(Student.learner_with_rule)
    return Opened(run, record, spec, env, update, steps, is_rule)


def rebuild(run: Path, record: dict[str, Any], allow_imports: bool) -> tuple[RunSpec, Any, Any]:
    """What `folder.rebuild` gives; a record of the wrong shape is refused by name too."""
    try:
        return folder.rebuild(record, allow_imports)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{run / 'config.json'} is damaged, or of another version of rlgen: {error!r}"
        ) from error


def check_environments(envs: Mapping[str, LevelEnv]) -> None:
    """Refuse runs that were trained in different environments.

    Runs of one family may differ in how levels are drawn, not in what an agent sees and does.

    Args:
        envs: by run.

    Raises:
        ValueError: two of them differ; both runs are named, and in what they differ.
    """
    (first, env), *others = envs.items()
    for run, other in others:
        if family_of(env) != family_of(other) or type(env) is not type(other):
            raise ValueError(
                f"{run} was trained in {_name(other)} and {first} in {_name(env)}; runs that are "
                "compared must be of one environment: evaluate them apart"
            )
        if _interface(env) != _interface(other):
            raise ValueError(
                f"{run} and {first} see or do different things in {_name(env)} "
                f"({_differences(env, other)}); evaluate them apart"
            )


def check_playable(envs: Mapping[str, LevelEnv], suite: Suite) -> None:
    """Refuse a suite that one of the runs cannot play.

    Raises:
        ValueError: the suite's observations or actions are others than the run's.
    """
    for run, env in envs.items():
        if type(env) is not type(suite.env) or _interface(env) != _interface(suite.env):
            raise ValueError(
                f"{run} was trained in {_name(env)} and cannot play {suite.name}, which is "
                f"{_name(suite.env)} with other observations or actions; name another --suite"
            )


def check_countable(runs: Iterable[Path], suite: Suite) -> None:
    """Refuse runs in whose folders a look at a sealed suite could not be counted afterwards.

    Raises:
        ValueError: the looks so far are damaged, or no more can be written; the run is named.
    """
    if suite.levels.split in OPEN:
        return
    for run in runs:
        accesses(run)
        place = run / FILE if (run / FILE).exists() else run
        if not os.access(place, os.W_OK):
            raise ValueError(
                f"{place} cannot be written, so a look at {suite.name}, which is sealed, could not "
                "be counted; copy the run to where you may write"
            )


def check_labels(runs: Sequence[tuple[str, str]]) -> None:
    """Refuse two runs of one label, which tables could not tell apart.

    Args:
        runs: label and path of each.

    Raises:
        ValueError: a label occurs twice; both paths are named.
    """
    seen: dict[str, str] = {}
    for label, path in runs:
        if label in seen:
            raise ValueError(
                f"{seen[label]} and {path} are both called {label!r}; rename a folder, or give "
                f"them names: rlgen compare one={seen[label]} other={path}"
            )
        seen[label] = path


def play(
    policies: Policies,
    suite: Suite,
    attempts: int,
    seed: int,
    progress: Progress,
    run: Path | None = None,
) -> Evaluation:
    """Play a suite, and count it in the run's folder as a look, if the suite is a sealed one.

    Args:
        policies: of the run.
        suite: what they play.
        attempts: on each level by each seed.
        seed: of the evaluation's random numbers.
        progress: called with the episodes done and all of them.
        run: the folder; None counts nothing, as for policies before training.
    """
    found = zero_shot.evaluate(policies, suite, attempts, seed, progress)
    if run is None:
        return found
    facts = {"update": policies.meta.get("update"), "attempts": attempts, "seed": seed}
    levels = suite.levels
    num = count_access(run, suite.name, levels.version, levels.split, **facts)
    return dataclasses.replace(found, meta=found.meta | {"look": num}) if num else found


def _interface(env: LevelEnv) -> tuple:
    """Number of actions, and shape and dtype of every part of an observation."""
    key = jax.random.key(0)
    obs, _ = jax.eval_shape(lambda: env.reset_env(key, env.sample_level(key)))
    return env.num_actions, [(leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(obs)]


def _name(env: LevelEnv) -> str:
    return f"{family_of(env)} ({type(env).__name__})"


def _differences(env: LevelEnv, other: LevelEnv) -> str:
    """Fields in which two environments of one type differ, at most three."""
    one, two = config.flatten(env), config.flatten(other)
    found = [f"{k} {one.get(k)} and {two.get(k)}" for k in one if one.get(k) != two.get(k)]
    return ", ".join(found[:3]) or "in their observations"
