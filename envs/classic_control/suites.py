"""Held-out levels of the physical systems, inside and outside the training ranges.

The ranges are always the defaults of the family, not those of the given environment, so a suite is
the same in every run. `train-range` has new levels inside the ranges. In each level of `beyond` and
`far` one parameter lies below or above its range, and all others lie inside. The name of the level
names this parameter. The distance of the parameter from its range is measured as a fraction of the
logarithmic width of the range. For the range 5 .. 15, a distance of 0.25 is a factor of 3 to the
power of 0.25.

Values are rounded to four significant digits, so that rounding differences between machines vanish.
"""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from rlgen.envs.classic_control.parameters import Ranges
from rlgen.envs.streams import Stream, rounded
from rlgen.levels import DistributionShift, Suite, make_level_set

VERSION = "1"
NUM_INSIDE = 200
NUM_OUTSIDE = 8  # levels per parameter and end of its range
LADDER = {
    "beyond": DistributionShift("V2", "with one parameter a little outside its range", "beyond"),
    "far": DistributionShift("V2", "with one parameter far outside its range", "far"),
}
DISTANCE = {"beyond": (0.02, 0.25), "far": (0.3, 0.5)}


def suites(env: Any) -> dict[str, Callable[[], Suite]]:
    """Suites by name, each as a function that builds the suite.

    Args:
        env: A `PhysicsFamily`. The environments of the suites have the same observations and
            actions as `env`.
    """
    made = {"nominal": _nominal, "train-range": _inside}
    made |= {name: partial(_outside, distance=distance) for name, distance in DISTANCE.items()}
    return {name: partial(_suite, env, name, draw) for name, draw in made.items()}


def _suite(env: Any, name: str, draw: Callable) -> Suite:
    env, family = _with_defaults(env), env.family
    names, values = draw(env.ranges(), Stream(f"{family}/{name}"))
    levels = make_level_set(env, env.make_level(rounded(values)), names, version=VERSION)
    return Suite(f"{family}/{name}", env, levels)


def _with_defaults(env: Any) -> Any:
    """Return the environment with the default ranges and time limit of its family."""
    kept = (*env.ranges().names, "max_steps")
    usual = {field.name: field.default for field in dataclasses.fields(env) if field.name in kept}
    return dataclasses.replace(env, **usual)


def _nominal(ranges: Ranges, stream: Stream) -> tuple[tuple[str, ...], np.ndarray]:
    return ("nominal",), ranges.nominal[None].astype(float)


def _inside(ranges: Ranges, stream: Stream) -> tuple[tuple[str, ...], np.ndarray]:
    names = tuple(f"train-range-{i:03d}" for i in range(NUM_INSIDE))
    return names, ranges.values(stream.uniform(NUM_INSIDE, len(ranges.names)))


def _outside(
    ranges: Ranges, stream: Stream, distance: tuple[float, float]
) -> tuple[tuple[str, ...], np.ndarray]:
    names, places = [], []
    for i, name in enumerate(ranges.names):
        for side in ("low", "high"):
            place = stream.uniform(NUM_OUTSIDE, len(ranges.names))
            offset = distance[0] + (distance[1] - distance[0]) * place[:, i]
            # The uniform number of this parameter is reused for its distance from the range.
            place[:, i] = -offset if side == "low" else 1 + offset
            names += [f"{name}-{side}-{k}" for k in range(NUM_OUTSIDE)]
            places.append(place)
    return tuple(names), ranges.values(np.concatenate(places))
