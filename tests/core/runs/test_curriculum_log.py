"""The curriculum log: its content, its state after a kill, and rejection of bad files."""

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlgen import config
from rlgen.algos.recipes.ued import plr
from rlgen.envs import maze
from rlgen.runs import checkpoint, curriculum_log, training
from rlgen.runs.program import compile_run, run_keys
from rlgen.runs.records import find_buffer
from rlgen.runs.spec import Plan, RunSpec
from rlgen.types import Keys
from tests.paths import TESTS

UPDATES, SLOTS, KEPT = 6, 4, 2
SMALL = {
    "num_slots": SLOTS,
    "student.num_steps": 24,
    "student.learner.network.hidden_size": 4,
    "student.learner.network.head_size": 4,
    "student.learner.network.conv_features": 2,
    "student.learner.num_epochs": 1,
    "sampler.capacity": 8,
    "sampler.min_fill": 0.5,
    "sampler.decision.replay_prob": 0.5,
}


@pytest.fixture(autouse=True, scope="module")
def _standins():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(TESTS)
        yield


def spec(**changes) -> RunSpec:
    """Return a spec of 16 env steps per update and 12 updates; levels are single numbers."""
    base = RunSpec("standins.trial", env="standins.arm", steps=12 * 16, chunk=3, log_levels=2)
    return dataclasses.replace(base, **changes)


def log_files(run: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (run / "curriculum").iterdir()}


@pytest.fixture(scope="module")
def whole(tmp_path_factory, _standins):
    """An uninterrupted run of the stand-ins."""
    return training.train(spec(), tmp_path_factory.mktemp("runs") / "whole")


@pytest.fixture
def copy(whole, tmp_path):
    """A copy of the run that a test may damage."""
    return shutil.copytree(whole, tmp_path / "copy")


@pytest.fixture(scope="module")
def plr_run():
    """Spec and curriculum of a run of two seeds; states, metrics and log of one chunk."""
    asked = RunSpec("plr", seeds=2, log_levels=KEPT)
    curriculum = config.override(plr.build(maze.tiny(), learner="ppo"), SMALL)
    program = compile_run(asked, curriculum, Plan(UPDATES, UPDATES, SLOTS * 24))
    states, metrics, _, kept = program.chunk(program.init(), 0)
    return asked, curriculum, jax.device_get((states, metrics, kept))


def by_hand(asked: RunSpec, curriculum: Any, seed: int) -> list:
    """Step one seed alone and return what its slots played in every update."""
    firsts, keys = run_keys(asked)
    step = jax.jit(curriculum.update_and_show)
    ts, found = jax.jit(curriculum.init)(firsts[seed]), []
    for t in range(UPDATES):
        now = Keys(*(jax.random.fold_in(key, t) for key in (keys.own[seed], keys.shared)))
        ts, _, met = step(ts, now)
        found.append(jax.device_get(met))
    return found


@pytest.mark.thorough
def test_the_log_holds_exactly_what_the_slots_met(plr_run, tmp_path):
    """Two vmapped seeds are compared with each seed stepped alone."""
    asked, curriculum, (_, _, kept) = plr_run
    slot = curriculum_log.kept_slots(SLOTS, KEPT)
    assert slot.tolist() == [1, 3]
    curriculum_log.write(tmp_path, 0, slot, kept)
    log = curriculum_log.read(tmp_path, curriculum.sampler.example_level())
    assert log.update.tolist() == [1, 2, 3, 4, 5, 6]
    assert np.isnan(log.env_steps).all()  # metrics.jsonl is missing
    assert set(np.unique(log.origin)) == {0, 1}  # some levels were replayed
    for seed in range(2):
        for u, met in enumerate(by_hand(asked, curriculum, seed)):
            jax.tree.map(
                lambda x, y, at=(u, seed): np.testing.assert_array_equal(x[at], y[slot, 0]),
                (log.level, log.row, log.lineage),
                (met.slots.level, met.slots.buffer_index, met.lineage),
            )
            np.testing.assert_array_equal(log.origin[u, seed], met.slots.origin[slot])
            np.testing.assert_array_equal(log.weight[u, seed], met.slots.weight[slot])
            np.testing.assert_array_equal(log.episodes.num[u, seed], met.episodes.num[slot, 0])
            np.testing.assert_allclose(log.score[u, seed], met.score[slot, 0], atol=1e-5)


@pytest.mark.thorough
def test_a_replayed_level_is_as_old_as_the_updates_since_it_was_first_met(plr_run):
    """Checked for replayed levels whose first play is in the log."""
    _, _, (_, _, kept) = plr_run
    level = [np.asarray(x).reshape(*kept.score.shape, -1) for x in jax.tree.leaves(kept.level)]
    level = np.concatenate(level, axis=-1)
    compared = 0
    for seed, update, slot in np.argwhere(kept.origin == 1):
        same = (level[seed] == level[seed, update, slot]).all(-1) & (kept.origin[seed] == 0)
        if same.any():
            born = int(np.argwhere(same)[0][0])
            assert kept.lineage["age"][seed, update, slot] == update - born
            compared += 1
    assert compared > 0
    assert (kept.lineage["depth"] == 0).all()


@pytest.mark.thorough
def test_the_buffers_file_tells_origin_depth_and_age(plr_run):
    _, curriculum, (states, _, _) = plr_run
    found = find_buffer(curriculum.sampler, states.sampler)
    assert found is not None
    born = np.asarray(states.sampler.buffer.level_info.lineage.born)[found.seed, found.row]
    np.testing.assert_array_equal(found.past["age"], UPDATES - 1 - born)
    assert (found.past["age"] > 0).any()
    assert found.past["origin"].shape == found.past["depth"].shape == found.score.shape


@pytest.mark.thorough
def test_slots_split_over_devices_are_logged_as_on_one(plr_run):
    asked, curriculum, (_, _, kept) = plr_run
    split = dataclasses.replace(asked, seeds=1, devices=2)
    program = compile_run(split, curriculum, Plan(UPDATES, UPDATES, SLOTS * 24))
    found = jax.device_get(program.chunk(program.init(), 0)[3])
    alone = jax.tree.map(lambda x: x[:1], kept)
    jax.tree.map(np.testing.assert_array_equal, found.level, alone.level)
    np.testing.assert_allclose(found.score, alone.score, rtol=1e-4, atol=1e-5)


@pytest.mark.thorough
def test_seeds_split_over_devices_are_logged_as_on_one(tmp_path):
    training.train(spec(seeds=2), tmp_path / "one")
    training.train(spec(seeds=2, devices=2), tmp_path / "two")
    one, two = (curriculum_log.read(tmp_path / name, np.float32(0)) for name in ("one", "two"))
    jax.tree.map(np.testing.assert_array_equal, one, two)


@pytest.mark.thorough
def test_students_without_episodes_and_samplers_without_a_past_have_a_log(whole, tmp_path):
    training.train(spec(seeds=3), tmp_path / "run")
    log = curriculum_log.read(tmp_path / "run", np.float32(0))
    assert log.level.shape == log.score.shape == (12, 3, 2)
    assert (log.episodes, log.lineage) == ((), {})
    np.testing.assert_array_equal(log.env_steps, np.arange(1, 13) * 16)
    assert sorted(log_files(tmp_path / "run")) == [f"{u:08d}.npz" for u in (3, 6, 9, 12)]
    alone = curriculum_log.read(whole, np.float32(0))
    np.testing.assert_array_equal(log.level[:, :1], alone.level)


@pytest.mark.thorough
def test_a_killed_and_resumed_run_has_the_log_of_a_whole_one(whole, tmp_path, monkeypatch):
    number = iter(range(99))

    def dies(*args, original=checkpoint.save):
        if next(number) == 2:  # the log of this chunk is written, its checkpoint is not
            raise KeyboardInterrupt
        return original(*args)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save", dies)
        with pytest.raises(KeyboardInterrupt):
            training.train(spec(), tmp_path / "run")
    assert "00000009.npz" in log_files(tmp_path / "run")
    assert checkpoint.updates(tmp_path / "run") == [3, 6]
    (tmp_path / "run" / "curriculum" / ".00000012.part").write_bytes(b"half a file")
    training.resume(tmp_path / "run", allow_imports=True)
    assert log_files(tmp_path / "run") == log_files(whole)


def test_cutting_removes_what_came_later_and_nothing_else(copy):
    (copy / "curriculum" / "notes.npz").write_bytes(b"the user's own")
    curriculum_log.cut(copy, 6)
    assert sorted(log_files(copy)) == ["00000003.npz", "00000006.npz", "notes.npz"]
    assert curriculum_log.read(copy, np.float32(0)).update.tolist() == [1, 2, 3, 4, 5, 6]
    curriculum_log.cut(copy / "nowhere", 0)  # old runs lack this folder


def test_no_log_on_request_and_old_runs_go_on(tmp_path):
    training.train(spec(log_levels=0), tmp_path / "run")
    assert not (tmp_path / "run" / "curriculum").exists()
    with pytest.raises(ValueError, match=r"has no curriculum log.*--log-levels 0"):
        curriculum_log.read(tmp_path / "run", np.float32(0))
    with pytest.raises(ValueError, match="log_levels must be 0 or more, got -1"):
        spec(log_levels=-1)


@pytest.mark.parametrize("damage", ["cut", "flip", "empty", "renamed", "other level"])
def test_a_damaged_file_is_refused_by_name(copy, damage):
    path = copy / "curriculum" / "00000006.npz"
    content, like = path.read_bytes(), np.zeros(2, np.float32)
    if damage == "renamed":
        path.rename(path.with_name("00000007.npz"))
    elif damage != "other level":
        like = np.float32(0)
        at = content.index(b"PK\x01\x02") - 2  # in the last array's data
        flipped = content[:at] + bytes([content[at] ^ 255]) + content[at + 1 :]
        path.write_bytes({"cut": content[:-30], "flip": flipped, "empty": b""}[damage])
    names = {"renamed": "00000007", "other level": "00000003"}
    with pytest.raises(ValueError, match=rf"{names.get(damage, '00000006')}.npz is .*damaged"):
        curriculum_log.read(copy, like)


def test_files_of_another_run_are_told_apart(copy, tmp_path):
    training.train(spec(log_levels=3), tmp_path / "other")
    name = Path("curriculum") / "00000006.npz"
    shutil.copy(tmp_path / "other" / name, copy / name)
    with pytest.raises(ValueError, match=r"00000006.npz is damaged or from another run.*shape"):
        curriculum_log.read(copy, np.float32(0))


@pytest.mark.parametrize(("slots", "asked"), [(9, 3), (8, 8), (4, 9), (1, 1), (256, 8)])
def test_kept_slots_are_all_different_and_evenly_spread(slots, asked):
    at = curriculum_log.kept_slots(slots, asked)
    assert len(at) == min(slots, asked)
    assert ((at >= 0) & (at < slots)).all()
    gaps = np.diff(at)
    assert (gaps > 0).all()
    assert gaps.size == 0 or gaps.max() - gaps.min() <= 1
    if slots % 3 == 0 and asked >= 3:  # each of the blocks new, replayed and edited has its share
        assert np.bincount(at * 3 // slots, minlength=3).min() >= asked // 3
    assert jnp.arange(slots)[at].shape == at.shape
