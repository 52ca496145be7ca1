"""Report section on the curricula of runs and their effects."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from rlgen.evaluation.generalisation.gap import Gaps
from rlgen.evaluation.report.html import Pictures, RunLabel, Section
from rlgen.evaluation.stats.cvar import CVaR

NOT_DRAWN: Pictures = MappingProxyType({})


class CurriculumSummary(NamedTuple):
    """Summary of the curriculum of one run and of the curriculum's effects, for a report."""

    drawn: Pictures = NOT_DRAWN  # curriculum over time, see `curriculum_figure.history`
    words: str = ""  # sentence on the calibration of the scores
    measured: Pictures = NOT_DRAWN  # gaps and level information over training
    gaps: Gaps | tuple[()] = ()  # gaps of the trained policy
    worst: CVaR | tuple[()] = ()  # CVaR of the trained policy, from a second evaluation
    missing: str = ""  # error message if the curriculum log could not be read


def curricula_section(
    stories: Mapping[str, CurriculumSummary], labels: list[str]
) -> Section | None:
    """Section of the report on curricula; None if there is nothing to show.

    Args:
        stories: Curriculum summaries by run label.
        labels: Labels of all runs in the report. The index of a run determines its colour.
    """
    shown = [
        (RunLabel(run, labels.index(run) if run in labels else len(labels)), one)
        for run, one in stories.items()
        if one.drawn or one.missing or one.measured
    ]
    return Section("Curriculum", "curricula.html", shown) if shown else None
