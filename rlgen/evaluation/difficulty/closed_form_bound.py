"""Closed-form upper bound on the difficulty of generalisation, in bits.

The hypothesis space consists of all functions on a manifold of m dimensions that vary no faster
than the resolution requires. The resolution is the smallest distance between two inputs that need
different outputs. A learner needs bits to select from this space a function that generalises. The
bound is the number of these bits minus the number of bits that n training points determine. It
grows exponentially with m and hardly depends on the data. The bound can be used to compare
continuous families with each other and with the numbers of Boopathy et al., but not to rank grid
environments. The number of bits can exceed the range of floats, so all computations use logarithms.

Source: Boopathy et al., 2023, "Model-agnostic Measure of Generalization Difficulty". The formulas
are those of the code by Boopathy et al.: a sphere for classification and a flat torus for control.
"""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from scipy.spatial.distance import cdist
from scipy.special import betaln, gammaln

_LN2, _LN10 = math.log(2), math.log(10)
_ROWS = 512  # rows of the distance matrix computed at a time


class Sphere(NamedTuple):
    """Parameters of the bound on a sphere, the variant for classification."""

    dimension: float  # m, intrinsic dimension
    outputs: int  # D, number of classes minus 1
    num_points: float  # n, training points
    radius: float  # R, radius of the data
    resolution: float  # δ, smallest distance between inputs that need different outputs
    classes: int  # P_d, number of combinations of discrete features
    error: float  # ε, desired error divided by the Lipschitz constant of the loss
    bound: float = 1.0  # B, largest absolute value of an output


class Torus(NamedTuple):
    """Parameters of the bound on a flat torus of radius 1, the variant for control."""

    dimension: float  # m, dimension of the observations that the policy must react to
    outputs: int  # D, dimension of the action
    num_points: float  # n, env steps of experience
    resolution: float  # δ, resolution of observations
    error: float  # ε, tolerated error of the action


class Modes(NamedTuple):
    """Spherical harmonics that a given resolution requires."""

    frequency: float  # M, highest frequency
    degree: float  # K, degree of the harmonics with the highest frequency
    log_count: float  # ln E, logarithm of the number of harmonics


def modes(dimension: float | int, radius: float | int, resolution: float | int) -> Modes:
    """Count the spherical harmonics on an m-dimensional sphere that a resolution requires.

    M = 2πR/δ with radius R and resolution δ; K = (√((m-1)² + 4M²) - (m-1)) / 2;
    E = C(m+K, m) + C(m+K-1, m). The class `Modes` explains M, K and E.
    """
    m, frequency = dimension, 2 * math.pi * radius / resolution
    degree = (math.sqrt((m - 1) ** 2 + 4 * frequency**2) - (m - 1)) / 2
    count = np.logaddexp(_log_binomial(m + degree, m), _log_binomial(m + degree - 1, m))
    return Modes(frequency, degree, float(count))


def sphere_log10_bits(task: Sphere) -> float:
    """Log₁₀ of the number of bits on a sphere; minus infinity if the number is 0.

    bits = (2 D P_d E - n D) log₂(B √D √P_d (K √D / R) W / ε). W is the distance between training
    and test points, W = √(m/6) (2 π^((m+1)/2) P_d / Γ((m+1)/2))^(1/m) R n^(-1/m). The number is 0
    if n D ≥ 2 D P_d E. `Sphere` and `Modes` explain the other symbols.
    """
    _check(task)
    m, found = task.dimension, modes(task.dimension, task.radius, task.resolution)
    log_size = math.log(2 * task.outputs * task.classes) + found.log_count  # ln(2 D P_d E)
    # Logarithm of the surface area of the unit m-sphere, 2 π^((m+1)/2) / Γ((m+1)/2).
    log_area = _LN2 + (m + 1) / 2 * math.log(math.pi) - float(gammaln((m + 1) / 2))
    log_distance = 0.5 * math.log(m / 6) + math.log(task.radius)  # the next line completes ln W
    log_distance += (log_area + math.log(task.classes) - math.log(task.num_points)) / m
    log_ratio = math.log(task.bound * task.outputs / (task.radius * task.error))
    log_ratio += 0.5 * math.log(task.classes) + math.log(found.degree) + log_distance
    return _log10_bits(log_size, task.num_points * task.outputs, log_ratio)


def torus_log10_bits(task: Torus) -> float:
    """Log₁₀ of the number of bits on a flat torus of radius 1; minus infinity if the number is 0.

    bits = D (2 M^m π^(m/2) / Γ(m/2 + 1) - n) log₂(2π M √(m/6) D n^(-1/m) / ε), with M = 2π/δ.
    `Torus` explains the other symbols.
    """
    _check(task)
    m, log_frequency = task.dimension, math.log(2 * math.pi / task.resolution)
    log_count = m * log_frequency + m / 2 * math.log(math.pi) - float(gammaln(m / 2 + 1))
    log_size = math.log(2 * task.outputs) + log_count
    log_ratio = math.log(2 * math.pi * task.outputs / task.error) + log_frequency
    log_ratio += 0.5 * math.log(m / 6) - math.log(task.num_points) / m
    return _log10_bits(log_size, task.num_points * task.outputs, log_ratio)


def intrinsic_dimension(points: Float[np.ndarray, "N F"], num_neighbours: int = 5) -> float:
    """Maximum-likelihood estimate of the dimension of the manifold on which points lie.

    The estimate is the inverse of the mean of ln(T_k / T_j) over all points and all j < k, where
    T_j is the distance from a point to the j-th nearest other point. Duplicates of a point are
    dropped, because ln 0 is undefined. If the k nearest neighbours of each point are all equally
    distant from it, the result is infinite.

    Args:
        points: The points; duplicates are allowed.
        num_neighbours: Number k of nearest neighbours.

    Raises:
        ValueError: There are k different points or fewer.
    Source: Levina and Bickel, 2004, "Maximum Likelihood Estimation of Intrinsic Dimension".
    """
    points = np.unique(points, axis=0)
    if len(points) <= num_neighbours:
        raise ValueError(
            f"{len(points)} different points are too few; {num_neighbours} neighbours need at "
            f"least {num_neighbours + 1} points"
        )
    nearest = []
    for start in range(0, len(points), _ROWS):
        # `cdist` gives exactly 0 for the distance of a point to itself. A matrix product would not.
        distance = cdist(points[start : start + _ROWS], points)
        nearest.append(np.sort(distance, 1)[:, 1 : num_neighbours + 1])  # without the point itself
    found = np.log(np.concatenate(nearest))
    spread = (found[:, -1:] - found[:, :-1]).mean()
    return float(1 / spread) if spread > 0 else math.inf


def resolution(points: Float[np.ndarray, "N F"], right: Bool[np.ndarray, "N A"]) -> float:
    """Resolution δ: the smallest distance between two points that have no common right answer.

    δ is 0 if two points without a common right answer coincide. δ is infinite if every pair of
    points has a common right answer.

    Args:
        points: Inputs.
        right: Mask of the right answers to each input.
    """
    least = math.inf
    for start in range(0, len(points), _ROWS):
        rows = slice(start, start + _ROWS)
        # The product counts the common right answers of each pair of points.
        apart = ~(right[rows].astype(int) @ right.T.astype(int)).astype(bool)
        distance = np.where(apart, cdist(points[rows], points), math.inf)
        least = min(least, float(distance.min()))
    return least


def radius(points: Float[np.ndarray, "N F"]) -> float:
    """Radius R: the largest Euclidean norm of the points."""
    return float(np.sqrt((points**2).sum(1).max()))


def _log_binomial(top: float | int, bottom: float | int) -> float:
    """Logarithm of the binomial coefficient C(top, bottom) for real arguments.

    The identity C(a, b) = 1 / ((a + 1) B(a - b + 1, b + 1)) avoids cancellation if `top` is large.
    """
    return float(-math.log1p(top) - betaln(top - bottom + 1, bottom + 1))


def _log10_bits(log_size: float, fixed: float | int, log_ratio: float) -> float:
    """Log₁₀ of the number of bits that specify N values with a precision of exp(-log_ratio).

    N is exp(log_size) - fixed. If no bits are needed, the result is minus infinity.
    """
    share = math.log(fixed) - log_size  # ln of the fraction of values that are fixed
    if share >= 0 or log_ratio <= 0:
        return -math.inf
    log_free = log_size + math.log(-math.expm1(share))  # ln(exp(log_size) - fixed)
    return (log_free + math.log(log_ratio / _LN2)) / _LN10


def _check(task: Sphere | Torus) -> None:
    for name, value in task._asdict().items():
        if not (value > 0 and math.isfinite(value)):
            raise ValueError(f"{name} must be positive and finite, got {value}")
