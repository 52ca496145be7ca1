"""Digests of results folders: damage, edits, interrupted saves and results without digests."""

import json
import os
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlgen.envs.maze import tiny
from rlgen.evaluation.episodes import Evaluation
from rlgen.evaluation.from_runs.saved_results import find_saved, saved_folder
from rlgen.evaluation.load_runs import Opened
from rlgen.evaluation.report import digest, results
from rlgen.levels import Suite, make_level_set
from rlgen.runs.spec import RunSpec


def evaluation(run="run", solved=0.5, seed=0):
    """Return an evaluation of two seeds on three levels with four attempts."""
    success = np.random.default_rng(seed).random((2, 3, 4)) < solved
    return Evaluation(
        run=run,
        suite="maze/heldout",
        suite_version="1",
        level_names=("a", "b", "é"),
        level_hashes=np.arange(6).reshape(3, 2),
        optimal_steps=np.array([3, 4, -1]),
        optimal_return=np.array([0.7, np.nan, 0.1]),
        episode_return=success * 0.1,
        length=np.where(success, 5, 9),
        success=success,
        meta={"update": 7, "env_steps": 0.1 + 0.2},
    )


def edit(folder, change):
    """Change the content of `results.json`."""
    path = folder / "results.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    change(content)
    path.write_text(json.dumps(content), encoding="utf-8")


def edit_episodes(folder, change):
    """Change the arrays of `episodes.npz`."""
    with np.load(folder / "episodes.npz") as file:
        arrays = {name: file[name] for name in file.files}
    change(arrays)
    np.savez(folder / "episodes.npz", allow_pickle=False, **arrays)


def test_saved_results_are_verified_however_they_are_formatted(tmp_path):
    results.save(tmp_path, [evaluation(), evaluation("other", 0.9)])
    assert results.read(tmp_path).is_verified
    edit(tmp_path, lambda content: content.update(suite=content.pop("suite")))  # another order
    edit_episodes(tmp_path, lambda arrays: None)  # without compression
    assert results.read(tmp_path).is_verified


def one_return(arrays):
    arrays["0/episode_return"][1, 2, 3] += 1e6


def one_success(arrays):
    arrays["0/success"][0, 0, 0] ^= True


def more_arrays(arrays):
    arrays["1/length"] = arrays["0/length"]


def other_type(arrays):
    arrays["0/length"] = arrays["0/length"].astype(np.int32)


@pytest.mark.parametrize("change", [one_return, one_success, more_arrays, other_type])
def test_edited_episodes_are_refused(tmp_path, change):
    results.save(tmp_path, [evaluation()])
    edit_episodes(tmp_path, change)
    with pytest.raises(ValueError, match=r"episodes\.npz does not agree .* again with --overwrite"):
        results.load(tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        lambda c: c["runs"][0]["meta"].update(update=8),
        lambda c: c["levels"][0].update(optimal_return=1e-9),
        lambda c: c["runs"][0].update(run="renamed"),
        lambda c: c.update(more=1),
        lambda c: c["digest"].update(episodes="0" * 64),
        lambda c: c["digest"].pop("results"),
        lambda c: c.update(digest="none"),
        lambda c: c["levels"][0].update(optimal_return=float("nan")),
    ],
)
def test_an_edited_results_file_is_refused(tmp_path, change):
    results.save(tmp_path, [evaluation()])
    edit(tmp_path, change)
    with pytest.raises(ValueError, match=r"results\.json was changed .* again with --overwrite"):
        results.load(tmp_path)


def test_no_flipped_byte_of_the_episodes_is_believed(tmp_path):
    results.save(tmp_path, [evaluation()])
    saved, path = results.load(tmp_path)[0], tmp_path / "episodes.npz"
    data = path.read_bytes()
    num_refused = 0
    for i in range(0, len(data), 3):
        path.write_bytes(data[:i] + bytes([data[i] ^ 0x55]) + data[i + 1 :])
        try:
            read = results.load(tmp_path)[0]
        except ValueError:
            num_refused += 1
            continue
        # Some bytes of an archive carry no data, such as times and permissions.
        assert (read.episode_return == saved.episode_return).all()
        assert np.array_equal(read.success, saved.success) and (read.length == saved.length).all()
    assert num_refused > len(data) / 3 / 2


@pytest.mark.parametrize("num_replaced", [0, 1, 2])
def test_an_interrupted_save_is_reported_and_loses_nothing(tmp_path, monkeypatch, num_replaced):
    results.save(tmp_path, [evaluation("old")])
    replace, done = os.replace, []

    def interrupted(*paths):
        if len(done) == num_replaced:
            raise KeyboardInterrupt
        done.append(paths)
        replace(*paths)

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        results.save(tmp_path, [evaluation("new", seed=1)], overwrite=True)
    monkeypatch.undo()
    if num_replaced == 0:
        assert results.load(tmp_path)[0].run == "old"
        return
    # The episodes are new, but results.json is old.
    with pytest.raises(ValueError, match=r"saving was interrupted; .* rename it to results\.json"):
        results.load(tmp_path)
    os.replace(tmp_path / ".results.json.part", tmp_path / "results.json")
    assert results.load(tmp_path)[0].run == "new"


def test_a_full_disk_leaves_the_old_results(tmp_path, monkeypatch):
    results.save(tmp_path, [evaluation("old")])
    monkeypatch.setattr(os, "fsync", lambda file: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        results.save(tmp_path, [evaluation("new", seed=1)], overwrite=True)
    assert results.load(tmp_path)[0].run == "old"


def test_comparisons_reuse_only_results_with_a_digest(tmp_path):
    env = tiny()
    rows = (text + "#####\n" * 4 for text in (">.G..\n", ">...G\n", "G.>..\n"))
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *(env.from_text(row) for row in rows))
    levels = make_level_set(env, stacked)
    suite = Suite("maze/rows", env, levels)
    run = Opened(tmp_path / "run", {}, RunSpec("dr", seeds=2), env, 7, 50.0, False)
    place = saved_folder(run, suite, 4, 0)
    made = evaluation()
    meta = {"seeds": [0, 1], "update": 7, "env_steps": 50.0, "evaluation_seed": 0}
    success = np.asarray(made.success)
    own = Evaluation(
        "run", suite.name, levels.version, levels.names, np.asarray(levels.hash),
        np.asarray(levels.optimal_steps), np.asarray(levels.optimal_return),
        made.episode_return, made.length, success, meta,
    )  # fmt: skip
    results.save(place, [own])
    found, reasons = find_saved(run, suite, 4, 0)
    assert found is not None and reasons == []
    shutil.copytree(place, tmp_path / "whole")

    edit_episodes(place, one_return)
    found, (reason,) = find_saved(run, suite, 4, 0)
    assert found is None and "episodes.npz does not agree with its digest" in reason

    shutil.rmtree(place)
    shutil.copytree(tmp_path / "whole", place)
    edit(place, lambda content: content.pop(digest.KEY))
    assert not results.read(place).is_verified
    found, (reason,) = find_saved(run, suite, 4, 0)
    assert found is None and "without a digest" in reason
