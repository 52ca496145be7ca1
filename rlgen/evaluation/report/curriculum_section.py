"""A run's curriculum as a part of the report: its history as a figure, its calibration in words."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from rlgen.evaluation.generalisation.gap import Gaps
from rlgen.evaluation.report import html
from rlgen.evaluation.stats.cvar import CVaR

NOT_DRAWN: Mapping[str, bytes] = MappingProxyType({})


class CurriculumSummary(NamedTuple):
    """What a report tells of one run's curriculum and of what came of it."""

    drawn: Mapping[str, bytes] = NOT_DRAWN  # PNG of the history by theme
    words: str = ""
    measured: Mapping[str, bytes] = NOT_DRAWN  # the same of gaps and information over training
    gaps: Gaps | tuple[()] = ()  # of the trained policy
    worst: CVaR | tuple[()] = ()  # of it on its worst levels, played again
    missing: str = ""  # why there is no history, where there should be one


def curricula_section(stories: Mapping[str, CurriculumSummary], labels: list[str]) -> str:
    """HTML of all stories, in the colours that the runs have elsewhere; "" without any."""
    blocks = []
    for run, story in stories.items():
        place = labels.index(run) if run in labels else len(labels)
        parts = []
        if story.drawn:
            parts.append(html.picture(story.drawn, f"Curriculum of {run} over time"))
            parts.append(f'<p class="note">{html.text(story.words)}</p>')
        if story.missing:
            parts.append(f'<p class="note">Not drawn: {html.text(story.missing)}</p>')
        if story.measured:
            parts.append(html.picture(story.measured, f"Gap and information of {run} over time"))
            parts.append(f'<p class="note">{_MEASURED}</p>')
        if parts:
            blocks.append(f"<h3>{html.label(place, run)}</h3>{''.join(parts)}")
    return html.section("Curriculum", "".join(blocks), _NOTE) if blocks else ""


_NOTE = (
    "Levels that each run met in training, a few of every update: medians and quartiles of those "
    "it trained on, and as a dashed line the median of all new ones."
)
_MEASURED = (
    "Measured in training, on levels of the training set and on others like them: fewer levels and "
    "episodes than above."
)
