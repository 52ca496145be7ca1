"""The bound in closed form, compared with numbers computed by the paper's formulas."""

import math

import numpy as np
import pytest

from rlgen.evaluation.difficulty.closed_form_bound import (
    Sphere,
    Torus,
    intrinsic_dimension,
    modes,
    radius,
    resolution,
    sphere_log10_bits,
    torus_log10_bits,
)


@pytest.mark.parametrize(
    ("task", "bits"),
    [
        (Sphere(14, 9, 60000, 17.179045827183984, 2.3987084824335305, 10, 0.001), 1.48480e16),
        (Sphere(19, 9, 73257, 53.86932485133339, 1.5766998174969105, 10, 0.01), 1.21290e31),
        (Sphere(27, 9, 50000, 54.9156786783691, 2.7506414616587023, 10, 0.01), 3.43772e32),
        (Sphere(48, 999, 1280901, 943.5923, 65, 1000, 0.1), 3.58325e41),
    ],
    ids=["mnist", "svhn", "cifar-10", "imagenet"],
)
def test_classes_on_a_sphere(task, bits):
    assert 10 ** (sphere_log10_bits(task) - math.log10(bits)) == pytest.approx(1, rel=5e-6)


CART_POLE = [4.41468e9, 3.32566e17, 1.46390e25, 4.68910e32, 1.18725e40]
REACHER = {0.1: 2.06915e25, 0.01: 2.49165e25, 1e-3: 2.91415e25, 1e-4: 3.33666e25, 1e-8: 5.02666e25}


@pytest.mark.parametrize(
    ("task", "bits"),
    [
        *[(Torus(2 * (t + 1), 1, 1e4, 1e-3, 1e-3), bits) for t, bits in enumerate(CART_POLE)],
        (Torus(6, 2, 1e6, 1e-3, 1e-3), 2.91415e25),  # reacher
        (Torus(15, 4, 1e6, 1e-3, 1e-3), 7.61301e58),  # hopper
        (Torus(17, 6, 1e6, 1e-3, 1e-3), 1.71840e66),  # half-cheetah
        *[(Torus(6, 2, 1e6, 1e-3, error), bits) for error, bits in REACHER.items()],
        (Torus(2, 1, 100, 0.5, 0.1), 4916.483),
        (Torus(3, 4, 100, 0.5, 0.1), 588952.6),
        (Torus(3, 4, 4000, 0.5, 0.1), 360369.7),
    ],
)
def test_control_on_a_torus(task, bits):
    assert 10 ** (torus_log10_bits(task) - math.log10(bits)) == pytest.approx(1, rel=5e-6)


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((1, 1, 1), (6.2831853, 6.2831853, 13.566371)),
        ((2, 1, 1), (6.2831853, 5.8030483, 46.281466)),
        ((2, 1, 0.5), (12.566371, 12.076314, 170.98998)),
        ((4, 1, 0.5), (12.566371, 11.155579, 2481.658)),
    ],
)
def test_modes_of_a_sphere(shape, expected):
    found = modes(*shape)
    counted = (found.frequency, found.degree, math.exp(found.log_count))
    assert counted == pytest.approx(expected, rel=1e-7)


def test_enough_data_leave_nothing():
    assert torus_log10_bits(Torus(2, 1, 2 * math.pi * 160, 0.5, 0.1)) == -math.inf
    assert sphere_log10_bits(Sphere(1, 1, 1e9, 1.0, 1.0, 2, 0.1)) == -math.inf
    assert torus_log10_bits(Torus(2, 1, 10, 0.5, 1e9)) == -math.inf  # every error is allowed


def test_numbers_that_make_no_task_are_refused():
    with pytest.raises(ValueError, match="resolution must be positive and finite, got 0"):
        torus_log10_bits(Torus(2, 1, 100, 0.0, 0.1))
    with pytest.raises(ValueError, match="radius must be positive"):
        sphere_log10_bits(Sphere(2, 1, 10, -1.0, 1.0, 2, 0.1))


@pytest.mark.parametrize("dimension", [1, 2, 4])
def test_the_dimension_of_a_cube_is_found_wherever_it_lies(dimension):
    rng = np.random.default_rng(0)
    cube = rng.uniform(size=(2000, dimension)) @ rng.normal(size=(dimension, 9))
    assert intrinsic_dimension(cube) == pytest.approx(dimension, rel=0.12)
    assert intrinsic_dimension(np.repeat(cube, 3, 0)) == intrinsic_dimension(cube)


def test_the_dimension_by_hand():
    """Points 0, 1, 3 on a line: k = 2 gives ln 3, ln 2, ln 1.5, with mean ln 9 / 3."""
    found = intrinsic_dimension(np.array([[0.0], [1.0], [3.0], [1.0]]), 2)
    assert found == pytest.approx(3 / math.log(9))
    with pytest.raises(ValueError, match="3 different points are too few; 3 neighbours need"):
        intrinsic_dimension(np.array([[0.0], [1.0], [3.0]]), 3)


def test_resolution_is_between_points_with_no_answer_in_common():
    points = np.array([[0.0], [1.0], [5.0], [5.5]])
    right = np.array([[1, 0], [1, 1], [0, 1], [0, 1]], bool)
    assert resolution(points, right) == 5.0
    assert resolution(points[1:], right[1:]) == math.inf
    assert resolution(np.zeros((2, 1)), right[[0, 2]]) == 0.0
    assert radius(np.array([[3.0, 4.0], [0.0, 1.0]])) == 5.0
