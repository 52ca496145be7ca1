"""Train a run chunk by chunk, from its start or a checkpoint to its end.

Four things happen after each chunk, in this order: the metrics and the curriculum log are written,
metrics and parameters are checked for finite values, the generalisation gap is measured if a
measurement is due, and a checkpoint is saved if one is due. A checkpoint therefore never contains
non-finite parameters, and it never contains updates that are missing in the metrics or the log. An
interruption loses at most the work since the last checkpoint.
"""

import dataclasses
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from rlgen import __version__
from rlgen.curriculum import Curriculum
from rlgen.held_out import rejection
from rlgen.parallel.sharding import make_mesh
from rlgen.runs import checkpoint, folder, metrics
from rlgen.runs.callbacks import ActiveRun, Callback, Chunk, RunStoppedError
from rlgen.runs.episode_limit import start_warnings
from rlgen.runs.metrics import Counters
from rlgen.runs.program import Program, abstract_states, compile_run
from rlgen.runs.progress import Reporter, Silent
from rlgen.runs.recording import (
    Checkpoints,
    CurriculumLog,
    MetricsLog,
    ProgressReport,
    RefuseNonFinite,
    TensorBoard,
    kept,
    resume_command,
)
from rlgen.runs.records import (
    check_tensorboard,
    keep_training_set,
    pinned_files,
    tensorboard_writer,
)
from rlgen.runs.signals import catch_stop
from rlgen.runs.spec import Plan, RunSpec, build, with_names
from rlgen.types import TrainState


@dataclasses.dataclass(frozen=True)
class Options:
    """Options that do not change the results of a run.

    Attributes:
        reporter: Reporter that shows the progress.
        tensorboard: Whether to write TensorBoard files, which requires the extra `tensorboard`.
        callbacks: Callbacks to run between chunks, such as
            `rlgen.evaluation.generalisation.during_training.GapTracking`.
    """

    reporter: Reporter = dataclasses.field(default_factory=Silent)
    tensorboard: bool = False
    callbacks: tuple[Callback, ...] = ()


def train(spec: RunSpec, path: Path | str, options: Options | None = None) -> Path:
    """Train a new run in a new folder.

    Raises:
        ValueError: The spec is invalid or the folder is not empty; nothing was trained.
        RunStoppedError: The run was ended by a signal, a full disk or a non-finite number.
    """
    path = Path(path)
    spec = with_names(spec)
    options = options or Options()
    env, curriculum = build(spec)
    _check(spec, curriculum, options)
    record = folder.create(path, spec, env, curriculum)
    return _run(ActiveRun(path, spec, env, curriculum, _plan(record), record), options, None)


def resume(
    path: Path | str,
    at: int | None = None,
    devices: int | None = None,
    allow_imports: bool = False,
    options: Options | None = None,
) -> Path:
    """Continue a run from its newest checkpoint.

    The results are bit-identical to those of an uninterrupted run.

    Args:
        path: Run folder.
        at: Update number of an older checkpoint to continue from. Newer checkpoints are renamed,
            not deleted.
        devices: New number of devices. If the number changes, the results are equal only up to
            rounding, and rounding differences grow with every update.
        allow_imports: Whether to import modules outside rlgen that the run's record names.
        options: Options for reporting and callbacks.

    Raises:
        ValueError: The folder is not a run, the checkpoint is damaged or belongs to another run, or
            the run has ended.
        RunStoppedError: The run was ended by a signal, a full disk or a non-finite number.
    """
    path = Path(path)
    record = folder.read(path)
    spec, env, curriculum = folder.rebuild(record, allow_imports)
    if devices is not None:
        spec = dataclasses.replace(spec, devices=devices)
    options = options or Options()
    _check(spec, curriculum, options)
    run = ActiveRun(path, spec, env, curriculum, _plan(record), record)
    known = checkpoint.updates(path)
    # If the run was interrupted before its first checkpoint, it starts again from its record.
    if at is None and not known:
        return _run(run, options, None)
    at = known[-1] if at is None else at
    restored = restore(run.path, record, abstract_states(spec, curriculum), at)
    # `restore` comes before this check, so that a damaged checkpoint of an ended run is reported.
    if at >= run.length.num_updates:
        raise ValueError(f"{path} has ended: all {at} updates are done")
    # Newer checkpoints are renamed only now: if the chosen checkpoint is damaged, the newer ones
    # stay in place.
    for moved in checkpoint.set_aside(path, at):
        options.reporter.say(f"renamed a newer checkpoint to {moved}")
    return _run(run, options, restored)


def restore(
    path: Path, record: dict[str, Any], like: TrainState, update: int
) -> tuple[TrainState, Counters]:
    """Load the states and counters from one checkpoint of a run.

    Args:
        path: Run folder.
        record: The run's record, see `folder.read`.
        like: Abstract states with the expected structure, see `abstract_states`.
        update: Update number of the checkpoint.

    Raises:
        ValueError: The checkpoint is missing, damaged, or from another run or version of rlgen.
    """
    meta = checkpoint.read_meta(path, update)
    if meta["run"] != folder.fingerprint(record):
        raise ValueError(
            f"checkpoint {path / 'checkpoints' / f'{update:08d}'} belongs to a different run than "
            f"{path / 'config.json'}, or that file was edited; both were left unchanged"
        )
    counters = meta["counters"]
    if not isinstance(counters, dict) or set(counters) != set(Counters._fields):
        raise ValueError(
            f"checkpoint {path / 'checkpoints' / f'{update:08d}'} was written by another version "
            f"of rlgen ({record['versions'].get('rlgen')}; this is {__version__}) and cannot be "
            "read by this version; it was left unchanged"
        )
    return checkpoint.restore(path, update, like), Counters(**counters)


def _check(spec: RunSpec, curriculum: Curriculum, options: Options) -> None:
    """Check that the run can execute on this machine, before the run folder is changed."""
    check_tensorboard(options.tensorboard)
    rejection(curriculum.student.env)  # raises if all levels of the family are held out
    if spec.devices > 1:
        make_mesh(spec.devices, spec.seeds, curriculum.num_slots)


def _plan(record: dict[str, Any]) -> Plan:
    return Plan(**record["plan"])


def _run(run: ActiveRun, options: Options, restored: tuple[TrainState, Counters] | None) -> Path:
    reporter = options.reporter
    counters = restored[1] if restored else Counters()
    with tensorboard_writer(run.path, options.tensorboard) as board:
        try:
            # Changed inputs are rejected before compilation, which can take minutes.
            keep_training_set(run.path, run.curriculum.sampler)
            pinned_files(run.path, run.curriculum.student)
            reporter.say(_start_message(run, counters))
            for sentence in start_warnings(run.env, run.curriculum):
                reporter.say(sentence)
            start = time.perf_counter()
            program = compile_run(run.spec, run.curriculum, run.length)
            # Preparing a sampler can take minutes, for example if it fits a level generator.
            if run.curriculum.sampler.preparation and not restored:
                reporter.say(f"{run.curriculum.sampler.preparation} ...")
            states = program.place(restored[0]) if restored else program.init()
            seconds = time.perf_counter() - start
            reporter.say(f"compiled in {seconds:.1f} s")
            counters = counters._replace(compile_seconds=counters.compile_seconds + seconds)
            _train_loop(run, program, states, counters, reporter, _callbacks(options, board))
        except OSError as error:
            raise RunStoppedError(_disk_trouble(run, error)) from error
        finally:
            reporter.close()
    return run.path


def _callbacks(options: Options, board: Any) -> list[Callback]:
    """All callbacks of a run, in the order in which they are called."""
    # `Checkpoints` comes last: no checkpoint may be saved if an earlier callback stops the run.
    return [
        MetricsLog(),
        CurriculumLog(),
        RefuseNonFinite(),
        ProgressReport(options.reporter),
        *([TensorBoard(board)] if board is not None else []),
        *options.callbacks,
        Checkpoints(),
    ]


def _train_loop(
    run: ActiveRun,
    program: Program,
    states: TrainState,
    now: Counters,
    reporter: Reporter,
    callbacks: Sequence[Callback],
) -> None:
    def notice() -> None:
        reporter.say("stopping after the current chunk; interrupt again to stop immediately")

    def say(messages: Iterable[str]) -> None:
        for message in filter(None, messages):
            reporter.say(message)

    last = run.length.num_updates
    # Logs may contain updates after the checkpoint. The callbacks drop them before the first chunk.
    say(callback.start(run, now.update) for callback in callbacks)
    with catch_stop(notice) as stop:
        while now.update < last and not stop:
            states, chunk = _run_chunk(program, states, now)
            chunk = chunk._replace(averaged_over=run.curriculum.student.averaged_over)
            now = chunk.now
            for callback in callbacks:
                # `is_last` is computed for each callback: if a signal arrives during an earlier
                # callback, the last callback still saves a checkpoint.
                is_last = now.update == last or bool(stop)
                callback.after_chunk(run, chunk._replace(is_last=is_last))
    say(callback.finish(run) for callback in callbacks)
    if stop and now.update < last:
        # The error is raised after `finish`, which is called for stopped runs as well as for
        # completed runs.
        raise RunStoppedError(_how_to_resume(run, now), stop.exit_code)


def _run_chunk(program: Program, states: TrainState, now: Counters) -> tuple[TrainState, Chunk]:
    """Run one chunk, and poll for its results so that Python handles signals meanwhile."""
    start = time.perf_counter()
    # The old states are donated and must not be used after this call.
    states, *found = program.chunk(states, now.update)
    leaves = jax.tree.leaves(found)  # all results of a program become ready together
    # Python runs no signal handlers during a blocking call to JAX, so this loop polls instead. The
    # interval grows with the elapsed time, so that short chunks are hardly delayed.
    while not all(leaf.is_ready() for leaf in leaves):
        time.sleep(min(0.05, 0.02 * (time.perf_counter() - start) + 1e-4))
    told, finite, levels = jax.device_get(tuple(found))
    seconds = time.perf_counter() - start
    values = {name: np.asarray(x).swapaxes(0, 1) for name, x in told.items()}  # [U, S]
    counters = metrics.advance(now, values, seconds)
    return states, Chunk(states, values, levels, finite, counters, seconds, is_last=False)


def _start_message(run: ActiveRun, counters: Counters) -> str:
    total = run.length.num_updates * run.length.steps_per_update
    seeds = f"{run.spec.seeds} seeds x " if run.spec.seeds > 1 else ""
    return (
        f"{run.path}: {run.spec.recipe} on {run.spec.env}, {seeds}{total:,} steps in "
        f"{run.length.num_updates} updates (chunks of {run.length.chunk})"
        + (f", from update {counters.update}" if counters.update else "")
    )


def _disk_trouble(run: ActiveRun, error: OSError) -> str:
    # A connection error comes from a callback that uses the network, not from writing the run
    # folder.
    if isinstance(error, ConnectionError | TimeoutError):
        return f"{type(error).__name__}: {error.strerror or error}. {kept(run)}"
    return f"cannot write to {run.path}: {error.strerror or error}. {kept(run)}"


def _how_to_resume(run: ActiveRun, now: Counters) -> str:
    return (
        f"stopped at update {now.update} of {run.length.num_updates}. "
        f"Continue with: {resume_command(run)}"
    )
