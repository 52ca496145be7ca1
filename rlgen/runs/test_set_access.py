"""How often a run was scored on sealed levels: every look is a line in the run's `looks.jsonl`.

Whoever chooses among agents by a test set fits that set: the more looks, the less a score on it
says of levels that nobody looked at. Splits that are there to choose by, `train` and `validation`,
are not sealed.

Source of the practice: Dwork et al., 2015, "The reusable holdout: Preserving validity in adaptive
data analysis".
"""

import json
import os
from datetime import UTC, datetime
from pathlib import Path

FILE = "looks.jsonl"
OPEN = ("train", "validation")
"""Splits that may be looked at as often as one likes."""


def count_access(
    run: Path, suite: str, version: str, split: str, **facts: str | int | float | None
) -> int:
    """Write down one look at a suite; how many this run has had of it, this one included.

    0, and nothing is written, of splits that are not sealed.

    Args:
        run: its folder.
        suite: with its family, such as `maze/heldout`.
        version: of the suite; another version has other levels, and a count of its own.
        split: of the suite's levels.
        facts: what else is worth keeping: update, attempts, seed of the evaluation.

    Raises:
        ValueError: the file is damaged, or cannot be written.
    """
    if split in OPEN:
        return 0
    before = sum(one["suite"] == suite and one["version"] == version for one in accesses(run))
    when = datetime.now(UTC).isoformat(timespec="seconds")
    line = json.dumps({"suite": suite, "version": version, "split": split, **facts, "when": when})
    try:
        # One write of one line at the file's end: two evaluations at once do not mix theirs.
        file = os.open(run / FILE, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(file, f"{line}\n".encode())
        finally:
            os.close(file)
    except OSError as error:
        raise ValueError(f"cannot write {run / FILE}: {error.strerror}") from error
    return before + 1


def accesses(run: Path) -> list[dict]:
    """Every look that a run has had, oldest first.

    Raises:
        ValueError: a line is not one that `look` wrote; it is named.
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
                "counted; mend or remove the line"
            ) from error
    return found
