"""Callbacks that every run uses after each chunk: logs, checks, progress and checkpoints."""

import shlex
from typing import Any

import jax

from rlgen.runs import checkpoint, curriculum_log, folder, metrics
from rlgen.runs.callbacks import ActiveRun, Callback, Chunk, RunStoppedError
from rlgen.runs.progress import Reporter, Status
from rlgen.runs.records import save_buffer, save_files


class MetricsLog(Callback):
    """Write `metrics.jsonl`, one line per update."""

    def start(self, run: ActiveRun, update: int) -> str:
        """Drop the lines after `update`."""
        metrics.cut(run.path / "metrics.jsonl", update)
        return ""

    def after_chunk(self, run: ActiveRun, chunk: Chunk) -> None:
        """Append the chunk's lines."""
        path, rate = run.path / "metrics.jsonl", steps_per_second(run, chunk)
        metrics.append(path, chunk.counters, chunk.metrics, rate)


class CurriculumLog(Callback):
    """Write the curriculum log: levels played in some slots, with their episodes and scores."""

    def start(self, run: ActiveRun, update: int) -> str:
        """Drop the files with updates after `update`."""
        curriculum_log.cut(run.path, update)
        return ""

    def after_chunk(self, run: ActiveRun, chunk: Chunk) -> None:
        """Write the chunk's levels."""
        slot = curriculum_log.kept_slots(run.curriculum.num_slots, run.spec.log_levels)
        curriculum_log.write(run.path, chunk.before, slot, chunk.levels)


class RefuseNonFinite(Callback):
    """Stop a run when a metric or a parameter is not finite."""

    def after_chunk(self, run: ActiveRun, chunk: Chunk) -> None:
        """Check all metrics and parameters.

        Raises:
            RunStoppedError: A metric or a parameter is not finite. The message gives the name, the
                update and the seed of the first such value.
        """
        counts = chunk.averaged_over
        bad = metrics.first_bad(chunk.before, chunk.metrics, chunk.finite, counts)
        if bad is not None:
            raise RunStoppedError(
                f"update {bad.update}: {bad.name} of seed {run.spec.seed + bad.seed} is not "
                f"finite. {kept(run)}"
            )


class ProgressReport(Callback):
    """Pass the run's status to a reporter, and the student's warnings at the end of the run."""

    def __init__(self, reporter: Reporter):
        self._reporter = reporter

    def after_chunk(self, run: ActiveRun, chunk: Chunk) -> None:
        """Report which parts of updates were skipped, then show the status of the run."""
        now, num_updates, means = chunk.now, run.length.num_updates, chunk.means()
        for sentence in metrics.skipped(chunk.metrics):
            self._reporter.say(sentence)
        if now.update == num_updates:
            for sentence in run.curriculum.student.warnings(means):
                self._reporter.say(sentence)
        # The remaining time is extrapolated from the last chunk alone, because the speed may change
        # during a run.
        left = (num_updates - now.update) / run.length.chunk * chunk.seconds
        rate = steps_per_second(run, chunk)
        self._reporter.show(Status(now.update, num_updates, now.steps_total, rate, left, means))


class TensorBoard(Callback):
    """Write the means of each chunk's metrics to TensorBoard."""

    def __init__(self, writer: Any):
        self._writer = writer

    def after_chunk(self, run: ActiveRun, chunk: Chunk) -> None:
        """Add one point per metric, at the total number of env steps."""
        for name, mean in chunk.means().items():
            self._writer.add_scalar(name, mean, chunk.now.steps_total)


class Checkpoints(Callback):
    """Save checkpoints at regular intervals, with the student's files and the sampler's levels."""

    def after_chunk(self, run: ActiveRun, chunk: Chunk) -> None:
        """Save a checkpoint if one is due."""
        num_chunks = chunk.now.update // run.length.chunk
        if chunk.is_last or num_chunks % run.spec.checkpoint_every == 0:
            save(run, chunk)


def save(run: ActiveRun, chunk: Chunk) -> None:
    """Write a checkpoint of the states after a chunk, the student's files and the level buffer."""
    # The states are copied to the host, because the next chunk reuses their memory.
    states, now = jax.device_get(chunk.states), chunk.now
    meta = {
        "run": folder.fingerprint(run.record),
        "counters": now._asdict() | {"steps": dict(now.steps)},
    }
    # The checkpoint is written first, because the files below can be written again from it.
    checkpoint.save(run.path, now.update, states, meta, run.spec.keep_checkpoints)
    save_files(run.path, run.curriculum.student, states, run.record["spec"])
    # Level features may require solving the levels, which takes seconds. They are therefore saved
    # only at the end of the run.
    features = now.update == run.length.num_updates
    save_buffer(run.path / "levels.npz", run.env, run.curriculum.sampler, states, features)


def steps_per_second(run: ActiveRun, chunk: Chunk) -> float:
    """Env steps per second during the chunk, of all seeds together."""
    return run.length.chunk * run.length.steps_per_update * run.spec.seeds / chunk.seconds


def kept(run: ActiveRun) -> str:
    """Sentence that names the newest checkpoint and the command that continues the run from it."""
    known = checkpoint.updates(run.path)
    if not known:
        return "There is no checkpoint yet."
    return f"Continue from the checkpoint of update {known[-1]} with: {resume_command(run)}"


def resume_command(run: ActiveRun) -> str:
    """Shell command that resumes the run."""
    return f"rlgen train --resume {shlex.quote(str(run.path))}{folder.trust_flag(run.record)}"
