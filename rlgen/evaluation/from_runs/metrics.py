"""Read the `metrics.jsonl` of runs."""

import json
from collections.abc import Mapping
from pathlib import Path


def read_metrics(path: Path | str) -> list[dict]:
    """Read the lines of a `metrics.jsonl`, and skip lines that are not complete JSON objects."""
    lines = []
    for text in Path(path).read_text(encoding="utf-8", errors="replace").splitlines():
        # Unlike in `rlgen.runs.metrics.read`, a damaged line is no error: reports work without it.
        try:
            line = json.loads(text)
        except ValueError:
            continue
        if isinstance(line, dict):
            lines.append(line)
    return lines


def metrics_of(runs: Mapping[str, Path]) -> dict[str, list[dict]]:
    """Read the metrics of every run that has a `metrics.jsonl`, by run label."""
    logs = {label: run / "metrics.jsonl" for label, run in runs.items()}
    return {label: read_metrics(log) for label, log in logs.items() if log.is_file()}
