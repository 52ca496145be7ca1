"""Record evaluations on sealed suites: each adds a line to the run's `looks.jsonl`.

A test set that is used to choose between agents is overfitted: the more often it is used, the less
a score on it predicts performance on unseen levels. The splits `train` and `validation` are meant
for such choices and are not sealed.

Source of the practice: Dwork et al., 2015, "The reusable holdout: Preserving validity in adaptive
data analysis".
"""

import json
import os
from datetime import UTC, datetime
from pathlib import Path

FILE = "looks.jsonl"
OPEN = ("train", "validation")
"""Splits that are not sealed; evaluations on them are not counted."""


def count_access(
    run: Path, suite: str, version: str, split: str, **facts: str | int | float | None
) -> int:
    """Record an evaluation on a suite; return the run's number of evaluations on it so far.

    For splits that are not sealed, nothing is written and 0 is returned.

    Args:
        run: Run folder.
        suite: Name of the suite with its family, such as `maze/heldout`.
        version: Version of the suite; versions have different levels and are counted separately.
        split: Split of the suite's levels.
        facts: Further values to record: update, attempts and seed of the evaluation.

    Raises:
        ValueError: The file is damaged or cannot be written.
    """
    if split in OPEN:
        return 0
    # A damaged file raises here, before this evaluation is recorded.
    before = sum(one["suite"] == suite and one["version"] == version for one in accesses(run))
    when = datetime.now(UTC).isoformat(timespec="seconds")
    line = json.dumps({"suite": suite, "version": version, "split": split, **facts, "when": when})
    try:
        # A single write in append mode, so that lines of concurrent evaluations do not mix.
        file = os.open(run / FILE, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(file, f"{line}\n".encode())
        finally:
            os.close(file)
    except OSError as error:
        raise ValueError(f"cannot write {run / FILE}: {error.strerror}") from error
    return before + 1


def accesses(run: Path) -> list[dict]:
    """All evaluations recorded in a run's folder, oldest first.

    Raises:
        ValueError: A line was not written by `count_access`; the message gives its number.
    """
    path = Path(run) / FILE
    if not path.is_file():
        return []
    found = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            one = json.loads(line)
            found.append({"suite": one["suite"], "version": one["version"], **one})
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"{path}, line {number}, is damaged: the looks at sealed levels can no longer be "
                "counted; repair or remove the line"
            ) from error
    return found
