"""Runs as data and files, with external stand-in components that train in milliseconds."""

import dataclasses
import errno
import importlib.machinery
import json
import shutil
import sys
import types
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

from rlgen.runs import checkpoint, folder, metrics, program, training
from rlgen.runs.metrics import Counters
from rlgen.runs.spec import OF_RECIPE, RunSpec, build, plan, steps_of, with_names
from tests.paths import TESTS


@pytest.fixture(autouse=True)
def _standins(monkeypatch):
    monkeypatch.syspath_prepend(TESTS)


def spec(**changes) -> RunSpec:
    """Return a spec of 16 env steps per update and 12 updates in chunks of 3."""
    base = RunSpec("standins.trial", env="standins.arm", steps=12 * 16, chunk=3)
    return dataclasses.replace(base, **changes)


def built(asked: RunSpec) -> tuple[Any, Any]:
    return build(asked)


def final(run: Path, like: RunSpec, update: int = 12):
    _, curriculum = build(like)
    record = folder.read(run)
    states, _ = training.restore(run, record, program.abstract_states(like, curriculum), update)
    return states


def same(x, y, exact: bool = True) -> None:
    def compare(a, b):
        if jax.numpy.issubdtype(a.dtype, jax.dtypes.prng_key):
            a, b = jax.random.key_data(a), jax.random.key_data(b)
        np.testing.assert_allclose(a, b, rtol=0 if exact else 1e-5, atol=0 if exact else 1e-6)

    jax.tree.map(compare, x, y)


def lines(run: Path) -> list[dict]:
    """Return the metrics, without those that depend on the clock."""
    clock = ("wall_seconds", "compile_seconds", "steps_per_second")
    found = metrics.read(run / "metrics.jsonl")
    return [{k: v for k, v in line.items() if k not in clock} for line in found]


def files(run: Path) -> dict[str, bytes]:
    return {str(p.relative_to(run)): p.read_bytes() for p in run.rglob("*") if p.is_file()}


def test_presets_then_the_users_values():
    env, curriculum = built(spec())
    assert (env.spread, curriculum.student.learner.rate) == (2.0, 0.1)
    user = spec(env_fields={"spread": 5}, overrides={"student.learner.rate": 0.3})
    env, curriculum = built(user)
    assert (env.spread, curriculum.student.learner.rate) == (5.0, 0.3)
    with pytest.raises(ValueError, match="unknown preset 'strog'; did you mean 'strong'"):
        build(spec(preset="strog"))


@pytest.mark.parametrize(
    ("steps", "chunk", "updates", "used"),
    [
        (1, 0, 1, 1),
        (16, 0, 1, 1),
        (17, 0, 2, 1),
        (1600, 0, 100, 2),
        (1616, 0, 102, 2),
        (100, 3, 9, 3),
        (16, 5, 1, 1),
        (16 * 10**6, 0, 10**6, 100),
    ],
)
def test_steps_are_rounded_up_to_whole_chunks(steps, chunk, updates, used):
    asked = spec(steps=steps, chunk=chunk)
    found = plan(asked, build(asked)[1])
    assert (found.num_updates, found.chunk, found.steps_per_update) == (updates, used, 16)


def test_a_recipe_says_how_long_it_runs_unless_the_user_does(monkeypatch):
    from standins import trial

    unsaid = spec(steps=OF_RECIPE, chunk=5)
    assert steps_of(unsaid) == 5_000_000
    monkeypatch.setattr(trial, "STEPS", {"fast": 160, "strong": 320}, raising=False)
    assert [steps_of(dataclasses.replace(unsaid, preset=x)) for x in ("fast", "strong")] == [
        160,
        320,
    ]
    assert steps_of(spec(steps=48)) == 48
    assert plan(unsaid, build(unsaid)[1]).num_updates == 10
    assert with_names(unsaid).steps == 160  # as in the record of a run
    with pytest.raises(ValueError, match="steps must be at least 1, got -2"):
        spec(steps=-2)


def test_schedules_span_the_whole_run():
    assert built(spec())[1].student.learner.num_updates == 12
    chosen = spec(overrides={"student.learner.num_updates": 99})
    assert built(chosen)[1].student.learner.num_updates == 99


@pytest.mark.thorough
def test_one_run_of_three_seeds_is_three_runs_of_one_up_to_rounding(tmp_path):
    together = spec(seed=5, seeds=3)
    training.train(together, tmp_path / "all")
    states = final(tmp_path / "all", together)
    for i in range(3):
        alone = spec(seed=5 + i)
        training.train(alone, tmp_path / str(i))
        same(jax.tree.map(lambda x, i=i: x[i], states), jax.tree.map(
            lambda x: x[0], final(tmp_path / str(i), alone)), exact=False)  # fmt: skip
    rows = [line["loss"] for line in lines(tmp_path / "all")]
    assert len(rows) == 12
    assert len(rows[0]) == 3
    assert len({tuple(row) for row in rows}) == 12


def test_the_shared_key_is_of_the_branch_seed_alone():
    def bits(key):
        return jax.random.key_data(key).tolist()

    init, keys = program.run_keys(spec(seed=0, seeds=4))
    init_3, keys_3 = program.run_keys(spec(seed=3))
    assert bits(init[3]) == bits(init_3[0])
    assert bits(keys.own[3]) == bits(keys_3.own[0])
    assert bits(keys.shared) == bits(keys_3.shared)
    assert bits(keys.shared) != bits(program.run_keys(spec(branch_seed=1))[1].shared)
    assert len({str(bits(key)) for key in [*init, *keys.own, keys.shared]}) == 9


@pytest.mark.thorough
def test_the_length_of_chunks_changes_nothing_but_rounding(tmp_path):
    training.train(spec(), tmp_path / "a")
    training.train(spec(chunk=4), tmp_path / "b")
    same(final(tmp_path / "a", spec()), final(tmp_path / "b", spec(chunk=4)), exact=False)
    assert lines(tmp_path / "a")[-1]["update"] == lines(tmp_path / "b")[-1]["update"] == 12


def test_a_run_is_rebuilt_from_its_record_after_a_preset_changed(tmp_path, monkeypatch):
    from standins import trial

    training.train(spec(), tmp_path / "run")
    monkeypatch.setattr(trial, "PRESETS", {"fast": {"student.learner.rate": 9.0}})
    saved, env, curriculum = folder.rebuild(folder.read(tmp_path / "run"), allow_imports=True)
    learner: Any = getattr(curriculum.student, "learner")  # noqa: B009
    assert (learner.rate, env.spread) == (0.1, 2.0)
    assert saved == spec(learner="arm-learner")


def test_a_strangers_run_imports_nothing(tmp_path):
    training.train(spec(), tmp_path / "run")
    with pytest.raises(ValueError, match=r"outside rlgen: standins.trial, standins.arm; .*--allow"):
        training.resume(tmp_path / "run")
    assert all(not data.startswith((b"\x80\x03", b"\x80\x04")) for data in files(tmp_path).values())


def test_metrics_count_and_name_everything(tmp_path):
    training.train(spec(seeds=2), tmp_path / "run")
    last = metrics.read(tmp_path / "run" / "metrics.jsonl")[-1]
    assert last["update"] == 12
    assert last["env_steps"] == {"train": 12 * 16.0, "score": 0.0}
    assert last["gradient_updates"] == 12
    assert last["compile_seconds"] > 0
    assert last["wall_seconds"] > 0
    assert len(last["loss"]) == 2
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert {"rlgen", "jax", "jaxlib", "flax", "optax", "numpy", "python"} <= set(config["versions"])
    assert config["fields"]["student.learner.rate"] == 0.1
    assert config["env"] == {"spread": 2.0}


def test_an_update_that_trains_nothing_may_lack_a_loss(tmp_path):
    training.train(spec(overrides={"sampler.weight": 0.0}), tmp_path / "run")
    last = lines(tmp_path / "run")[-1]
    assert last["loss"] == [None]
    assert last["gradient_updates"] == 0


@pytest.mark.parametrize(
    ("field", "at", "update", "name"),
    [("bad_update", 7, 8, "loss"), ("bad_param", 8, 9, "episode_return")],
)
def test_a_bad_number_stops_the_run_at_its_chunk(tmp_path, field, at, update, name):
    broken = spec(seed=4, seeds=2, overrides={f"student.learner.{field}": at})
    with pytest.raises(training.RunStoppedError) as stopped:
        training.train(broken, tmp_path / "run")
    assert f"update {update}: {name} of seed 4 is not finite" in str(stopped.value)
    assert "Continue from the checkpoint of update 6 with: " in str(stopped.value)
    assert f"rlgen train --resume {tmp_path / 'run'}" in str(stopped.value)
    assert stopped.value.exit_code == 1
    assert checkpoint.updates(tmp_path / "run") == [3, 6]
    state = final(tmp_path / "run", broken, 6)
    assert np.isfinite(state.student.place).all()


def test_an_update_in_which_no_episode_ends_is_not_bad():
    """Regression: a run with tenancies longer than an update was stopped."""
    long = {"weight": np.ones((3, 2)), "num_episodes": np.array([[4, 2], [0, 3], [1, 1]])}
    for name in ("episode_length", "episode_return", "solve_rate"):
        long[name] = np.where(long["num_episodes"] > 0, 1.0, np.nan)
    counts = {name: "num_episodes" for name in long if name not in ("weight", "num_episodes")}
    assert metrics.first_bad(0, long, {}, counts) is None
    long["episode_return"][2, 1] = np.nan
    assert metrics.first_bad(0, long, {}, counts) == (3, 1, "episode_return")


def test_the_first_bad_quantity_is_named():
    good = {"weight": np.ones((3, 2)), "loss": np.ones((3, 2)), "kl": np.ones((3, 2))}
    fine = {"params.w": np.array([True, True])}
    assert metrics.first_bad(10, good, fine) is None
    later = {**good, "loss": np.array([[1, 1], [1, 1], [np.inf, 1]]), "kl": np.ones((3, 2))}
    later["kl"][1, 1] = np.nan
    assert metrics.first_bad(10, later, fine) == (12, 1, "kl")
    assert metrics.first_bad(10, good, {**fine, "params.b": np.array([True, False])}) == (
        13,
        1,
        "parameter params.b",
    )
    skipped = {**good, "weight": np.array([[1, 1], [1, 0], [1, 1]])}
    skipped["kl"][1, 1] = np.nan
    assert metrics.first_bad(10, skipped, fine) is None
    # Returns do not come from training, so NaN is an error even without weight.
    skipped["episode_return"] = np.where(skipped["weight"] > 0, 0.0, np.nan)
    assert metrics.first_bad(10, skipped, fine) == (12, 1, "episode_return")
    del skipped["episode_return"]
    skipped["score"] = np.full((3, 2), np.nan)  # no level was scored
    assert metrics.first_bad(10, skipped, fine) is None


def test_gradient_updates_count_what_was_not_skipped():
    """Ten steps in one of two seeds count as five on average; a student may omit the count."""
    found = {"weight": np.array([[1.0, 0.0], [0.0, 0.0]]), "steps_train": np.full((2, 2), 8.0)}
    counted = found | {"gradient_steps": np.array([[10.0, 0.0], [0.0, 0.0]])}
    after = metrics.advance(Counters(update=4), counted, seconds=1.0)
    assert [(c.update, c.gradient_updates, c.steps["train"]) for c in after] == [
        (5, 5.0, 8.0),
        (6, 5.0, 16.0),
    ]
    assert after[-1].wall_seconds == 1.0
    uncounted = metrics.advance(Counters(update=4), found, seconds=1.0)
    assert [c.gradient_updates for c in uncounted] == [0.0, 0.0]


def test_lines_after_the_checkpoint_are_cut_off(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text(
        "".join(f'{{"update": {i}, "x": 1}}\n' for i in range(1, 6)) + '{"update": 6, "'
    )
    metrics.cut(path, 4)
    assert [line["update"] for line in metrics.read(path)] == [1, 2, 3, 4]


def test_an_existing_folder_is_left_alone(tmp_path):
    training.train(spec(), tmp_path / "run")
    before = files(tmp_path / "run")
    with pytest.raises(ValueError, match=r"exists and was left unchanged.*--resume"):
        training.train(spec(), tmp_path / "run")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").write_text("x")
    with pytest.raises(ValueError, match="exists and was left unchanged"):
        training.train(spec(), tmp_path / "other")
    assert files(tmp_path / "run") == before
    with pytest.raises(ValueError, match="has ended: all 12 updates are done"):
        training.resume(tmp_path / "run", allow_imports=True)


@pytest.mark.thorough
@pytest.mark.parametrize("damage", ["cut", "flip", "missing", "meta"])
def test_a_damaged_checkpoint_is_refused_by_name_and_left(tmp_path, damage):
    run = tmp_path / "run"
    training.train(spec(), run)
    whole = final(run, spec())
    newest = run / "checkpoints" / "00000012"
    data = max((p for p in newest.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    victim = newest / "meta.json" if damage == "meta" else data
    content = victim.read_bytes()
    flipped = content[:-5] + bytes([content[-5] ^ 1]) + content[-4:]
    if damage == "missing":
        victim.unlink()
    else:
        victim.write_bytes({"cut": content[:-9], "meta": content[:-9], "flip": flipped}[damage])
    before = files(run)
    with pytest.raises(ValueError, match=r"00000012 is damaged .* left unchanged.*--checkpoint 9"):
        training.resume(run, allow_imports=True)
    assert files(run) == before
    training.resume(run, at=9, allow_imports=True)
    same(final(run, spec()), whole)
    assert (run / "checkpoints" / "00000012.set-aside").is_dir()


def test_a_foreign_checkpoint_is_refused_shortly(tmp_path):
    training.train(spec(), tmp_path / "a")
    training.train(spec(overrides={"student.learner.width": 6}), tmp_path / "b")
    shutil.rmtree(tmp_path / "b" / "checkpoints")
    shutil.copytree(tmp_path / "a" / "checkpoints", tmp_path / "b" / "checkpoints")
    with pytest.raises(ValueError, match="belongs to a different run"):
        training.resume(tmp_path / "b", allow_imports=True)
    wide = spec(overrides={"student.learner.width": 6})
    like = program.abstract_states(wide, build(wide)[1])
    with pytest.raises(ValueError, match="should be ") as refused:
        checkpoint.restore(tmp_path / "a", 12, like)
    assert "student.place should be float32[1, 6], found float32[1, 4]" in str(refused.value)
    assert len(str(refused.value)) < 400


def test_a_checkpoint_of_another_version_is_refused_as_such(tmp_path):
    run = tmp_path / "run"
    training.train(spec(), run)
    meta = run / "checkpoints" / "00000012" / "meta.json"
    content = json.loads(meta.read_text())
    content["counters"]["steps_train"] = content["counters"].pop("steps")["train"]
    meta.write_text(json.dumps(content))
    with pytest.raises(ValueError, match="00000012 was written by another version of rlgen"):
        training.resume(run, allow_imports=True)


def test_a_run_of_version_0_1_is_refused_by_its_version_and_its_rule_is_named(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"format": "rlgen-run-1", "spec": {}}))
    with pytest.raises(
        ValueError, match=r"was written by rlgen 0\.1, .* Use rlgen 0\.1 to read it"
    ):
        folder.read(tmp_path)
    rule = tmp_path / "rules" / "seed-000.npz"
    rule.parent.mkdir()
    rule.write_bytes(b"")
    with pytest.raises(ValueError, match=r"Its learned rule can still be used: .*seed-000\.npz"):
        folder.read(tmp_path)


@pytest.mark.thorough
@pytest.mark.parametrize("kind", ["python", "orbax"])
def test_a_full_disk_keeps_the_last_checkpoint(tmp_path, monkeypatch, kind):
    number = iter(range(100))
    if kind == "python":
        owner, name = checkpoint, "_flush"
        error: Exception = OSError(errno.ENOSPC, "No space left on device")
    else:  # what orbax raises, seen on a full file system
        owner, name = ocp.StandardCheckpointer, "save"
        error = ValueError("RESOURCE_EXHAUSTED: Error writing: No space left on device [28]")
    original = getattr(owner, name)

    def full(*args, **options):
        if next(number) >= 2:
            raise error
        return original(*args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, full)
        with pytest.raises(training.RunStoppedError, match="o space left") as stopped:
            training.train(spec(), tmp_path / "run")
    assert "Continue from the checkpoint of update 6 with: " in str(stopped.value)
    assert [p.name for p in sorted((tmp_path / "run" / "checkpoints").iterdir())] == [
        "00000003",
        "00000006",
    ]
    training.resume(tmp_path / "run", allow_imports=True)
    training.train(spec(), tmp_path / "whole")
    same(final(tmp_path / "run", spec()), final(tmp_path / "whole", spec()))
    assert lines(tmp_path / "run") == lines(tmp_path / "whole")


def test_checkpoints_every_few_chunks_and_at_the_end(tmp_path):
    sparse = spec(chunk=1, checkpoint_every=5, keep_checkpoints=9)
    training.train(sparse, tmp_path / "run")
    assert checkpoint.updates(tmp_path / "run") == [5, 10, 12]


def test_tensorboard_is_an_extra_named_when_missing(tmp_path, monkeypatch):
    options = training.Options(tensorboard=True)
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(ValueError, match=r"pip install 'rlgen\[tensorboard\]'"):
        training.train(spec(), tmp_path / "run", options)
    assert not (tmp_path / "run").exists()


def test_tensorboard_gets_every_metric_of_a_chunk(tmp_path, monkeypatch):
    written = []

    class Writer:
        def __init__(self, folder):
            assert folder == str(tmp_path / "run" / "tensorboard")

        def add_scalar(self, name, value, step):
            written.append((name, step))

        def close(self):
            written.append("closed")

    module: Any = types.ModuleType("tensorboardX")
    module.SummaryWriter = Writer
    module.__spec__ = importlib.machinery.ModuleSpec("tensorboardX", None)
    monkeypatch.setitem(sys.modules, "tensorboardX", module)
    training.train(spec(), tmp_path / "run", training.Options(tensorboard=True))
    assert [entry for entry in written if entry[0] == "loss"] == [
        ("loss", 48.0 * i) for i in (1, 2, 3, 4)
    ]
    assert written[-1] == "closed"
