"""Bits of generalisation of a family: inductive bias needed to act well on new levels.

Kernel bits are computed for a learner with a kernel (`kernel_bound`). Table bits are computed for a
learner that memorises observations (`table_bound`). The closed-form bound (`closed_form_bound`) is
an upper bound on the bits. The docstrings of the three modules name the sources.

The protocol `card v1` does not change, so that numbers can be compared:

- A draw consists of training levels and 200 test levels; no level is in both sets. States are
  sampled uniformly from all states that can occur in an episode: 4 states of each training level
  and 1 state of each test level.
- The kernel is exp(-d² / 2 width²). Its width is the root of the median squared distance in a
  reference sample of the family. The jitter is 1e-3.
- The target of action a is y_a = 1[a optimal] / number of optimal actions - 1 / number of actions.
- The allowed error is a ratio ρ times the error of the answer 0, which corresponds to guessing.
- Results are the mean and the standard deviation over 5 draws.
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
STATES = 4  # states per training level
TESTS = 200  # test levels, with one state each
DRAWS = 5
MOST_LEVELS = 4096
"""Maximum number of training levels: their 16,384 states need a kernel matrix of 2 GB."""
REFERENCE = 512
"""Number of states in the reference sample, which determines width, dimension and resolution."""

CONTROL_ERROR = 1e-3  # δ and ε in the control tasks of Boopathy et al., 2023


class Asked(NamedTuple):
    """Requested numbers of training levels, and error ratios ρ, each of which gives one curve."""

    levels: tuple[int, ...] = LEVELS
    rhos: tuple[float, ...] = RHOS


class Reference(NamedTuple):
    """Reference sample that sets the scale of a family's observations."""

    inputs: Float[np.ndarray, "N F"]
    best: Bool[np.ndarray, "N A"] | None  # mask of best actions; None if they are unknown


class Curve(NamedTuple):
    """Bits per test state for one ρ, by number of training levels; NaN where not available."""

    rho: float
    mean: tuple[float, ...]
    sd: tuple[float, ...]  # standard deviation over draws
    why: tuple[str, ...]  # for each missing number, the reason; "" for available numbers
    doubtful: bool  # `Aliasing.of_repeated` is at least ρ: the numbers may measure aliasing


class Bits(NamedTuple):
    """All bit curves of a family."""

    aliasing: Aliasing
    # Fraction of test observations that are not in the training set, by number of training levels.
    new: tuple[float, ...]
    kernel: list[Curve]
    table: list[Curve]


def measure(
    key: Key, env: Any, asked: Asked, progress: Callable[[int, int], None] = lambda done, of: None
) -> tuple[Bits, Reference]:
    """Measure kernel and table bits, and return them with the reference sample.

    Raises:
        TooFewError: The environment has too few levels, or too few different observations.
        ValueError: The environment does not provide best actions.
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
    # `seen` and `answers` are the observations and targets of all draws, for the aliasing.
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
    """Return a reference sample from random play, for families whose best actions are unknown.

    Each observation occurs at most once in the sample.
    """
    inputs = np.unique(random_observations(key, env), axis=0).astype(np.float64)
    rows = np.random.default_rng(0).permutation(len(inputs))[:REFERENCE]
    return Reference(inputs[rows], None)


def kernel_of(one: Draw, asked: Asked, width: float) -> Float[np.ndarray, "R L"]:
    """Kernel bits per test state of one draw, for R values of ρ and L numbers of training levels.

    If the allowed error cannot be reached, the number of bits is infinite.
    """
    train, test = (
        Labelled(
            part.inputs.reshape(-1, part.inputs.shape[-1]).astype(np.float64),
            targets(part.best.reshape(-1, part.best.shape[-1])),
        )
        for part in (one.train, one.test)
    )
    laws = error_laws(train, test, width, [STATES * num for num in asked.levels])
    error = float((test.targets**2).mean())  # mean squared error of the answer 0
    num = len(test.inputs)
    return np.array([[bits_per_test(law, rho * error, num) for law in laws] for rho in asked.rhos])


def table_of(one: Draw, asked: Asked) -> tuple[Float[np.ndarray, "R L"], Float[np.ndarray, " L"]]:
    """Table bits per test state of one draw, and the fraction of new test observations.

    The allowed fraction of wrong answers is ρ times the expected fraction of wrong guesses over all
    test states.
    """
    right = one.test.best[:, 0].mean(1)  # probability that a uniform guess is a best action
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
    """Compute the closed-form bound, and return it with all its parameters.

    If best actions are known, the variant for classification is used. If they are unknown and
    observations are real numbers, the variant for control is used, with the resolution and the
    error of Boopathy et al., 2023. If there is no bound, the entry `why` is the reason.
    """
    distinct = np.unique(reference.inputs, axis=0)
    try:
        dimension = closed.intrinsic_dimension(distinct)
    except ValueError as error:
        return {"dimension": None, "why": str(error)}
    if not math.isfinite(dimension):
        return {"dimension": None, "why": "all nearest neighbours are equally distant"}
    told: dict[str, Any] = {"dimension": dimension, "num_observations": len(distinct)}
    m = max(1, round(dimension))  # whole number of dimensions
    if reference.best is None:
        return told | _control(m, reference.inputs, asked)
    return told | _classes(m, reference, asked)


def _width(reference: Reference) -> float:
    if len(reference.inputs) < 2:
        raise TooFewError("fewer than two sampled levels have a solution")
    try:
        return median_width(reference.inputs)
    except ValueError as error:
        raise TooFewError(f"too few different observations: {error}") from error


def _classes(m: int, reference: Reference, asked: Asked) -> dict[str, Any]:
    assert reference.best is not None
    delta = closed.resolution(reference.inputs, reference.best)
    if not 0 < delta < math.inf:
        why = (
            "states with equal observations need different actions"
            if delta == 0
            else ("no two states need different actions")
        )
        return {"why": why}
    size, actions = closed.radius(reference.inputs), reference.best.shape[1]
    mean_square = float((targets(reference.best) ** 2).mean())
    shape = {"m": m, "outputs": actions - 1, "classes": actions, "radius": size}
    curves = []
    for rho in asked.rhos:
        error = math.sqrt(rho * mean_square)  # the root, because ρ is a ratio of squared errors
        tasks = (
            closed.Sphere(m, actions - 1, STATES * num, size, delta, actions, error)
            for num in asked.levels
        )
        found = [closed.sphere_log10_bits(task) for task in tasks]
        curves.append({"rho": rho, "log10_bits": found, "error": error})
    return {"reading": "sphere", "resolution": delta, **shape, "curves": curves}


def _control(m: int, inputs: Float[np.ndarray, "N F"], asked: Asked) -> dict[str, Any]:
    if (inputs == np.round(inputs)).all():  # the control variant needs continuous observations
        return {"why": "the best actions are unknown and the observations are whole numbers"}
    tasks = [closed.Torus(m, 1, STATES * n, CONTROL_ERROR, CONTROL_ERROR) for n in asked.levels]
    found = [closed.torus_log10_bits(task) for task in tasks]
    told = {"reading": "torus", "m": m, "outputs": 1, "resolution": CONTROL_ERROR}
    return told | {"curves": [{"rho": None, "log10_bits": found, "error": CONTROL_ERROR}]}


def _curves(asked: Asked, bits: Float[np.ndarray, "D R L"], lost: Aliasing) -> list[Curve]:
    """Mean and standard deviation over D draws, or the reason why a number is missing."""
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
    """Return the reason why the bits for ρ are not available, or "" if they are available."""
    if floor >= rho:
        return "the error cannot be reached from this observation"
    infinite = int(np.isinf(np.asarray(draws)).sum())
    return f"the error cannot be reached in {infinite} of {len(draws)} draws" if infinite else ""
