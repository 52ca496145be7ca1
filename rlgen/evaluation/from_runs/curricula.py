"""Summarise curricula for a report: read curriculum logs, compute level features, draw figures."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rlgen import registry
from rlgen.evaluation.from_runs.metrics import read_metrics
from rlgen.evaluation.generalisation.during_training import FILE
from rlgen.evaluation.generalisation.level_facts import MAX_LEVELS, find_facts, open_log
from rlgen.evaluation.generalisation.score_calibration import calibrate, words
from rlgen.evaluation.report.curriculum_figure import (
    TIMES,
    Examples,
    choose_examples,
    history,
    in_pieces,
)
from rlgen.evaluation.report.curriculum_section import CurriculumSummary
from rlgen.evaluation.report.figures import THEMES, png_bytes
from rlgen.evaluation.report.gap_section import gap_curves
from rlgen.protocols import LevelEnv
from rlgen.runs.curriculum_log import LevelLog, has_log
from rlgen.runs.progress import counter


def curricula_of(runs: Mapping[str, Path], allow_imports: bool) -> dict[str, CurriculumSummary]:
    """Summarise the curriculum of each run with a curriculum log or measured gaps, by run label.

    If a log cannot be read, no error is raised, because the finished evaluation would be lost. The
    report then shows the error message.
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


def tell(
    run: Path, allow_imports: bool = False, limit: int = MAX_LEVELS
) -> CurriculumSummary | None:
    """Summarise a run's curriculum; None if the run has no curriculum log and no measured gaps.

    Args:
        run: Run folder.
        allow_imports: Whether to import modules outside rlgen that the run's record names.
        limit: Maximum number of logged levels whose features are computed.

    Raises:
        ValueError: The folder is not a run, or its log is damaged. The message names the file.
    """
    lines = read_metrics(run / FILE) if (run / FILE).is_file() else []
    # Gap measurements exist independently of the curriculum log.
    curves = {theme: gap_curves(lines, theme) for theme in THEMES}
    measured = {theme: png_bytes(one) for theme, one in curves.items() if one is not None}
    if not has_log(run):
        return CurriculumSummary(measured=measured) if measured else None
    env, log = open_log(run, allow_imports)
    facts = find_facts(env, log, limit)
    examples = find_examples(env, log)
    drawn = {theme: png_bytes(history(log, facts, examples, theme)) for theme in THEMES}
    return CurriculumSummary(drawn, words(calibrate(log, facts)), measured)


def find_examples(env: Any, log: LevelLog) -> Examples | None:
    """Return images of levels that contributed gradients in each sixth of a run.

    The result is None if the environment has no `level_image`.
    """
    if not registry.has(env, LevelEnv.level_image):
        return None
    times = in_pieces(log, TIMES)
    images = [None if at is None else _image(env, log, at) for at in choose_examples(log, times)]
    return Examples(times.x, times.noun, tuple(images))


def _image(env: Any, log: LevelLog, at: np.ndarray) -> np.ndarray:
    """Image of the logged level at index `at`: update, seed and slot."""
    return np.asarray(env.level_image(jax.tree.map(lambda x: jnp.asarray(x[tuple(at)]), log.level)))
