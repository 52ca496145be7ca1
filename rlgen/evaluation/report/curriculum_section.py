"""Report section on the curricula of runs and their effects."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from rlgen.evaluation.generalisation.gap import Gaps
from rlgen.evaluation.report.html import Pictures, RunLabel, Section
from rlgen.evaluation.stats.cvar import CVaR

NOT_DRAWN: Pictures = MappingProxyType({})


class CurriculumSummary(NamedTuple):
    """Curriculum of one run and its effects, as shown in a report."""

    drawn: Pictures = NOT_DRAWN  # curriculum over time, see `curriculum_figure.history`
    words: str = ""  # sentence on the calibration of the scores
    measured: Pictures = NOT_DRAWN  # gaps and level information over training
    gaps: Gaps | tuple[()] = ()  # gaps of the trained policy
    worst: CVaR | tuple[()] = ()  # CVaR of the trained policy, with its worst levels played again
    missing: str = ""  # reason if `drawn` is missing although it was expected


def curricula_section(
    stories: Mapping[str, CurriculumSummary], labels: list[str]
) -> Section | None:
    """Section of the report on curricula; None if there is nothing to show.

    Args:
        stories: Curriculum summaries by run label.
        labels: Labels of all runs in the report; a run's index sets its colour.
    """
    shown = [
        (RunLabel(run, labels.index(run) if run in labels else len(labels)), one)
        for run, one in stories.items()
        if one.drawn or one.missing or one.measured
    ]
    return Section("Curriculum", "curricula.html", shown) if shown else None
