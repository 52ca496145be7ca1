"""The `metrics.jsonl` of runs."""

import json
from collections.abc import Mapping
from pathlib import Path


def read_metrics(path: Path | str) -> list[dict]:
    """The lines of a `metrics.jsonl`; what is not a JSON object (a line cut short) is skipped."""
    lines = []
    for text in Path(path).read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            line = json.loads(text)
        except ValueError:
            continue
        if isinstance(line, dict):
            lines.append(line)
    return lines


def metrics_of(runs: Mapping[str, Path]) -> dict[str, list[dict]]:
    """Lines of the metrics of every run that has any, by its label."""
    logs = {label: run / "metrics.jsonl" for label, run in runs.items()}
    return {label: read_metrics(log) for label, log in logs.items() if log.is_file()}
