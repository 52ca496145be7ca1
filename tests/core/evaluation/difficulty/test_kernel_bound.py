"""Kernel bits: the exact law of an error, its tail, and the bits left by a training set."""

import math

import numpy as np
import pytest
from scipy import stats
from scipy.linalg import inv

from rlgen.evaluation.difficulty.kernel_bound import (
    ErrorLaw,
    Labelled,
    bits_per_test,
    error_laws,
    median_width,
    nats,
    squared_distances,
)

MIXED = ErrorLaw(0.0, np.array([0.5, 0.2, 0.1, 0.05, 0.05]), np.array([1, 0, 2, -1, 0.5]))


@pytest.mark.parametrize(
    ("error", "saddle_point", "monte_carlo"),  # Monte Carlo with 4 million draws
    [
        (2.0, 0.42464, 0.42466),
        (1.0, 1.23931, 1.26531),
        (0.5, 2.57079, 2.59129),
        (0.2, 4.73573, 4.74122),
        (0.1, 6.46879, 6.46982),
    ],
)
def test_a_mixture_of_chi_squares(error, saddle_point, monte_carlo):
    assert nats(MIXED, error) == pytest.approx(saddle_point, abs=6e-6)
    assert nats(MIXED, error) == pytest.approx(monte_carlo, abs=0.04)


def test_a_mixture_agrees_with_draws_of_our_own():
    rng = np.random.default_rng(0)
    draws = (MIXED.weight * (rng.normal(size=(400_000, 5)) + MIXED.shift) ** 2).sum(1)
    for error in (0.3, 1.0, 1.6, 3.0, 6.0):
        assert nats(MIXED, error) == pytest.approx(-np.log((draws <= error).mean()), abs=0.04)


@pytest.mark.parametrize(
    ("num", "error", "exact", "saddle_point"),
    [
        (10, 0.2, 5.61033, 5.60848),
        (50, 0.1, 37.49565, 37.49500),
        (200, 0.3, 53.26891, 53.26886),
    ],
)
def test_equal_weights_are_a_chi_square(num, error, exact, saddle_point):
    found = nats(ErrorLaw(0.0, np.full(num, 1 / num), np.zeros(num)), error)
    assert -stats.chi2.logcdf(num * error, num) == pytest.approx(exact, abs=6e-6)
    assert found == pytest.approx(saddle_point, abs=5e-5)
    assert found == pytest.approx(exact, abs=2e-3)


@pytest.mark.parametrize(("df", "nc", "error", "exact"), [(50, 20, 5, 46.55), (10, 5, 0.5, 14.32)])
def test_equal_weights_and_shifts_are_a_non_central_chi_square(df, nc, error, exact):
    found = nats(ErrorLaw(0.0, np.ones(df), np.full(df, math.sqrt(nc / df))), error)
    assert found == pytest.approx(exact, abs=0.01)
    assert found == pytest.approx(-math.log(stats.ncx2.cdf(error, df, nc)), abs=0.01)


def test_around_the_mean_and_above_it_nothing_jumps():
    law = ErrorLaw(0.0, np.full(20, 1 / 20), np.zeros(20))
    steps = [*np.linspace(-0.2, 0.2, 81), 1e-3, -1e-3, 1e-5, 0.0, 1.0, 3.0]
    for step in steps:
        exact = -stats.chi2.logcdf(20 * (1 + step), 20)
        assert nats(law, 1 + step) == pytest.approx(exact, abs=1e-3)


def test_far_in_the_tail_the_law_is_that_of_the_largest_exponents():
    """P(chi² of k <= x) is about (x/2)^(k/2) / Γ(k/2 + 1) for small x; 3,000 bits underflow."""
    num, error = 400, 1e-6
    exact = -(num / 2 * math.log(num * error / 2) - math.lgamma(num / 2 + 1))
    law = ErrorLaw(0.0, np.full(num, 1 / num), np.zeros(num))
    assert nats(law, error) == pytest.approx(exact, rel=1e-4)
    assert nats(law, error) > 2000


def test_what_cannot_be_reached_takes_infinitely_many_bits():
    law = MIXED._replace(constant=0.5)
    assert nats(law, 0.5) == math.inf
    assert nats(law, 1.5) == pytest.approx(nats(MIXED, 1.0))
    nothing = ErrorLaw(0.2, np.zeros(0), np.zeros(0))
    assert (nats(nothing, 0.1), nats(nothing, 0.2)) == (math.inf, 0.0)


def test_bits_are_nats_over_the_logarithm_of_two_and_the_tests():
    assert bits_per_test(MIXED, 0.5, 10) == pytest.approx(2.57079 / math.log(2) / 10, abs=1e-6)


def toy(rng, num, outputs=2):
    x = rng.normal(size=(num, 3))
    return Labelled(x, np.stack([np.sin(x[:, 0] + k) for k in range(outputs)], 1))


def kernel(x, y, width):
    return np.exp(-((x[:, None] - y[None]) ** 2).sum(-1) / (2 * width**2))


def test_conditioning_is_that_of_the_text_book():
    """Compare mean and variance of the error with plain inverses, for each training-set size."""
    rng = np.random.default_rng(1)
    train, test, width, jitter = toy(rng, 30), toy(rng, 12), 1.3, 1e-3
    sizes = [5, 12, 30]
    for size, law in zip(sizes, error_laws(train, test, width, sizes, jitter), strict=True):
        x, y = train.inputs[:size], train.targets[:size]
        gain = kernel(test.inputs, x, width) @ inv(kernel(x, x, width) + jitter * np.eye(size))
        covariance = kernel(test.inputs, test.inputs, width) - gain @ kernel(x, test.inputs, width)
        residual = gain @ y - test.targets
        mean = (2 * np.trace(covariance) + (residual**2).sum()) / 24
        assert law.constant + (law.weight * (1 + law.shift**2)).sum() == pytest.approx(mean)
        variance = 2 * np.trace(covariance @ covariance) * 2
        variance += 4 * np.einsum("na,nm,ma->", residual, covariance, residual)
        found = (2 * law.weight**2 * (1 + 2 * law.shift**2)).sum()
        assert found == pytest.approx(variance / 24**2)


def test_the_bits_are_those_of_drawn_functions():
    rng = np.random.default_rng(2)
    train, test, width = toy(rng, 8, 1), toy(rng, 6, 1), 1.3
    law = error_laws(train, test, width, [8])[0]
    x = np.vstack([train.inputs, test.inputs])
    joint = kernel(x, x, width)
    seen = inv(joint[:8, :8] + 1e-3 * np.eye(8))
    mean = joint[8:, :8] @ seen @ train.targets[:, 0]
    covariance = joint[8:, 8:] - joint[8:, :8] @ seen @ joint[:8, 8:]
    drawn = rng.multivariate_normal(mean, covariance, 100_000)
    errors = ((drawn - test.targets[:, 0]) ** 2).mean(1)
    for share in (0.5, 0.1, 0.01):
        assert nats(law, float(np.quantile(errors, share))) == pytest.approx(
            -math.log(share), abs=0.15
        )


def test_more_data_of_a_smooth_target_leave_fewer_bits():
    rng = np.random.default_rng(3)
    laws = error_laws(toy(rng, 400), toy(rng, 50), 1.5, [10, 40, 100, 400])
    found = [nats(law, 0.05) for law in laws]
    assert found == sorted(found, reverse=True) and found[0] > 5 and found[-1] < 1e-3


def test_one_input_with_two_answers_is_out_of_reach():
    train = toy(np.random.default_rng(4), 5, 1)
    twice = Labelled(np.zeros((2, 3)), np.array([[1.0], [-1.0]]))
    law = error_laws(train, twice, 1.0, [5])[0]
    assert law.constant == pytest.approx(1.0)
    assert nats(law, 0.9) == math.inf


def test_the_width_is_the_root_of_the_median_squared_distance():
    assert median_width(np.array([[0.0], [1.0], [3.0]])) == pytest.approx(2.0)
    with pytest.raises(ValueError, match="median distance between reference inputs is 0"):
        median_width(np.zeros((4, 2)))


def test_equal_rows_are_at_distance_zero():
    x = np.random.default_rng(5).integers(0, 2, (40, 30)).astype(float)
    direct = ((x[:, None] - x[None]) ** 2).sum(-1)
    assert np.array_equal(squared_distances(x, x), direct)


def test_sizes_beyond_the_training_set_are_refused():
    rng = np.random.default_rng(6)
    with pytest.raises(ValueError, match=r"sizes \[9\] must be in 0 .. 8"):
        error_laws(toy(rng, 8), toy(rng, 3), 1.0, [9])
