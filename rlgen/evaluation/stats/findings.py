"""All statistics of evaluations on one suite, computed once for tables, files and reports."""

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from rlgen.evaluation.episodes import Evaluation
from rlgen.evaluation.stats.by_class import ByClass, by_class
from rlgen.evaluation.stats.normalised_scores import NormalisedScores, normalised_scores
from rlgen.evaluation.stats.relative import Relative, compare_all
from rlgen.evaluation.stats.settings import DEFAULT, Intervals
from rlgen.evaluation.stats.summary import Summary, summarise


class Findings(NamedTuple):
    """Evaluations of runs on one suite, and statistics of these evaluations.

    Every run after the first is compared with the first run.
    """

    evaluations: tuple[Evaluation, ...]
    summary: Summary
    classes: ByClass | None  # None if fewer than two classes can be best or worst
    normalised: NormalisedScores | None  # None if no level has a normalised score
    relatives: tuple[Relative, ...]  # () if no run is a baseline learner


def analyse(
    evaluations: Sequence[Evaluation], intervals: Intervals = DEFAULT, seed: int = 0
) -> Findings:
    """Compute the summary, scores by class, normalised scores and returns relative to a baseline.

    The latest results are cached, because the table, the files and the report use the same results.

    Args:
        evaluations: Evaluations of runs on the same levels.
        intervals: Settings of the intervals.
        seed: Seed of the bootstrap's generator.

    Raises:
        ValueError: There are no evaluations, two evaluations have the same label, or the
            evaluations differ in their levels or in their kind of score.
    """
    return _analyse(tuple(evaluations), intervals, seed)


@lru_cache(maxsize=2)  # evaluations are immutable and hashed by identity
def _analyse(evaluations: tuple[Evaluation, ...], intervals: Intervals, seed: int) -> Findings:
    summary = summarise(evaluations, intervals, seed)
    return Findings(
        evaluations,
        summary,
        by_class(evaluations, intervals, seed),
        normalised_scores(evaluations, intervals, seed),
        compare_all(evaluations, intervals, seed),
    )
