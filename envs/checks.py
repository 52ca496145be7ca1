"""Checks of an environment's fields when it is made."""

from typing import Any


def check_ranges(env: Any, *ranges: tuple[str, int | float, int | float]) -> None:
    """Refuse fields outside their ranges, each given as name, least and greatest value.

    Raises:
        ValueError: the message names the field, its value and what is allowed.
    """
    for field, low, high in ranges:
        value = getattr(env, field)
        if not low <= value <= high:
            raise ValueError(f"{type(env).__name__}: {field}={value} is not in {low} .. {high}")


def check_choices(env: Any, **choices: tuple[str, ...]) -> None:
    """Refuse fields that are none of the given values.

    Raises:
        ValueError: the message names the field, its value and what is allowed.
    """
    for field, known in choices.items():
        value = getattr(env, field)
        if value not in known:
            name = type(env).__name__
            raise ValueError(f"{name}: {field}={value!r} is none of {', '.join(known)}")
