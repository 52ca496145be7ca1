"""Comparison of several methods: order, settled differences, costs, invalid input."""

import csv
import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats
from rich.console import Console

from rlgen.envs import maze
from rlgen.envs.classic_control import cart_pole
from rlgen.evaluation.episodes import Evaluation
from rlgen.evaluation.load_runs import Opened, check_environments, check_labels
from rlgen.evaluation.report.comparison import compared, matrix_figure, to_csv, write_comparison
from rlgen.evaluation.report.comparison_terminal import print_comparison
from rlgen.evaluation.stats import pooling as methods
from rlgen.evaluation.stats.comparison import answer, rank, sentences, together
from rlgen.evaluation.stats.cost import cost_of, pool_costs, pool_metrics
from rlgen.evaluation.stats.settings import Intervals
from rlgen.runs.spec import RunSpec

QUICK = Intervals(reps=400)
NASTY = '<script>alert("1")</script>&$x_{$[red]\x1b[31m=1+1'


def evaluation(run, solve, seeds=6, seed=0, attempts=4):
    """Return a synthetic evaluation on 5 levels."""
    rng = np.random.default_rng(seed)
    success = rng.random((seeds, 5, attempts)) < solve
    return Evaluation(
        run=run,
        suite="maze/heldout",
        suite_version="1",
        level_names=tuple(f"level-{i}" for i in range(5)),
        level_hashes=np.arange(10, dtype=np.uint32).reshape(5, 2),
        optimal_steps=np.full(5, 16),
        optimal_return=np.full(5, 0.9),
        episode_return=success * 0.8,
        length=np.where(success, 20, 50),
        success=success,
        meta={"update": 9},
    )


@pytest.fixture(scope="module")
def three():
    """One clearly worse method and two similar ones."""
    return [evaluation("bad", 0.1), evaluation("one", 0.8, seed=1), evaluation("two", 0.8, seed=2)]


def line(update, seeds=2, **more):
    steps = {"train": 80.0 * update, "scout": 20.0 * update, "evaluate": 1000.0}
    spent = {"env_steps": steps, "gradient_updates": 4.0 * update, "wall_seconds": 0.5 * update}
    return {"update": update, **spent, "compile_seconds": 3.0, "solve_rate": [0.5] * seeds, **more}


def test_the_order_is_that_of_the_mean_and_settled_differences_close_ranks(three):
    ranking = rank(three, QUICK)
    mean = [e.score[1].mean() for e in three]
    order = sorted(range(3), key=lambda i: -mean[i])
    assert [place.run for place in ranking.places] == [three[i].run for i in order]
    np.testing.assert_allclose([p.mean.value for p in ranking.places], [mean[i] for i in order])
    assert [place.rank for place in ranking.places] == [1, 2, 3]
    assert [(p.best, p.worst) for p in ranking.places] == [(1, 2), (1, 2), (3, 3)]


def test_the_matrix_is_that_of_a_slow_loop_and_its_halves_add_up_to_one(three):
    names = [e.run for e in three]
    found = rank(three, QUICK).improvement(names)
    for i, j in np.ndindex(3, 3):
        x, y = (e.score[1].mean(-1) for e in (three[i], three[j]))
        won = [
            [(a > b) + 0.5 * (a == b) for a in x[:, m] for b in y[:, m]] for m in range(x.shape[1])
        ]
        assert np.isnan(found[i, j]) if i == j else found[i, j] == pytest.approx(np.mean(won))
    np.testing.assert_allclose((found + found.T)[~np.eye(3, dtype=bool)], 1)


def test_verdicts_hold_for_all_pairs_together(three):
    """Welch's p-values of scipy, corrected by hand with Holm's procedure."""
    ranking = rank(three, QUICK)
    of_seeds = {e.run: e.score[1].mean(axis=(1, 2)) for e in three}
    raw = {}
    for p in ranking.pairs:
        theirs: Any = scipy.stats.ttest_ind(of_seeds[p.run], of_seeds[p.other], equal_var=False)
        raw[p.run, p.other] = theirs.pvalue
    (a, b, c) = sorted(raw, key=lambda pair: raw[pair])
    expected = {a: 3 * raw[a], b: max(3 * raw[a], 2 * raw[b]), c: max(2 * raw[b], raw[c])}
    for pair in ranking.pairs:
        assert pair.p_value == pytest.approx(expected[pair.run, pair.other])
        assert pair.is_settled == pair.mean.excludes_zero == (pair.p_value <= 0.05)
    assert together(ranking) == "95 % for all 3 pairs together"
    pair, turned = ranking.pair("one", "bad"), ranking.pair("bad", "one")
    assert (turned.mean.low, turned.mean.high) == (-pair.mean.high, -pair.mean.low)
    assert (turned.num_better, turned.num_worse) == (pair.num_worse, pair.num_better)


def test_methods_with_equal_scores_share_a_rank_and_none_comes_first(three):
    same = [three[1], replace(three[1], run="same"), three[0]]
    ranking = rank(same, QUICK)
    assert [(p.run, p.rank) for p in ranking.places] == [("one", 1), ("same", 1), ("bad", 3)]
    said = answer(ranking, "maze/heldout")
    assert said.startswith("one and same have the same solve rate on maze/heldout, ")
    assert said.endswith("It is better than bad by a settled difference.")
    assert answer(rank(same[:2], QUICK), "x").endswith("No method comes first.")


def test_the_words_say_what_is_settled_and_what_is_not(three):
    ranking = rank(three, QUICK)
    first, second = (place.run for place in ranking.places[:2])
    told = sentences(ranking)
    assert [len(told["Settled"]), len(told["Not settled"])] == [2, 1]
    assert f"{first} is better than bad: +" in told["Settled"][0]
    assert "higher on 5 levels, lower on 0" in told["Settled"][0]
    assert f"{first} against {second}: " in told["Not settled"][0]
    said = answer(ranking, "maze/heldout")
    assert said.startswith(f"{first} comes first on maze/heldout with a solve rate of ")
    assert "It is better than bad by a settled difference." in said
    assert said.endswith(f"Its difference from {second} is not settled.")
    alike, apart = answer(rank(three[1:], QUICK), "x"), answer(rank(three[:2], QUICK), "x")
    assert "Its difference from" in alike and "is not settled" in alike
    assert "is better than bad by a settled difference" in apart


def test_without_seeds_or_attempts_nothing_is_called_settled():
    pair = [evaluation("a", 1.0, seeds=1, attempts=1), evaluation("b", 0.0, seeds=1, attempts=1)]
    ranking = rank(pair, QUICK)
    (told,) = sentences(ranking)["No test"]
    assert told.startswith("a against b: +100.0 points; P(better) 100 %")
    assert [(p.best, p.worst) for p in ranking.places] == [(1, 2), (1, 2)]


def test_one_method_or_two_of_a_name_are_no_comparison(three):
    with pytest.raises(ValueError, match="two methods or more, got 1"):
        rank(three[:1])
    with pytest.raises(ValueError, match="different labels"):
        rank([three[0], three[0]])


def test_a_cost_is_that_of_the_checkpoint_and_evaluation_is_no_cost_of_training():
    cost = cost_of("a", [line(i) for i in range(1, 9)], 5, 2, "1 x cpu (cpu)")
    assert (cost.env_steps["train"], cost.env_steps["scout"]) == (400, 100)
    assert (cost.total_steps, cost.gradient_updates, cost.wall_seconds) == (500, 20, 2.5)
    unknown = cost_of("a", [line(1)], 5, 2, "")
    assert np.isnan([unknown.total_steps, unknown.gradient_updates]).all()


def test_costs_of_a_method_are_of_a_seed_and_seconds_of_all_its_runs():
    """One seed with 100 steps and three with 200 each make 175 per seed."""
    costs = [cost_of("a", [line(1)], 1, 1, "cpu"), cost_of("a", [line(2)], 2, 3, "gpu")]
    cost = pool_costs("both", costs)
    assert (cost.run, cost.seeds, cost.total_steps) == ("both", 4, 175)
    assert (cost.gradient_updates, cost.wall_seconds) == (7, 1.5)
    assert cost.devices == ("cpu", "gpu")
    missing = pool_costs("both", [costs[0], cost_of("a", [], 2, 3, "gpu")])
    assert np.isnan([missing.total_steps, missing.wall_seconds]).all()


def test_metrics_of_several_runs_are_one_run_with_all_seeds():
    one = [line(1, 1), line(2, 1), line(3, 1)]
    other = [line(1, 2, solve_rate=[0.1, None]), line(3, 2, solve_rate=[0.2, 0.3])]
    pooled = pool_metrics([one, other])
    assert [x["update"] for x in pooled] == [1, 3]
    assert [x["solve_rate"] for x in pooled] == [[0.5, 0.1, None], [0.5, 0.2, 0.3]]
    assert [x["env_steps"] for x in pooled] == [100, 300]
    assert pool_metrics([one]) == one


def test_methods_are_read_as_they_are_typed(tmp_path):
    odd = tmp_path / "lr=1,2"
    odd.mkdir()
    found = methods.parse(["runs/plr", "dr=runs/a,runs/b", str(odd), f"named={odd}"][:3])
    assert [method.name for method in found] == ["plr", "dr", "lr=1,2"]
    assert found[1].runs == (Path("runs/a"), Path("runs/b"))
    assert found[2].runs == (odd,)
    assert methods.parse(["a", f"named={odd}"])[1].runs == (odd,)


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ([], "name two runs or more"),
        (["runs/a"], "name two runs or more"),
        (["x/plr", "y/plr"], "x/plr and y/plr are both called 'plr'; give them different names"),
        (["a=x/1", "b=y,x/../x/1"], "x/../x/1 is given twice, in a and in b"),
        (["a", "=x"], "'=x' has no name before the '='"),
        (["a", "b=x,,y"], "'b=x,,y' contains an empty folder name"),
    ],
)
def test_methods_that_cannot_be_read_are_refused(texts, message, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError) as error:
        methods.parse(texts)
    assert message in str(error.value)


def opened(path, seed=0, seeds=2, update=9, env=(), **fields):
    """Return an opened run folder with the fields that methods need."""
    spec = RunSpec("plr", seed=seed, seeds=seeds)
    plan = {"num_updates": 9, "chunk": 1, "steps_per_update": 100}
    record = {"spec": vars(spec), "env": {"num_walls": 25}, "fields": fields, "plan": plan}
    return Opened(Path(path), record, spec, env, update, 900.0, False)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (opened("b", seed=1), "seed 1 is both in a and in b"),
        (
            opened("b", seed=2, update=8),
            "a and b cannot be pooled as method 'm': they are at update 9",
        ),
        (opened("b", seed=2, capacity=7), "capacity is None and 7; compare them as two methods"),
    ],
)
def test_runs_that_are_not_one_method_are_refused(other, message):
    methods.check_method("m", [opened("a"), opened("b", seed=2)])
    with pytest.raises(ValueError) as error:
        methods.check_method("m", [opened("a"), other])
    assert message in str(error.value)


def test_runs_of_a_method_are_pooled_seed_by_seed(three):
    pooled = methods.pool("both", [three[1], three[2]])
    assert pooled.shape == (12, 5, 4)
    np.testing.assert_array_equal(pooled.episode_return[6:], three[2].episode_return)
    assert pooled.meta == {"update": 9}
    looked = [replace(e, meta={"look": i, "run": e.run}) for i, e in enumerate(three, 1)]
    assert methods.pool("all", looked).meta == {"look": 3, "run": ["bad", "one", "two"]}
    few = evaluation("few", 0.5, attempts=3)
    with pytest.raises(ValueError, match="few and bad were evaluated on different levels or with"):
        methods.pool("m", [three[0], few])


def test_what_makes_methods_unlike_is_named():
    env = maze.tiny()
    pairs = [
        ("a", [opened("x", env=env), opened("y", seed=5, update=7, env=env)]),
        ("b", [opened("z", env=replace(env, num_walls=1))]),
    ]
    told = methods.unlike(pairs)
    assert told == [
        "a: y is at update 7 of 9.",
        "Numbers of seeds differ: a 4, b 2.",
        f"Training environments of a and b differ: num_walls {env.num_walls} and 1.",
    ]


def test_two_runs_of_one_label_and_different_environments_are_refused():
    with pytest.raises(ValueError, match="x/plr and y/plr are both called 'plr'"):
        check_labels([("plr", "x/plr"), ("dr", "x/dr"), ("plr", "y/plr")])
    with pytest.raises(ValueError) as error:
        check_environments({"runs/a": maze.tiny(), "runs/b": cart_pole.build()})
    assert "runs/b was trained in cart-pole (CartPole) and runs/a in maze (Maze)" in str(
        error.value
    )
    other = replace(maze.tiny(), observation="flat")
    with pytest.raises(ValueError) as error:
        check_environments({"runs/a": maze.tiny(), "runs/b": other})
    assert "runs/b and runs/a have different observations or actions in maze" in str(error.value)
    assert "observation packed and flat" in str(error.value)
    check_environments({"a": maze.tiny(), "b": replace(maze.tiny(), num_walls=1)})


def printed(found, width=80):
    out = io.StringIO()
    console = Console(width=width, file=out, force_terminal=True, color_system=None)
    print_comparison(found, console)
    return out.getvalue()


def test_the_table_fits_80_columns_and_holds_ranks_matrix_costs_and_words(three):
    costs = [cost_of(e.run, [line(9)], 9, 6, "cpu") for e in three]
    text = printed(compared(three, costs, ["one: x is at update 7 of 9."], QUICK))
    assert max(len(row) for row in text.splitlines()) <= 80
    words = " ".join(text.split())
    for said in ("Ranking", "P(row better than column)", "Training cost", "Not settled:"):
        assert said in words
    assert "one: x is at update 7 of 9." in words
    assert "95 % for all 3 pairs together" in words
    costs_of_bad = [row.split() for row in text.splitlines() if row.strip().startswith("bad  ")][-1]
    assert costs_of_bad == ["bad", "6", "900", "36", "4"]


@pytest.mark.thorough
def test_files_hold_the_ranking_and_no_name_leaves_the_text(three, tmp_path):
    runs = [replace(three[0], run=NASTY), *three[1:]]
    costs = [cost_of(e.run, [line(9)], 9, 6, NASTY) for e in runs]
    found = compared(runs, costs, [NASTY], QUICK)
    text = write_comparison(tmp_path, found, curves={"one": [line(1), line(2)]}).read_text()
    assert "<script" not in text
    assert "\x1b" not in text + printed(found)
    pngs = {path.stem for path in tmp_path.glob("*.png")}
    assert {"improvement", "intervals", "profile", "learning", "learning-seconds"} <= pngs
    rows = list(csv.DictReader(io.StringIO(to_csv(found))))
    assert [row["rank"] for row in rows] == ["1", "2", "3"]
    assert float(rows[0]["iqm"]) == pytest.approx(float(found.ranking.places[0].iqm.value))
    assert rows[2]["run"].startswith("<script")
    assert rows[0]["train_steps"] == "720"


def test_the_matrix_figure_shows_each_number_in_its_place(three):
    ranking, names = rank(three, QUICK), ["bad", "one", "two"]
    (axes,) = matrix_figure(ranking, names).axes
    found = ranking.improvement(names)
    at = {text.get_position(): text.get_text().split("\n")[0] for text in axes.texts}
    for i, j in np.ndindex(3, 3):
        assert at[j, i] == ("-" if i == j else f"{found[i, j]:.2f}")
