"""Open and check the runs of an evaluation or comparison, then play a suite with them.

All checks are made before anything is played. They reject a folder that cannot be read, runs of
different environments, a suite that a run cannot play, and two runs with the same label. They also
reject a sealed suite (see `rlgen.runs.test_set_access`) if the evaluation cannot be recorded. The
error messages name the run.
"""

import dataclasses
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from rlgen.evaluation import zero_shot
from rlgen.evaluation.episodes import Evaluation
from rlgen.evaluation.suites import check_readable, family_of, field_differences, name_of
from rlgen.evaluation.zero_shot import Policies
from rlgen.levels import OPEN_SPLITS, Suite
from rlgen.observations import interface_difference
from rlgen.protocols import LevelEnv, Student
from rlgen.runs import checkpoint, folder
from rlgen.runs.spec import RunSpec
from rlgen.runs.test_set_access import FILE, accesses, count_access

Progress = Callable[[int, int], None]


class Opened(NamedTuple):
    """A run folder whose record and checkpoint passed their checks."""

    path: Path
    record: dict[str, Any]
    spec: RunSpec
    env: Any
    update: int  # update number of the checkpoint
    env_steps: float  # env steps of one seed up to the checkpoint
    is_rule: bool  # True if the run learned an update rule, False if it trained a policy

    @property
    def seeds(self) -> range:
        """Training seeds of the run."""
        return range(self.spec.seed, self.spec.seed + self.spec.seeds)


@contextmanager
def naming(run: Path | str) -> Iterator[None]:
    """Add the run's name to the message of a `ValueError` if the message lacks the name."""
    try:
        yield
    except ValueError as error:
        if str(run) in str(error):
            raise
        raise ValueError(f"{run}: {error}") from error


def open_run(run: Path, at: int | None = None, allow_imports: bool = False) -> Opened:
    """Read a run's record and the metadata of one checkpoint, and verify every checksum.

    Args:
        run: Run folder.
        at: Update number of the checkpoint; by default the newest checkpoint.
        allow_imports: Whether to import modules outside rlgen that the run's record names.

    Raises:
        ValueError: The folder is not a run, its record is damaged, it has no checkpoint, or the
            checkpoint is damaged or belongs to another run.
    """
    with naming(run):
        record = folder.read(run)
        spec, env, curriculum = rebuild(run, record, allow_imports)
        known = checkpoint.updates(run)
        if not known:
            raise ValueError(f"{run} has no checkpoint yet; train it further")
        update = known[-1] if at is None else at
        meta = checkpoint.read_meta(run, update)
        # The fingerprint covers all settings that determine results, so it differs if config.json
        # was edited after training.
        if meta["run"] != folder.fingerprint(record):
            raise ValueError(
                f"checkpoint {update} of {run} belongs to a different run than its config.json, or "
                "config.json was edited"
            )
    steps = sum(meta["counters"]["steps"].values())  # env steps of all kinds
    is_rule = curriculum.student.offers(Student.learner_with_rule)
    return Opened(run, record, spec, env, update, steps, is_rule)


def rebuild(run: Path, record: dict[str, Any], allow_imports: bool) -> tuple[RunSpec, Any, Any]:
    """Like `folder.rebuild`, but if the record is malformed, the `ValueError` names the file."""
    try:
        return folder.rebuild(record, allow_imports)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{run / 'config.json'} is damaged or from another version of rlgen: {error!r}"
        ) from error


def check_environments(envs: Mapping[str, LevelEnv]) -> None:
    """Reject runs that were trained in different environments.

    Runs of one family may sample levels differently, but their observations and actions must match.

    Args:
        envs: Environment of each run, by the run's name.

    Raises:
        ValueError: Two environments differ; the message names both runs and the differences.
    """
    (first, env), *others = envs.items()
    for run, other in others:
        if family_of(env) != family_of(other) or type(env) is not type(other):
            raise ValueError(
                f"{run} was trained in {name_of(other)} and {first} in {name_of(env)}; runs that "
                "are compared must use the same environment, so evaluate these runs separately"
            )
        if interface_difference(env, other):
            unlike = field_differences(env, other) or "in their observations"
            raise ValueError(
                f"{run} and {first} have different observations or actions in {family_of(env)} "
                f"({unlike}); evaluate them separately"
            )


def check_playable(envs: Mapping[str, LevelEnv], suite: Suite) -> None:
    """Reject a suite that one of the runs cannot play; see `rlgen.observations`.

    Raises:
        ValueError: The actions differ, or the run would misread the suite's observations.
    """
    for run, env in envs.items():
        check_readable(run, env, suite)


def check_countable(runs: Iterable[Path], suite: Suite) -> None:
    """Reject runs whose evaluation on a sealed suite could not be recorded in the run's folder.

    The module `rlgen.runs.test_set_access` describes sealed suites and the file `looks.jsonl`.

    Raises:
        ValueError: The file `looks.jsonl` is damaged or cannot be written. The message names the
            run.
    """
    if suite.levels.split in OPEN_SPLITS:
        return
    for run in runs:
        accesses(run)
        place = run / FILE if (run / FILE).exists() else run
        if not os.access(place, os.W_OK):
            raise ValueError(
                f"{place} is not writable, so the evaluation on the sealed suite {suite.name} "
                "could not be recorded; copy the run to a writable folder"
            )


def check_labels(runs: Sequence[tuple[str, str]]) -> None:
    """Reject two runs with the same label, because tables could not distinguish them.

    Args:
        runs: Label and path of each run.

    Raises:
        ValueError: A label occurs twice; the message names both paths.
    """
    seen: dict[str, str] = {}
    for label, path in runs:
        if label in seen:
            raise ValueError(
                f"{seen[label]} and {path} are both called {label!r}; rename one folder, or name "
                f"the runs: rlgen compare one={seen[label]} other={path}"
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
    """Play a suite; if the suite is sealed, record the evaluation in the run's folder.

    Args:
        policies: Policies of the run.
        suite: Suite to play.
        attempts: Number of episodes per seed and level.
        seed: Seed of the evaluation's random numbers.
        progress: Called with the number of finished episodes and their total.
        run: Run folder. If it is None, as for untrained policies, nothing is recorded.
    """
    found = zero_shot.evaluate(policies, suite, attempts, seed, progress)
    if run is None:
        return found
    facts = {"update": policies.meta.get("update"), "attempts": attempts, "seed": seed}
    levels = suite.levels
    # The evaluation is counted after it has ended, so an interrupted evaluation is not counted.
    # `num` is 0 if the suite is not sealed.
    num = count_access(run, suite.name, levels.version, levels.split, **facts)
    return dataclasses.replace(found, meta=found.meta | {"look": num}) if num else found
