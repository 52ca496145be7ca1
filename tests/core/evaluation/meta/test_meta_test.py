"""Agents trained by a frozen rule on held-out levels, and the reports on them."""

import json
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlgen.cli import main
from rlgen.evaluation.meta import meta_test, trainees
from rlgen.evaluation.meta.meta_test import Life, Protocol, Trainee, evaluate, train_agent
from rlgen.evaluation.report import results
from rlgen.evaluation.report.relative_section import sentence
from rlgen.evaluation.stats.relative import relative_to
from rlgen.protocols import RuleLearner
from rlgen.registry import load
from tests.standins.held_out import HeldOut

FAMILY = "tests.standins.held_out"
RECIPE = ["train", "tests.standins.rule_recipe", "--env", FAMILY]
PROTOCOL = Protocol(lifetime=6, attempts=2, num_workers=3, num_steps=5)


@dataclass(frozen=True)
class Handed(RuleLearner):
    """Learner that ignores the rule it is given, or scales its last policy by it."""

    learner: Any
    scales: bool = False

    def init(self, key):
        return self.init_with(key, jnp.ones(()))

    def init_with(self, key, rule, lifetime=()):
        return self.learner.init(key), rule

    @property
    def rule_net(self):
        raise NotImplementedError

    def for_env(self, env):
        raise NotImplementedError

    def act(self, key, state, carry, obs, first):
        return self.learner.act(key, state[0], carry, obs, first)

    def value(self, state, carry, obs, first):
        return self.learner.value(state[0], carry, obs, first)

    def initial_carry(self, num_slots):
        return self.learner.initial_carry(num_slots)

    def update(self, key, state, rollout, weight):
        learned, metrics = self.learner.update(key, state[0], rollout, weight)
        return (learned, state[1]), metrics

    def log_policy(self, state, obs):
        learned = self.learner.log_policy(state[0], obs)
        return jax.nn.log_softmax(learned * state[1]) if self.scales else learned


def slow_a2c(env):
    """Return an A2C learner so slow that its agents end with distinguishable policies."""
    return replace(load("learners", "a2c").build(env), learning_rate=0.3)


def baseline(num_seeds=2):
    return Trainee("a2c", lambda env: (slow_a2c(env), ()), num_seeds, {"baseline": True})


def handed(scales=False, rules=(1.0, 3.0)):
    """Return a trainee with one seed per rule; a rule is a number."""

    def build(env):
        return Handed(slow_a2c(env), scales), jnp.array(rules)

    return Trainee("handed", build, len(rules), {})


@pytest.fixture(scope="module")
def suites():
    return trainees.suites_of(FAMILY)


@pytest.fixture(scope="module")
def tested(suites):
    """Evaluations of agents trained by two rules and by A2C on six levels."""
    found = (handed(scales=True), baseline())
    return [evaluate(one, suites, PROTOCOL, FAMILY) for one in found]


def test_a_family_is_all_its_suites_and_levels_can_be_fewer(suites):
    assert [len(suite.levels) for suite in suites] == [3, 3]
    names = [f"{suite}/{suite}-{i}" for suite in ("worth", "worthless") for i in range(3)]
    assert meta_test.level_names(suites) == tuple(names)
    assert meta_test.level_names(trainees.suites_of(FAMILY, 1)) == ("worth", "worthless")
    assert len(trainees.suites_of(f"{FAMILY}/worth", 2)[0].levels) == 2


@pytest.mark.thorough
def test_a_rule_that_makes_no_difference_ends_where_the_learner_ends(suites, tested):
    """All trainees have the same random numbers for levels, starts and actions."""
    rule = evaluate(handed(), suites, PROTOCOL)
    own = tested[1]
    np.testing.assert_array_equal(rule.episode_return, own.episode_return)
    found = relative_to(rule, own)
    assert (found.mean.value, found.below.value) == (pytest.approx(1.0), 0.0)
    np.testing.assert_allclose(found.levels[:3], 1.0)
    assert len(np.unique(own.episode_return)) == own.episode_return.size  # no agent is shared
    assert (own.length == 6 * 3 * 5).all()


@pytest.mark.thorough
def test_each_seed_learns_by_its_own_rule(suites, tested):
    other = evaluate(handed(scales=True, rules=(1.0, 1.0)), suites, PROTOCOL)
    np.testing.assert_array_equal(other.episode_return[0], tested[0].episode_return[0])
    assert (other.episode_return[1] != tested[0].episode_return[1]).all()


@pytest.mark.thorough
def test_more_agents_trained_otherwise_many_at_a_time_end_alike(suites, tested, monkeypatch):
    monkeypatch.setattr(meta_test, "AGENTS_AT_A_TIME", 5)
    told, protocol = [], replace(PROTOCOL, attempts=3)  # nine agents: five, then four plus padding
    again = evaluate(baseline(), suites, protocol, progress=lambda *x: told.append(x))
    same = again.episode_return[..., :2]
    np.testing.assert_allclose(same, tested[1].episode_return, atol=1e-5)
    assert told == [(n, 36) for n in (0, 5, 9, 14, 18, 23, 27, 32, 36)]


@dataclass(frozen=True)
class Late(HeldOut):
    """Environment with episodes of eight steps; only the seventh is rewarded."""

    def step_env(self, key, state, action, params):
        obs, after, *_ = super().step_env(key, state, action, params)
        return obs, after, (state.time == 6).astype(jnp.float32), jnp.zeros((), bool), {}


def test_episodes_run_on_from_one_update_to_the_next():
    env = Late()
    learner = load("learners", "a2c").build(env)
    train = jax.jit(
        lambda key: train_agent(key, env, learner, (), env.default_params, Life(8, 3, 5))
    )
    paid = [(5 * u <= np.arange(6, 40, 8)) & (np.arange(6, 40, 8) < 5 * u + 5) for u in range(8)]
    expected = np.array([x.sum() / 5 for x in paid])
    np.testing.assert_allclose(train(jax.random.key(0)).reward, expected, rtol=1e-6)


def test_an_agent_is_judged_by_the_exact_return_of_its_last_policy():
    """Without learning the agent acts at random; the value of that is worked out by hand."""
    env = HeldOut(end_prob=0.0, max_steps=3)
    learner = replace(load("learners", "a2c").build(env), learning_rate=1e-30)
    level = replace(env.default_params, max_steps_in_episode=jnp.int32(3))
    train = jax.jit(lambda key: train_agent(key, env, learner, (), level, Life(1, 2, 2)))
    # State 1 has probability 0, 1/2, 1/2 before the three steps; staying there gives reward 1.
    assert train(jax.random.key(0)).final_return == pytest.approx(0.5)


def test_the_curve_has_means_of_equal_parts():
    parts = meta_test._in_parts(jnp.arange(25.0))
    split = [np.arange(25)[np.arange(25) * 10 // 25 == k] for k in range(10)]
    np.testing.assert_allclose(parts, [x.mean() for x in split], rtol=1e-6)
    np.testing.assert_allclose(meta_test._in_parts(jnp.arange(3.0)), [0, 1, 2])


def test_results_come_back_from_files_and_say_what_was_done(tested, tmp_path):
    results.save(tmp_path, tested)
    again = results.load(tmp_path)
    assert results.to_json(again) == results.to_json(tested)
    found = json.loads((tmp_path / "results.json").read_text())
    assert found["score"] == "return"  # the optimum is unknown
    assert [(x["run"], x["to"], x["num_excluded"]) for x in found["relative"]] == [
        ("handed", "a2c", 3)
    ]
    assert found["relative"][0]["levels"][3:] == [None] * 3
    curve = found["runs"][0]["meta"]["curve"][f"{FAMILY}/worth"]
    assert np.shape(curve) == (2, 6)
    said = (
        "each of 2 rules trained 2 fresh agents for 6 updates, with 3 parallel environments per"
        " agent and 5 steps of each per update"
    )
    assert said in sentence(tested)


@pytest.mark.parametrize("field", ["attempts", "num_workers", "num_steps", "lifetime"])
def test_sizes_out_of_range_are_refused(field):
    with pytest.raises(ValueError, match=f"{field} must be at least"):
        Protocol(**{field: -1})


def test_a_lifetime_is_the_environments_own_unless_asked_for():
    assert Protocol().life(HeldOut()).num_updates == 10
    assert Protocol(lifetime=3).life(HeldOut()).num_updates == 3


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of two tiny rules (seeds), trained for two updates by the command line."""
    path = tmp_path_factory.mktemp("runs") / "tiny"
    # A meta-learner's slot counts the env steps of its agents.
    sizes = ["--seeds", "2", "--steps", "60", "--chunk", "1", "--log-levels", "0"]
    assert main.main([*RECIPE, *sizes, "--out", str(path)]) == 0
    return path


@pytest.mark.thorough
def test_eval_trains_agents_by_a_runs_rules(run, capsys, tmp_path):
    options = ["--suite", FAMILY, "--lifetime", "3", "--workers", "2", "--attempts", "2"]
    out = tmp_path / "report"
    args = ["eval", str(run), *options, "--allow-imports", "--untrained", "--out", str(out)]
    assert main.main(args) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "Return relative to a2c" in printed
    assert "The ratios exclude 3 of 6 levels on which a2c has a mean return <= 0." in printed
    found = json.loads((out / "results.json").read_text())
    assert [one["run"] for one in found["runs"]] == ["tiny (untrained)", "tiny", "a2c"]
    assert [one["num_seeds"] for one in found["runs"]] == [2, 2, 2]
    page = (out / "report.html").read_text()
    assert "Meta-test on" in page
    assert "Student&#39;s t over the 2 seeds" in page
    assert (out / "agents.png").is_file()


@pytest.mark.thorough
def test_a_rule_file_stands_in_for_a_run(run, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rule = run / "rules" / "seed-000.npz"
    args = ["eval", str(rule), "--suite", f"{FAMILY}/worth", "--levels", "1", "--lifetime", "2"]
    assert main.main([*args, "--workers", "2", "--attempts", "1", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [one["run"] for one in found["runs"]] == ["seed-000", "a2c"]
    folder = f"{FAMILY.replace('/', '-')}-worth"
    assert (tmp_path / "eval" / "seed-000" / folder / "report.html").is_file()


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--suite", "gridwold/unseen"], "did you mean 'gridworld/unseen'?"),
        (["--suite", f"{FAMILY}/worthy"], f"did you mean '{FAMILY}/worth'?"),
        (["--suite", FAMILY, "--attempts", "0"], "attempts must be at least 1, got 0"),
        (["--suite", FAMILY, "--workers", "0"], "num_workers must be at least 1, got 0"),
        (["--suite", FAMILY, "--levels", "-1"], "levels must be at least 0 (all), got -1"),
        (["nowhere"], "nowhere is not a run folder"),
        (["nothing.npz", "--suite", FAMILY], "no rule at nothing.npz"),
    ],
)
def test_wrong_input_is_refused_before_anything_is_trained(run, capsys, tmp_path, args, message):
    out = tmp_path / "report"
    code = main.main(["eval", str(run), *args, "--allow-imports", "--out", str(out)])
    err = capsys.readouterr().err
    assert (code, err.count("\n")) == (2, 1)
    assert message in err
    assert not out.exists()


@pytest.mark.thorough
def test_rules_and_policies_are_not_compared(run, capsys, monkeypatch):
    monkeypatch.setattr(trainees, "learns_rule", lambda name, allow_imports: name == str(run))
    assert main.main(["eval", str(run), "other"]) == 2
    assert "tiny learned a rule and other a policy" in capsys.readouterr().err
    assert main.main(["eval", "other", "--levels", "3"]) == 2
    assert "--levels is for runs that learned a rule" in capsys.readouterr().err
