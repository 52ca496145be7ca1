"""Ratios to a baseline against loops, and their intervals against formulas by hand."""

from dataclasses import replace

import numpy as np
import pytest
import scipy.stats

from rlgen.evaluation.episodes import Evaluation
from rlgen.evaluation.stats import relative

M = 7


def evaluation(run, shape, seed, **changes):
    """Return a synthetic evaluation on seven levels; returns on the last one are negative."""
    rng = np.random.default_rng(seed)
    returns = rng.uniform(0.2, 1.4, (*shape[:1], M, *shape[1:]))
    returns[:, -1] *= -1
    made = Evaluation(
        run=run,
        suite="s",
        suite_version="1",
        level_names=tuple("abcdefg"),
        level_hashes=np.zeros((M, 2)),
        optimal_steps=np.full(M, -1),
        optimal_return=np.array([2.0, 2.0, 2.0, 0.0, 2.0, np.nan, 2.0]),
        episode_return=returns,
        length=np.ones_like(returns),
        meta={"baseline": run == "base"},
    )
    return replace(made, **changes)


BASE = evaluation("base", (3, 4), 0)
RULE = evaluation("rule", (2, 5), 1)


def slowly(x, base):
    """Return mean, IQM and share below 0.75 of ratios of [S, M] to [S2, M], by loops."""
    ratios = []
    for level in range(x.shape[1]):
        divisor = sum(base[:, level]) / len(base)
        if divisor > 0:
            ratios += [value / divisor for value in x[:, level]]
    ratios.sort()
    cut = len(ratios) // 4
    inner = ratios[cut : len(ratios) - cut]
    below = sum(ratio < 0.75 for ratio in ratios)
    return sum(ratios) / len(ratios), sum(inner) / len(inner), below / len(ratios)


def of_rules(e, base):
    """Return the numbers of each rule, [S, 3], by loops."""
    x = e.episode_return.mean(2)
    return np.array([slowly(x[s : s + 1], base) for s in range(len(x))])


def test_numbers_are_means_of_those_of_each_rule_by_loops():
    found = relative.relative_to(RULE, BASE)
    expected = of_rules(RULE, BASE.episode_return.mean(2))
    np.testing.assert_allclose(found.per_seed, expected)
    values = [getattr(found, name).value for name in relative.NAMES]
    np.testing.assert_allclose(values, expected.mean(axis=0))
    assert 0 < values[2] < 1


def test_the_interval_adds_the_variance_of_the_baseline():
    """The jackknife of the baseline by loops, and Satterthwaite's degrees of freedom."""
    base = BASE.episode_return.mean(2)
    own = of_rules(RULE, base)
    without = [of_rules(RULE, np.delete(base, r, axis=0)).mean(axis=0) for r in range(3)]
    of_rule = own.var(axis=0, ddof=1) / 2
    of_base = 2 / 3 * ((without - np.mean(without, axis=0)) ** 2).sum(axis=0)
    freedom = (of_rule + of_base) ** 2 / (of_rule**2 / 1 + of_base**2 / 2)
    half = scipy.stats.t.ppf(0.975, freedom) * np.sqrt(of_rule + of_base)
    one = relative.relative_to(RULE, BASE).mean
    np.testing.assert_allclose([one.low, one.high], one.value + half[0] * np.array([-1, 1]))
    alone = relative.relative_to_optimum(RULE).mean
    assert alone.kind == "student"


def test_levels_where_the_baseline_earns_nothing_are_counted_and_left_out():
    found = relative.relative_to(RULE, BASE)
    assert (found.num_levels, found.num_excluded) == (6, 1)
    assert np.isnan(found.levels[-1])
    none = replace(BASE, episode_return=-np.abs(BASE.episode_return))
    nothing = relative.relative_to(RULE, none)
    assert (nothing.num_levels, nothing.num_excluded) == (0, M)
    assert np.isnan(nothing.mean.value)


def test_many_resamples_at_once_are_each_as_loops_have_it():
    """In some resamples the baseline's mean is not positive on some levels."""
    rng = np.random.default_rng(2)
    x, base = rng.normal(0.6, 0.5, (50, 2, M)), rng.normal(0.3, 0.4, (50, 3, M))
    assert (base.mean(1) <= 0).any(1).sum() > 10
    expected = [slowly(*pair) for pair in zip(x, base, strict=True)]
    np.testing.assert_allclose(relative.aggregates(x, base), expected, rtol=1e-9)


def test_a_run_has_its_own_baseline_and_the_optimum():
    found = relative.compare_all([RULE, BASE])
    assert [(one.run, one.to) for one in found] == [
        ("rule", "base"),
        ("rule", "optimum"),
        ("base", "optimum"),
    ]
    optimum = found[1]
    assert (optimum.num_levels, optimum.num_excluded) == (5, 2)  # one unknown, one not positive
    known = [0, 1, 2, 4, 6]
    expected = RULE.episode_return[:, known].mean() / 2
    assert optimum.mean.value == pytest.approx(expected)
    assert relative.compare_all([RULE]) == ()


def test_one_seed_draws_agents_and_says_so():
    one = evaluation("rule", (1, 5), 1)
    found = relative.compare_all([one, BASE])[0]
    assert found.mean.kind == "attempts"
    assert found.mean.is_known


def test_other_levels_are_refused():
    other = replace(RULE, level_hashes=np.ones((M, 2)))
    with pytest.raises(ValueError, match="different levels"):
        relative.relative_to(other, BASE)
