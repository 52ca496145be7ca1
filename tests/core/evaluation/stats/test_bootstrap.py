"""Aggregates against scipy; intervals against a slow loop and by their coverage."""

import numpy as np
import pytest
import scipy.stats

from rlgen.evaluation.stats import aggregates, bootstrap
from rlgen.evaluation.stats.aggregates import iqm, mean, probability_of_improvement
from rlgen.evaluation.stats.bootstrap import Bootstrap


def _rng(seed=0):
    return np.random.default_rng(seed)


def _attempts(matrix):
    """Reshape scores from [S, M] to [S, M, 1]."""
    return np.asarray(matrix, float)[..., None]


@pytest.mark.parametrize("shape", [(1, 1), (1, 3), (2, 5), (3, 8), (10, 13)])
def test_iqm_is_scipys_trimmed_mean_for_any_number_of_entries(shape):
    x = _rng().normal(size=(4, *shape))
    expected = [scipy.stats.trim_mean(one.ravel(), 0.25) for one in x]
    np.testing.assert_allclose(iqm(x), expected)
    np.testing.assert_allclose(iqm(x[0]), expected[0])


def test_aggregates_worked_by_hand():
    x = np.array([[0.0, 0.5, 2.0], [1.0, 0.5, 2.0]])  # level means 0.5, 0.5, 2
    assert mean(x) == 1.0
    assert aggregates.median(x) == 0.5
    assert aggregates.optimality_gap(x) == pytest.approx(1 - (0 + 0.5 + 1 + 1 + 0.5 + 1) / 6)
    # Entries equal to the threshold are not above it.
    profile = aggregates.performance_profile(x, np.array([-1.0, 0.0, 0.5, 1.0, 2.0]))
    np.testing.assert_allclose(profile, [1, 5 / 6, 3 / 6, 2 / 6, 0])


def test_probability_of_improvement_is_mann_whitney_with_ties_and_unequal_seeds():
    x, y = _rng().integers(0, 4, (5, 6)) / 4, _rng(1).integers(0, 5, (3, 6)) / 4
    per_level = [scipy.stats.mannwhitneyu(x[:, m], y[:, m]).statistic / (5 * 3) for m in range(6)]
    assert probability_of_improvement(x, y) == pytest.approx(np.mean(per_level))
    assert probability_of_improvement(y, x) == pytest.approx(1 - np.mean(per_level))
    assert probability_of_improvement(x, x) == pytest.approx(0.5)


def _difference(x, y):
    return mean(x) - mean(y)


def _slow_draw(rng, x, over):
    """Draw one resample in plain loops."""
    num_seeds, num_levels, num_attempts = x.shape
    drawn = np.zeros((num_seeds, num_levels))
    shared = rng.integers(num_seeds, size=num_seeds)
    for s in range(num_seeds):
        for m in range(num_levels):
            if over == "attempts":
                drawn[s, m] = np.mean([x[s, m, rng.integers(num_attempts)] for _ in x[s, m]])
            else:
                row = shared[s] if over == "whole-seeds" else rng.integers(num_seeds)
                drawn[s, m] = x[row, m].mean()
    return drawn


@pytest.mark.thorough
@pytest.mark.parametrize("over", ["seeds", "whole-seeds", "attempts"])
@pytest.mark.parametrize("binary", [True, False])
def test_intervals_are_those_of_a_slow_loop(over, binary):
    x = _rng().random((4, 3, 5)) + np.arange(4)[:, None, None] / 4
    x = (x > 0.8).astype(float) if binary else x
    rng = _rng(1)
    slow = [mean(_slow_draw(rng, x, over)) for _ in range(3000)]
    fast = Bootstrap(over, reps=20_000).interval(_rng(2), mean, x)
    assert fast.value == pytest.approx(x.mean())
    np.testing.assert_allclose([fast.low, fast.high], np.quantile(slow, [0.025, 0.975]), atol=0.03)
    assert float(fast.high - fast.low) > 0.1  # far above the tolerance


def test_interval_of_one_level_is_scipys_bootstrap():
    x = _rng().normal(size=12)
    theirs = scipy.stats.bootstrap(
        (x,), np.mean, n_resamples=20_000, method="percentile", rng=_rng(1)
    )
    ours = Bootstrap(reps=20_000).interval(_rng(2), mean, x[:, None, None])
    np.testing.assert_allclose([ours.low, ours.high], theirs.confidence_interval, atol=0.03)


def _coverage(over, seed_effect, num_seeds=10, reps=200, trials=300):
    """Return how often a 95 % interval of the mean contains the true mean, 0."""
    rng, held = _rng(), 0
    for _ in range(trials):
        x = rng.normal(size=(num_seeds, 6)) + seed_effect * rng.normal(size=(num_seeds, 1))
        one = Bootstrap(over, reps=reps).interval(rng, mean, _attempts(x))
        held += one.low <= 0 <= one.high
    return held / trials


def test_stratified_interval_covers_when_levels_are_independent():
    assert 0.88 < _coverage("seeds", 0) < 0.98


def test_whole_seeds_cover_where_an_agents_levels_go_together_and_stratified_does_not():
    assert _coverage("seeds", 1) < 0.75
    assert 0.84 < _coverage("whole-seeds", 1) < 0.98


def test_interval_over_attempts_covers_the_agents_true_rate():
    rng, held, rate = _rng(), 0, np.array([[0.2, 0.5, 0.8, 0.9]])
    for _ in range(300):
        x = (rng.random((1, 4, 25)) < rate[..., None]).astype(float)
        one = Bootstrap("attempts", reps=200).interval(rng, mean, x)
        held += one.kind == "attempts" and one.low <= rate.mean() <= one.high
    assert 0.88 < held / 300 < 0.98


def test_difference_is_paired_on_levels():
    """Levels of very different difficulty do not widen the interval of a constant difference."""
    x = np.broadcast_to(np.arange(8.0), (3, 8))
    bootstrap = Bootstrap(resample_levels=True, reps=500)
    gap = bootstrap.interval(_rng(), _difference, _attempts(x + 0.25), _attempts(x))
    np.testing.assert_allclose([gap.value, gap.low, gap.high], 0.25)
    assert gap.excludes_zero
    alone = bootstrap.interval(_rng(), mean, _attempts(x))
    assert alone.high - alone.low > 1


def test_fixed_levels_have_no_spread_of_their_own():
    x = np.broadcast_to(np.arange(8.0), (3, 8))
    one = Bootstrap(reps=200).interval(_rng(), mean, _attempts(x))
    assert one.low == one.high == 3.5


def test_every_draw_comes_from_the_callers_generator():
    x = _rng().random((3, 4, 5))
    before = repr(np.random.get_state())
    a, b, c = (Bootstrap().interval(_rng(seed), iqm, x) for seed in (1, 1, 2))
    assert (a.low, a.high) == (b.low, b.high)
    assert (a.low, a.high) != (c.low, c.high)
    assert repr(np.random.get_state()) == before


def test_chunks_make_up_exactly_the_resamples_asked_for(monkeypatch):
    monkeypatch.setattr(bootstrap, "_CHUNK", 100)
    drawn = []

    def watched(x):
        drawn.append(x.shape[0] if x.ndim == 3 else 0)
        return mean(x)

    Bootstrap(reps=37).interval(_rng(), watched, _rng().random((3, 4, 5)))
    assert sum(drawn) == 37
    assert max(drawn) == 100 // 12


def test_statistics_with_an_axis_of_their_own_keep_it():
    x = _rng().random((3, 4, 5))
    one = Bootstrap(reps=300).interval(_rng(), aggregates.level_means, x)
    assert one.low.shape == (4,)
    assert (one.low <= one.value).all()
    assert one.at(2).value == pytest.approx(x[:, 2].mean())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Bootstrap("seed"), "choose one of seeds, whole-seeds, attempts"),
        (lambda: Bootstrap(reps=0), "at least 1"),
        (lambda: Bootstrap(confidence=95.0), "between 0 and 1"),
        (lambda: Bootstrap("seeds").interval(_rng(), mean, np.zeros((1, 2, 3))), "more seeds"),
        (lambda: Bootstrap("whole-seeds").interval(_rng(), mean, np.zeros((1, 2, 3))), "attempts'"),
        (lambda: Bootstrap("attempts").interval(_rng(), mean, np.zeros((3, 2, 1))), "--attempts"),
    ],
)
def test_impossible_settings_are_refused_with_what_to_take_instead(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_an_interval_holds_its_estimate_where_the_bootstrap_of_a_median_misses_it():
    """One seed is below 1 on 104 of 200 levels; most resamples have a median of 1."""
    scores = np.ones((4, 200))
    scores[0, :104] = 0.9
    found = Bootstrap().interval(_rng(), aggregates.median, _attempts(scores))
    assert found.value == pytest.approx(0.975)
    assert found.low <= found.value <= found.high


@pytest.mark.parametrize("statistic", ["iqm", "performance_profile", "probability_of_improvement"])
def test_what_would_sort_or_count_a_missing_score_away_refuses_it(statistic):
    x = np.ones((3, 8))
    x[2, 5] = np.nan
    rest = {"performance_profile": [np.array([0.5])], "probability_of_improvement": [x]}
    with pytest.raises(ValueError, match=r"run 0 at \[2, 5\] is not a number"):
        getattr(aggregates, statistic)(x, *rest.get(statistic, []))


@pytest.mark.parametrize("over", ["seeds", "whole-seeds", "attempts"])
def test_an_interval_of_scores_with_a_missing_attempt_is_refused_with_its_place(over):
    x, y = np.ones((2, 3, 4)), np.ones((2, 3, 4))
    y[1, 0, 3] = np.nan
    with pytest.raises(ValueError, match=r"run 1 at \[1, 0, 3\] .*; 1 of the run's 24"):
        Bootstrap(over, reps=10).interval(_rng(), _difference, x, y)


def test_the_profile_is_that_of_a_loop_for_thresholds_in_any_order():
    x, tau = _rng().integers(0, 5, (2, 3, 7)) / 4, np.array([1.0, 0.0, 0.25, -1.0, 0.6])
    slow = [[(one > t).mean() for t in tau] for one in x.reshape(2, -1)]
    np.testing.assert_array_equal(aggregates.performance_profile(x, tau), slow)
