"""Bits of generalisation with a kernel: how improbable it is that a function generalises.

The prior over functions is a Gaussian process, which is conditioned on the training set. The
outputs at the test inputs are then normally distributed. Their mean squared error is a constant
plus a weighted sum of non-central chi-square variables. A function generalises if this error is at
most a given target. The bits are minus the logarithm (base 2) of the probability that a function
generalises. They measure the inductive bias that a learner needs in addition to the data.

Source: Boopathy et al., 2024, "Towards Exact Computation of Inductive Bias".
Differs from the code by Boopathy et al., which samples functions and fits one scaled chi-square
distribution to their errors. In the tail, the probabilities of the fitted distribution are wrong by
a factor. In this module the distribution of the error is exact. Its distribution function is
evaluated with the approximation of Lugannani and Rice, 1980, "Saddle Point Approximation for the
Distribution of the Sum of Independent Random Variables", which differs from exact values by a few
hundredths of a nat.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.linalg import cholesky, eigh, solve_triangular
from scipy.special import erfcx, log_ndtr

JITTER = 1e-3
"""Noise variance of the training targets; the prior has variance 1."""
FLAT = 1e-9
"""Eigenvalues of the posterior covariance below this value are treated as 0."""

_ROUNDS = 200  # steps of the bisection, more than a float has bits
_MEAN = 1e-3  # if |v| in `nats` is below this value, the limit at the mean is used


class ErrorLaw(NamedTuple):
    """Distribution of a mean squared error: c₀ + Σ w_i (z_i + b_i)², z_i independent N(0, 1)."""

    constant: float  # c₀, lowest possible error of functions that fit the training set
    weight: Float[np.ndarray, " K"]  # w_i > 0
    shift: Float[np.ndarray, " K"]  # b_i


class Labelled(NamedTuple):
    """Inputs with their targets."""

    inputs: Float[np.ndarray, "N F"]
    targets: Float[np.ndarray, "N A"]


def nats(law: ErrorLaw, error: float | int) -> float:
    """Compute -ln P(mean squared error <= error); infinite if the probability is 0.

    Let ε be `error`; `ErrorLaw` explains c₀, w and b. The cumulant generating function is
    k(s) = Σ -½ ln(1 - 2ws) + wb²s / (1 - 2ws). The saddle point s* solves k'(s*) = ε - c₀. With
    u = s* √k''(s*) and v = sign(s*) √(2 (s* (ε - c₀) - k(s*))), the probability is
    Φ(v) + φ(v) (1/v - 1/u). In the lower tail, the formula is rewritten with the Mills ratio Φ/φ to
    prevent underflow.
    """
    target = error - law.constant
    if not len(law.weight):
        return 0.0 if target >= 0 else math.inf
    if target <= 0:
        return math.inf
    s = _saddle_point(law, target)
    k, _, k2, k3 = _cumulants(law, s)
    v = math.copysign(math.sqrt(max(2 * (s * target - k), 0.0)), s)
    if abs(v) < _MEAN:  # 1/v and 1/u cancel; use the limit s* -> 0
        return -math.log(0.5 + v / math.sqrt(2 * math.pi) + _skewness(k2, k3) / 6 * _PHI0)
    u = s * math.sqrt(k2)
    if v > 0:
        chance = math.exp(log_ndtr(v)) + _PHI0 * math.exp(-0.5 * v * v) * (1 / v - 1 / u)
        return max(0.0, -math.log(chance))  # the approximation can slightly exceed 1
    # In the lower tail, P = φ(v) (Φ(v)/φ(v) + 1/v - 1/u): ln P is a sum that does not underflow.
    mills = math.sqrt(math.pi / 2) * float(erfcx(-v / math.sqrt(2)))
    return 0.5 * v * v - math.log(_PHI0) - math.log(mills + 1 / v - 1 / u)


def bits_per_test(law: ErrorLaw, error: float, num_tests: int) -> float:
    """Bits per test input: `nats` divided by ln 2 and the number of test inputs."""
    return nats(law, error) / (math.log(2) * num_tests)


def median_width(inputs: Float[np.ndarray, "N F"]) -> float:
    """Width of the kernel: root of the median squared distance over all pairs of inputs.

    Raises:
        ValueError: There are fewer than two inputs, or the median is 0 because the inputs in at
            least half of the pairs are equal.
    """
    squared = squared_distances(inputs, inputs)[np.triu_indices(len(inputs), 1)]
    median = float(np.median(squared)) if squared.size else 0.0
    if median <= 0:
        raise ValueError(
            "the median distance between reference inputs is 0, so the kernel has no width"
        )
    return math.sqrt(median)


def squared_distances(
    x: Float[np.ndarray, "N F"], y: Float[np.ndarray, "M F"]
) -> Float[np.ndarray, "N M"]:
    """Squared Euclidean distances between the rows of x and the rows of y.

    The distances are computed with one matrix product. The distance between two equal rows of whole
    numbers is exactly 0.
    """
    norms = (x**2).sum(1)[:, None] + (y**2).sum(1)[None]
    return np.maximum(norms - 2 * (x @ y.T), 0.0)  # rounding can give small negative values


def error_laws(
    train: Labelled, test: Labelled, width: float, sizes: Sequence[int], jitter: float = JITTER
) -> list[ErrorLaw]:
    """Distribution of the error at the test inputs for several numbers of training inputs.

    The kernel is exp(-d² / 2 width²). Each of the A outputs is an independent function. The
    Cholesky factor of the first rows is a block of the Cholesky factor of all rows. Computing all
    sizes therefore costs little more than computing the largest size.

    Args:
        train: Training inputs and targets. A size n selects the first n of them.
        test: Test inputs and targets.
        width: Width of the kernel.
        sizes: Numbers of training inputs for which the distribution is computed.
        jitter: Noise variance of the training targets.

    Returns:
        One distribution per size.

    Raises:
        ValueError: A size is negative or larger than the training set.
    """
    if max(sizes) > len(train.inputs) or min(sizes) < 0:
        raise ValueError(f"sizes {list(sizes)} must be in 0 .. {len(train.inputs)}")
    prior = _kernel(test.inputs, test.inputs, width)
    num = max(sizes)
    gram = _kernel(train.inputs[:num], train.inputs[:num], width)
    gram[np.diag_indices(num)] += jitter
    factor = cholesky(gram, lower=True, overwrite_a=True, check_finite=False)
    # One triangular solve, L⁻¹ [K(train, test), targets], is used for covariances and means.
    right = np.hstack([_kernel(train.inputs[:num], test.inputs, width), train.targets[:num]])
    solved = solve_triangular(factor, right, lower=True, overwrite_b=True, check_finite=False)
    tests = len(test.inputs)
    laws = []
    for size in sizes:
        cross, targets = solved[:size, :tests], solved[:size, tests:]
        # Posterior covariance, and posterior mean minus the test targets.
        laws.append(_law(prior - cross.T @ cross, cross.T @ targets - test.targets))
    return laws


_PHI0 = 1 / math.sqrt(2 * math.pi)  # φ(0)


def _kernel(x: np.ndarray, y: np.ndarray, width: float) -> Float[np.ndarray, "N M"]:
    return np.exp(squared_distances(x, y) / (-2 * width**2))


def _law(covariance: Float[np.ndarray, "N N"], residual: Float[np.ndarray, "N A"]) -> ErrorLaw:
    """Distribution of the error of normal outputs.

    Args:
        covariance: Covariance matrix of an output at the N test inputs; it is equal for all A
            outputs.
        residual: Mean of the outputs minus the targets.
    """
    # With eigenvalues λ and residuals r in the eigenbasis, the error is Σ (√λ z + r)² / (N A). So
    # w = λ / (N A) and b = r / √λ. Directions with λ = 0 contribute r² / (N A) to the constant.
    variance, axes = eigh((covariance + covariance.T) / 2, check_finite=False)
    along = axes.T @ residual
    free, num = variance > FLAT, residual.size
    constant = float((along[~free] ** 2).sum() / num)
    root = np.sqrt(variance[free])[:, None]
    weight = np.broadcast_to(root**2 / num, (root.size, residual.shape[1]))
    return ErrorLaw(constant, weight.ravel(), (along[free] / root).ravel())


def _cumulants(law: ErrorLaw, s: float) -> tuple[float, float, float, float]:
    """Cumulant generating function k(s) and its first three derivatives."""
    w, b2 = law.weight, law.shift**2
    shrunk = 1 / (1 - 2 * w * s)
    worth = w * shrunk
    k = float((0.5 * np.log(shrunk) + b2 * worth * s).sum())
    k1 = float((worth * (1 + b2 * shrunk)).sum())
    k2 = float((2 * worth**2 * (1 + 2 * b2 * shrunk)).sum())
    k3 = float((8 * worth**3 * (1 + 3 * b2 * shrunk)).sum())
    return k, k1, k2, k3


def _saddle_point(law: ErrorLaw, target: float) -> float:
    """Find the s at which k'(s) = target by bisection; k is from `_cumulants`.

    Let w be the largest weight of `law`. As s increases from -∞ to 1 / (2 w), k'(s) increases from
    0 to ∞.
    """
    top = 0.5 / float(law.weight.max())
    low, high = (-top, 0.0) if _cumulants(law, 0.0)[1] > target else (0.0, top)
    while low < 0 and _cumulants(law, low)[1] > target:  # extend the bracket to the left
        low, high = 2 * low, low
    for _ in range(_ROUNDS):
        middle = (low + high) / 2
        if middle in (low, high):  # no float lies between low and high
            break
        if _cumulants(law, middle)[1] > target:
            high = middle
        else:
            low = middle
    return low if low != 0 else high


def _skewness(k2: float, k3: float) -> float:
    """Skewness of a distribution, given its second and third cumulants."""
    return k3 / k2**1.5
