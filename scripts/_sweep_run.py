"""One point of a sweep: train or resume it, evaluate it, and summarise it in one row.

This module imports no other script, so that it can be pickled by value and sent to another machine.
"""

import traceback
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from rlgen.evaluation import load_runs, zero_shot
from rlgen.evaluation.episodes import Evaluation
from rlgen.evaluation.from_runs import saved_results
from rlgen.evaluation.from_runs.metrics import read_metrics
from rlgen.evaluation.generalisation.during_training import GapTracking
from rlgen.evaluation.ladder.streams import draw_streams
from rlgen.evaluation.report import results
from rlgen.evaluation.stats.summary import summarise
from rlgen.evaluation.suites import load_suite
from rlgen.levels import Suite
from rlgen.runs import checkpoint, folder, training
from rlgen.runs.progress import Reporter, Silent, counter
from rlgen.runs.spec import RunSpec

Row = dict[str, Any]  # plain JSON values

VALIDATION = "validation"
"""Name that stands for new levels of the training distribution, which are used to select models."""
DONE, FAILED, CUT, WAITING = "done", "failed", "cut", "waiting"
TAIL = 0.1  # fraction of the updates, at the end, over which the solve rate is averaged


class Job(NamedTuple):
    """Training and evaluation of one point."""

    spec: RunSpec
    path: Path  # run folder of the point
    suite: str  # name of a suite, `VALIDATION`, or "" for no evaluation
    num_levels: int  # number of levels if the suite is `VALIDATION`
    attempts: int  # episodes per level and seed
    seed: int  # random seed of the evaluation


def run_point(job: Job, reporter: Reporter) -> Row:
    """Train and evaluate a point, unless results exist already; record errors in the row.

    Raises:
        KeyboardInterrupt: If the user interrupts a second time before the current chunk of updates
            has ended.
    """
    try:
        if not is_trained(job.path):
            _train(job, reporter)
        return {"state": DONE, "error": "", "exit_code": 0, **measure(job)}
    except training.RunStoppedError as stopped:
        state = FAILED if stopped.exit_code == 1 else CUT
        return {"state": state, "error": str(stopped), "exit_code": stopped.exit_code}
    except Exception as error:  # a failed point must not stop the other points
        return {"state": FAILED, "error": _told(job.path, error), "exit_code": 1}


def run_quietly(job: Job) -> Row:
    """Do the work of `run_point` without progress output, in a remote worker process."""
    return run_point(job, Silent())


def find_suite(env: Any, name: str, num_levels: int) -> Suite:
    """Return a suite by name; for the name `VALIDATION`, return new levels of the environment.

    Raises:
        ValueError: If the suite is unknown, or if the environment has too few levels.
    """
    if name != VALIDATION:
        return load_suite(env, name)
    _, stream = draw_streams(env, ("train", VALIDATION), num_levels, set())
    return stream.suite


def is_trained(path: Path) -> bool:
    """Return whether a run has completed its planned updates."""
    if not folder.is_run(path):
        return False
    known = checkpoint.updates(path)
    return bool(known) and known[-1] >= folder.read(path)["plan"]["num_updates"]


def measure(job: Job) -> Row:
    """Return costs, training solve rate and, if the job has a suite, the score on the suite."""
    lines = read_metrics(job.path / "metrics.jsonl")
    last = lines[-1]
    kept = folder.read(job.path)["fields"].get("student.updates_per_level", 1)
    row = {
        "train_solve_rate": train_solve_rate(lines, of_episodes=kept > 1),
        "env_steps": sum(last["env_steps"].values()),
        "seconds": round(last["wall_seconds"] + last["compile_seconds"], 3),
    }
    return row | (_scores(_evaluate(job)) if job.suite else {})


def train_solve_rate(lines: list[dict], of_episodes: bool = False) -> float | None:
    """Return the mean solve rate over seeds and over the last tenth of the updates.

    Updates in which no episode ended are excluded. If no update remains for some seed, the result
    is None.

    Args:
        lines: Lines of `metrics.jsonl`.
        of_episodes: Whether the solve rate of an update is a mean over the episodes that ended, not
            over slots. Updates are then weighted by their numbers of episodes.
    """
    tail = [x for x in lines[-max(round(TAIL * len(lines)), 1) :] if "solve_rate" in x]
    if not tail:
        return None
    rate = np.array([line["solve_rate"] for line in tail], float)  # [U, S]; null becomes NaN
    num = np.array([line["num_episodes"] for line in tail]) if of_episodes else np.ones(rate.shape)
    weight = np.where(np.isfinite(rate), num, 0)
    if not weight.any(0).all():
        return None
    return float(np.average(np.nan_to_num(rate), axis=0, weights=weight).mean())


def _train(job: Job, reporter: Reporter) -> None:
    options = training.Options(reporter, callbacks=(GapTracking(),))
    if folder.is_run(job.path):
        # The imports recorded by the run are safe, because the caller has checked that the record
        # equals this point, which the user specified.
        training.resume(job.path, allow_imports=True, options=options)
    else:
        training.train(job.spec, job.path, options)


def _evaluate(job: Job) -> Evaluation:
    """Return the job's evaluation; if none is saved, play the suite and save the evaluation."""
    opened = load_runs.open_run(job.path, allow_imports=True)
    suite = find_suite(opened.env, job.suite, job.num_levels)
    saved, _ = saved_results.find_saved(opened, suite, job.attempts, job.seed)
    if saved is not None:
        return saved
    policies = zero_shot.load_policies(job.path, allow_imports=True)
    progress = counter(policies.label, "episodes")
    found = load_runs.play(policies, suite, job.attempts, job.seed, progress, job.path)
    where = saved_results.saved_folder(opened, suite, job.attempts, job.seed)
    results.save(where, [found], overwrite=True)
    return found


def _scores(evaluation: Evaluation) -> Row:
    summary = summarise([evaluation])
    aggregate = summary.runs[0].aggregate
    mean, iqm = aggregate["mean"], aggregate["iqm"]
    return {
        "score": summary.score,
        "interval": summary.meaning,
        "mean": float(mean.value),
        "mean_low": _number(mean.low),
        "mean_high": _number(mean.high),
        "iqm": float(iqm.value),
        "look": evaluation.meta.get("look"),
    }


def _number(value: Any) -> float | None:
    """Return a bound of an interval, or None if it is NaN because there is no interval."""
    return float(value) if value == value else None


def _told(path: Path, error: Exception) -> str:
    """Describe an error in one line; if it is unexpected, also write its traceback to a file."""
    if isinstance(error, ValueError):
        return str(error)
    place = path.with_name(f"{path.name}.error.txt")
    place.write_text("".join(traceback.format_exception(error)), encoding="utf-8")
    first = (str(error).strip() or "no message").splitlines()[0]
    return f"{type(error).__name__}: {first} (traceback: {place})"
