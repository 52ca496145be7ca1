"""A run's curriculum as a part of the report: its history as a figure, its calibration in words."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from rlgen.evaluation import page
from rlgen.evaluation.calibration import calibrate, words
from rlgen.evaluation.figures import THEMES, png_bytes
from rlgen.evaluation.history import history
from rlgen.evaluation.level_facts import MAX_LEVELS, find_facts, open_log
from rlgen.runs.curriculum_log import has_log


class Story(NamedTuple):
    """What a report tells of one run's curriculum."""

    drawn: Mapping[str, bytes]  # PNG of the history by theme
    words: str


def tell(run: Path, allow_imports: bool = False, limit: int = MAX_LEVELS) -> Story | None:
    """The story of a run's curriculum; None if it kept no log.

    Raises:
        ValueError: not a run, or a damaged log; the file is named.
    """
    if not has_log(run):
        return None
    env, log = open_log(run, allow_imports)
    facts = find_facts(env, log, limit)
    drawn = {theme: png_bytes(history(log, facts, env, theme)) for theme in THEMES}
    return Story(drawn, words(calibrate(log, facts)))


def curricula_section(stories: Mapping[str, Story], labels: list[str]) -> str:
    """HTML of all stories, in the colours that the runs have elsewhere; "" without any."""
    blocks = []
    for run, story in stories.items():
        place = labels.index(run) if run in labels else len(labels)
        figure = page.picture(story.drawn, f"Curriculum of {run} over time")
        note = f'<p class="note">{page.text(story.words)}</p>'
        blocks.append(f"<h3>{page.label(place, run)}</h3>{figure}{note}")
    return page.section("Curriculum", "".join(blocks), _NOTE) if blocks else ""


_NOTE = (
    "Levels that each run met in training, a few of every update: medians and quartiles of those "
    "it trained on, and as a dashed line the median of all new ones."
)
