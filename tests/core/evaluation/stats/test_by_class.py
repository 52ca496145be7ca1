"""Scores by class of level: bins by definition, means by hand, shortfalls by loops."""

import numpy as np
import pytest
import scipy.stats

from rlgen.evaluation.episodes import Evaluation
from rlgen.evaluation.stats.by_class import (
    Class,
    by_class,
    by_name,
    by_quantiles,
    classes_of,
    shortfall,
)
from rlgen.evaluation.stats.settings import Intervals

FEW = Intervals(reps=300)


def evaluation(rate, steps, best=None, run="a", names=(), attempts=10):
    """Return an evaluation with exactly the solve rates `rate`, [S, M]."""
    rate = np.asarray(rate, float)
    success = np.arange(attempts) < np.round(rate[..., None] * attempts)
    num_levels = rate.shape[1]
    optimum = np.where(np.asarray(steps) < 0, np.nan, 1.0) if best is None else best
    return Evaluation(
        run=run,
        suite="s",
        suite_version="1",
        level_names=names or tuple(f"l{i}" for i in range(num_levels)),
        level_hashes=np.arange(2 * num_levels).reshape(num_levels, 2),
        optimal_steps=np.asarray(steps),
        optimal_return=optimum,
        episode_return=success.astype(float),
        length=np.full(success.shape, 5),
        success=success,
    )


def tell(e, intervals=FEW):
    """Return the scores by class of one run, which must exist."""
    found = by_class([e], intervals)
    assert found is not None
    return found


@pytest.mark.parametrize("num", [1, 2, 3, 5])
def test_quantile_bins_are_those_of_the_definition_and_ties_stay_together(num):
    for seed in range(20):
        rng = np.random.default_rng(seed)
        value = rng.integers(0, 12, rng.integers(5, 30)).astype(float)
        ordered = np.sort(value)
        edges = [ordered[int(np.ceil(i * len(value) / num)) - 1] for i in range(1, num)]
        crude = [sum(v > edge for edge in edges) for v in value]
        dense = [sorted(set(crude)).index(c) for c in crude]
        assert by_quantiles(value, num).tolist() == dense


def test_few_levels_have_fewer_classes_and_every_level_is_in_one():
    for num_levels, expected in ((3, 1), (8, 2), (12, 3), (20, 5), (500, 5)):
        e = evaluation(np.zeros((1, num_levels)), np.arange(num_levels) + 1)
        by, classes = classes_of(e)
        assert by == "optimal steps"
        assert len(classes) == expected
        every = np.concatenate([one.levels for one in classes])
        assert sorted(every.tolist()) == list(range(num_levels))


def test_unknown_and_unsolvable_levels_are_classes_of_their_own():
    steps = np.array([1, 2, 3, 4, 5, 6, 7, 8, -1, -1, -1])
    best = np.array([1.0] * 8 + [np.nan, 0.0, np.nan])
    _, classes = classes_of(evaluation(np.zeros((1, 11)), steps, best))
    assert [(one.name, one.levels.tolist(), one.counts) for one in classes] == [
        ("1 to 4 steps", [0, 1, 2, 3], True),
        ("5 to 8 steps", [4, 5, 6, 7], True),
        ("steps unknown", [8, 10], True),
        ("no solution", [9], False),
    ]


def test_means_worst_class_and_gap_worked_by_hand():
    steps = [1, 2, 3, 4, 10, 11, 12, 13, -1]
    rate = [[1, 1, 1, 1, 0.4, 0.2, 0, 0.2, 0], [0.8, 1, 1, 0.6, 0, 0, 0.2, 0.2, 0]]
    found = tell(evaluation(rate, steps, np.array([1.0] * 8 + [0.0])))
    (one,) = found.runs
    assert [c.name for c in found.classes] == ["1 to 4 steps", "10 to 13 steps", "no solution"]
    np.testing.assert_allclose(one.mean.value, [7.4 / 8, 1.2 / 8, 0])
    assert (one.best, one.worst) == ("1 to 4 steps", "10 to 13 steps")  # not the unsolvable class
    assert one.gap.value == pytest.approx((7.4 - 1.2) / 8)


def test_intervals_are_students_over_the_seeds_own_means():
    rng = np.random.default_rng(0)
    rate = np.round(rng.random((5, 12)), 1)
    found = tell(evaluation(rate, np.arange(12) + 1))
    assert found.kind == "student"
    means = np.stack([rate[:, one.levels].mean(axis=1) for one in found.classes], axis=1)  # [S, C]
    one, names = found.runs[0], [c.name for c in found.classes]
    gap = means[:, names.index(one.best)] - means[:, names.index(one.worst)]
    for found, of_seed, least in ((one.mean, means, 0), (one.gap, gap, -1)):
        error = scipy.stats.sem(of_seed)
        ends = scipy.stats.t.interval(0.95, 4, of_seed.mean(axis=0), error)
        np.testing.assert_allclose([found.low, found.high], np.clip(ends, least, 1))


def test_one_seed_draws_its_attempts():
    found = tell(evaluation(np.full((1, 8), 0.5), np.arange(8) + 1))
    assert found.kind == "attempts"
    assert (found.runs[0].mean.high > found.runs[0].mean.low).all()


def test_a_feature_takes_the_place_of_optimal_steps_and_must_fit():
    e = evaluation(np.zeros((1, 8)), np.full(8, -1))
    walls = np.array([1.0, 9, 2, 8, np.nan, 7, 3, 6])
    by, classes = classes_of(e, ("walls", walls))
    assert by == "walls"
    assert [(c.name, c.levels.tolist()) for c in classes] == [
        ("1 to 9", [0, 1, 2, 3, 5, 6, 7]),  # the seven known values form one class
        ("walls unknown", [4]),
    ]
    with pytest.raises(ValueError, match=r"walls has shape .* 8 levels"):
        classes_of(e, ("walls", walls[:5]))


def test_without_a_solver_levels_go_by_their_names():
    names = ("rooms-1", "rooms-2", "maze 01", "maze 02", "maze")
    found = by_name(names)
    assert [(c.name, c.levels.tolist()) for c in found] == [("rooms", [0, 1]), ("maze", [2, 3, 4])]
    assert len(by_name(("Rooms", "Labyrinth", "7"))) == 1
    e = evaluation([[1, 1, 0, 0, 0]], np.full(5, -1), names=names)
    assert tell(e).runs[0].worst == "maze"


def test_levels_of_one_class_have_nothing_to_say():
    assert by_class([evaluation(np.zeros((1, 3)), [1, 2, 3])], FEW) is None


def test_the_shortfall_is_that_of_a_slow_loop_and_nothing_against_oneself():
    rng = np.random.default_rng(2)
    a, b, c, d = (rng.permutation(40).reshape(2, 20) / 40 for _ in range(4))
    own, other = (a, b), (c, d)
    classes = [Class("a", np.arange(12), True), Class("b", np.arange(12, 20), True)]
    slow = []
    for one in classes:
        num = max(1, int(0.25 * len(one.levels)))
        sides = []
        for rank, value in (other, own):
            worst = [
                value[s, one.levels][np.argsort(rank[s, one.levels])[:num]].mean() for s in (0, 1)
            ]
            sides.append(np.mean(worst))
        slow.append(sides[0] - sides[1])
    np.testing.assert_allclose(shortfall(own, other, classes, 0.25), slow, atol=1e-12)
    np.testing.assert_allclose(shortfall(own, own, classes, 0.25), 0, atol=1e-12)


def test_levels_that_nobody_solves_do_not_swamp_the_shortfall():
    """Both runs fail on the second class; the agent is worse only on the first."""
    reference, agent = np.ones((1, 8)), np.full((1, 8), 0.6)
    reference[:, 4:] = agent[:, 4:] = 0
    classes = [Class("easy", np.arange(4), True), Class("impossible", np.arange(4, 8), True)]
    np.testing.assert_allclose(shortfall((agent, agent), (reference, reference), classes), [0.4, 0])
