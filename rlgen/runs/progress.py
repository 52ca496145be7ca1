"""Show the progress of runs and evaluations: a bar on a terminal, plain lines elsewhere."""

import math
import sys
import time
from collections.abc import Callable
from typing import NamedTuple, Protocol, TextIO, runtime_checkable

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn

SECONDS_BETWEEN_LINES = 5.0


class Status(NamedTuple):
    """State of a run after a chunk."""

    update: int
    num_updates: int
    env_steps: float  # env steps of one seed
    steps_per_second: float  # env steps of all seeds together
    seconds_left: float
    metrics: dict[str, float]  # means over the chunk and the seeds; NaN if no value is finite


@runtime_checkable
class Reporter(Protocol):
    """Interface of objects that display the progress of a run."""

    def say(self, text: str) -> None:
        """Show a message."""
        ...

    def show(self, status: Status) -> None:
        """Show the status after a chunk."""
        ...

    def close(self) -> None:
        """Clean up; called when the run has ended, with or without an error."""
        ...


class Silent:
    """Reporter without output; the default for runs that are started from Python."""

    def say(self, text: str) -> None:
        """Do nothing."""

    def show(self, status: Status) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


class Lines:
    """Reporter that prints plain lines for logs and pipes.

    Between two printed statuses, at least `SECONDS_BETWEEN_LINES` seconds pass. The status after
    the last chunk is always printed.
    """

    def __init__(self, file: TextIO | None = None):
        self._file = file or sys.stderr
        self._last = 0.0

    def say(self, text: str) -> None:
        """Print a message as one line."""
        print(text, file=self._file, flush=True)

    def show(self, status: Status) -> None:
        """Print the status if it is the last one, or if the previous line is old enough."""
        now = time.monotonic()
        if status.update == status.num_updates or now - self._last > SECONDS_BETWEEN_LINES:
            self._last = now
            self.say(f"update {status.update}/{status.num_updates}  {describe(status)}")

    def close(self) -> None:
        """Do nothing."""


class Bar:
    """Reporter that shows a progress bar on a terminal."""

    def __init__(self):
        columns = (SpinnerColumn(), BarColumn(bar_width=24), TextColumn("{task.percentage:3.0f}%"))
        console = Console(stderr=True)
        self._bar = Progress(*columns, TextColumn("{task.description}"), console=console)
        self._task = self._bar.add_task("compiling", total=None)
        self._bar.start()

    def say(self, text: str) -> None:
        """Print a message above the bar."""
        # Messages may contain brackets, which rich would read as markup, and paths, which must not
        # be broken across lines.
        self._bar.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def show(self, status: Status) -> None:
        """Advance the bar."""
        self._bar.update(
            self._task,
            total=status.num_updates,
            completed=status.update,
            description=describe(status),
        )

    def close(self) -> None:
        """Stop the bar and restore the terminal."""
        self._bar.stop()


def choose() -> Reporter:
    """Return a `Bar` if standard error is a terminal, `Lines` otherwise."""
    return Bar() if sys.stderr.isatty() else Lines()


def counter(label: str, what: str) -> Callable[[int, int], None]:
    """Return a function that shows the progress of an evaluation.

    The function is called with the number of finished items and the total number. On a terminal it
    rewrites one line. Elsewhere it prints a line every few seconds and after the last item.

    Args:
        label: Name of the activity.
        what: Name of the counted items, such as `episodes`.
    """
    last = -SECONDS_BETWEEN_LINES

    def show(done: int, of: int) -> None:
        nonlocal last
        text, now = f"{label}: {done:,} of {of:,} {what}", time.monotonic()
        if sys.stderr.isatty():
            print(f"\r{text}", end="\n" if done == of else "", file=sys.stderr, flush=True)
        elif done == of or now - last >= SECONDS_BETWEEN_LINES:
            last = now
            print(text, file=sys.stderr, flush=True)

    return show


def describe(status: Status) -> str:
    """Describe the steps, the speed and the remaining time of a status, and some of its metrics.

    These metrics are the return, the solve rate and the fraction of levels in the chunk that were
    replayed. Unknown metrics are left out. If no episode ended in the chunk, the description says
    so and gives the mean return so far of the episodes that were cut off.
    """
    parts = [
        f"{amount(status.env_steps)} steps",
        f"{amount(status.steps_per_second)}/s",
        f"{duration(status.seconds_left)} left",
    ]
    of_lives = {} if "episode_return" in status.metrics else {"lifetime_return": "lifetime return"}
    shares = {"solve_rate": "solved", "levels_replay": "replay"}
    so_far = {}
    if math.isnan(status.metrics.get("episode_return", 0.0)):
        parts.append("no episode ended")
        so_far = {"unfinished_return": "unfinished return"}
    for name, label in ({"episode_return": "return"} | so_far | of_lives | shares).items():
        value = status.metrics.get(name, float("nan"))
        if not math.isnan(value):
            text = f"{value:.0%}" if name in shares else f"{value:.2f}"
            parts.append(f"{label} {text}")
    return "  ".join(parts)


def amount(number: float) -> str:
    """Format a large number with three digits and a unit, such as 12.3M."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.3g}{unit}"
    return f"{number:.0f}"


def duration(seconds: float) -> str:
    """Format seconds as 1:02:03 or 2:03."""
    whole = round(seconds)
    hours, minutes, rest = whole // 3600, whole // 60 % 60, whole % 60
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
