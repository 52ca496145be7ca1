"""What a person sees of a running run: a bar on a terminal, a plain line now and then elsewhere."""

import sys
import time
from collections.abc import Callable
from typing import NamedTuple, Protocol, TextIO, runtime_checkable

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn

SECONDS_BETWEEN_LINES = 5.0


class Status(NamedTuple):
    """The state of a run after a chunk."""

    update: int
    num_updates: int
    env_steps: float  # of one seed
    steps_per_second: float  # of all seeds together
    seconds_left: float
    metrics: dict[str, float]  # means over the chunk and the seeds; NaN where there is none


@runtime_checkable
class Reporter(Protocol):
    """Where a run reports to."""

    def say(self, text: str) -> None:
        """A sentence about what happens now."""
        ...

    def show(self, status: Status) -> None:
        """A chunk is done."""
        ...

    def close(self) -> None:
        """The run ends, in whatever way."""
        ...


class Silent:
    """Reports nothing; the default in Python."""

    def say(self, text: str) -> None:
        """Nothing."""

    def show(self, status: Status) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


class Lines:
    """Plain lines for logs and pipes, at most one every few seconds, and the last."""

    def __init__(self, file: TextIO | None = None):
        self._file = file or sys.stderr
        self._last = 0.0

    def say(self, text: str) -> None:
        """One line."""
        print(text, file=self._file, flush=True)

    def show(self, status: Status) -> None:
        """One line, if the last is a while ago."""
        now = time.monotonic()
        if status.update == status.num_updates or now - self._last > SECONDS_BETWEEN_LINES:
            self._last = now
            self.say(f"update {status.update}/{status.num_updates}  {describe(status)}")

    def close(self) -> None:
        """Nothing to clean up."""


class Bar:
    """A progress bar on a terminal."""

    def __init__(self):
        columns = (SpinnerColumn(), BarColumn(bar_width=24), TextColumn("{task.percentage:3.0f}%"))
        console = Console(stderr=True)
        self._bar = Progress(*columns, TextColumn("{task.description}"), console=console)
        self._task = self._bar.add_task("compiling", total=None)
        self._bar.start()

    def say(self, text: str) -> None:
        """A line above the bar."""
        self._bar.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def show(self, status: Status) -> None:
        """Move the bar."""
        self._bar.update(
            self._task,
            total=status.num_updates,
            completed=status.update,
            description=describe(status),
        )

    def close(self) -> None:
        """Leave the terminal as it was."""
        self._bar.stop()


def choose() -> Reporter:
    """A bar if standard error is a terminal, lines otherwise."""
    return Bar() if sys.stderr.isatty() else Lines()


def counter(label: str, what: str) -> Callable[[int, int], None]:
    """What an evaluation reports to: called with how many are done, and of how many.

    On a terminal it rewrites one line; elsewhere it writes a line now and then, and the last.

    Args:
        label: what is being done.
        what: what is counted, such as `episodes`.
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
    """Steps, speed, time left, and what there is of return, solve rate and share of replay."""
    parts = [
        f"{amount(status.env_steps)} steps",
        f"{amount(status.steps_per_second)}/s",
        f"{duration(status.seconds_left)} left",
    ]
    of_lives = (
        {} if "episode_return" in status.metrics else {"lifetime_return": "return of ended lives"}
    )
    shares = {"solve_rate": "solved", "levels_replay": "replay"}
    for name, label in ({"episode_return": "return"} | of_lives | shares).items():
        value = status.metrics.get(name, float("nan"))
        if value == value:
            text = f"{value:.0%}" if name in shares else f"{value:.2f}"
            parts.append(f"{label} {text}")
    return "  ".join(parts)


def amount(number: float) -> str:
    """A large number in few characters: 12.3M."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.3g}{unit}"
    return f"{number:.0f}"


def duration(seconds: float) -> str:
    """Seconds as 1:02:03, or 2:03."""
    whole = round(seconds)
    hours, minutes, rest = whole // 3600, whole // 60 % 60, whole % 60
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
