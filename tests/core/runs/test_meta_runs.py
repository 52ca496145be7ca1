"""Runs that learn a rule and runs that follow one: folders, resumption, progress."""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from rlgen import registry
from rlgen.algos.rules.files import load_rule
from rlgen.cli import main
from rlgen.evaluation.from_runs.curricula import find_examples
from rlgen.evaluation.generalisation.level_facts import find_facts, open_log
from rlgen.evaluation.report.curriculum_figure import history
from rlgen.levels import load_levels
from rlgen.parallel import sharding
from rlgen.runs import folder, metrics, program, training
from rlgen.runs.checkpoint import restore
from rlgen.runs.progress import Status, counter, describe
from rlgen.runs.records import pinned_files, save_files
from rlgen.runs.spec import RunSpec, build, plan
from rlgen.types import TrainState
from tests.standins.stubs import Unrun

SMALL = {
    "num_slots": 4,
    "student.num_workers": 4,
    "student.rollout_steps": 4,
    "student.num_inner_updates": 2,
    "student.rule.hidden_size": 8,
    "student.block": 2,
    "sampler.capacity": 8,
    "sampler.min_fill": 0.25,
    "sampler.source.shortest": 2,
    "sampler.source.longest": 6,
}
STEPS = 4 * 3 * 4 * 4  # env steps per update
GROOVE = RunSpec("groove", "gridworld/debug", steps=12 * STEPS, chunk=4, overrides=SMALL)
AGENT = RunSpec(
    "lpg-agent",
    "gridworld/debug",
    steps=4 * 4 * 20,
    chunk=2,
    overrides={"num_slots": 4, "student.updates_per_level": 2},
)


@pytest.fixture(scope="module")
def groove(tmp_path_factory) -> Path:
    return training.train(GROOVE, tmp_path_factory.mktemp("meta") / "groove")


def built(spec: RunSpec) -> tuple[Any, Any]:
    return build(spec)


def states_of(run: Path, update: int = 12) -> TrainState:
    spec, _, curriculum = folder.rebuild(folder.read(run))
    return restore(run, update, program.abstract_states(spec, curriculum))


@pytest.mark.thorough
def test_a_run_holds_its_rule_as_a_file_and_counts_every_kind_of_step(groove):
    learned, states = load_rule(groove), states_of(groove)
    np.testing.assert_array_equal(
        jax.tree.leaves(learned.params)[0], jax.tree.leaves(states.student.rule)[0][0]
    )
    told = {"recipe": "groove", "env": "gridworld/debug", "seed": 0, "meta_updates": 12}
    assert told.items() <= learned.meta.items()
    found = metrics.read(groove / "metrics.jsonl")
    assert [line["update"] for line in found] == list(range(1, 13))
    assert found[-1]["env_steps"]["train"] == 12 * STEPS
    assert found[-1]["env_steps"]["antagonist"] > 0
    for line in found:
        assert (line["lifetime_return"][0] is None) == (line["lifetimes_ended"][0] == 0)
    assert any(line["lifetimes_ended"][0] > 0 for line in found)
    assert any(line["levels_replay"][0] > 0 for line in found)


@pytest.mark.thorough
def test_a_resumed_run_is_the_same_run_bit_for_bit(groove, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(groove, copy)
    shutil.rmtree(copy / "rules")
    training.resume(copy, at=8)
    jax.tree.map(np.testing.assert_array_equal, states_of(copy), states_of(groove))
    name = "rules/seed-000.npz"
    assert (copy / name).read_bytes() == (groove / name).read_bytes()


@pytest.mark.thorough
def test_the_buffer_and_the_log_hold_levels_beside_their_lifetimes(groove):
    env, log = open_log(groove)
    assert {"lifetime", "age", "depth"} == set(log.lineage)
    assert log.lineage["lifetime"].min() >= 2
    assert log.lineage["lifetime"].max() <= 6
    scored = np.isfinite(log.score)
    assert scored.any()
    assert (log.episodes.num[scored] == 1).all()  # lifetimes that ended and were complete
    history(log, find_facts(env, log, 20), find_examples(env, log))
    levels = load_levels(groove / "levels.npz", env.sample_level(jax.random.key(0)))
    with np.load(groove / "levels.npz") as file:
        assert file["lifetime"].shape == (len(levels),)


@pytest.mark.thorough
def test_levels_are_drawn_and_a_rule_is_suggested_for_use(groove, tmp_path, capsys):
    assert main.main(["levels", "--run", str(groove), "-n", "2", "--out", f"{tmp_path}/a.png"]) == 0
    out = tmp_path / "agent"
    args = ["lpg-agent", "--env", "gridworld/debug", "--rule", str(groove), "--out", str(out)]
    sizes = ["--num-slots", "4", "--steps", "80", "--student.updates-per-level", "2"]
    assert main.main(["train", *args, *sizes]) == 0
    assert "--suite gridworld/" in capsys.readouterr().out
    record = folder.read(out)
    assert record["spec"]["rule"] == str(groove)
    assert record["fields"]["student.learner.rule"] == str(groove)
    folder.rebuild(record)


@pytest.mark.thorough
def test_a_rule_that_has_changed_is_noticed(groove, tmp_path):
    rule = tmp_path / "rule.npz"
    shutil.copy(groove / "rules" / "seed-000.npz", rule)
    student = build(dataclasses.replace(AGENT, rule=str(rule)))[1].student
    pinned_files(tmp_path, student)
    pinned_files(tmp_path, student)
    assert json.loads((tmp_path / "rule.json").read_text())["rule"] == str(rule)
    with np.load(rule) as file:
        arrays = dict(file)
    name = next(name for name in arrays if name != "header")
    np.savez(rule, **{**arrays, name: arrays[name] + 1})
    with pytest.raises(ValueError, match="has changed since"):
        pinned_files(tmp_path, student)


def test_an_untrained_rule_leaves_no_keepsake(tmp_path):
    pinned_files(tmp_path, build(AGENT)[1].student)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (RunSpec("dr", rule="x"), "the learner of dr does not follow a learned rule"),
        (
            dataclasses.replace(AGENT, rule="x", overrides={"student.learner.rule": "y"}),
            "give either --rule x or --student.learner.rule y",
        ),
        (dataclasses.replace(AGENT, rule="nowhere/rule.npz"), "no rule at nowhere/rule.npz"),
        (RunSpec("lpg", overrides={"levels_per_slot": 2}), "slots hold at most 1 level at a time"),
        (RunSpec("lpg", "gridworld/dens"), "unknown variant 'dens'.*did you mean 'dense'"),
        (RunSpec("lpg", "maze/dense"), "maze has no variants"),
        (RunSpec("lpg-agent", learner="ppo"), "requires the learner lpg, got 'ppo'"),
    ],
)
def test_what_cannot_be_is_refused_by_saying_what_can(spec, message):
    with pytest.raises(ValueError, match=message):
        build(spec)


@pytest.mark.parametrize("recipe", ["lpg", "lpg-fixed", "groove", "lpg-agent"])
def test_a_run_on_a_variant_is_rebuilt_from_its_record(recipe):
    spec = RunSpec(recipe, "gridworld/dense", preset="parity", steps=10)
    env, curriculum = build(spec)
    assert env == registry.make_env("gridworld/dense")
    record = json.loads(json.dumps(folder.describe(spec, env, curriculum)))
    again = folder.rebuild(record)
    assert again[1:] == (env, curriculum)
    assert plan(spec, curriculum).num_updates == 1


def test_a_networks_agents_learn_by_their_own_settings():
    student = built(RunSpec("groove", "maze"))[1].student
    assert student.agent.learning_rate == 1e-3
    assert student.antagonist.discount == student.agent.discount


def test_the_scores_discount_follows_the_agents():
    spec = RunSpec("groove", "gridworld/debug", score="positive-value-loss")
    _, curriculum = built(dataclasses.replace(spec, overrides={"student.agent.discount": 0.9}))
    assert curriculum.score.discount == 0.9
    assert curriculum.student.antagonist == ()  # that score needs no antagonist


def test_numbers_that_need_not_be_there_do_not_stop_a_run():
    nan, one = np.array([[np.nan], [1.0]]), np.ones((2, 1))
    found = {
        "weight": one,
        "lifetime_return": nan,
        "meta_loss": nan,
        "skipped_meta_gradients": 1 - one,
    }
    bad = metrics.first_bad(0, found, {})
    assert bad is not None
    assert bad.name == "meta_loss"
    found["skipped_meta_gradients"] = np.array([[1.0], [0.0]])
    assert metrics.first_bad(0, found, {}) is None
    assert metrics.skipped(found) == ["1 meta-gradient was not finite and was skipped"]
    found["skipped_meta_gradients"] = 3 * one
    assert metrics.skipped(found) == ["6 meta-gradients were not finite and were skipped"]
    assert metrics.skipped({"weight": one}) == []


def test_progress_tells_of_lives_where_there_are_no_episodes():
    status = Status(1, 2, 10.0, 1.0, 1.0, {"lifetime_return": 1.5})
    assert "lifetime return 1.50" in describe(status)
    status = status._replace(metrics={"lifetime_return": 1.5, "episode_return": 2.0})
    assert "lifetime" not in describe(status)


def test_where_there_is_no_terminal_a_count_is_told_now_and_then_and_at_its_end(capsys):
    show = counter("lpg", "agents")
    for done in (0, 600, 1200):
        show(done, 1200)
    assert capsys.readouterr().err == "lpg: 0 of 1,200 agents\nlpg: 1,200 of 1,200 agents\n"


@pytest.mark.thorough
def test_agents_are_split_over_devices_with_their_slots():
    _, curriculum = build(GROOVE)
    states = program.abstract_states(GROOVE, curriculum)
    mesh = sharding.make_mesh(2, 1, 4)
    placed = sharding.state_shardings(mesh, states, curriculum.student).student
    split = jax.sharding.PartitionSpec(None, "slots")
    assert {x.spec for x in jax.tree.leaves(placed.population)} == {split}
    assert {x.spec for x in jax.tree.leaves(placed.rule)} == {jax.sharding.PartitionSpec()}
    updated = jax.eval_shape(
        lambda ts, keys: dataclasses.replace(
            curriculum, student=sharding.over_slots(mesh, curriculum.student)
        ).update(ts, keys),
        jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), states),
        jax.tree.map(lambda key: key[0] if key.ndim else key, program.run_keys(GROOVE)[1]),
    )
    assert jax.tree.structure(updated[0]) == jax.tree.structure(states)


def test_files_of_a_student_are_written_whole(tmp_path):
    class Writer(Unrun):
        def files(self, states, origin):
            return {"a/b.bin": f"{origin['recipe']} {origin['seed']}".encode()}

    blank = TrainState((), (), None, None)  # pyright: ignore[reportArgumentType]
    told = {"recipe": "groove", "env": "gridworld", "preset": "fast", "seed": 0, "seeds": 2}
    save_files(tmp_path, Writer(), blank, told)
    save_files(tmp_path, Unrun(), blank, told)
    assert [str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*.*")] == ["a/b.bin"]
    assert (tmp_path / "a" / "b.bin").read_text() == "groove 0"


def test_variants_are_listed(capsys):
    assert main.main(["list", "envs"]) == 0
    assert "gridworld/dense" in capsys.readouterr().out
