"""Difficulty of generalising in closed form: the size of a space of functions, in bits.

An upper bound: the bits that pick a function which generalises out of all functions on a manifold
of m dimensions that vary no faster than the resolution asks, less what n training points fix. It is
exponential in m, and hardly reacts to data: good for comparing continuous families with each other
and with published numbers, not for ranking grids. The numbers exceed floats, hence logarithms.

Source: Boopathy et al., 2023, "Model-agnostic Measure of Generalization Difficulty": the formulas
of its released code, for a sphere and, in its control tasks, for a flat torus.
"""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from scipy.spatial.distance import cdist
from scipy.special import betaln, gammaln

_LN2, _LN10 = math.log(2), math.log(10)
_ROWS = 512  # of a matrix of distances held at once


class Sphere(NamedTuple):
    """What the bound on a sphere depends on; the reading for classes."""

    dimension: float  # m, intrinsic
    outputs: int  # D; classes - 1
    num_points: float  # n, training points
    radius: float  # R, of the data
    resolution: float  # δ: least distance of inputs that need different outputs
    classes: int  # P_d, combinations of discrete features
    error: float  # ε: desired error over the loss's Lipschitz constant
    bound: float = 1.0  # B, of the outputs


class Torus(NamedTuple):
    """What the bound on a flat torus of radius 1 depends on; the reading for control."""

    dimension: float  # m, of what the policy must react to
    outputs: int  # D; of the action
    num_points: float  # n, env steps of experience
    resolution: float  # δ, of observations
    error: float  # ε, tolerated in the action


class Modes(NamedTuple):
    """The functions that a resolution asks for, on a sphere."""

    frequency: float  # M, the highest
    degree: float  # K, of that frequency
    log_count: float  # ln E


def modes(dimension: float | int, radius: float | int, resolution: float | int) -> Modes:
    """Spherical harmonics on a sphere of m dimensions, up to the frequency of a resolution.

    M = 2πR/δ; K = (√((m-1)² + 4M²) - (m-1)) / 2; E = C(m+K, m) + C(m+K-1, m).
    """
    m, frequency = dimension, 2 * math.pi * radius / resolution
    degree = (math.sqrt((m - 1) ** 2 + 4 * frequency**2) - (m - 1)) / 2
    count = np.logaddexp(_log_binomial(m + degree, m), _log_binomial(m + degree - 1, m))
    return Modes(frequency, degree, float(count))


def sphere_log10_bits(task: Sphere) -> float:
    """Log₁₀ of the bits on a sphere; minus infinity for none, where n D reaches the space's size.

    bits = (2 D P_d E - n D) log₂(B √D √P_d (K √D / R) W / ε), with the train-test distance
    W = √(m/6) (2 π^((m+1)/2) P_d / Γ((m+1)/2))^(1/m) R n^(-1/m).
    """
    _check(task)
    m, found = task.dimension, modes(task.dimension, task.radius, task.resolution)
    log_size = math.log(2 * task.outputs * task.classes) + found.log_count
    log_area = _LN2 + (m + 1) / 2 * math.log(math.pi) - float(gammaln((m + 1) / 2))
    log_distance = 0.5 * math.log(m / 6) + math.log(task.radius)
    log_distance += (log_area + math.log(task.classes) - math.log(task.num_points)) / m
    log_ratio = math.log(task.bound * task.outputs / (task.radius * task.error))
    log_ratio += 0.5 * math.log(task.classes) + math.log(found.degree) + log_distance
    return _log10_bits(log_size, task.num_points * task.outputs, log_ratio)


def torus_log10_bits(task: Torus) -> float:
    """Log₁₀ of the bits on a flat torus of radius 1; minus infinity for none.

    bits = D (2 M^m π^(m/2) / Γ(m/2 + 1) - n) log₂(2π M √(m/6) D n^(-1/m) / ε), M = 2π/δ.
    """
    _check(task)
    m, log_frequency = task.dimension, math.log(2 * math.pi / task.resolution)
    log_count = m * log_frequency + m / 2 * math.log(math.pi) - float(gammaln(m / 2 + 1))
    log_size = math.log(2 * task.outputs) + log_count
    log_ratio = math.log(2 * math.pi * task.outputs / task.error) + log_frequency
    log_ratio += 0.5 * math.log(m / 6) - math.log(task.num_points) / m
    return _log10_bits(log_size, task.num_points * task.outputs, log_ratio)


def intrinsic_dimension(points: Float[np.ndarray, "N F"], num_neighbours: int = 5) -> float:
    """Maximum-likelihood dimension of the manifold that points lie on, from nearest neighbours.

    1 / mean of ln(T_k / T_j) over the points and j < k, where T_j is the distance to the j-th
    nearest other point. Equal points count once: their distance 0 would make it infinite.

    Raises:
        ValueError: no more than k different points.
    Source: Levina and Bickel, 2004, "Maximum Likelihood Estimation of Intrinsic Dimension".
    """
    points = np.unique(points, axis=0)
    if len(points) <= num_neighbours:
        raise ValueError(
            f"{len(points)} different points are too few for {num_neighbours} neighbours"
        )
    nearest = []
    for start in range(0, len(points), _ROWS):
        distance = cdist(points[start : start + _ROWS], points)  # not by products: 0 must be 0
        nearest.append(np.sort(distance, 1)[:, 1 : num_neighbours + 1])
    found = np.log(np.concatenate(nearest))
    spread = (found[:, -1:] - found[:, :-1]).mean()
    return float(1 / spread) if spread > 0 else math.inf


def resolution(points: Float[np.ndarray, "N F"], right: Bool[np.ndarray, "N A"]) -> float:
    """δ: the least distance of two points that have no right answer in common; 0 if they coincide.

    Infinite where any two have one in common.
    """
    least = math.inf
    for start in range(0, len(points), _ROWS):
        rows = slice(start, start + _ROWS)
        apart = ~(right[rows].astype(int) @ right.T.astype(int)).astype(bool)
        distance = np.where(apart, cdist(points[rows], points), math.inf)
        least = min(least, float(distance.min()))
    return least


def radius(points: Float[np.ndarray, "N F"]) -> float:
    """R: the largest norm."""
    return float(np.sqrt((points**2).sum(1).max()))


def _log_binomial(top: float | int, bottom: float | int) -> float:
    """Ln C(top, bottom) of real numbers, without cancellation where `top` is large."""
    return float(-math.log1p(top) - betaln(top - bottom + 1, bottom + 1))


def _log10_bits(log_size: float, fixed: float | int, log_ratio: float) -> float:
    """Of `exp(log_size) - fixed` free numbers, each told to a precision of exp(-log_ratio)."""
    share = math.log(fixed) - log_size
    if share >= 0 or log_ratio <= 0:
        return -math.inf
    log_free = log_size + math.log(-math.expm1(share))
    return (log_free + math.log(log_ratio / _LN2)) / _LN10


def _check(task: Sphere | Torus) -> None:
    for name, value in task._asdict().items():
        if not (value > 0 and math.isfinite(value)):
            raise ValueError(f"{name} must be positive and finite, got {value}")
