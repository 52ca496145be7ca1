"""All statistics of evaluations on one suite, computed once for table, files and page."""

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from rlgen.evaluation.episodes import Evaluation
from rlgen.evaluation.stats.bootstrap import DEFAULT, Bootstrap
from rlgen.evaluation.stats.by_class import ByClass, by_class
from rlgen.evaluation.stats.normalised_scores import NormalisedScores, normalised_scores
from rlgen.evaluation.stats.relative import Relative, compare_all
from rlgen.evaluation.stats.summary import Summary, summarise


class Findings(NamedTuple):
    """Runs on one suite, and what is computed of them; the first run is the one compared with."""

    evaluations: tuple[Evaluation, ...]
    summary: Summary
    classes: ByClass | None  # None where all levels are of one class
    normalised: NormalisedScores | None  # None where no level has a normalised score
    relatives: tuple[Relative, ...]  # () without a baseline learner


def analyse(
    evaluations: Sequence[Evaluation], bootstrap: Bootstrap = DEFAULT, seed: int = 0
) -> Findings:
    """Summary, classes, normalised scores and returns relative to a baseline.

    The last results are kept: table, files and page ask for the same.

    Args:
        evaluations: runs on the same levels.
        bootstrap: how intervals are made.
        seed: of the bootstrap's draws.

    Raises:
        ValueError: no evaluations, labels that repeat, or different levels or kinds of score.
    """
    return _analyse(tuple(evaluations), bootstrap, seed)


@lru_cache(maxsize=2)  # evaluations are told apart by identity and do not change
def _analyse(evaluations: tuple[Evaluation, ...], bootstrap: Bootstrap, seed: int) -> Findings:
    summary = summarise(evaluations, bootstrap, seed)
    return Findings(
        evaluations,
        summary,
        by_class(evaluations, bootstrap, seed),
        normalised_scores(evaluations, bootstrap, seed),
        compare_all(evaluations, bootstrap, seed),
    )
