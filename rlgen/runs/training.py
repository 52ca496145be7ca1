"""Train a run from its first or its last checkpoint to its end, chunk by chunk.

Between two chunks, in this order: metrics and the curriculum log are written, the numbers are
checked, now and then the generalisation gap is measured, a checkpoint is saved. So a checkpoint
never holds a state that is not a number and never runs ahead of the metrics and the log, and
whatever happens in between costs at most the work since the last checkpoint.
"""

import dataclasses
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from rlgen import __version__
from rlgen.curriculum import Curriculum
from rlgen.parallel.sharding import make_mesh
from rlgen.runs import checkpoint, curriculum_log, folder, metrics
from rlgen.runs.callbacks import ActiveRun, Callback
from rlgen.runs.metrics import Counters
from rlgen.runs.program import Program, abstract_states, compile_run
from rlgen.runs.progress import Reporter, Silent, Status
from rlgen.runs.records import (
    check_tensorboard,
    keep_training_set,
    pinned_files,
    save_buffer,
    save_files,
    tensorboard_writer,
)
from rlgen.runs.signals import catch_stop
from rlgen.runs.spec import Plan, RunSpec, build, with_names
from rlgen.types import TrainState


class RunStoppedError(Exception):
    """A run ended before its time; it can be resumed from its last checkpoint.

    `exit_code` is 130 after Ctrl-C, 143 after SIGTERM, 1 after a failure.
    """

    def __init__(self, message: str, exit_code: int = 1):
        super().__init__(message)
        self.exit_code = exit_code


class Run(NamedTuple):
    """A run that is about to go on."""

    path: Path
    spec: RunSpec
    env: Any
    curriculum: Curriculum
    record: dict[str, Any]
    length: Plan
    options: "Options"


@dataclasses.dataclass(frozen=True)
class Options:
    """What does not change what a run computes.

    Attributes:
        reporter: where progress goes.
        tensorboard: also write TensorBoard files; needs the extra `tensorboard`.
        callbacks: work between chunks, such as `GapTracking` of
            `rlgen.evaluation.generalisation.during_training`.
    """

    reporter: Reporter = dataclasses.field(default_factory=Silent)
    tensorboard: bool = False
    callbacks: tuple[Callback, ...] = ()


def train(spec: RunSpec, path: Path | str, options: Options | None = None) -> Path:
    """Train a new run in a new folder.

    Raises:
        ValueError: the spec is impossible or the folder is taken; nothing was trained.
        RunStoppedError: a signal, a full disk or a number that is not finite ended it.
    """
    path = Path(path)
    spec = with_names(spec)
    options = options or Options()
    env, curriculum = build(spec)
    _check(spec, curriculum, options)
    record = folder.create(path, spec, env, curriculum)
    return _run(Run(path, spec, env, curriculum, record, _plan(record), options), None)


def resume(
    path: Path | str,
    at: int | None = None,
    devices: int | None = None,
    allow_imports: bool = False,
    options: Options | None = None,
) -> Path:
    """Go on with a run from its newest checkpoint, bit for bit as if it had never stopped.

    Args:
        path: the run's folder.
        at: the update of an older checkpoint to go on from; newer ones are renamed, not deleted.
        devices: another number of devices than before; equal up to rounding then.
        allow_imports: import modules from outside rlgen that the run's record names.
        options: of reporting.

    Raises:
        ValueError: not a run, a damaged or foreign checkpoint, or the run has ended.
        RunStoppedError: as for `train`.
    """
    path = Path(path)
    record = folder.read(path)
    spec, env, curriculum = folder.rebuild(record, allow_imports)
    if devices is not None:
        spec = dataclasses.replace(spec, devices=devices)
    options = options or Options()
    _check(spec, curriculum, options)
    run = Run(path, spec, env, curriculum, record, _plan(record), options)
    known = checkpoint.updates(path)
    if at is None and not known:
        return _run(run, None)
    at = known[-1] if at is None else at
    restored = restore(run.path, record, abstract_states(spec, curriculum), at)
    if at >= run.length.num_updates:
        raise ValueError(f"{path} has ended: all {at} updates are done")
    for moved in checkpoint.set_aside(path, at):
        run.options.reporter.say(f"set aside {moved}")
    return _run(run, restored)


def restore(
    path: Path, record: dict[str, Any], like: TrainState, update: int
) -> tuple[TrainState, Counters]:
    """The states and counters of one checkpoint of a run.

    Raises:
        ValueError: the checkpoint is missing, damaged, or of another run.
    """
    meta = checkpoint.read_meta(path, update)
    if meta["run"] != folder.fingerprint(record):
        raise ValueError(
            f"checkpoint {path / 'checkpoints' / f'{update:08d}'} belongs to another run than "
            f"{path / 'config.json'}, or that file was edited; both are left as they are"
        )
    counters = meta["counters"]
    if not isinstance(counters, dict) or set(counters) != set(Counters._fields):
        raise ValueError(
            f"checkpoint {path / 'checkpoints' / f'{update:08d}'} was written by another version "
            f"of rlgen ({record['versions'].get('rlgen')}; this is {__version__}) and cannot be "
            "read by this one; it is left as it is"
        )
    return checkpoint.restore(path, update, like), Counters(**counters)


def _check(spec: RunSpec, curriculum: Curriculum, options: Options) -> None:
    """Refuse what cannot run on this machine before the run folder is touched."""
    check_tensorboard(options.tensorboard)
    if spec.devices > 1:
        make_mesh(spec.devices, spec.seeds, curriculum.num_slots)


def _plan(record: dict[str, Any]) -> Plan:
    return Plan(**record["plan"])


def _run(run: Run, restored: tuple[TrainState, Counters] | None) -> Path:
    reporter = run.options.reporter
    counters = restored[1] if restored else Counters()
    with tensorboard_writer(run.path, run.options.tensorboard) as board:
        try:
            keep_training_set(run.path, run.curriculum.sampler)
            pinned_files(run.path, run.curriculum.student)
            metrics.cut(run.path / "metrics.jsonl", counters.update)
            curriculum_log.cut(run.path, counters.update)
            reporter.say(_start_message(run, counters))
            start = time.perf_counter()
            program = compile_run(run.spec, run.curriculum, run.length)
            preparation = run.curriculum.sampler.preparation
            if preparation and not restored:
                reporter.say(f"{preparation} ...")
            states = program.place(restored[0]) if restored else program.init()
            seconds = time.perf_counter() - start
            reporter.say(f"compiled in {seconds:.1f} s")
            counters = counters._replace(compile_seconds=counters.compile_seconds + seconds)
            _train_loop(run, program, states, counters, board)
        except OSError as error:
            raise RunStoppedError(_disk_trouble(run, error)) from error
        finally:
            reporter.close()
    return run.path


def _train_loop(run: Run, program: Program, states: TrainState, now: Counters, board: Any) -> None:
    def notice() -> None:
        run.options.reporter.say("stopping after the running chunk; once more to abandon it")

    last = run.length.num_updates
    active = ActiveRun(run.path, run.spec, run.env, run.curriculum, run.length)
    callbacks = run.options.callbacks
    _say(run, [callback.start(active, now.update) for callback in callbacks])
    with catch_stop(notice) as stop:
        while now.update < last and not stop:
            states, found, seconds = _run_chunk(program, states, now.update)
            now = _log_chunk(run, found, now, seconds, board)
            for callback in callbacks:
                callback.after_chunk(active, states, now)
            chunks = now.update // run.length.chunk
            if chunks % run.spec.checkpoint_every == 0 or now.update == last or stop:
                _save(run, states, now)
    _say(run, [callback.finish(active) for callback in callbacks])
    if stop and now.update < last:
        raise RunStoppedError(_how_to_resume(run, now), stop.exit_code)


def _say(run: Run, messages: list[str]) -> None:
    for message in filter(None, messages):
        run.options.reporter.say(message)


def _run_chunk(
    program: Program, states: TrainState, update: int
) -> tuple[TrainState, tuple, float]:
    """Run one chunk; signals are heard while it runs, since the wait is in Python."""
    start = time.perf_counter()
    states, *found = program.chunk(states, update)
    leaves = jax.tree.leaves(found)  # all results of a program are ready together
    while not all(leaf.is_ready() for leaf in leaves):
        time.sleep(min(0.05, 0.02 * (time.perf_counter() - start) + 1e-4))
    host = jax.device_get(tuple(found))
    return states, host, time.perf_counter() - start


def _log_chunk(run: Run, found: tuple, now: Counters, seconds: float, board: Any) -> Counters:
    """Write a chunk's metrics and levels, and refuse what is not a number."""
    values = {name: np.asarray(x).swapaxes(0, 1) for name, x in found[0].items()}  # [U, S]
    after = metrics.advance(now, values, seconds)
    rate = run.length.chunk * run.length.steps_per_update * run.spec.seeds / seconds
    metrics.append(run.path / "metrics.jsonl", after, values, rate)
    slot = curriculum_log.kept_slots(run.curriculum.num_slots, run.spec.log_levels)
    curriculum_log.write(run.path, now.update, slot, found[2])
    bad = metrics.first_bad(now.update, values, found[1])
    if bad is not None:
        raise RunStoppedError(_not_finite(run, bad))
    means = {name: _mean(x) for name, x in values.items()}
    for sentence in metrics.skipped(values) + _warnings(run, means, after[-1].update):
        run.options.reporter.say(sentence)
    if board is not None:
        for name, mean in means.items():
            board.add_scalar(name, mean, after[-1].steps_total)
    left = (run.length.num_updates - after[-1].update) / run.length.chunk * seconds
    run.options.reporter.show(
        Status(after[-1].update, run.length.num_updates, after[-1].steps_total, rate, left, means)
    )
    return after[-1]


def _warnings(run: Run, means: dict[str, float], update: int) -> list[str]:
    """What a bonus has to say at the end of the run, such as of a table too small for it."""
    return run.curriculum.student.warnings(means) if update == run.length.num_updates else []


def _save(run: Run, states: TrainState, now: Counters) -> None:
    states = jax.device_get(states)
    meta = {
        "run": folder.fingerprint(run.record),
        "counters": now._asdict() | {"steps": dict(now.steps)},
    }
    checkpoint.save(run.path, now.update, states, meta, run.spec.keep_checkpoints)
    save_files(run.path, run.curriculum.student, states, run.record["spec"])
    features = now.update == run.length.num_updates  # solving levels takes seconds
    save_buffer(run.path / "levels.npz", run.env, run.curriculum.sampler, states, features)


def _mean(values: np.ndarray) -> float:
    there = values[np.isfinite(values)]
    return float(there.mean()) if there.size else float("nan")


def _start_message(run: Run, counters: Counters) -> str:
    total = run.length.num_updates * run.length.steps_per_update
    seeds = f"{run.spec.seeds} seeds x " if run.spec.seeds > 1 else ""
    return (
        f"{run.path}: {run.spec.recipe} on {run.spec.env}, {seeds}{total:,} steps in "
        f"{run.length.num_updates} updates (chunks of {run.length.chunk})"
        + (f", from update {counters.update}" if counters.update else "")
    )


def _kept(run: Run) -> str:
    known = checkpoint.updates(run.path)
    if not known:
        return "There is no checkpoint yet."
    return f"The checkpoint of update {known[-1]} is kept: {_resume_command(run)}"


def _not_finite(run: Run, bad: metrics.Bad) -> str:
    return (
        f"update {bad.update}: {bad.name} of seed {run.spec.seed + bad.seed} is not finite. "
        f"{_kept(run)}"
    )


def _disk_trouble(run: Run, error: OSError) -> str:
    return f"cannot write to {run.path}: {error.strerror or error}. {_kept(run)}"


def _how_to_resume(run: Run, now: Counters) -> str:
    return (
        f"stopped at update {now.update} of {run.length.num_updates}. "
        f"Go on with: {_resume_command(run)}"
    )


def _resume_command(run: Run) -> str:
    return f"rlgen train --resume {run.path}{folder.trust_flag(run.record)}"
