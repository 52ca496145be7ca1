"""Normalised returns: the meaning of 0 and 1, the levels left out, and their report."""

from dataclasses import replace

import numpy as np
import pytest
import scipy.stats
from rich.console import Console

from rlgen.evaluation.episodes import Evaluation
from rlgen.evaluation.report.html import Page, render
from rlgen.evaluation.report.normalised_section import normalised_figures, normalised_section
from rlgen.evaluation.report.terminal import print_table, print_worst
from rlgen.evaluation.stats.cvar import cvar
from rlgen.evaluation.stats.findings import analyse
from rlgen.evaluation.stats.normalised_scores import (
    normalise,
    normalised_scores,
    notes,
    scale_of,
    untrained_of,
    verdicts,
)
from rlgen.evaluation.stats.percentiles import Q, percentiles
from rlgen.evaluation.stats.settings import Intervals

FEW = Intervals(reps=200)


def evaluation(value, run="a", optimum: object = np.nan, attempts=4, **changes):
    """Return an evaluation in which every attempt of seed s on level m returns `value[s, m]`."""
    value = np.asarray(value, float)
    num_levels = value.shape[1]
    made = Evaluation(
        run=run,
        suite="s/x",
        suite_version="1",
        level_names=tuple(f"l{i}" for i in range(num_levels)),
        level_hashes=np.arange(2 * num_levels).reshape(num_levels, 2),
        optimal_steps=np.full(num_levels, -1),
        optimal_return=np.broadcast_to(np.asarray(optimum, float), num_levels),
        episode_return=np.repeat(value[..., None], attempts, axis=-1),
        length=np.full((*value.shape, attempts), 9),
        meta={"update": 7, "env_steps": 90, "evaluation_seed": 0},
    )
    return replace(made, **changes) if changes else made


def stand(runs, intervals=FEW):
    """Return the normalised scores of runs, which must exist."""
    found = normalised_scores(runs, intervals)
    assert found is not None
    return found


def suite_of(run, skill, seed=0, num_levels=12, seeds=3, attempts=6):
    """Return an evaluation in which solve rates fall with the optimal number of steps."""
    rng = np.random.default_rng(seed)
    steps = np.arange(num_levels) * 3 + 2
    steps[-1] = -1
    best = np.where(steps > 0, 0.9, 0.0)
    rate = np.clip(skill * np.exp(-np.abs(steps) / 20) * (steps > 0), 0, 1)
    success = rng.random((seeds, num_levels, attempts)) < rate[:, None]
    made = evaluation(np.zeros((seeds, num_levels)), run, best, attempts)
    return replace(
        made, optimal_steps=steps, success=success, episode_return=0.9 * success,
        meta=made.meta | {"evaluation_seed": seed},
    )  # fmt: skip


def untrained(value, **changes):
    nothing = {"update": 0, "env_steps": 0}
    return replace(evaluation(value, "a (untrained)", **changes), meta=nothing)


def test_the_optimum_is_one_and_nothing_is_zero_worked_by_hand():
    e = evaluation([[0.0, 1, 2, -1], [2, 2, 2, 0]], optimum=[2, 4, 2, 2])
    np.testing.assert_allclose(normalise(e, scale_of([e])), [[0, 0.25, 1, -0.5], [1, 0.5, 1, 0]])
    found = stand([e], FEW)
    one = found.runs[0]
    assert one.participation.value == (0.5 + 0.75) / 2
    expected = percentiles(np.array([[0, 0.25, 1, -0.5], [1, 0.5, 1, 0]]))
    np.testing.assert_allclose(one.each_seed, expected)
    np.testing.assert_allclose(one.percentile.value, expected.mean(axis=0))
    assert (one.percentile.kind, found.percentiles) == ("student", Q)
    assert "0 is a return of 0, 1 is the optimal return; 4 levels" in notes(found)[0]


def test_untrained_agents_are_the_low_and_no_run_of_their_own():
    runs = [evaluation([[2.0, 3, 1]], optimum=5), untrained([[1.0, -1, 2]], optimum=5)]
    assert untrained_of(runs) is runs[1]
    assert untrained_of(runs[1:]) is None  # on its own it is an ordinary run
    found = stand(runs, FEW)
    assert [one.run for one in found.runs] == ["a"]
    expected = percentiles(np.array([1 / 4, 4 / 6, -1 / 3]))
    np.testing.assert_allclose(found.runs[0].percentile.value, expected)
    assert found.runs[0].participation.value == pytest.approx(2 / 3)
    assert "0 is the mean return of a (untrained)" in notes(found)[0]


def test_without_a_solver_the_best_run_is_the_reference_and_one_run_alone_has_none():
    a, b = evaluation([[1.0, 4, 0], [3, 4, 0]]), evaluation([[4.0, 2, 0]], "b")
    scale = scale_of([a, b])
    np.testing.assert_array_equal(scale.high, [4, 4, 0])
    found = stand([a, b], FEW)
    assert found.without_span == ("l2",)
    np.testing.assert_allclose(found.runs[1].each_seed, [percentiles(np.array([1, 0.5]))])
    assert "1 is the best mean return of these runs; 2 levels" in notes(found)[0]
    assert "'l2' (1 in all)" in " ".join(notes(found))
    assert normalised_scores([a], FEW) is None


def test_levels_that_have_no_score_are_named_with_the_reason():
    optimum = [1, 0, np.nan, 2, -1]
    found = stand([evaluation(np.ones((2, 5)), optimum=optimum)], FEW)
    assert (found.num_levels, found.without_span) == (2, ("l1", "l4"))
    assert found.without_reference == ("l2",)
    told = " ".join(notes(found))
    assert "because the return for 1 is not above the return for 0: 'l1', 'l4' (2 in all)." in told
    assert "the optimum is unknown and there is no other run: 'l2' (1 in all)." in told


def test_some_levels_without_an_optimum_take_the_best_run():
    runs = [evaluation([[1.0, 3]], optimum=[2, np.nan]), evaluation([[1.0, 2]], "b", [2, np.nan])]
    found = stand(runs, FEW)
    assert found.scale.high_name.endswith(
        "(on 1 level with an unknown optimum: the best mean return of these runs)"
    )
    np.testing.assert_allclose(found.scale.high, [2, 3])


def test_intervals_are_students_over_seeds_and_one_seed_has_none():
    rng = np.random.default_rng(0)
    value = rng.random((6, 9))
    one = stand([evaluation(value, optimum=1)]).runs[0]
    curves = percentiles(value)
    ends = scipy.stats.t.interval(0.95, 5, curves.mean(axis=0), scipy.stats.sem(curves))
    np.testing.assert_allclose([one.percentile.low, one.percentile.high], ends)
    alone = stand([evaluation(value[:1], optimum=1)], FEW).runs[0]
    assert alone.percentile.kind == "none"
    assert np.isnan(alone.percentile.low).all()
    assert np.isfinite(alone.percentile.value).all()


def test_few_attempts_are_warned_of():
    few = notes(stand([evaluation(np.ones((2, 3)), optimum=2, attempts=15)], FEW))
    assert "With 15 episodes per level, chance makes the low percentiles look lower" in few[-1]
    many = notes(stand([evaluation(np.ones((2, 3)), optimum=2, attempts=16)], FEW))
    assert not any("chance" in note for note in many)


def test_verdicts_name_the_better_run_whichever_comes_first():
    a, b = evaluation([[0.1, 0.2, 0.3]], optimum=1), evaluation([[0.2, 0.3, 0.4]], "b", 1)
    for runs in ([a, b], [b, a]):
        (told,) = verdicts(stand(runs, FEW))
        assert told.startswith("b is at least as good as a at every percentile")
        assert "in 100 % of resamples" in told
    crossed = evaluation([[0.0, 0.2, 0.9]], "c", 1)
    (told,) = verdicts(stand([a, crossed], FEW))
    assert told.startswith("Neither a nor c dominates the other")


@pytest.fixture(scope="module")
def runs():
    return [suite_of("plr <b>", 1.2), suite_of("accel", 0.8, 1)]


@pytest.fixture(scope="module")
def worst(runs):
    again = suite_of("plr <b>", 1.2, 5)
    return [cvar(runs[0], again, (0.1, 0.5, 1.0))]


def page_of(found, worst=()):
    """Render a page with only this section."""
    section = normalised_section(found, normalised_figures(found, worst), worst)
    assert section is not None
    return render(Page("", "", "", "", [section]))


def test_the_section_tells_classes_percentiles_and_worst_levels_escaped(runs, worst):
    told = page_of(analyse(runs, FEW), worst)
    for words in ("By optimal steps", "no solution", "Percentiles of levels", "best minus worst"):
        assert words in told
    assert "&lt;b&gt;" in told and "plr <b>" not in told
    assert "on the worst levels (CVaR)" in told
    assert "6 of 12" in told
    assert "These runs were not played again: &#39;accel&#39;." in told
    assert told.count("<picture>") == 2


def test_there_is_no_section_without_anything_to_say():
    found = analyse([evaluation(np.ones((2, 3)))], FEW)
    assert normalised_section(found, {}) is None
    assert normalised_figures(found) == {}


def test_figures_are_there_in_both_themes(runs, worst):
    drawn = normalised_figures(analyse(runs, FEW), worst)
    assert list(drawn) == ["normalised-percentiles", "normalised-cvar"]
    for themes in drawn.values():
        assert set(themes) == {"light", "dark"}
        assert themes["light"] != themes["dark"]
        assert all(one.startswith(b"\x89PNG") for one in themes.values())


def printed(show, *what):
    console = Console(width=80, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    show(*what, console)
    return console.export_text()


def test_the_table_tells_the_worst_class_and_participation_in_80_columns(runs):
    one = printed(lambda console: print_table(analyse(runs[:1], FEW), console))
    assert "worst: 20 to 32 steps" in one
    assert "participation" in one
    assert "(without 'l11')" in " ".join(one.split())
    both = printed(lambda console: print_table(analyse(runs, FEW), console))
    assert "Worst class of levels" in both
    assert both.count("20 to 32 steps") == 2
    assert "…" not in both
    assert max(map(len, (one + both).splitlines())) <= 80


def test_few_levels_have_no_such_lines():
    few = [suite_of("a", 1.0, num_levels=7)]
    assert "participation" not in printed(lambda console: print_table(analyse(few, FEW), console))


def test_seeds_that_never_solved_a_level_are_named_where_its_steps_are_told():
    e = suite_of("a", 1.0)
    success = np.ones_like(e.success)
    success[1, 3] = False
    told = printed(
        lambda console: print_table(analyse([replace(e, success=success)], FEW), console)
    )
    assert "without seeds that solved none: 'l3 (seed 1)'" in " ".join(told.split())


def test_levels_without_an_optimum_are_named_where_they_decide_the_score():
    e = evaluation(np.ones((2, 3)), optimum=[1, np.nan, 1])
    told = printed(lambda console: print_table(analyse([e], FEW), console))
    assert "The score is the return, because the optimum is unknown: 'l1'." in told


def test_where_nothing_can_be_normalised_it_is_said_what_to_add():
    e = replace(suite_of("a", 1.0), optimal_return=np.full(12, -1.0))
    told = printed(lambda console: print_table(analyse([e], FEW), console))
    assert "Returns are not normalised" in told and "add --untrained" in " ".join(told.split())
    assert "add --untrained" in page_of(analyse([e], FEW))


def test_the_worst_levels_are_printed_in_80_columns(worst):
    told = printed(print_worst, worst)
    assert "1 of 12" in told and "12 of 12" in told
    assert max(map(len, told.splitlines())) <= 80
    assert printed(print_worst, []) == ""
