"""Work on the host between the chunks of a run: what a callback implements and what it receives.

`rlgen.runs.recording` has those of every run: metrics, the curriculum log, the check of numbers,
progress, checkpoints.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from rlgen.curriculum import Curriculum
from rlgen.runs.metrics import Counters
from rlgen.runs.spec import Plan, RunSpec
from rlgen.types import PyTree, TrainState


class RunStoppedError(Exception):
    """A run ended before its time; it can be resumed from its last checkpoint.

    `exit_code` is 130 after Ctrl-C, 143 after SIGTERM, 1 after a failure.
    """

    def __init__(self, message: str, exit_code: int = 1):
        super().__init__(message)
        self.exit_code = exit_code


class ActiveRun(NamedTuple):
    """A run in progress, as callbacks see it."""

    path: Path
    spec: RunSpec
    env: Any
    curriculum: Curriculum
    length: Plan
    record: Mapping[str, Any]  # the run's `config.json`


class Chunk(NamedTuple):
    """A chunk of U updates of S seeds, just done."""

    states: TrainState  # [S, ...], after its last update; on the device
    metrics: Mapping[str, np.ndarray]  # [U, S] each
    levels: PyTree  # what the curriculum log keeps of each update, [S, U, ...]
    finite: Mapping[str, np.ndarray]  # [S] each; whether every parameter of a part is a number
    counters: list[Counters]  # after each update
    seconds: float  # that it ran
    is_last: bool  # of the run, or before it stops

    @property
    def now(self) -> Counters:
        """After the last update."""
        return self.counters[-1]

    @property
    def before(self) -> int:
        """Updates done before it."""
        return self.now.update - len(self.counters)

    def means(self) -> dict[str, float]:
        """Of each metric, over updates and seeds that have it; NaN if none has."""
        return {name: _mean(values) for name, values in self.metrics.items()}


class Callback:
    """Base class: every method does nothing by default, so a subclass overrides what it needs.

    A callback must not change what the run computes. `OSError` from any method stops the run, which
    can be resumed from its last checkpoint.
    """

    def start(self, run: ActiveRun, update: int) -> str:
        """Prepare for a run that has done `update` updates; returns a message, "" for none.

        A resumed run may have written beyond its last checkpoint: a callback with a file of its own
        drops what is later than `update`.
        """
        del run, update
        return ""

    def after_chunk(self, run: ActiveRun, chunk: Chunk) -> None:
        """Called after each chunk, before its checkpoint.

        Raises:
            RunStoppedError: to end the run.
        """
        del run, chunk

    def finish(self, run: ActiveRun) -> str:
        """Called when the run ends or a signal stops it, not after an error.

        Returns a message, "" for none.
        """
        del run
        return ""


def _mean(values: np.ndarray) -> float:
    there = values[np.isfinite(values)]
    return float(there.mean()) if there.size else float("nan")
