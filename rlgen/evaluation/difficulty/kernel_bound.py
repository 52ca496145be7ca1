"""Bits of generalisation of a kernel: how unlikely a function that fits the training set is right.

A Gaussian process is the prior over functions; it is conditioned on the training set. What remains
is a normal law of the outputs at the test inputs, under which the mean squared error is a constant
plus a weighted sum of non-central chi-squares. The bits are minus the logarithm of the chance that
it is at most a target: what a learner has to bring along that the data do not tell.

Source: Boopathy et al., 2024, "Towards Exact Computation of Inductive Bias".
Differs from its released code, which draws functions, fits one scaled chi-square to their errors
and is off by factors in the tail: the law is the exact one, its distribution function that of
Lugannani and Rice, 1980, "Saddle Point Approximation for the Distribution of the Sum of Independent
Random Variables" (within a few hundredths of a nat of exact values).
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.linalg import cholesky, eigh, solve_triangular
from scipy.special import erfcx, log_ndtr

JITTER = 1e-3
"""Variance added to the training targets, of a prior of variance 1."""
FLAT = 1e-9
"""Directions of less variance than this are counted as known for certain."""

_ROUNDS = 200  # of bisection: more than the bits of a float
_MEAN = 1e-3  # standard deviations around the mean in which a limit replaces the formula


class ErrorLaw(NamedTuple):
    """Law of a mean squared error: constant + Σ w_i (z_i + b_i)², z_i independent and normal."""

    constant: float  # c₀; no function that fits the training set gets below it
    weight: Float[np.ndarray, " K"]  # w_i > 0
    shift: Float[np.ndarray, " K"]  # b_i


class Labelled(NamedTuple):
    """Inputs and targets."""

    inputs: Float[np.ndarray, "N F"]
    targets: Float[np.ndarray, "N A"]


def nats(law: ErrorLaw, error: float | int) -> float:
    """-ln P(mean squared error <= error); infinite where that cannot happen.

    With the cumulants' generator k(s) = Σ -½ ln(1 - 2ws) + wb²s / (1 - 2ws), s* where k'(s*) =
    ε - c₀, u = s* √k''(s*) and v = sign(s*) √(2 (s* (ε - c₀) - k(s*))), the chance is
    Φ(v) + φ(v) (1/v - 1/u). With Mills' ratio Φ/φ it does not underflow, however far in the tail.
    """
    target = error - law.constant
    if not len(law.weight):
        return 0.0 if target >= 0 else math.inf
    if target <= 0:
        return math.inf
    s = _saddle_point(law, target)
    k, _, k2, k3 = _cumulants(law, s)
    v = math.copysign(math.sqrt(max(2 * (s * target - k), 0.0)), s)
    if abs(v) < _MEAN:  # the two fractions cancel
        return -math.log(0.5 + v / math.sqrt(2 * math.pi) + _skewness(k2, k3) / 6 * _PHI0)
    u = s * math.sqrt(k2)
    if v > 0:
        chance = math.exp(log_ndtr(v)) + _PHI0 * math.exp(-0.5 * v * v) * (1 / v - 1 / u)
        return max(0.0, -math.log(chance))
    mills = math.sqrt(math.pi / 2) * float(erfcx(-v / math.sqrt(2)))
    return 0.5 * v * v - math.log(_PHI0) - math.log(mills + 1 / v - 1 / u)


def bits_per_test(law: ErrorLaw, error: float, num_tests: int) -> float:
    """Bits for each of the test inputs."""
    return nats(law, error) / (math.log(2) * num_tests)


def median_width(inputs: Float[np.ndarray, "N F"]) -> float:
    """Width of a kernel: root of the median squared distance of the inputs, each pair once.

    Raises:
        ValueError: half of the pairs or more coincide, so that no width can be told.
    """
    squared = squared_distances(inputs, inputs)[np.triu_indices(len(inputs), 1)]
    median = float(np.median(squared)) if squared.size else 0.0
    if median <= 0:
        raise ValueError("half of the reference inputs or more coincide; there is no width")
    return math.sqrt(median)


def squared_distances(
    x: Float[np.ndarray, "N F"], y: Float[np.ndarray, "M F"]
) -> Float[np.ndarray, "N M"]:
    """By one product of matrices; exactly 0 between equal rows of whole numbers."""
    norms = (x**2).sum(1)[:, None] + (y**2).sum(1)[None]
    return np.maximum(norms - 2 * (x @ y.T), 0.0)


def error_laws(
    train: Labelled, test: Labelled, width: float, sizes: Sequence[int], jitter: float = JITTER
) -> list[ErrorLaw]:
    """The law of the error at the test inputs, given the first so many of the training inputs.

    Kernel exp(-d² / 2 width²), one independent function for each of the A outputs. The Cholesky
    factor of the first rows is part of that of all rows, so that all sizes cost little more than
    the largest.

    Args:
        train, test: inputs and targets; the order of the training set counts.
        width: of the kernel.
        sizes: numbers of training inputs.
        jitter: variance added to training targets.

    Raises:
        ValueError: a size that the training set does not have.
    """
    if max(sizes) > len(train.inputs) or min(sizes) < 0:
        raise ValueError(f"sizes {list(sizes)} must be in 0 .. {len(train.inputs)}")
    prior = _kernel(test.inputs, test.inputs, width)
    num = max(sizes)
    gram = _kernel(train.inputs[:num], train.inputs[:num], width)
    gram[np.diag_indices(num)] += jitter
    factor = cholesky(gram, lower=True, overwrite_a=True, check_finite=False)
    right = np.hstack([_kernel(train.inputs[:num], test.inputs, width), train.targets[:num]])
    solved = solve_triangular(factor, right, lower=True, overwrite_b=True, check_finite=False)
    tests = len(test.inputs)
    laws = []
    for size in sizes:
        cross, targets = solved[:size, :tests], solved[:size, tests:]
        laws.append(_law(prior - cross.T @ cross, cross.T @ targets - test.targets))
    return laws


_PHI0 = 1 / math.sqrt(2 * math.pi)


def _kernel(x: np.ndarray, y: np.ndarray, width: float) -> Float[np.ndarray, "N M"]:
    return np.exp(squared_distances(x, y) / (-2 * width**2))


def _law(covariance: Float[np.ndarray, "N N"], residual: Float[np.ndarray, "N A"]) -> ErrorLaw:
    """Of the error of normal outputs with a covariance, and means off by a residual."""
    variance, axes = eigh((covariance + covariance.T) / 2, check_finite=False)
    along = axes.T @ residual
    free, num = variance > FLAT, residual.size
    constant = float((along[~free] ** 2).sum() / num)
    root = np.sqrt(variance[free])[:, None]
    weight = np.broadcast_to(root**2 / num, (root.size, residual.shape[1]))
    return ErrorLaw(constant, weight.ravel(), (along[free] / root).ravel())


def _cumulants(law: ErrorLaw, s: float) -> tuple[float, float, float, float]:
    """k(s) and its first three derivatives."""
    w, b2 = law.weight, law.shift**2
    shrunk = 1 / (1 - 2 * w * s)
    worth = w * shrunk
    k = float((0.5 * np.log(shrunk) + b2 * worth * s).sum())
    k1 = float((worth * (1 + b2 * shrunk)).sum())
    k2 = float((2 * worth**2 * (1 + 2 * b2 * shrunk)).sum())
    k3 = float((8 * worth**3 * (1 + 3 * b2 * shrunk)).sum())
    return k, k1, k2, k3


def _saddle_point(law: ErrorLaw, target: float) -> float:
    """Where k' is the target: k' rises from 0 at minus infinity to infinity at 1 / (2 max w)."""
    top = 0.5 / float(law.weight.max())
    low, high = (-top, 0.0) if _cumulants(law, 0.0)[1] > target else (0.0, top)
    while low < 0 and _cumulants(law, low)[1] > target:
        low, high = 2 * low, low
    for _ in range(_ROUNDS):
        middle = (low + high) / 2
        if middle in (low, high):
            break
        if _cumulants(law, middle)[1] > target:
            high = middle
        else:
            low = middle
    return low if low != 0 else high


def _skewness(k2: float, k3: float) -> float:
    return k3 / k2**1.5
