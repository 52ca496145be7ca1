"""What runs kept of their training, for reports: metrics and curricula by the run's label."""

from pathlib import Path
from typing import Any

from rlgen.evaluation.report.curriculum_section import CurriculumSummary, tell
from rlgen.evaluation.report.learning_curves import read_metrics
from rlgen.runs.progress import counter


def metrics_of(runs: dict[str, Path]) -> dict[str, list[dict]]:
    """Lines of the metrics of every run that has any, by its label."""
    logs = {label: run / "metrics.jsonl" for label, run in runs.items()}
    return {label: read_metrics(log) for label, log in logs.items() if log.is_file()}


def curricula_of(runs: dict[str, Path], allow_imports: bool) -> dict[str, Any]:
    """What the report tells of each run's training, where the run kept a log.

    A log that cannot be read is no reason to throw away what was played: the report says so.
    """
    progress = counter("curricula", "runs")
    stories = {}
    for i, (label, run) in enumerate(runs.items()):
        try:
            stories[label] = tell(run, allow_imports)
        except ValueError as error:
            stories[label] = CurriculumSummary(missing=str(error))
        progress(i + 1, len(runs))
    return {label: story for label, story in stories.items() if story is not None}
