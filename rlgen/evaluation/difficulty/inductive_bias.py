"""Bits of generalisation of a family: what a learner must bring along to act well on new levels.

The protocol `card v1`, frozen so that numbers can be compared: states drawn evenly from those that
an episode can be in; kernel exp(-d² / 2 width²) with the median distance of a reference sample of
the family as width; jitter 1e-3; 4 states of each training level, 1 of each of 200 test levels,
none of which is a training level; target y_a = 1[a optimal] / number of optimal actions - 1 / A;
the error allowed is ρ times that of answering 0; mean and standard deviation over 5 draws.

Sources: see `kernel_bits`, `table_bits`, `closed_form_bits`.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Bool, Float

from rlgen import registry
from rlgen.evaluation.difficulty import closed_form_bound as closed
from rlgen.evaluation.difficulty.kernel_bound import (
    Labelled,
    bits_per_test,
    error_laws,
    median_width,
)
from rlgen.evaluation.difficulty.states import (
    Aliasing,
    Draw,
    TooFewError,
    aliasing,
    digests,
    draw,
    random_observations,
    sampler,
    targets,
)
from rlgen.evaluation.difficulty.table_bound import table_bits
from rlgen.protocols import LevelEnv
from rlgen.types import Key

PROTOCOL = "card v1"
LEVELS = (16, 64, 256, 1024)
RHOS = (0.5, 0.25, 0.1)
STATES = 4
TESTS = 200
DRAWS = 5
MOST_LEVELS = 4096
"""Of training: a matrix of 16,384 squared takes 2 GB."""
REFERENCE = 512
"""States that the width, the dimension and the resolution are measured on."""

CONTROL_ERROR = 1e-3  # resolution and error of the paper's control tasks


class Asked(NamedTuple):
    """For which curves."""

    levels: tuple[int, ...] = LEVELS
    rhos: tuple[float, ...] = RHOS


class Reference(NamedTuple):
    """What the scale of a family's observations is read off."""

    inputs: Float[np.ndarray, "N F"]
    best: Bool[np.ndarray, "N A"] | None  # where the best actions are known


class Curve(NamedTuple):
    """Bits for each test state by number of training levels, at one ρ; NaN where there are none."""

    rho: float
    mean: tuple[float, ...]
    sd: tuple[float, ...]
    why: tuple[str, ...]  # why there is no number; "" where there is one
    doubtful: bool  # observations that recur are too ambiguous for it; it measures that, too


class Bits(NamedTuple):
    """All curves of a family."""

    aliasing: Aliasing
    new: tuple[float, ...]  # share of test observations not met in training, by levels
    kernel: list[Curve]
    table: list[Curve]


def measure(
    key: Key, env: Any, asked: Asked, progress: Callable[[int, int], None] = lambda done, of: None
) -> tuple[Bits, Reference]:
    """Kernel and table bits, and the reference sample.

    Raises:
        TooFewError: the environment has too few levels, or its observations do not differ.
        ValueError: it does not tell best actions.
    """
    registry.require(env, LevelEnv.labelled_states, "bits of generalisation")
    key_reference, key_draws = jax.random.split(key)
    num = max(asked.levels)
    sample = sampler(env, num + TESTS, STATES)
    found = sample(key_reference)
    reference = Reference(
        found.inputs[:, 0][:REFERENCE].astype(np.float64), found.best[:, 0][:REFERENCE]
    )
    width = _width(reference)
    seen, answers, kernel, table, new = [], [], [], [], []
    for i in range(DRAWS):
        one = draw(jax.random.fold_in(key_draws, i), sample, num, TESTS)
        kernel.append(kernel_of(one, asked, width))
        told, unmet = table_of(one, asked)
        table.append(told)
        new.append(unmet)
        for part in (one.train, one.test):
            flat = part.inputs.reshape(-1, part.inputs.shape[-1])
            seen += digests(flat)
            answers.append(targets(part.best.reshape(-1, part.best.shape[-1])))
        progress(i + 1, DRAWS)
    lost = aliasing(seen, np.concatenate(answers))
    share = tuple(np.mean(new, 0).tolist())
    found = (_curves(asked, np.array(bits), lost) for bits in (kernel, table))
    return Bits(lost, share, *found), reference


def reference_of(key: Key, env: Any) -> Reference:
    """Of random play, where the best actions are not known; each observation once."""
    inputs = np.unique(random_observations(key, env), axis=0).astype(np.float64)
    rows = np.random.default_rng(0).permutation(len(inputs))[:REFERENCE]
    return Reference(inputs[rows], None)


def kernel_of(one: Draw, asked: Asked, width: float) -> Float[np.ndarray, "R L"]:
    """Kernel bits of one draw, for each ρ and number of levels; infinite where out of reach."""
    train, test = (
        Labelled(
            part.inputs.reshape(-1, part.inputs.shape[-1]).astype(np.float64),
            targets(part.best.reshape(-1, part.best.shape[-1])),
        )
        for part in (one.train, one.test)
    )
    laws = error_laws(train, test, width, [STATES * num for num in asked.levels])
    error = float((test.targets**2).mean())
    num = len(test.inputs)
    return np.array([[bits_per_test(law, rho * error, num) for law in laws] for rho in asked.rhos])


def table_of(one: Draw, asked: Asked) -> tuple[Float[np.ndarray, "R L"], Float[np.ndarray, " L"]]:
    """Table bits of one draw, and the share of test observations that are new to the table.

    The share of wrong answers allowed is ρ times that of guessing everywhere.
    """
    right = one.test.best[:, 0].mean(1)
    tests = digests(one.test.inputs[:, 0])
    bits, new = np.zeros((len(asked.rhos), len(asked.levels))), []
    for j, num in enumerate(asked.levels):
        part = one.train.inputs[:num]
        known = set(digests(part.reshape(-1, part.shape[-1])))
        unseen = np.array([test not in known for test in tests])
        new.append(unseen.mean())
        allowed = [rho * float(1 - right.mean()) for rho in asked.rhos]
        bits[:, j] = [table_bits(right[unseen], len(tests), error) for error in allowed]
    return bits / len(tests), np.array(new)


def closed_form(reference: Reference, asked: Asked) -> dict[str, Any]:
    """The bound in closed form, with all that it was made of; or why there is none.

    Where best actions are known, the reading for classes; else, if observations are real numbers,
    that of the paper's control tasks, with its resolution and error.
    """
    distinct = np.unique(reference.inputs, axis=0)
    try:
        dimension = closed.intrinsic_dimension(distinct)
    except ValueError as error:
        return {"dimension": None, "why": str(error)}
    if not math.isfinite(dimension):
        return {"dimension": None, "why": "all neighbours are equally far"}
    told: dict[str, Any] = {"dimension": dimension, "num_observations": len(distinct)}
    m = max(1, round(dimension))
    if reference.best is None:
        return told | _control(m, reference.inputs, asked)
    return told | _classes(m, reference, asked)


def _width(reference: Reference) -> float:
    if len(reference.inputs) < 2:
        raise TooFewError("hardly any sampled level has a solution")
    try:
        return median_width(reference.inputs)
    except ValueError as error:
        raise TooFewError(f"too few different observations: {error}") from error


def _classes(m: int, reference: Reference, asked: Asked) -> dict[str, Any]:
    assert reference.best is not None
    delta = closed.resolution(reference.inputs, reference.best)
    if not 0 < delta < math.inf:
        why = (
            "states that look alike ask for different actions"
            if delta == 0
            else ("no two states ask for different actions")
        )
        return {"why": why}
    size, actions = closed.radius(reference.inputs), reference.best.shape[1]
    mean_square = float((targets(reference.best) ** 2).mean())
    shape = {"m": m, "outputs": actions - 1, "classes": actions, "radius": size}
    curves = []
    for rho in asked.rhos:
        error = math.sqrt(rho * mean_square)
        tasks = (
            closed.Sphere(m, actions - 1, STATES * num, size, delta, actions, error)
            for num in asked.levels
        )
        found = [closed.sphere_log10_bits(task) for task in tasks]
        curves.append({"rho": rho, "log10_bits": found, "error": error})
    return {"reading": "sphere", "resolution": delta, **shape, "curves": curves}


def _control(m: int, inputs: Float[np.ndarray, "N F"], asked: Asked) -> dict[str, Any]:
    if (inputs == np.round(inputs)).all():
        return {"why": "the best actions are not known, and observations are whole numbers"}
    tasks = [closed.Torus(m, 1, STATES * n, CONTROL_ERROR, CONTROL_ERROR) for n in asked.levels]
    found = [closed.torus_log10_bits(task) for task in tasks]
    told = {"reading": "torus", "m": m, "outputs": 1, "resolution": CONTROL_ERROR}
    return told | {"curves": [{"rho": None, "log10_bits": found, "error": CONTROL_ERROR}]}


def _curves(asked: Asked, bits: Float[np.ndarray, "D R L"], lost: Aliasing) -> list[Curve]:
    """Mean and deviation over draws, or why there is no number."""
    curves = []
    for r, rho in enumerate(asked.rhos):
        one = bits[:, r]
        why = [_why(one[:, j], lost.floor, rho) for j in range(len(asked.levels))]
        kept = [j for j, reason in enumerate(why) if not reason]
        mean, sd = np.full((2, len(why)), math.nan)
        mean[kept], sd[kept] = one[:, kept].mean(0), one[:, kept].std(0, ddof=1)
        doubtful = lost.of_repeated >= rho
        curves.append(Curve(rho, tuple(mean.tolist()), tuple(sd.tolist()), tuple(why), doubtful))
    return curves


def _why(draws: Sequence[float] | np.ndarray, floor: float, rho: float) -> str:
    if floor >= rho:
        return "not reachable from this observation"
    infinite = int(np.isinf(np.asarray(draws)).sum())
    return f"not reachable in {infinite} of {len(draws)} draws" if infinite else ""
