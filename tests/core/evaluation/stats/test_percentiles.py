"""Percentile curves, participation and dominance, against published vectors and slow loops."""

import numpy as np
import pytest

from rlgen.evaluation.stats.percentiles import Q, dominance, dominates, participation, percentiles

A = np.array([0, 0, 0.2, 0.5, 1, 1, 1, 1, 1, 0.9])
B = np.array([0.1, 0.1, 0.2, 0.6, 1, 1, 1, 1, 1, 0.9])
C = np.array([0, 0.3, 0.3, 0.3, 1, 1, 1, 1, 1, 1])
CURVES = {
    "A": [0, 0, 0.16, 0.41, 0.74, 0.95, 1, 1, 1, 1, 1],
    "B": [0.1, 0.1, 0.18, 0.48, 0.78, 0.95, 1, 1, 1, 1, 1],
    "C": [0, 0.27, 0.3, 0.3, 0.72, 1, 1, 1, 1, 1, 1],
}


def _slow_percentile(x, q):
    """Interpolate linearly between the two order statistics around q."""
    x = sorted(x)
    place = q / 100 * (len(x) - 1)
    below = int(place)
    above = min(below + 1, len(x) - 1)
    return x[below] + (place - below) * (x[above] - x[below])


@pytest.mark.parametrize(("x", "name", "share"), [(A, "A", 0.8), (B, "B", 1.0), (C, "C", 0.9)])
def test_curves_and_participation_are_those_of_the_specification(x, name, share):
    np.testing.assert_allclose(percentiles(x), CURVES[name], atol=1e-12)
    assert participation(x) == share


def test_b_dominates_a_and_the_others_are_not_comparable():
    curve = {name: percentiles(x) for name, x in (("A", A), ("B", B), ("C", C))}
    found = {(i, j) for i in curve for j in curve if dominates(curve[i], curve[j])}
    assert found == {("B", "A")}


@pytest.mark.parametrize("num_levels", [1, 2, 7, 40])
def test_percentiles_are_those_of_a_loop_whatever_the_leading_axes(num_levels):
    x = np.random.default_rng(num_levels).normal(size=(2, 3, num_levels))
    slow = [[[_slow_percentile(one, q) for q in Q] for one in row] for row in x]
    np.testing.assert_allclose(percentiles(x), slow, atol=1e-12)


def test_a_curve_does_not_dominate_itself_nor_by_rounding():
    assert not dominates(A, A)
    assert not dominates(A + 1e-14, A)
    assert dominates(A + 1e-6, A)


def _slow_shares(rng, x, y, reps):
    """Compute both dominance shares by resampling levels one at a time."""
    won = np.zeros(2)
    for _ in range(reps):
        level = [int(rng.integers(x.shape[1])) for _ in range(x.shape[1])]
        p, q = (
            np.mean([[_slow_percentile(seed[level], c) for c in Q] for seed in one], axis=0)
            for one in (x, y)
        )
        won += [
            (p >= q - 1e-9).all() and (p > q + 1e-9).any(),
            (q >= p - 1e-9).all() and (q > p + 1e-9).any(),
        ]
    return won / reps


def test_the_share_of_resamples_is_that_of_a_slow_loop():
    rng = np.random.default_rng(0)
    x, y = rng.random((3, 6)) * 0.8 + 0.2, rng.random((2, 6)) * 0.8
    (found,) = dominance(np.random.default_rng(1), {"x": x, "y": y}, 4000)
    slow = _slow_shares(rng, x, y, 1500)
    assert 0.1 < slow[0] < 0.9  # neither never nor always
    np.testing.assert_allclose([found.better_share, found.worse_share], slow, atol=0.05)


def _pairs(seed=0, reps=300, **runs):
    scores = {name: x[None] for name, x in runs.items()}
    return {
        (one.run, one.other): one for one in dominance(np.random.default_rng(seed), scores, reps)
    }


def test_dominance_turns_around_and_is_certain_where_every_level_is_better():
    forth, back = _pairs(b=B, a=A)["b", "a"], _pairs(a=A, b=B)["a", "b"]
    assert (forth.is_better, forth.is_worse) == (back.is_worse, back.is_better) == (True, False)
    assert forth.better_share == back.worse_share > 0.5
    sure = _pairs(x=A + 0.1, a=A)["x", "a"]
    assert (sure.better_share, sure.worse_share) == (1, 0)


def test_every_two_runs_are_compared_as_they_would_be_alone():
    every = _pairs(a=A, b=B, c=C)
    assert list(every) == [("a", "b"), ("a", "c"), ("b", "c")]
    assert every["b", "c"] == _pairs(b=B, c=C)["b", "c"]


def test_levels_are_drawn_in_chunks_that_change_nothing(monkeypatch):
    whole = _pairs(3, b=B, c=C)
    monkeypatch.setattr("rlgen.evaluation.stats.percentiles._CHUNK", 200)
    assert _pairs(3, b=B, c=C) == whole


@pytest.mark.parametrize("statistic", [percentiles, participation])
def test_a_missing_score_is_refused_with_its_place(statistic):
    x = np.stack([A, B])
    x[1, 4] = np.nan
    with pytest.raises(ValueError, match=r"score at \[1, 4\] is not a number"):
        statistic(x)
