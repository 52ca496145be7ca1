"""Summaries of episodes, worked by hand, and the files that store them."""

import csv
import json
import re
import zipfile
from dataclasses import replace
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from rlgen.evaluation.episodes import Evaluation
from rlgen.evaluation.report import results
from rlgen.evaluation.stats.findings import analyse
from rlgen.evaluation.stats.formatting import caveat, headline
from rlgen.evaluation.stats.settings import Intervals
from rlgen.evaluation.stats.summary import compare, hardest, summarise


def evaluation(run="agent", solve=0.5, seeds=3, attempts=8, seed=0, **changes):
    """Return a synthetic evaluation on three levels; the last one cannot be solved."""
    rng = np.random.default_rng(seed)
    success = rng.random((seeds, 3, attempts)) < np.array([solve, solve / 2, 0])[:, None]
    length = np.where(success, rng.integers(10, 20, success.shape), 50)
    made = Evaluation(
        run=run,
        suite="maze/heldout",
        suite_version="2",
        level_names=("Rooms", "Labyrinth", "Walled"),
        level_hashes=np.array([[1, 2], [3, 2**32 - 1], [5, 6]], np.uint32),
        optimal_steps=np.array([9, 8, -1]),
        optimal_return=np.array([0.9, 0.8, 0.0]),
        episode_return=np.where(success, 1 - length / 100, 0.0),
        length=length,
        success=success,
        meta={"update": 7, "env_steps": {"training": 1000}},
    )
    return replace(made, **changes) if changes else made


def by_hand():
    """Return an evaluation of two seeds, two levels and two attempts."""
    return Evaluation(
        run="hand",
        suite="s",
        suite_version="1",
        level_names=("a", "b"),
        level_hashes=np.zeros((2, 2), np.uint32),
        optimal_steps=np.array([4, -1]),
        optimal_return=np.array([0.8, np.nan]),
        episode_return=np.array([[[0.8, 0.0], [0.0, 0.0]], [[0.4, 0.4], [0.6, 0.0]]]),
        length=np.array([[[4, 9], [9, 9]], [[6, 8], [5, 9]]]),
        success=np.array([[[1, 0], [0, 0]], [[1, 1], [1, 0]]], bool),
    )


def test_a_level_is_summed_up_as_by_hand():
    run = summarise([by_hand()]).runs[0]
    a, b = run.levels
    assert (a.score.value, b.score.value) == (0.75, 0.25)
    assert (a.mean_return, b.mean_return) == pytest.approx((0.4, 0.15))
    assert a.relative_return == pytest.approx(0.5)
    assert np.isnan(b.relative_return)
    assert (a.mean_length, b.mean_length) == (6.75, 8.0)
    assert a.solved_length == (4 + 7) / 2  # the mean over seeds of each seed's solved episodes
    assert b.solved_length == 5  # the seed that never solved it is left out
    assert np.isnan(b.optimal_steps)
    assert run.aggregate["mean"].value == 0.5
    assert run.aggregate["iqm"].value == 0.5  # of 0.5, 0, 1, 0.5
    assert run.aggregate["optimality_gap"].value == 0.5
    assert run.aggregate["return"].value == pytest.approx(0.275)


def test_the_score_is_the_solve_rate_else_relative_else_bare_return():
    known = by_hand()
    assert known.score[0] == "solve rate"
    assert replace(known, success=()).score[0] == "return"  # one optimum is unknown
    full = replace(known, success=(), optimal_return=np.array([0.8, 0.6]))
    assert full.score[0] == "relative return"
    assert "optimality_gap" not in summarise([replace(known, success=())]).runs[0].aggregate


def test_scalars_of_jax_and_numpy_in_meta_become_json():
    again = replace(by_hand(), meta={"update": jnp.int32(3), "best": np.float32("nan"), "to": None})
    assert again.meta == {"update": 3, "best": None, "to": None}


def exact(solved, trials):
    """Return the exact binomial interval of scipy."""
    return tuple(scipy.stats.binomtest(int(solved), trials).proportion_ci(method="exact"))


def test_one_seed_has_exact_intervals_of_its_episodes_and_no_interval_over_seeds():
    one = evaluation(seeds=1)
    summary = summarise([one])
    assert summary.meaning.startswith("1 seed: no interval over seeds, only of this agent's ")
    never, mean = summary.runs[0].levels[2].score, summary.runs[0].aggregate["mean"]
    assert (never.kind, mean.kind) == ("binomial", "binomial")
    np.testing.assert_allclose((never.low, never.high), exact(0, 8), atol=1e-12)
    np.testing.assert_allclose((mean.low, mean.high), exact(np.sum(one.success), 24))
    assert summary.runs[0].aggregate["optimality_gap"].high == 1 - mean.low


@pytest.mark.parametrize("solve", [0.0, 1.0])
def test_seeds_that_do_not_differ_have_the_exact_interval_of_their_episodes(solve):
    """Student's t would have width 0."""
    success = np.full((3, 2, 2), bool(solve))
    summary = summarise([replace(by_hand(), **stacked(success))])
    mean, iqm = (summary.runs[0].aggregate[name] for name in ("mean", "iqm"))
    assert mean.kind == "binomial"
    np.testing.assert_allclose((mean.low, mean.high), exact(12 * solve, 12), atol=1e-12)
    assert not iqm.is_known
    assert "contains no effect of the seed" in caveat(summary)
    assert "95 % binomial interval: " in headline(summary)


def stacked(success):
    """Return the arrays of an evaluation with this success."""
    return {"success": success, "episode_return": success * 0.5, "length": success * 0 + 3}


def test_runs_of_unequal_seeds_have_their_own_kinds_of_interval_and_no_test():
    summary = summarise([evaluation("a"), evaluation("b", seeds=1)])
    assert [run.aggregate["mean"].kind for run in summary.runs] == ["student", "binomial"]
    assert np.isnan(summary.comparisons[0].p_value)
    assert not summary.comparisons[0].is_settled
    assert not summary.comparisons[0].mean.is_known
    assert (
        "the smallest numbers of any run are given"
        in summarise([evaluation("a"), evaluation("b", seeds=2)]).meaning
    )


def test_the_mean_has_students_interval_over_the_seeds_own_means():
    one = evaluation(solve=0.4, seeds=5)
    mean = summarise([one]).runs[0].aggregate["mean"]
    of_seed = np.mean(one.success, axis=(1, 2))
    low, high = scipy.stats.t.interval(0.95, 4, of_seed.mean(), scipy.stats.sem(of_seed))
    np.testing.assert_allclose((mean.low, mean.value, mean.high), (low, of_seed.mean(), high))


def test_comparisons_are_with_the_first_run_and_turn_around():
    good, bad = evaluation("good", 0.95, seeds=6), evaluation("bad", 0.1, seeds=6, seed=1)
    forth, back = summarise([bad, good]).comparisons[0], compare(bad, good)
    assert (forth.run, forth.baseline) == ("good", "bad")
    assert forth.mean.value == pytest.approx(-back.mean.value)
    assert forth.improvement.value == pytest.approx(1 - back.improvement.value)
    assert forth.is_settled
    theirs: Any = scipy.stats.ttest_ind(
        *(e.score[1].mean(axis=(1, 2)) for e in (good, bad)), equal_var=False
    )
    assert forth.p_value == pytest.approx(theirs.pvalue)
    ends = theirs.confidence_interval()
    np.testing.assert_allclose((forth.mean.low, forth.mean.high), (ends.low, min(ends.high, 1)))
    by_level = (good.score[1] - bad.score[1]).mean(axis=(0, 2))
    np.testing.assert_allclose(forth.levels.value, by_level)


def test_a_difference_is_not_settled_when_only_the_stratified_interval_excludes_zero():
    """Seeds are good or bad on all levels; the stratified interval ignores this correlation."""
    rng = np.random.default_rng(0)
    names = tuple(f"l{i}" for i in range(30))

    def run(name, rates):
        success = rng.random((4, 30, 20)) < np.array(rates)[:, None, None]
        blank = np.zeros(success.shape)
        hashes = np.zeros((30, 2), np.uint32)
        unknown = (np.full(30, -1), np.full(30, np.nan))
        return Evaluation(
            name, "s", "1", names, hashes, *unknown, blank, blank.astype(int) + 1, success
        )

    runs = [run("a", [0.1, 0.9, 0.2, 0.6]), run("b", [0.1, 0.9, 0.9, 0.6])]
    stratified = summarise(runs, Intervals("stratified")).comparisons[0]
    assert stratified.mean.excludes_zero
    assert not stratified.is_settled
    compared = summarise(runs).comparisons[0]
    assert not compared.mean.excludes_zero
    assert not compared.is_settled
    assert "is not settled (-" in headline(summarise(runs))


def test_the_headline_tells_the_best_run_and_its_gap_whichever_comes_first():
    good, bad = evaluation("good", 0.95, seeds=6), evaluation("bad", 0.1, seeds=6, seed=1)
    for runs in ([good, bad], [bad, good]):
        words = headline(summarise(runs))
        assert words.startswith("good reaches a solve rate of ")
        assert "points against bad (+" in words
    alone = headline(summarise([good]))
    assert "3 levels of maze/heldout v2 (mean; 95 % interval over seeds: " in alone


def test_untrained_agents_are_never_the_subject_of_the_headline():
    """The untrained agents are better here."""
    untrained = {"update": 0, "env_steps": 0}
    runs = [evaluation("plr", 0.2, seeds=6), evaluation("none", 0.9, seeds=6, meta=untrained)]
    words = headline(summarise(runs))
    assert words.startswith("plr reaches a solve rate of ")
    assert "points" in words
    assert "none" in words.partition(", -")[2]
    assert headline(summarise(runs[1:])).startswith("none reaches")


def test_ties_have_no_winner():
    runs = [replace(by_hand(), run=name) for name in ("plr", "dr", "sfl")]
    words = headline(summarise(runs))
    assert words.startswith("plr, dr and sfl have the same solve rate on the 2 levels")


def test_the_weakness_of_the_headlines_interval_is_said_beside_it():
    assert caveat(summarise([evaluation(seeds=5)])) == ""
    assert caveat(summarise([evaluation(seeds=2)])).startswith("Two seeds bound nothing")
    assert "no interval over training seeds" in caveat(summarise([evaluation(seeds=1)]))


def test_the_hardest_levels_are_kept_in_the_order_of_the_suite():
    summary = summarise([evaluation(solve=1.0)])
    assert hardest(summary, 2) == [1, 2]
    assert hardest(summary, 9) == [0, 1, 2]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"episode_return": np.zeros((2, 2))}, r"\[seeds, levels, attempts\]"),
        ({"length": np.zeros((2, 2, 3), int)}, r"length has shape .* must be \(2, 2, 2\)"),
        ({"success": np.zeros((1, 2, 2), bool)}, "success has shape"),
        ({"level_names": ("a", "a")}, "2 different names"),
        ({"optimal_steps": np.zeros(3, int)}, "optimal_steps has shape"),
        (
            {"episode_return": np.where(np.arange(8).reshape(2, 2, 2) == 6, np.inf, 0)},
            "run 'hand', seed 1, level 'b', attempt 0: episode_return inf is not finite",
        ),
    ],
)
def test_arrays_that_do_not_agree_are_refused_by_name(changes, message):
    with pytest.raises(ValueError, match=message):
        replace(by_hand(), **changes)


def changed(name, value):
    """Return one array of `by_hand` with another value at seed 1, level b, attempt 0."""
    x = np.array(getattr(by_hand(), name), float)
    x[1, 1, 0] = value
    return {name: x}


BOUND = {"meta": {"optimum_is_bound": True}}
SHORTEST = {"optimal_steps": np.array([4, 6]), "optimal_return": np.array([0.8, 0.7])}
UNSOLVABLE = {"optimal_return": np.array([0.8, 0.0]), "episode_return": np.zeros((2, 2, 2))}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (changed("length", 0), "length 0.0 is not a whole number of steps of at least 1"),
        (changed("length", -5), "length -5.0 is not a whole"),
        (changed("length", 2.5), "length 2.5 is not a whole"),
        (changed("length", np.nan), "length nan is not a whole"),
        (changed("success", 0.5), "success 0.5 is neither 0 nor 1"),
        (changed("success", 2), "success 2.0 is neither 0 nor 1"),
        (changed("success", np.nan), "success nan is neither 0 nor 1"),
        (
            BOUND | SHORTEST | changed("episode_return", 0.71),
            "episode_return 0.71 is above the optimal return of the level",
        ),
        (BOUND | SHORTEST, "length 5 is shorter than the shortest solution"),
        (BOUND | UNSOLVABLE, "success True is 1 on an unsolvable level"),
    ],
)
def test_impossible_episodes_are_refused_by_run_level_and_seed(changes, message):
    where = "run 'hand', seed 1, level 'b', attempt 0: "
    with pytest.raises(ValueError, match=re.escape(where + message)):
        replace(by_hand(), **changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"optimal_steps": np.array([4, -2])}, "optimal_steps of level 'b' is -2; it must be a"),
        ({"optimal_steps": np.array([4, 1.5])}, "optimal_steps of level 'b' is 1.5"),
        ({"optimal_return": np.array([0.8, np.inf])}, "optimal_return of level 'b' is inf"),
        (
            {"level_hashes": np.array([[0, 1], [0, 2**32]])},
            "level_hashes of level 'b' is [0, 42949",
        ),
        ({"level_hashes": np.array([[0, -1], [0, 0]])}, "level_hashes of level 'a' is [0, -1]"),
        ({"meta": {"look": -1}}, "run 'hand': look must be at least 0, got -1"),
        ({"meta": {"update": [3, -4]}}, "run 'hand': update must be at least 0, got -4"),
        ({"meta": {"attempts": 0}}, "run 'hand': attempts must be at least 1, got 0"),
    ],
)
def test_impossible_levels_and_counts_are_refused(changes, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        replace(by_hand(), **changes)


def test_lucky_episodes_beat_an_optimum_that_is_an_expectation():
    lucky = replace(by_hand(), **SHORTEST, **changed("episode_return", 1e6))
    assert lucky.episode_return[1, 1, 0] == 1e6
    # Rounding of float32 is accepted, and unknown optima are not compared.
    rounded = changed("episode_return", np.float32(0.7) + 1e-5) | {
        "optimal_steps": np.array([4, 5])
    }
    assert replace(by_hand(), **(BOUND | SHORTEST | rounded)).shape == (2, 2, 2)
    assert replace(by_hand(), **BOUND, **changed("episode_return", 1e6)).shape == (2, 2, 2)


@pytest.mark.parametrize(
    ("others", "message"),
    [
        ([], "at least one run"),
        ([evaluation(), evaluation()], "different labels"),
        ([evaluation(), evaluation("b", level_names=("x", "y", "z"))], "the same --suite"),
        ([evaluation(), evaluation("b", level_hashes=np.ones((3, 2)))], "the same --suite"),
        ([evaluation(), evaluation("b", success=())], "a single environment family"),
    ],
)
def test_runs_that_cannot_be_compared_are_refused(others, message):
    with pytest.raises(ValueError, match=message):
        summarise(others)


@pytest.mark.parametrize("changes", [{}, {"success": ()}])
def test_what_is_saved_is_loaded_exactly(tmp_path, changes):
    saved = [evaluation("a", **changes), evaluation("b", seeds=2, seed=1, **changes)]
    results.save(tmp_path / "out", saved)
    loaded = results.load(tmp_path / "out")
    assert results.to_json(loaded) == results.to_json(saved)
    for one, other in zip(saved, loaded, strict=True):
        for name in ("episode_return", "length", "success", "level_hashes", "optimal_return"):
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
        assert (one.run, one.meta, one.level_names) == (other.run, other.meta, other.level_names)


def test_the_json_is_strict_and_says_how_the_interval_was_made(tmp_path):
    results.save(tmp_path, [evaluation()], intervals=Intervals(reps=300), seed=5)

    def refuse(token):
        raise AssertionError(token)

    text = (tmp_path / "results.json").read_text()
    content = json.loads(text, parse_constant=refuse)
    assert content["format"] == "rlgen-results-1"
    assert content["interval"]["reps"] == 300
    assert content["interval"]["seed"] == 5
    run = content["runs"][0]
    assert run["levels"][2]["relative_return"] is None
    assert np.shape(run["per_seed"]["solve_rate"]) == (3, 3)
    assert run["aggregate"]["iqm"]["low"] <= run["aggregate"]["iqm"]["value"]


def test_the_csv_has_a_row_for_each_run_seed_and_level(tmp_path):
    results.save(tmp_path, [by_hand()])
    rows = list(csv.DictReader((tmp_path / "results.csv").open()))
    assert [(row["seed"], row["level"]) for row in rows] == [
        ("0", "a"), ("0", "b"), ("1", "a"), ("1", "b"),
    ]  # fmt: skip
    numbers = ("solve_rate", "mean_return", "relative_return", "mean_length", "optimal_steps")
    assert [rows[2][name] for name in numbers] == ["1", "0.4", "0.5", "7", "4"]
    assert [rows[3][name] for name in numbers] == ["0.5", "0.3", "", "7", ""]


def test_names_in_the_csv_are_no_formulas_and_hold_no_control_characters(tmp_path):
    results.save(tmp_path, [replace(by_hand(), run="=1+1", level_names=("\x1b[2J", "b"))])
    text = (tmp_path / "results.csv").read_text()
    assert "\n'=1+1," in text
    assert "\x1b" not in text


def test_results_are_not_overwritten_unless_asked(tmp_path):
    results.save(tmp_path, [evaluation("first")])
    with pytest.raises(ValueError, match="add --overwrite"):
        results.save(tmp_path, [evaluation("second")])
    assert results.load(tmp_path)[0].run == "first"
    results.save(tmp_path, [evaluation("second")], overwrite=True)
    assert results.load(tmp_path)[0].run == "second"
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(results.FILES)


def test_a_file_in_the_way_is_named(tmp_path):
    (tmp_path / "out").write_text("mine")
    with pytest.raises(ValueError, match="is a file; choose a folder"):
        results.save(tmp_path / "out", [evaluation()])
    assert (tmp_path / "out").read_text() == "mine"


def _damage(folder, kind):
    path = folder / ("episodes.npz" if kind in ("cut", "gone", "swapped") else "results.json")
    if kind == "gone":
        path.unlink()
    elif kind == "cut":
        path.write_bytes(path.read_bytes()[:200])
    elif kind == "swapped":
        one = np.zeros((1, 1, 1))
        np.savez(path, allow_pickle=False, **{"0/episode_return": one, "0/length": one})
    elif kind == "half":
        path.write_text(path.read_text()[:500])
    else:
        path.write_text(json.dumps({"format": "rlgen-results-9"} if kind == "later" else [1]))


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("gone", "episodes.npz is missing or damaged .* evaluate again with --overwrite"),
        ("cut", "episodes.npz is missing or damaged"),
        ("swapped", "episodes.npz does not agree with its digest in results.json"),
        ("half", "is damaged, or it was not written by rlgen"),
        ("foreign", "or it was not written by rlgen"),
        ("later", "format 'rlgen-results-9'; this version of rlgen reads only 'rlgen-results-1'"),
    ],
)
def test_damaged_and_foreign_results_are_refused_by_name(tmp_path, kind, message):
    results.save(tmp_path, [evaluation()])
    _damage(tmp_path, kind)
    with pytest.raises(ValueError, match=message):
        results.load(tmp_path)


def test_a_folder_without_results_says_what_to_run(tmp_path):
    with pytest.raises(ValueError, match="run `rlgen eval`"):
        results.load(tmp_path)


def test_nothing_saved_is_pickled(tmp_path):
    results.save(tmp_path, [evaluation()])
    with zipfile.ZipFile(tmp_path / "episodes.npz") as archive:
        headers = [archive.read(name)[:128] for name in archive.namelist()]
    assert len(headers) == 3
    assert not any(b"|O" in header for header in headers)


def test_levels_that_a_run_lacks_are_named():
    whole = evaluation()
    keep = {
        name: getattr(whole, name)[:2]
        for name in ("level_names", "level_hashes", "optimal_steps", "optimal_return")
    }
    episodes = {
        name: getattr(whole, name)[:, :2] for name in ("episode_return", "length", "success")
    }
    part = replace(whole, run="part", **keep, **episodes)
    with pytest.raises(ValueError, match=r"'part' lacks 'Walled'\); evaluate both"):
        summarise([whole, part])
    other = replace(
        whole, run="b", level_hashes=whole.level_hashes + np.array([[0], [1], [0]], np.uint32)
    )
    with pytest.raises(ValueError, match="'Labyrinth' differ in content"):
        summarise([whole, other])


def test_seeds_that_never_solved_a_level_are_named_with_its_steps():
    a, b = summarise([by_hand()]).runs[0].levels
    assert (a.unsolved_by, b.unsolved_by) == ((), (0,))


def test_a_summary_that_is_asked_for_again_is_not_computed_again():
    runs = [evaluation()]
    assert analyse(runs) is analyse(list(runs))
    assert analyse(runs, seed=1) is not analyse(runs)
