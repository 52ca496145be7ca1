"""Validation of an environment's fields at construction."""

from typing import Any


def check_ranges(env: Any, *ranges: tuple[str, int | float, int | float]) -> None:
    """Reject fields outside their ranges.

    Args:
        env: Environment whose fields are checked.
        ranges: Name, smallest allowed value and largest allowed value of each field.

    Raises:
        ValueError: A field is out of range; the message states the field, its value and the range.
    """
    for field, low, high in ranges:
        value = getattr(env, field)
        if not low <= value <= high:
            raise ValueError(f"{type(env).__name__}: {field}={value} is not in {low} .. {high}")


def check_choices(env: Any, **choices: tuple[str, ...]) -> None:
    """Reject fields whose value is not among the allowed values.

    Args:
        env: Environment whose fields are checked.
        choices: Allowed values by field name.

    Raises:
        ValueError: A value is not allowed; the message states the field, its value and the choices.
    """
    for field, known in choices.items():
        value = getattr(env, field)
        if value not in known:
            name = type(env).__name__
            raise ValueError(f"{name}: {field}={value!r} is none of {', '.join(known)}")
