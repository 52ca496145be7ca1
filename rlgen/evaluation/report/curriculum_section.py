"""A run's curriculum as a part of the report: its history as a figure, its calibration in words."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from rlgen.evaluation import page
from rlgen.evaluation.calibration import calibrate, words
from rlgen.evaluation.curves import read_metrics
from rlgen.evaluation.cvar import CVaR
from rlgen.evaluation.figures import THEMES, png_bytes
from rlgen.evaluation.generalisation import Gaps
from rlgen.evaluation.generalisation_report import gap_curves
from rlgen.evaluation.history import history
from rlgen.evaluation.level_facts import MAX_LEVELS, find_facts, open_log
from rlgen.runs.curriculum_log import has_log
from rlgen.runs.generalisation import FILE

NOT_DRAWN: Mapping[str, bytes] = MappingProxyType({})


class Story(NamedTuple):
    """What a report tells of one run's curriculum and of what came of it."""

    drawn: Mapping[str, bytes] = NOT_DRAWN  # PNG of the history by theme
    words: str = ""
    measured: Mapping[str, bytes] = NOT_DRAWN  # the same of gaps and information over training
    gaps: Gaps | tuple[()] = ()  # of the trained policy
    worst: CVaR | tuple[()] = ()  # of it on its worst levels, played again
    missing: str = ""  # why there is no history, where there should be one


def tell(run: Path, allow_imports: bool = False, limit: int = MAX_LEVELS) -> Story | None:
    """The story of a run's curriculum; None if it kept neither a log nor measurements.

    Raises:
        ValueError: not a run, or a damaged log; the file is named.
    """
    lines = read_metrics(run / FILE) if (run / FILE).is_file() else []
    curves = {theme: gap_curves(lines, theme) for theme in THEMES}
    measured = {theme: png_bytes(one) for theme, one in curves.items() if one is not None}
    if not has_log(run):
        return Story(measured=measured) if measured else None
    env, log = open_log(run, allow_imports)
    facts = find_facts(env, log, limit)
    drawn = {theme: png_bytes(history(log, facts, env, theme)) for theme in THEMES}
    return Story(drawn, words(calibrate(log, facts)), measured)


def curricula_section(stories: Mapping[str, Story], labels: list[str]) -> str:
    """HTML of all stories, in the colours that the runs have elsewhere; "" without any."""
    blocks = []
    for run, story in stories.items():
        place = labels.index(run) if run in labels else len(labels)
        parts = []
        if story.drawn:
            parts.append(page.picture(story.drawn, f"Curriculum of {run} over time"))
            parts.append(f'<p class="note">{page.text(story.words)}</p>')
        if story.missing:
            parts.append(f'<p class="note">Not drawn: {page.text(story.missing)}</p>')
        if story.measured:
            parts.append(page.picture(story.measured, f"Gap and information of {run} over time"))
            parts.append(f'<p class="note">{_MEASURED}</p>')
        if parts:
            blocks.append(f"<h3>{page.label(place, run)}</h3>{''.join(parts)}")
    return page.section("Curriculum", "".join(blocks), _NOTE) if blocks else ""


_NOTE = (
    "Levels that each run met in training, a few of every update: medians and quartiles of those "
    "it trained on, and as a dashed line the median of all new ones."
)
_MEASURED = (
    "Measured in training, on levels of the training set and on others like them: fewer levels and "
    "episodes than above."
)
