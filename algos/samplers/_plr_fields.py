"""What PLR refuses before anything is compiled."""

from typing import Any

from rlgen.registry import require


def check_fields(plr: Any) -> None:
    """Refuse fields of a `PLR` that are out of range or do not go together.

    Raises:
        ValueError: with what is allowed instead.
    """
    for name, least in (("capacity", 1), ("num_edits", 0), ("num_parents", 1)):
        if getattr(plr, name) < least:
            raise ValueError(f"{name} must be at least {least}, got {getattr(plr, name)}")
    for name in ("replay_prob", "min_fill"):
        if not 0 <= getattr(plr, name) <= 1:
            raise ValueError(f"{name} must lie in [0, 1], got {getattr(plr, name)}")
    if plr.priority == "proportional" and getattr(plr.score, "may_be_negative", False):
        raise ValueError(
            f"priority='proportional' needs scores of 0 or more, and those of "
            f"{type(plr.score).__name__} may be negative; use priority='rank'"
        )
    if plr.num_edits > 0:
        require(plr.env, "mutate_levels", "a curriculum that edits levels (num_edits > 0)")
    if plr.parents not in ("batch", "easiest"):
        raise ValueError(f"parents must be 'batch' or 'easiest', got {plr.parents!r}")
    if plr.parallel and plr.parents == "easiest":
        raise ValueError(
            "parents='easiest' asks how the parents went, and a parallel update plays them "
            "beside their mutants; use parents='batch'"
        )
    if plr.per_slot:
        _check_alone(plr)


def _check_alone(plr: Any) -> None:
    """Refuse what is decided for whole updates where each slot decides for itself."""
    wrong = {
        f"num_edits={plr.num_edits}": plr.num_edits > 0,
        "parallel=True": plr.parallel,
        "sequential=True": plr.sequential,
    }
    for what, is_set in wrong.items():
        if is_set:
            raise ValueError(
                f"per_slot=True does not go with {what}: slots come free at different times, and "
                "mutants, blocks and draws one by one are of whole updates; unset one of the two"
            )
