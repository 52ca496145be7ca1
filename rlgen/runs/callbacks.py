"""Work on the host between the chunks of a run: what a callback implements and what it receives."""

from pathlib import Path
from typing import Any, NamedTuple

from rlgen.curriculum import Curriculum
from rlgen.runs.metrics import Counters
from rlgen.runs.spec import Plan, RunSpec
from rlgen.types import TrainState


class ActiveRun(NamedTuple):
    """A run in progress, as callbacks see it."""

    path: Path
    spec: RunSpec
    env: Any
    curriculum: Curriculum
    length: Plan


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

    def after_chunk(self, run: ActiveRun, states: TrainState, now: Counters) -> None:
        """Called after each chunk, before its checkpoint, with the states [S, ...]."""
        del run, states, now

    def finish(self, run: ActiveRun) -> str:
        """Called when the run ends or stops; returns a message, "" for none."""
        del run
        return ""
