"""Intervals, tests and Holm's correction against scipy, loops and enumeration."""

from itertools import chain, combinations
from typing import Any

import numpy as np
import pytest
import scipy.stats

from rlgen.evaluation.generalisation.gap import _gap_in_solve_rate
from rlgen.evaluation.stats.aggregates import iqm, level_means, mean
from rlgen.evaluation.stats.intervals import (
    binomial,
    family,
    family_aggregate,
    family_gap,
    family_gap_p,
    holm,
    improvement,
    jackknife_t,
    no_interval,
    student,
    welch,
    welch_p,
    with_binomial,
)
from rlgen.evaluation.stats.settings import Intervals

SIZES = [(2, 2), (3, 3), (2, 7), (6, 3), (10, 10)]


def _rng(seed=0):
    return np.random.default_rng(seed)


def _bounds(one):
    return [float(one.low), float(one.high)]


def _numbers(one):
    return [float(one.value), *_bounds(one)]


@pytest.mark.parametrize("num", [2, 3, 10])
@pytest.mark.parametrize("confidence", [0.8, 0.95])
def test_interval_of_one_run_is_scipys_t(num, confidence):
    x = _rng(num).normal(3, 2, num)
    expected = scipy.stats.ttest_1samp(x, 0).confidence_interval(confidence)
    found = student(x, confidence)
    np.testing.assert_allclose(_numbers(found), [x.mean(), *expected])


@pytest.mark.parametrize(("num", "other"), SIZES)
@pytest.mark.parametrize("confidence", [0.8, 0.95])
def test_difference_is_the_wider_of_scipys_two_t_tests(num, other, confidence):
    for seed in range(8):
        x, y = _rng(seed).normal(0, 1 + seed, num), _rng(seed + 50).normal(1, 2, other)
        both: list[Any] = [scipy.stats.ttest_ind(x, y, equal_var=e) for e in (False, True)]
        ends = [one.confidence_interval(confidence) for one in both]
        wide = max(ends, key=lambda end: end.high - end.low)
        found = welch(x, y, confidence)
        np.testing.assert_allclose(_numbers(found), [x.mean() - y.mean(), *wide])
        assert welch_p(x, y) == pytest.approx(max(one.pvalue for one in both))
        if num == other:  # Welch's is always the wider one
            np.testing.assert_allclose(_bounds(found), ends[0])


def test_difference_excludes_zero_exactly_where_its_p_value_is_small():
    some = 0
    for seed in range(300):
        x, y = _rng(seed).normal(0.9, 1, 3 + seed % 4), _rng(seed + 999).normal(0, 2, 5)
        assert welch(x, y, 0.9).excludes_zero == (welch_p(x, y) < 0.1)
        some += welch_p(x, y) < 0.1
    assert 20 < some < 280


def test_arrays_of_numbers_are_each_treated_alone():
    x, y = _rng().random((4, 5)), _rng(1).random((3, 5))
    x[:, 2] = y[:, 2] = 0.5
    for k in range(5):
        for many, one in (
            (student(x), student(x[:, k])),
            (welch(x, y), welch(x[:, k], y[:, k])),
        ):
            np.testing.assert_allclose(_bounds(many.at(k)), _bounds(one))
    assert not welch(x, y).at(2).is_known
    assert welch(x, y).at(1).is_known


@pytest.mark.parametrize("trials", [1, 7, 240])
@pytest.mark.parametrize("confidence", [0.9, 0.95])
def test_binomial_is_scipys_exact_interval(trials, confidence):
    won = np.unique([0, 1, trials // 3, trials - 1, trials])
    low, high = binomial(won, trials, confidence)
    for i, k in enumerate(won):
        expected = scipy.stats.binomtest(int(k), trials).proportion_ci(confidence, "exact")
        np.testing.assert_allclose([low[i], high[i]], expected, atol=1e-12)


def test_binomial_covers_every_rate_by_enumeration():
    won = np.arange(13)
    low, high = binomial(won, 12)
    for rate in np.linspace(0.001, 0.999, 333):
        held = (low <= rate) & (rate <= high)
        assert scipy.stats.binom.pmf(won, 12, rate)[held].sum() >= 0.95


def test_binomial_replaces_only_intervals_that_are_missing():
    x = np.array([[1.0, 0.5, 0.0], [1.0, 0.7, 0.0], [1.0, 0.6, 0.0]])
    won = (x.sum(axis=0) * 10).round().astype(int)
    found = with_binomial(student(x), won, 30)
    np.testing.assert_allclose(_bounds(found.at(1)), _bounds(student(x[:, 1])))
    for k in (0, 2):
        expected = scipy.stats.binomtest(int(won[k]), 30).proportion_ci(method="exact")
        np.testing.assert_allclose(_bounds(found.at(k)), expected)
    assert found.kind == "student"
    assert with_binomial(student(x[:, 0]), won[0], 30).kind == "binomial"


def _closed(p, alpha):
    """Reject a hypothesis if Bonferroni's test rejects every intersection that contains it."""
    every = range(len(p))
    sets = list(chain.from_iterable(combinations(every, r) for r in range(1, len(p) + 1)))
    rejected = [some for some in sets if min(p[i] for i in some) <= alpha / len(some)]
    return [all(some in rejected for some in sets if i in some) for i in every]


def _adjusted(p):
    """Adjusted p-values of the closed test: the largest over the intersections."""
    every = range(len(p))
    sets = list(chain.from_iterable(combinations(every, r) for r in range(1, len(p) + 1)))
    of = {some: min(1, len(some) * min(p[i] for i in some)) for some in sets}
    return [max(of[some] for some in sets if i in some) for i in every]


@pytest.mark.parametrize("num", [1, 2, 3, 6])
def test_holm_is_the_closed_test_with_bonferroni_and_levels_agree_with_it(num):
    verdicts = set()
    for seed in range(60):
        p = _rng(seed).beta(0.4, 4, num)
        p[-1] = p[0] if seed % 5 == 0 else p[-1]
        for alpha in (0.05, 0.2):
            found = holm(p.tolist(), 1 - alpha)
            np.testing.assert_allclose(found.p, _adjusted(p))
            settled = _closed(p, alpha)
            np.testing.assert_array_equal(found.p <= alpha, settled)
            # An interval excludes 0 if its p-value is below 1 minus its level.
            np.testing.assert_array_equal(p <= 1 - found.confidence + 1e-12, settled)
            assert (found.confidence >= 1 - alpha - 1e-12).all()
            verdicts |= set(settled)
    assert verdicts == {True, False}


def test_holm_leaves_out_tests_that_do_not_exist():
    found = holm([np.nan, 0.02, np.nan, 0.03])
    np.testing.assert_allclose(found.p, [np.nan, 0.04, np.nan, 0.04])
    np.testing.assert_allclose(found.confidence, [0.95, 0.975, 0.95, 0.95])
    assert holm([]).p.shape == (0,)


@pytest.mark.parametrize(("num", "other"), [(2, 2), (3, 3), (2, 5), (4, 3)])
def test_p_value_of_two_constant_runs_is_the_largest_probability_under_any_law(num, other):
    found = welch_p(np.full(num, 0.25), np.full(other, 0.75))
    if num == other:
        assert found == pytest.approx(2 * 4.0**-num)
    rng = _rng()
    largest = 0.0
    for _ in range(20_000):
        law = rng.dirichlet(np.full(rng.integers(2, 7), rng.choice([0.2, 1.0, 30.0])))
        both = np.outer(law**num, law**other)
        largest = max(largest, both.sum() - np.trace(both))
    assert 0.95 * found < largest <= found * (1 + 1e-6)


def test_constant_runs_that_agree_up_to_rounding_have_p_value_1():
    x = np.full(3, 0.1 + 0.2)
    assert welch_p(x, np.full(3, 0.3)) == 1
    assert welch_p(x * 1e9, np.full(3, 0.3) * 1e9) == 1
    assert not student(np.array([0.3, 0.1 + 0.2, 0.3])).is_known


def test_one_seed_has_a_value_but_no_interval_and_no_test():
    one, many = np.array([0.3]), np.array([0.1, 0.2, 0.4])
    for found, value in ((student(one), 0.3), (welch(one, many), 0.3 - many.mean())):
        assert found.kind == "none"
        assert found.value == pytest.approx(value)
        assert not found.is_known
        assert not found.excludes_zero
    assert np.isnan(welch_p(one, many))
    assert np.isnan(welch_p(many, one))


@pytest.mark.parametrize("score", [0.0, 1.0])
def test_runs_that_always_or_never_succeed(score):
    x = np.full((3, 4), score)
    for found in (student(x[:, 0]), welch(x[:, 0], x[:2, 0]), family(x), family_gap(x, x)):
        assert not found.is_known
    assert welch_p(x[:, 0], x[:, 0]) == family_gap_p(x, x[:, :3]) == 1
    assert family(x).value == score
    flags = np.full((3, 4, 5), score)
    sides = _gap_in_solve_rate(flags, flags, 0.95)
    expected = scipy.stats.binomtest(int(60 * score), 60).proportion_ci(method="exact")
    np.testing.assert_allclose(_bounds(sides.train), expected)
    assert not sides.gap.is_known


def _delong(x, y):
    """Value and variance of the probability of improvement on one level, by naive loops."""
    wins = [[1.0 if a > b else 0.5 if a == b else 0.0 for b in y] for a in x]
    value = sum(sum(row) for row in wins) / (len(x) * len(y))
    of_x = [sum(row) / len(y) for row in wins]
    of_y = [sum(row[j] for row in wins) / len(x) for j in range(len(y))]
    parts = [
        sum((v - value) ** 2 for v in some) / (len(some) - 1) / len(some) for some in (of_x, of_y)
    ]
    return value, parts


@pytest.mark.parametrize(("num", "other"), [(5, 5), (4, 7)])
def test_probability_of_improvement_has_delongs_variance(num, other):
    x, y = _rng(1).integers(2, 9, (num, 1)), _rng(2).integers(0, 7, (other, 1))
    value, parts = _delong(x[:, 0], y[:, 0])
    freedom = sum(parts) ** 2 / (parts[0] ** 2 / (num - 1) + parts[1] ** 2 / (other - 1))
    half = scipy.stats.t.ppf(0.95, freedom) * np.sqrt(sum(parts))
    found = improvement(x.astype(float), y.astype(float), 0.9)
    assert found.value == pytest.approx(value)
    np.testing.assert_allclose(_bounds(found), [max(0, value - half), min(1, value + half)])
    assert found.low > 0


def test_probability_of_improvement_on_several_levels_averages_each_seeds_wins():
    """Two levels with the same scores are one level; opposite levels cancel in every seed."""
    x, y = _rng(1).random((5, 1)), _rng(2).random((4, 1))
    twice = improvement(np.hstack([x, x]), np.hstack([y, y]))
    np.testing.assert_allclose(_bounds(twice), _bounds(improvement(x, y)))
    opposite = improvement(np.hstack([x, -x]), np.hstack([y, -y]))
    assert opposite.value == pytest.approx(0.5)
    assert not opposite.is_known
    assert not improvement(x[:1], y).is_known


def _anova(x):
    """Mean squares of seeds, levels and the rest, with degrees of freedom, by explicit loops."""
    seeds, levels = x.shape
    total = sum(x[s, m] for s in range(seeds) for m in range(levels)) / x.size
    of_seed = [sum(x[s, m] for m in range(levels)) / levels for s in range(seeds)]
    of_level = [sum(x[s, m] for s in range(seeds)) / seeds for m in range(levels)]
    squares = [
        levels * sum((v - total) ** 2 for v in of_seed),
        seeds * sum((v - total) ** 2 for v in of_level),
        sum(
            (x[s, m] - of_seed[s] - of_level[m] + total) ** 2
            for s in range(seeds)
            for m in range(levels)
        ),
    ]
    freedom = [seeds - 1, levels - 1, (seeds - 1) * (levels - 1)]
    return [(square / f, f) for square, f in zip(squares, freedom, strict=True)]


def _half(parts, confidence=0.95):
    """Half-width of t for a sum of (variance, freedom) with signs, by Satterthwaite's formula."""
    total = sum(v for v, _ in parts)
    freedom = total**2 / sum(v**2 / f for v, f in parts)
    return scipy.stats.t.ppf((1 + confidence) / 2, freedom) * np.sqrt(total)


def _scores(seed, shape, seed_sd=1.0, level_sd=1.0):
    rng = _rng(seed)
    effects = seed_sd * rng.normal(size=(shape[0], 1)) + level_sd * rng.normal(size=(1, shape[1]))
    return effects + 0.3 * rng.normal(size=shape)


@pytest.mark.parametrize("shape", [(3, 6), (5, 20), (10, 4)])
def test_family_adds_variance_components_of_an_anova(shape):
    x = _scores(1, shape)
    (seed, f), (level, g), (rest, h) = _anova(x)
    half = _half([(seed / x.size, f), (level / x.size, g), (-rest / x.size, h)])
    found = family(x)
    assert found.kind == "family"
    np.testing.assert_allclose(_bounds(found), [x.mean() - half, x.mean() + half])


def test_family_is_never_narrower_than_its_larger_part():
    """Without an effect of the level, the estimated part of the levels can be negative."""
    floored = 0
    for seed in range(40):
        x = _scores(seed, (4, 6), level_sd=0.0)
        wide, own = family(x), student(x.mean(axis=1))
        (_, _), (level, _), (rest, _) = _anova(x)
        if level < rest:
            np.testing.assert_allclose(_bounds(wide), _bounds(own))
            floored += 1
    assert floored > 5


def test_family_of_one_seed_or_one_level_is_students_t():
    x = _scores(1, (4, 7))
    one_seed, one_level = family(x[:1]), family(x[:, :1])
    assert (one_seed.kind, one_level.kind) == ("levels", "student")
    np.testing.assert_allclose(_bounds(one_seed), _bounds(student(x[0])))
    np.testing.assert_allclose(_bounds(one_level), _bounds(student(x[:, 0])))
    assert family(x[:1, :1]).kind == "none"


@pytest.mark.parametrize(("levels", "others"), [(8, 8), (6, 30), (30, 6)])
def test_gap_adds_variance_components_of_both_sides(levels, others):
    shared = 2 * _rng(9).normal(size=(5, 1))
    x, y = shared + _scores(1, (5, levels), 0.5), shared + _scores(2, (5, others), 0.5, 0.5)
    differences = x.mean(axis=1) - y.mean(axis=1)
    own = (differences.var(ddof=1) / 5, 4)
    tables = [(_anova(one), one.shape[1]) for one in (x, y)]
    parts, squares = [own], []
    for row, sign in ((1, 1), (2, -1)):
        parts += [(sign * table[row][0] / (5 * num), table[row][1]) for table, num in tables]
        freedom = sum(table[row][1] for table, _ in tables)
        pooled = sum(table[row][0] * table[row][1] for table, _ in tables) / freedom
        squares.append((sign * pooled / 5 * (1 / levels + 1 / others), freedom))
    half = max(_half(parts), _half([own, *squares]))
    found = family_gap(x, y)
    centre = differences.mean()
    np.testing.assert_allclose(_bounds(found), [centre - half, centre + half])
    assert half == _half(parts) or levels != others


def test_gap_of_one_seed_is_the_difference_of_two_samples_of_levels():
    x, y = _rng(1).random((1, 8)), _rng(2).random((1, 20))
    np.testing.assert_allclose(_bounds(family_gap(x, y)), _bounds(welch(x[0], y[0])))
    assert family_gap_p(x, y) == pytest.approx(welch_p(x[0], y[0]))
    assert family_gap(x, y).kind == "levels"


def test_gap_excludes_zero_exactly_where_its_p_value_is_small():
    some = 0
    for seed in range(200):
        x, y = _scores(seed, (3, 6)) + 0.8, _scores(seed + 999, (3, 9))
        assert family_gap(x, y, 0.9).excludes_zero == (family_gap_p(x, y) < 0.1)
        some += family_gap_p(x, y) < 0.1
    assert 5 < some < 195


def test_gap_of_levels_that_are_all_alike():
    """Two constant sets of levels differ with probability 2 · 4^-M or less under equal laws."""
    x, y = np.ones((3, 6)), np.zeros((3, 6))
    assert family_gap_p(x, y) == pytest.approx(2 * 4.0**-6)
    assert family_gap_p(1e6 * x, 1e6 * x * (1 + 1e-14)) == 1
    assert np.isnan(family_gap_p(x[:, :1], y))
    assert not family_gap(x, y).is_known


def test_gap_needs_the_same_seeds_on_both_sides():
    with pytest.raises(ValueError, match="same seeds on both sides, got 3 and 2"):
        family_gap(np.ones((3, 4)), np.ones((2, 4)))
    with pytest.raises(ValueError, match="same seeds on both sides, got 3 and 2"):
        family_gap_p(np.ones((3, 4)), np.ones((2, 4)))


def test_effects_of_the_seed_on_both_sides_cancel_in_the_gap():
    x, y = _scores(1, (5, 9)), _scores(2, (5, 7))
    shift = 100 * _rng(3).normal(size=(5, 1))
    moved = family_gap(x + shift, y + shift)
    np.testing.assert_allclose(_bounds(moved), _bounds(family_gap(x, y)), rtol=1e-9)


@pytest.mark.parametrize("shape", [(4, 9), (1, 9), (4, 2)])
def test_family_aggregate_is_a_jackknife_over_levels(shape):
    x = _scores(1, shape)
    of_seed = [iqm(row[None]) for row in x]
    parts = [(np.var(of_seed, ddof=1) / len(x), len(x) - 1)] if len(x) > 1 else []
    num = x.shape[1]
    if num > 2:
        without = [
            np.mean([iqm(np.array([[row[k] for k in range(num) if k != m]])) for row in x])
            for m in range(num)
        ]
        centre = sum(without) / num
        parts.append(((num - 1) / num * sum((v - centre) ** 2 for v in without), num - 1))
    found, half = family_aggregate(iqm, x), _half(parts)
    np.testing.assert_allclose(_numbers(found), np.mean(of_seed) + np.array([0, -half, half]))
    assert found.kind == {(4, 9): "family", (1, 9): "levels", (4, 2): "student"}[shape]


def test_equal_scores_with_rounding_have_no_interval_of_width_zero():
    """The IQM of 0.1 over 9 levels and over 8 levels differs in the last digit."""
    assert not family_aggregate(iqm, np.full((2, 9), 0.1)).is_known
    assert not family(np.full((3, 7), 0.1)).is_known


def test_jackknife_t_is_that_of_loops():
    x, base = _rng(1).uniform(0.5, 1.5, (4, 6)), _rng(2).uniform(0.5, 1.5, (3, 6))

    def statistic(reference):
        return (x / reference.mean(axis=0)).mean(axis=(0, 1))[None]

    of_seed = (x / base.mean(axis=0)).mean(axis=1)
    without = []
    for r in range(3):
        rest = [base[k] for k in range(3) if k != r]
        without.append(np.mean([x[s] / ((rest[0] + rest[1]) / 2) for s in range(4)]))
    centre = sum(without) / 3
    reference = 2 / 3 * sum((v - centre) ** 2 for v in without)
    half = _half([(of_seed.var(ddof=1) / 4, 3), (reference, 2)])
    found = jackknife_t(of_seed[:, None], statistic, base)
    np.testing.assert_allclose(
        [found.value[0], found.low[0], found.high[0]],
        of_seed.mean() + np.array([0, -half, half]),
    )
    alone = jackknife_t(of_seed[:, None], statistic, base[:1])
    np.testing.assert_allclose(_bounds(alone.at(0)), _bounds(student(of_seed)))


def test_jackknife_of_a_mean_gives_the_variance_of_a_difference():
    """The part of the reference is then the usual variance of its mean."""
    x, base = _rng(1).random(5), _rng(2).random(5)
    of_seed = (x - base.mean())[:, None]
    found = jackknife_t(of_seed, lambda some: np.array([x.mean() - some.mean()]), base[:, None]).at(
        0
    )
    np.testing.assert_allclose(_bounds(found), _bounds(welch(x, base)))


def test_a_gain_that_is_the_same_for_every_agent_and_level_has_no_width():
    before = _scores(1, (4, 8))
    for gain in (family(before + 0.1 - before), student((before + 0.1 - before).mean(axis=1))):
        assert gain.value == pytest.approx(0.1)
        assert not gain.is_known


def test_a_gain_between_two_bounds_has_an_interval_between_them():
    """Agents differ far more than their gains do; only the gains count."""
    before = 100 * _scores(1, (6, 30), level_sd=3.0)
    after = before + _rng(2).uniform(0.09, 0.11, before.shape)
    for gain in (family(after - before), family_gap(after, before[:, :]), student(after[:, 0])):
        assert gain.is_known
    gain = family(after - before)
    assert 0.09 < gain.low < gain.value < gain.high < 0.11
    # Without the pairs, differences between agents would hide the gain.
    assert not welch(after.mean(axis=1), before.mean(axis=1)).excludes_zero


def test_clipping_keeps_the_estimate_and_unknown_bounds():
    one = student(np.array([0.9, 1.0, 1.0])).clipped(0.0, 1.0)
    assert one.low < one.value < one.high == 1
    beyond = student(np.array([1.4, 1.6])).clipped(0.0, 1.0)
    assert beyond.high == beyond.value == 1.5
    assert not no_interval(0.5).clipped(0.0, 1.0).is_known


@pytest.mark.parametrize(
    ("call", "place"),
    [
        (lambda x: student(x), r"run 0 at \[2, 1\]"),
        (lambda x: welch(np.ones((2, 3)), x), r"run 1 at \[2, 1\]"),
        (lambda x: welch_p(np.ones(2), x[:, 1]), r"run 1 at \[2\]"),
        (lambda x: improvement(np.ones((2, 3)), x), r"run 1 at \[2, 1\]"),
        (lambda x: family(x), r"run 0 at \[2, 1\]"),
        (lambda x: family_gap(np.ones((3, 3)), x), r"run 1 at \[2, 1\]"),
        (lambda x: family_gap_p(x, np.ones((3, 3))), r"run 0 at \[2, 1\]"),
        (lambda x: family_aggregate(iqm, x), r"run 0 at \[2, 1\]"),
        (lambda x: Intervals().of(_rng(), mean, x[..., None]), r"run 0 at \[2, 1\]"),
        (lambda x: Intervals().difference(_rng(), level_means, *2 * (x[..., None],)), r"\[2, 1\]"),
    ],
)
def test_a_missing_score_is_an_error_that_names_its_place(call, place):
    x = np.ones((3, 3))
    x[2, 1] = np.nan
    with pytest.raises(ValueError, match=f"{place} is not a number|{place}"):
        call(x)


@pytest.mark.parametrize(
    ("kind", "shapes", "expected"),
    [
        ("student", [(2, 3, 1)], "student"),
        ("student", [(1, 3, 4)], "attempts"),
        ("student", [(5, 3, 4), (1, 3, 4)], "attempts"),
        ("stratified", [(5, 3, 4), (2, 3, 4)], "stratified"),
        ("whole-seeds", [(1, 3, 1)], "none"),
        ("attempts", [(5, 3, 4)], "attempts"),
    ],
)
def test_intervals_over_seeds_need_several_in_every_run(kind, shapes, expected):
    assert Intervals(kind).resolve(*(np.zeros(shape) for shape in shapes)) == expected


def test_settings_of_intervals_are_those_of_student_welch_and_improvement():
    x, y = _rng(1).random((4, 5, 6)), _rng(2).random((3, 5, 2))
    some = Intervals(confidence=0.9)
    of_x, of_y = (np.array([iqm(row[None]) for row in one.mean(axis=-1)]) for one in (x, y))
    found = some.of(_rng(), iqm, x), some.difference(_rng(), iqm, x, y)
    np.testing.assert_allclose(_bounds(found[0]), _bounds(student(of_x, 0.9)))
    np.testing.assert_allclose(_bounds(found[1]), _bounds(welch(of_x, of_y, 0.9)))
    expected = improvement(x.mean(axis=-1), y.mean(axis=-1), 0.9)
    np.testing.assert_allclose(_bounds(some.improvement(_rng(), x, y)), _bounds(expected))
    assert not some.difference(_rng(), iqm, x, y[:1]).is_known
    assert not some.improvement(_rng(), x, y[:1]).is_known


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Intervals("seeds"), "choose one of student, stratified"),
        (lambda: Intervals(reps=0), "at least 1"),
        (lambda: Intervals(confidence=95.0), "between 0 and 1"),
        (lambda: Intervals("attempts").resolve(np.zeros((3, 2, 1))), "increase --attempts"),
    ],
)
def test_impossible_settings_are_rejected_with_what_to_use_instead(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_intervals_are_described_by_their_kind():
    words = Intervals().explain("student", 5, 10, True)
    assert words.startswith("95 % by Student's t over the 5 seeds' own scores")
    assert "exact binomial interval" in words
    assert (
        Intervals().explain("attempts", 1, 20, False).startswith("1 seed: no interval over seeds")
    )
    assert "no interval" in Intervals().explain("none", 1, 1, False)
