"""Agreement with the published implementation of these statistics, on random scores."""

import importlib.util
import sys
import types

import numpy as np
import pytest

from rlgen.evaluation.stats import aggregates
from rlgen.evaluation.stats.bootstrap import Bootstrap


def _published():
    """Return rliable's modules `library` and `metrics`.

    rliable needs the bootstrap of `arch`, whose `__init__` imports time-series models that fail
    with pandas 3; an empty module replaces that `__init__`.
    """
    pytest.importorskip("rliable")
    there = importlib.util.find_spec("arch")
    if "arch" not in sys.modules and there is not None:
        sys.modules["arch"] = types.ModuleType("arch")
        sys.modules["arch"].__path__ = list(there.submodule_search_locations or ())
    return tuple(pytest.importorskip(f"rliable.{name}") for name in ("library", "metrics"))


library, metrics = _published()

SHAPES = [(2, 3), (5, 8), (10, 26), (3, 101)]
PAIRS = {
    "iqm": "aggregate_iqm",
    "mean": "aggregate_mean",
    "median": "aggregate_median",
    "optimality_gap": "aggregate_optimality_gap",
}


def scores(seed, shape):
    """Draw scores, including values above 1, equal values, and values below 0."""
    return np.round(np.random.default_rng(seed).normal(0.7, 0.5, shape), 1)


@pytest.fixture(autouse=True)
def global_numbers():
    """Seed NumPy's global generator, from which rliable resamples, and restore it afterwards."""
    before = np.random.get_state()
    np.random.seed(0)
    yield
    np.random.set_state(before)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("ours", PAIRS)
def test_aggregates_agree_exactly(ours, shape):
    for seed in range(10):
        x = scores(seed, shape)
        expected = getattr(metrics, PAIRS[ours])(x)
        assert getattr(aggregates, ours)(x) == pytest.approx(expected, rel=1e-12, abs=1e-14)


@pytest.mark.parametrize("shape", SHAPES)
def test_performance_profiles_agree_exactly_thresholds_that_are_scores_included(shape):
    tau = np.round(np.linspace(-0.5, 2, 26), 1)
    x = scores(1, shape)
    np.testing.assert_array_equal(
        aggregates.performance_profile(x, tau), library.score_distributions(x, tau)
    )


@pytest.mark.parametrize("seeds", [(5, 5), (3, 10)])
def test_probability_of_improvement_agrees_exactly(seeds):
    for seed in range(5):
        x, y = scores(seed, (seeds[0], 7)), scores(seed + 50, (seeds[1], 7))
        expected = metrics.probability_of_improvement(x, y)
        assert aggregates.probability_of_improvement(x, y) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("ours", PAIRS)
def test_interval_ends_agree_within_the_error_of_resampling(ours):
    x = np.random.default_rng(3).normal(0.7, 0.5, (6, 8))
    theirs = getattr(metrics, PAIRS[ours])
    _, ends = library.get_interval_estimates(
        {"x": x}, lambda scores: np.array([theirs(scores)]), reps=2000
    )
    one = Bootstrap("seeds", reps=20_000).interval(
        np.random.default_rng(0), getattr(aggregates, ours), x[..., None]
    )
    low, high = ends["x"][:, 0]
    # About 3 standard errors of a quantile of 2,000 resamples.
    tolerance = 0.05 * float(one.high - one.low)
    np.testing.assert_allclose([one.low, one.high], [low, high], atol=tolerance)
    assert one.high - one.low > 0.1


def test_the_interval_of_the_probability_of_improvement_agrees():
    x, y = scores(4, (6, 3)), scores(5, (5, 3)) - 0.2
    _, ends = library.get_interval_estimates(
        {"x": [x, y]},
        lambda one, other: np.array([metrics.probability_of_improvement(one, other)]),
        reps=250,
    )
    one = Bootstrap("seeds", reps=20_000).interval(
        np.random.default_rng(0), aggregates.probability_of_improvement, x[..., None], y[..., None]
    )
    # About 3 standard errors of a quantile of 250 resamples.
    tolerance = 0.15 * float(one.high - one.low)
    np.testing.assert_allclose([one.low, one.high], ends["x"][:, 0], atol=tolerance)


def test_resampling_levels_too_agrees():
    x = np.random.default_rng(6).normal(0.7, 0.5, (4, 10))
    _, ends = library.get_interval_estimates(
        {"x": x}, lambda scores: np.array([metrics.aggregate_mean(scores)]), task_bootstrap=True,
        reps=3000,
    )  # fmt: skip
    one = Bootstrap("seeds", resample_levels=True, reps=20_000).interval(
        np.random.default_rng(0), aggregates.mean, x[..., None]
    )
    tolerance = 0.05 * float(one.high - one.low)
    np.testing.assert_allclose([one.low, one.high], ends["x"][:, 0], atol=tolerance)
