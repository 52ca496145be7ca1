"""What the report shows of a run's curriculum, and of what came of it."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from rlgen.evaluation.generalisation.gap import Gaps
from rlgen.evaluation.report.html import Pictures, RunLabel, Section
from rlgen.evaluation.stats.cvar import CVaR

NOT_DRAWN: Pictures = MappingProxyType({})


class CurriculumSummary(NamedTuple):
    """What a report shows of one run's curriculum and of what came of it."""

    drawn: Pictures = NOT_DRAWN  # the history
    words: str = ""  # on how well scores are calibrated
    measured: Pictures = NOT_DRAWN  # gaps and information over training
    gaps: Gaps | tuple[()] = ()  # of the trained policy
    worst: CVaR | tuple[()] = ()  # of it on its worst levels, played again
    missing: str = ""  # why there is no history, where there should be one


def curricula_section(
    stories: Mapping[str, CurriculumSummary], labels: list[str]
) -> Section | None:
    """The part of the report on curricula; None if there is nothing to show.

    Args:
        stories: by the run's label.
        labels: of all runs of the report, which give the colours.
    """
    shown = [
        (RunLabel(run, labels.index(run) if run in labels else len(labels)), one)
        for run, one in stories.items()
        if one.drawn or one.missing or one.measured
    ]
    return Section("Curriculum", "curricula.html", shown) if shown else None
