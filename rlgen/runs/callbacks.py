"""Interface of callbacks, which run on the host between the chunks of a run.

A chunk is a number of updates that run as one compiled program.

`rlgen.runs.recording` has the callbacks that every run uses: metrics, curriculum log, check for
finite numbers, progress and checkpoints.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from rlgen.curriculum import Curriculum
from rlgen.runs.metrics import NO_COUNTS, Counters
from rlgen.runs.spec import Plan, RunSpec
from rlgen.types import PyTree, TrainState


class RunStoppedError(Exception):
    """Raised when a run ends early; the run can be resumed from its last checkpoint.

    Attributes:
        exit_code: 130 after Ctrl-C, 143 after SIGTERM, 1 after a failure.
    """

    def __init__(self, message: str, exit_code: int = 1):
        super().__init__(message)
        self.exit_code = exit_code


class ActiveRun(NamedTuple):
    """Run in progress, as passed to callbacks."""

    path: Path
    spec: RunSpec
    env: Any
    curriculum: Curriculum
    length: Plan
    record: Mapping[str, Any]  # content of the run's `config.json`


class Chunk(NamedTuple):
    """Results of a finished chunk of U updates and S seeds."""

    states: TrainState  # [S, ...], after the last update, on the device
    metrics: Mapping[str, np.ndarray]  # [U, S] each
    levels: PyTree  # data for the curriculum log, [S, U, ...]
    finite: Mapping[str, np.ndarray]  # [S] each; whether all values of a parameter are finite
    counters: list[Counters]  # after each update
    seconds: float  # duration of the chunk
    is_last: bool  # whether the run ends or stops after this chunk
    averaged_over: Mapping[str, str] = NO_COUNTS  # of the student; see `Student.averaged_over`

    @property
    def now(self) -> Counters:
        """Counters after the last update."""
        return self.counters[-1]

    @property
    def before(self) -> int:
        """Number of updates before the chunk."""
        return self.now.update - len(self.counters)

    def means(self) -> dict[str, float]:
        """Mean of each metric's finite values over updates and seeds; NaN if no value is finite.

        The mean over updates is computed first, for each seed. If a metric is a mean over a count,
        such as the number of ended episodes, the updates are weighted by the count, so that each
        episode has the same weight.
        """
        counts = {name: self.metrics[count] for name, count in self.averaged_over.items()}
        return {name: _mean(x, counts.get(name, np.ones(1))) for name, x in self.metrics.items()}


class Callback:
    """Base class of callbacks, whose methods do nothing by default.

    A callback must not change the results of the run. If a method raises an `OSError`, the run
    stops and can be resumed from its last checkpoint.
    """

    def start(self, run: ActiveRun, update: int) -> str:
        """Prepare for a run that has completed `update` updates.

        Before an interruption, a run may have written data after its last checkpoint. When the run
        is resumed, a callback that writes its own file must drop the data of updates after
        `update`.

        Returns:
            Message to show; "" shows none.
        """
        del run, update
        return ""

    def after_chunk(self, run: ActiveRun, chunk: Chunk) -> None:
        """Called after each chunk, before its checkpoint.

        Raises:
            RunStoppedError: The callback ends the run.
        """
        del run, chunk

    def finish(self, run: ActiveRun) -> str:
        """Called when the run ends or is stopped by a signal, but not after an error.

        Returns:
            Message to show; "" shows none.
        """
        del run
        return ""


def _mean(values: np.ndarray, weight: np.ndarray) -> float:
    there = np.isfinite(values)
    weight = np.where(there, weight, 0.0)  # [U, S]
    total, seeds = (np.where(there, values, 0.0) * weight).sum(0), weight.sum(0) > 0
    means = total[seeds] / weight.sum(0)[seeds]
    return float(means.mean()) if means.size else float("nan")
