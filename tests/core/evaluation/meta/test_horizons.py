"""Meta-tests at several horizons: tables, figures, controls of the clock, and bad input."""

import json
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlgen.algos.learners import lpg
from rlgen.algos.rules.files import save_rule
from rlgen.algos.rules.networks import Rule, log_horizon
from rlgen.cli.main import main
from rlgen.evaluation.episodes import Evaluation
from rlgen.evaluation.meta import horizons, trainees
from rlgen.evaluation.report import results
from tests.standins.two_states import TwoStates

NET = Rule(hidden_size=4, num_predictions=3, embedding_size=2, clock=True)


@pytest.fixture(scope="module")
def rule(tmp_path_factory):
    path = tmp_path_factory.mktemp("rule") / "timely.npz"
    save_rule(path, NET, NET.init(jax.random.key(0)), {})
    return path


@pytest.fixture(scope="module")
def tested(rule):
    out = rule.parent / "tested"
    command = f"eval {rule} --suite gridworld/mazes --levels 2 --workers 2 --attempts 2 --controls"
    assert main([*command.split(), "--horizons", "3,2", "--out", str(out)]) == 0
    return out


@pytest.mark.thorough
def test_every_horizon_has_results_of_all_and_the_page_tells_them_together(tested):
    pictures = {"horizons.png", "probes.png"}
    written = {x.name for x in tested.iterdir()}
    assert written == pictures | {"updates-00002", "updates-00003", "report.html", "horizons.md"}
    runs = ["timely", "timely (frozen clock)", "timely (shuffled N)", "a2c"]
    for n in (2, 3):
        found = results.load(tested / f"updates-{n:05d}")
        assert [e.run for e in found] == runs
        assert set(found[0].meta["lifetime"].values()) == {n}
    told = (tested / "horizons.md").read_text()
    assert f"| updates | {' | '.join(runs)} |" in told and "| 2 |" in told and "| 3 |" in told
    page = (tested / "report.html").read_text()
    assert page.count("<picture>") == 2 and "shuffled N" in page


@pytest.mark.thorough
def test_probes_are_means_over_levels_and_agents(tested):
    probes = results.load(tested / "updates-00003")[0].meta["probes"]["gridworld/mazes"]
    assert set(probes) == {"entropy", "policy_step", "policy_target_size"}
    for values in probes.values():
        assert np.shape(values) == (1, 3)  # one rule, one part per update
    assert 0 < np.array(probes["entropy"]).max() <= np.log(5) + 1e-5
    assert np.array(probes["policy_step"]).min() >= 0


@pytest.mark.thorough
def test_differences_are_from_the_first_rule(tested):
    found = {n: results.load(tested / f"updates-{n:05d}") for n in (2, 3)}
    heads, rows = horizons.difference_rows(found)
    assert heads == ["timely (frozen clock) minus timely", "timely (shuffled N) minus timely"]
    assert [row.head for row in rows] == ["2", "3"] and all(len(row.cells) == 2 for row in rows)


ENV = TwoStates()


def told(**fields):
    """Return the clock inputs of an agent's rule in its second update of four."""
    seen: list[Any] = []
    call = Rule.__call__

    def watched(rule, params, inputs):
        seen.append((inputs.life_used, inputs.log_horizon))
        return call(rule, params, inputs)

    learner = lpg.build(ENV, net=NET, num_updates=4, **fields)
    state = learner.init(jax.random.key(1))
    from tests.algos.learners.test_lpo import played

    with mock.patch.object(Rule, "__call__", watched):
        for _ in range(2):
            rollout = played(learner, state)
            state, _ = learner.update(jax.random.key(2), state, rollout, jnp.ones(4))
    life_used, horizon = seen[-1]
    assert len(np.unique(life_used)) == len(np.unique(horizon)) == 1
    return float(life_used[0, 0]), float(horizon[0, 0])


@pytest.mark.thorough
def test_clocks_are_true_frozen_or_shuffled():
    true = float(log_horizon(jnp.int32(4)))
    np.testing.assert_allclose(told(), (0.25, true), rtol=1e-6)
    np.testing.assert_allclose(told(frozen_clock=True), (0.5, true), rtol=1e-6)
    shuffled = told(told_horizons=(250,))
    np.testing.assert_allclose(shuffled, (0.25, 1.0), rtol=1e-6)


@pytest.mark.parametrize(("lifetime", "seen"), [(10, -1.0), (50, 0.0), (250, 1.0), (1250, 2.0)])
def test_the_horizon_is_seen_on_a_logarithmic_scale(lifetime, seen):
    np.testing.assert_allclose(log_horizon(jnp.int32(lifetime)), seen, atol=1e-6)


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ("--horizons 10,0", "must be different numbers of updates, 1 or more; got 10,0"),
        ("--horizons 10,10", "must be different numbers of updates, 1 or more; got 10,10"),
        ("--horizons ten", "--horizons must be a whole number, got 'ten'"),
        ("--horizons 10 --lifetime 5", "--lifetime 5 and --horizons both set the lifetime of"),
        ("--controls", "--controls requires --horizons"),
        (
            "--horizons 10 --suite minatar",
            "needs one suite, but 'minatar' has 4 suites; choose one of",
        ),
    ],
)
def test_bad_input_is_refused(rule, tmp_path, capsys, options, sentence):
    assert main(["eval", str(rule), "--out", str(tmp_path / "out"), *options.split()]) == 2
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_rule_without_a_clock_has_no_controls(tmp_path, capsys):
    command = "eval grid-lpg --suite gridworld/mazes --levels 1 --horizons 2 --controls"
    assert main([*command.split(), "--out", str(tmp_path / "out")]) == 2
    assert "no rule has a clock" in capsys.readouterr().err


@pytest.mark.thorough
def test_results_are_not_overwritten(rule, tested, capsys):
    before = (tested / "horizons.md").read_bytes()
    command = f"eval {rule} --suite gridworld/mazes --horizons 2 --out {tested}"
    assert main(command.split()) == 2
    assert "already has results.json; add --overwrite" in capsys.readouterr().err
    assert (tested / "horizons.md").read_bytes() == before


@pytest.mark.thorough
def test_json_holds_every_horizon(rule, tmp_path, capsys):
    command = f"eval {rule} --suite gridworld/mazes --levels 2 --workers 2 --attempts 2 --json"
    assert main([*command.split(), "--horizons", "2", "--out", str(tmp_path / "out")]) == 0
    content = json.loads(capsys.readouterr().out)
    assert [run["run"] for run in content["2"]["runs"]] == ["timely", "a2c"]


def test_a_shipped_rule_has_a_trainee_for_every_environment():
    assert all(trainees.from_file(name).build(ENV) for name in trainees.shipped())


def test_levels_without_an_optimum_are_left_out_of_differences():
    """Returns differ by 10 on a level whose optimum is 0, and by .1 of the optimum elsewhere."""
    optimum = np.array([0.0, 2.0, 4.0, 2.0])

    def rule(name, share):
        returns = share * optimum + 10 * (name == "better") * (optimum == 0)
        shape = (2, 4, 3)
        return Evaluation(
            run=name,
            suite="s",
            suite_version="1",
            level_names=tuple("abcd"),
            level_hashes=np.arange(8).reshape(4, 2),
            optimal_steps=np.full(4, -1),
            optimal_return=optimum,
            episode_return=np.broadcast_to(returns[None, :, None], shape),
            length=np.ones(shape, int),
        )

    heads, (row,) = horizons.difference_rows({5: [rule("first", 0.5), rule("better", 0.6)]})
    assert heads == ["better minus first"]
    assert row.cells == ("+10.0",)
