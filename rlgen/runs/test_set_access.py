"""Count how often a run is evaluated on sealed suites.

A suite is sealed unless its split is one of `rlgen.levels.OPEN_SPLITS`. One evaluation on a sealed
suite is called a look. Each look adds a line to the file `looks.jsonl` in the run folder.

If agents are chosen by their scores on a test set, the choice overfits the test set. With every
look, a score on the test set predicts performance on unseen levels less well. The splits `train`
and `validation` are meant for choosing agents. Levels with the split `seen` also occur in training.

Source of the practice: Dwork et al., 2015, "The reusable holdout: Preserving validity in adaptive
data analysis".
"""

import json
import os
import time
from datetime import UTC, datetime
from pathlib import Path

from rlgen.levels import OPEN_SPLITS

FILE = "looks.jsonl"


def count_access(
    run: Path, suite: str, version: str, split: str, **facts: str | int | float | None
) -> int:
    """Record one look at a suite, and return the number of the run's looks at that suite so far.

    The number includes the new look. If the split is not sealed, nothing is written and 0 is
    returned.

    Args:
        run: Run folder.
        suite: Name of the suite with its family, such as `maze/heldout`.
        version: Version of the suite. Versions have different levels, so their looks are counted
            separately.
        split: Split of the suite's levels.
        facts: Further values to record: update and seed of the evaluation, and either attempts or
            `few_shot`, the number of levels that were used for adaptation.

    Raises:
        ValueError: The file is damaged or cannot be written.
    """
    if split in OPEN_SPLITS:
        return 0
    # If the file is damaged, `accesses` raises an error before the new look is recorded.
    before = sum(one["suite"] == suite and one["version"] == version for one in accesses(run))
    when = datetime.now(UTC).isoformat(timespec="seconds")
    line = json.dumps({"suite": suite, "version": version, "split": split, **facts, "when": when})
    try:
        # The line is appended with a single write, so lines of concurrent evaluations do not mix.
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
        ValueError: A line was not written by `count_access`. The message gives the line number.
    """
    path = Path(run) / FILE
    if not path.is_file():
        return []
    found = []
    for number, line in enumerate(_text(path).splitlines(), 1):
        try:
            one = json.loads(line)
            found.append({"suite": one["suite"], "version": one["version"], **one})
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"{path}, line {number}, is damaged, so the run's evaluations on sealed suites "
                "cannot be counted; repair or remove the line"
            ) from error
    return found


def _text(path: Path) -> str:
    """Read the file, waiting for up to a second until its last line is complete.

    A line that another evaluation is appending can be visible in part.
    """
    text = path.read_text(encoding="utf-8")
    for _ in range(20):
        if text.endswith("\n") or not text:
            break
        time.sleep(0.05)
        text = path.read_text(encoding="utf-8")
    return text
