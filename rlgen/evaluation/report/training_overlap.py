"""Sentences on the levels that a suite and the known levels of a run have in common."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from rlgen.evaluation.episodes import Evaluation, Json

KEY = "training_overlap"
"""Key of `Evaluation.meta` that has the fields of an `Overlap`."""

_PROTECTION = {
    "rejected": "training rejected the levels of this suite",
    "other shape": "these levels differ in shape from the training levels",
    "seen": "the levels of this suite also occur in training",
    "not recorded": "the run has no record that training rejected the levels of this suite",
}


class Overlap(NamedTuple):
    """Levels that a suite and a run's known levels have in common."""

    num_shared: int  # levels of the suite among the run's known levels
    num_suite: int  # distinct levels of the suite
    num_known: int  # distinct known levels of the run
    sources: tuple[str, ...]  # places where the known levels were found; () if none
    protection: str  # a key of `_PROTECTION`
    unread: str = ""  # reason why the curriculum log could not be read; "" if it could be read


def overlap_sentences(evaluations: Sequence[Evaluation]) -> list[str]:
    """State for each run how many levels of the suite are among the run's known levels."""
    return [f"{e.run}: {_sentence(one, e.suite)}" for e in evaluations for one in overlaps(e)]


def overlap_warnings(evaluations: Sequence[Evaluation]) -> list[str]:
    """Warn about each run that trained on levels of a suite whose levels should be held out."""
    return [
        f"Warning: {e.run} trained on {one['num_shared']:,} of the {one['num_suite']:,} levels of "
        f"{e.suite}, so its scores are not scores on unseen levels."
        for e in evaluations
        for one in overlaps(e)
        if one["num_shared"] and one["protection"] != "seen"
    ]


def overlaps(evaluation: Evaluation) -> list[dict[str, Any]]:
    """Return the distinct overlaps in the metadata of an evaluation, one per run that it pools."""
    found: Json = evaluation.meta.get(KEY) or []
    return [x for x in (found if isinstance(found, list) else [found]) if isinstance(x, dict)]


def _sentence(one: dict[str, Any], suite: str) -> str:
    why = _PROTECTION[one["protection"]]
    if unread := one.get("unread"):
        why += (
            f"; levels of the curriculum log are not counted, because it cannot be read: {unread}"
        )
    if not one["sources"]:
        return f"no levels of the run are recorded; {why}"
    places = " and ".join(filter(None, (", ".join(one["sources"][:-1]), one["sources"][-1])))
    return (
        f"{one['num_shared']:,} of {one['num_suite']:,} levels of {suite} are among the "
        f"{one['num_known']:,} levels in the run's {places}; {why}"
    )
