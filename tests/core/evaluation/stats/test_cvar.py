"""CVaR: ties against all their orders, unbiasedness, intervals, and rejected input."""

import itertools
from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from rlgen.envs import maze
from rlgen.envs.grid.bitboard import FORWARD
from rlgen.evaluation.episodes import Evaluation
from rlgen.evaluation.report.cvar_figure import cvar_figure
from rlgen.evaluation.report.figures import png_bytes
from rlgen.evaluation.stats.cvar import ALPHAS, bias_notes, cvar, worst_levels, worst_means
from rlgen.evaluation.zero_shot import Policies, evaluate
from rlgen.levels import Suite, make_level_set
from tests.standins.stubs import Untaught


def evaluation(success, seed=0, run="plr", suite="maze/cvar-60"):
    success = np.asarray(success, bool)
    num_levels = success.shape[1]
    return Evaluation(
        run=run,
        suite=suite,
        suite_version="1",
        level_names=tuple(f"level-{i}" for i in range(num_levels)),
        level_hashes=np.arange(2 * num_levels).reshape(num_levels, 2),
        optimal_steps=np.full(num_levels, 3),
        optimal_return=np.ones(num_levels),
        episode_return=success.astype(float),
        length=np.full(success.shape, 5),
        success=success,
        meta={"evaluation_seed": seed, "update": 7},
    )


def rolls(rng, rate, attempts=10):
    """Draw two independent evaluations of policies with solve rates `rate`, [S, M]."""
    shape = (*np.shape(rate), attempts)
    drawn = (rng.random(shape) < np.asarray(rate)[..., None] for _ in range(2))
    return tuple(evaluation(success, seed) for seed, success in enumerate(drawn))


def solve_rates(e):
    """Return the solve rates, [S, M]."""
    return np.asarray(e.success).mean(axis=-1)


def brute_force(ranking, measured, num_worst):
    """Compute the mean over every order of the levels that sorts the ranking."""
    orders = itertools.permutations(range(len(ranking)))
    rising = [list(o) for o in orders if (np.diff(np.asarray(ranking)[list(o)]) >= 0).all()]
    return np.mean([measured[order[:num_worst]].mean() for order in rising])


def test_ties_count_with_the_mean_over_all_their_orders():
    rng = np.random.default_rng(0)
    for num_values in (1, 2, 3, 6):
        ranking = rng.integers(0, num_values, (4, 6)) / 10
        measured = rng.random((4, 6))
        num_worst = np.arange(1, 7)
        found = worst_means(ranking, measured, num_worst)
        slow = [
            [brute_force(*pair, k) for k in num_worst]
            for pair in zip(ranking, measured, strict=True)
        ]
        np.testing.assert_allclose(found, slow, rtol=1e-12)


def test_numbers_worked_by_hand():
    first = evaluation([[[1, 1], [0, 0], [1, 1], [0, 1]], [[0, 0], [1, 1], [1, 1], [1, 1]]])
    second = evaluation([[[1, 1], [0, 1], [0, 1], [0, 0]], [[0, 1], [1, 1], [0, 0], [1, 1]]], 1)
    one = cvar(first, second, (0.25, 0.5, 0.75, 1.0))
    assert one.num_worst.tolist() == [1, 2, 3, 4]
    # Seed 0: levels 1, 3, then 0 and 2 in either order. Seed 1: level 0, then the mean of 1, 0, 1.
    expected = [
        [0.5, 0.25, (0.5 + 0.75) / 3, 0.5],
        [0.5, (0.5 + 2 / 3) / 2, (0.5 + 4 / 3) / 3, 2.5],
    ]
    expected[1][3] /= 4
    np.testing.assert_allclose(one.each_seed, expected)
    np.testing.assert_allclose(one.mean.value, np.mean(expected, axis=0))


def test_two_evaluations_are_unbiased_where_a_single_one_is_not():
    """Every level has a solve rate of 1/2, and therefore the worst ones have too."""
    rng, found = np.random.default_rng(1), {"alone": [], "both": []}
    for _ in range(200):
        first, second = (solve_rates(e) for e in rolls(rng, np.full((2, 100), 0.5)))
        found["alone"].append(worst_means(first, first, np.array([10])).mean())
        found["both"].append(worst_means(first, second, np.array([10])).mean())
    error = np.std(found["both"]) / np.sqrt(200)
    assert np.mean(found["alone"]) < 0.3
    assert abs(np.mean(found["both"]) - 0.5) < 4 * error < 0.03


def test_all_levels_are_the_mean_and_fewer_are_harder():
    rng = np.random.default_rng(2)
    first, second = rolls(rng, np.tile(np.linspace(0.05, 1, 200), (3, 1)))
    one = cvar(first, second)
    assert one.num_worst.tolist() == [1, 1, 2, 4, 10, 20, 40, 100, 200]
    assert one.mean.value[-1] == pytest.approx(solve_rates(second).mean())
    assert (np.diff(one.mean.value[4:]) > 0).all()


def test_the_share_is_rounded_down_but_not_by_a_rounding_error():
    rng = np.random.default_rng(3)
    first, second = rolls(rng, np.full((2, 100), 0.5), attempts=2)
    shares = (0.29, 0.57, 0.299, 0.001)  # 0.29 * 100 and 0.57 * 100 fall short of 29 and 57
    assert cvar(first, second, shares).num_worst.tolist() == [29, 57, 29, 1]


def test_the_order_of_the_suite_does_not_matter():
    rng = np.random.default_rng(4)
    first, second = (solve_rates(e) for e in rolls(rng, rng.random((3, 12)), attempts=3))
    order, num_worst = rng.permutation(12), np.arange(1, 13)
    before = worst_means(first, second, num_worst)
    after = worst_means(first[:, order], second[:, order], num_worst)
    np.testing.assert_allclose(before, after)


def test_the_interval_is_students_over_seeds():
    rng = np.random.default_rng(5)
    first, second = rolls(rng, np.repeat([[0.2], [0.5], [0.9], [0.95]], 20, axis=1))
    one = cvar(first, second, (0.1, 1.0))
    assert one.mean.kind == "student"
    error = scipy.stats.sem(one.each_seed)
    ends = scipy.stats.t.interval(0.95, 3, one.each_seed.mean(axis=0), error)
    np.testing.assert_allclose([one.mean.low, one.mean.high], np.clip(ends, 0, 1))


def test_a_single_seed_has_no_interval():
    first, second = rolls(np.random.default_rng(6), np.full((1, 9), 0.5))
    one = cvar(first, second)
    assert one.mean.kind == "none"
    assert np.isnan(one.mean.low).all()
    assert np.isfinite(one.mean.value).all()


A, B = rolls(np.random.default_rng(7), np.full((2, 6), 0.5), attempts=3)


@pytest.mark.parametrize(
    ("second", "alpha", "message"),
    [
        (replace(B, suite="maze/test-60"), ALPHAS, "same suite, got 'maze/cvar-60' and 'maze/test"),
        (replace(B, suite_version="2"), ALPHAS, "same suite version, got"),
        (replace(B, run="accel"), ALPHAS, "same run, got 'plr' and 'accel'"),
        (replace(B, meta={"update": 8}), ALPHAS, "same update, got 7 and 8"),
        (evaluation(np.asarray(B.success)[:, :5], 1), ALPHAS, "same number of levels, got 6 and 5"),
        (evaluation(np.asarray(B.success)[:1], 1), ALPHAS, "same number of seeds, got 2 and 1"),
        (replace(B, success=()), ALPHAS, "same score, got"),
        (replace(B, level_hashes=B.level_hashes + 1), ALPHAS, "same levels of maze/cvar-60"),
        (replace(B, meta=A.meta), ALPHAS, "different seeds, got 0 twice"),
        (A, ALPHAS, "different seeds, got 0 twice"),
        (B, (0.0,), "above 0 and at most 1"),
        (B, (5.0,), "above 0 and at most 1"),
        (B, (), "above 0 and at most 1"),
    ],
)
def test_anything_but_two_evaluations_of_one_run_is_refused(second, alpha, message):
    with pytest.raises(ValueError, match=message):
        cvar(A, second, alpha)


def test_one_attempt_cannot_rank_levels_and_is_refused():
    first, second = rolls(np.random.default_rng(9), np.full((2, 6), 0.5), attempts=1)
    with pytest.raises(ValueError, match=r"at least 2 attempts on each level .*, got 1; use 10"):
        cvar(first, second)


def test_scores_that_are_upper_bounds_are_said_to_be():
    rng = np.random.default_rng(10)
    rates = np.tile(rng.beta(2, 0.3, 2000), (3, 1))
    first, second = rolls(rng, rates, attempts=10)
    few = cvar(first, second, (0.01, 1.0))
    bias, needed = few.selection_bias.bias[0], few.selection_bias.needed[0]
    assert few.is_upper_bound.tolist() == [True, False]
    (note,) = bias_notes(few, (0, 1))
    assert note == (
        f"plr, 20 of 2,000 levels: an upper bound, about {100 * bias:.1f} points too high, because "
        f"10 attempts rank the levels with noise; about {needed} attempts are needed."
    )
    first, second = rolls(rng, rates, attempts=2 * needed)
    enough = cvar(first, second, (0.01, 1.0))
    assert not enough.is_upper_bound.any()
    assert bias_notes(enough, (0, 1)) == []
    assert bias_notes(few._replace(score="return"), (0,))[0].count(f"about {bias:.3g} too high")


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_figure_has_a_line_with_a_band_for_each_run(theme):
    rng = np.random.default_rng(8)
    first, second = rolls(rng, np.tile(np.linspace(0.1, 1, 500), (3, 1)))
    one = cvar(first, second)
    figure = cvar_figure([one, one._replace(run="accel $x")], theme)
    axes = figure.axes[0]
    assert axes.get_xscale() == "log"
    # Each run has a line, its filled points and its hollow points.
    assert (len(axes.lines), len(axes.collections)) == (6, 2)
    hollow = np.asarray(axes.lines[2].get_xdata())
    np.testing.assert_array_equal(hollow, np.unique(one.num_worst[one.is_upper_bound]) / 500)
    assert 0 < len(hollow) < len(ALPHAS)
    share, value = (np.asarray(x) for x in axes.lines[0].get_data())
    assert share[0] == 1 / 500 and share[-1] == 1  # both 0.01 % and 0.1 % mean the one worst level
    np.testing.assert_allclose(value, np.delete(one.mean.value, 1))
    assert [t.get_text() for t in figure.legends[0].get_texts()] == [" plr", r" accel \$x"]
    assert png_bytes(figure, dpi=40).startswith(b"\x89PNG")


def test_a_figure_of_several_suites_is_refused():
    one = cvar(A, B)
    with pytest.raises(ValueError, match="solve rate on maze/cvar-60, solve rate on maze/test-60"):
        cvar_figure([one, one._replace(suite="maze/test-60")])
    with pytest.raises(ValueError, match="got none"):
        cvar_figure([])


def test_a_missing_score_is_refused_it_would_rank_as_the_best():
    whole, lacking = np.ones((2, 4)), np.ones((2, 4))
    lacking[1, 2] = np.nan
    for pair, what in (((lacking, whole), "ranking"), ((whole, lacking), "measured")):
        with pytest.raises(ValueError, match=f"{what} score of seed 1 on level 2 is not a number"):
            worst_means(*pair, np.array([1]))


@dataclass(frozen=True)
class Wavering(Untaught):
    """Learner that walks straight on or turns at random."""

    bptt_steps: int = 5

    def act(self, key, state, carry, obs, first):
        zero = jnp.zeros(first.shape)
        moves = jax.random.bernoulli(key, 0.4, first.shape)
        return carry, jnp.where(moves, FORWARD, FORWARD - 1), zero, zero


@pytest.fixture(scope="module")
def played():
    """Two policies, a suite of corridors and the first evaluation."""
    env = maze.tiny()
    rows = (">.G..\n", ">...G\n", "G.<..\n", "G.>..\n")
    levels = [env.from_text(row + "#####\n" * 4) for row in rows]
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *levels)
    suite = Suite("maze/rows", env, make_level_set(env, stacked, ("near", "far", "left", "never")))
    policies = Policies("wavering", env, Wavering(), jnp.zeros(2), {"update": 7})
    return policies, suite, evaluate(policies, suite, 6, seed=3)


def first_attempt(e):
    """Return the evaluation with only the first attempt on each level."""
    names = ("episode_return", "length", "success")
    return replace(e, **{name: np.asarray(getattr(e, name))[..., :1] for name in names})


@pytest.mark.thorough
def test_worst_levels_are_played_again_with_fresh_keys(played):
    policies, suite, first = played
    found = worst_levels(policies, suite, first, alpha=(0.25, 1.0))
    second = evaluate(policies, suite, 6, seed=4)
    assert second.meta["optimum_is_bound"] is True
    assert (second.length != first.length).any()  # an independent second evaluation
    expected = worst_means(
        first.score[1].mean(axis=-1), second.score[1].mean(axis=-1), np.array([1, 4])
    )
    np.testing.assert_array_equal(found.each_seed, expected)
    assert found.run == "wavering"


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p, s, e: (p, s, e, 6, 3), "different seeds, got 3 twice"),
        (lambda p, s, e: (p, s, first_attempt(e)), "at least 2 attempts on each level"),
        (lambda p, s, e: (p._replace(label="b"), s, e), "same run, got 'wavering' and 'b'"),
        (lambda p, s, e: (p._replace(meta={}), s, e), "same update, got 7 and None"),
        (lambda p, s, e: (p._replace(states=jnp.zeros(1)), s, e), "same number of seeds, got 2"),
        (lambda p, s, e: (p, s._replace(name="maze/x"), e), "same suite, got 'maze/rows'"),
        (
            lambda p, s, e: (p, s, replace(e, level_hashes=e.level_hashes + 1)),
            "same levels of maze/rows",
        ),
    ],
)
def test_what_cannot_be_played_again_is_refused_before_it_is(played, change, message, monkeypatch):
    monkeypatch.setattr("rlgen.evaluation.stats.cvar.evaluate", lambda *args: pytest.fail("played"))
    with pytest.raises(ValueError, match=message):
        worst_levels(*change(*played))
