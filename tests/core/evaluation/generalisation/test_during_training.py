"""The log of gaps in a run: its content, its cost, and that training stays the same."""

import dataclasses
import shutil
from typing import Any

import jax
import numpy as np
import pytest

from rlgen.algos.samplers.fixed import Fixed
from rlgen.algos.scores import none
from rlgen.curriculum import Curriculum
from rlgen.envs import maze
from rlgen.evaluation.from_runs.curricula import tell
from rlgen.evaluation.generalisation.during_training import (
    FILE,
    GapTracking,
    Size,
    prepare,
    size_of,
)
from rlgen.runs import folder, metrics, program, training
from rlgen.runs.spec import Plan, RunSpec
from rlgen.students import OnPolicy
from tests.standins.corridors import Forward, corridors, worth
from tests.standins.documented import listed_keys
from tests.standins.small_agent import SMALL_AGENT


@pytest.mark.parametrize(
    ("gap_every", "updates", "size"),
    [
        (0, 10_000, Size(25, 68)),  # 20 measurements of 500 chunks
        (0, 100_000, Size(250, 128)),
        (0, 1_000, Size(50, 34)),  # fewer in a short run
        (0, 10, None),
        (2, 100, Size(2, 32)),  # an explicit gap_every is kept
    ],
)
def test_measurements_cost_a_share_of_the_training(gap_every, updates, size):
    length = Plan(updates, 20 if updates > 1_000 else 5, 8 * 64)
    found = size_of(gap_every, length, 250)
    assert found == size
    if size is not None and gap_every == 0:
        times = -(-updates // length.chunk // size.every)
        assert times * size.num_levels * 3 * 250 <= 0.21 * updates * 8 * 64


SMALL = SMALL_AGENT | {"num_slots": 2, "student.num_steps": 24, "sampler.num_levels": 5}


def spec(**changes: Any) -> RunSpec:
    """Return the spec of six updates in chunks of two, each followed by a measurement."""
    tiny = {"height": 5, "width": 5, "num_walls": 4, "max_steps": 20}
    base = RunSpec("fixed", "maze", steps=6 * 48, chunk=2, seeds=2, gap_every=1, keep_checkpoints=3)
    return dataclasses.replace(base, env_fields=tiny, overrides=SMALL, **changes)


def measured():
    return training.Options(callbacks=(GapTracking(),))


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """One run with gap measurements, and the same run without."""
    folder = tmp_path_factory.mktemp("runs")
    return (
        training.train(spec(), folder / "measured", measured()),
        training.train(spec(gap_every=-1), folder / "plain", measured()),
    )


@pytest.mark.thorough
def test_a_run_is_measured_between_its_chunks(runs):
    lines = metrics.read(runs[0] / FILE)
    assert set(lines[0]) == set(listed_keys(FILE))
    assert [line["update"] for line in lines] == [2, 4, 6]
    for line in lines:
        assert sum(line["env_steps"].values()) == line["update"] * 48
        sides = np.array([line[f"{side}_return"] for side in ("train", "test")])
        np.testing.assert_allclose(line["gap"], sides[0] - sides[1], atol=1e-6)
        assert len(line["train_solve_rate"]) == 2
        assert line["train_levels"] == 5 and line["train_episodes"] == 10
        assert line["evaluation_steps"] == 20 * (10 + line["test_levels"])
        assert 0 <= line["level_information"][0] <= line["max_information"] < 1.61
    assert not (runs[1] / FILE).exists()
    stories = [tell(run) for run in runs]
    assert [set(story.measured) for story in stories if story] == [{"light", "dark"}, set()]


@pytest.mark.thorough
def test_measuring_changes_nothing_of_the_training(runs):
    states = []
    for run in runs:
        record = folder.read(run)
        asked, _, curriculum = folder.rebuild(record)
        like = program.abstract_states(asked, curriculum)
        states.append(training.restore(run, record, like, 6)[0])
    jax.tree.map(np.testing.assert_array_equal, *states)
    clock = ("wall_seconds", "compile_seconds", "steps_per_second")
    one, other = (
        [{n: x for n, x in line.items() if n not in clock} for line in found]
        for found in (metrics.read(run / "metrics.jsonl") for run in runs)
    )
    assert one == other


@pytest.mark.thorough
def test_a_resumed_run_measures_the_same(runs, tmp_path):
    run = shutil.copytree(runs[0], tmp_path / "copy")
    training.resume(run, at=2, options=measured())
    assert (run / FILE).read_bytes() == (runs[0] / FILE).read_bytes()


@pytest.mark.thorough
def test_a_measurement_is_of_the_first_episode_on_each_level(tmp_path):
    env = maze.tiny()
    sampler = Fixed(env, levels=corridors())
    curriculum = Curriculum(OnPolicy(env, Forward()), sampler, none.build(env, Forward()))
    tracker = prepare(RunSpec("fixed", gap_every=1), env, curriculum, Plan(4, 1, 10))
    assert tracker is not None
    states = jax.vmap(curriculum.init)(jax.random.split(jax.random.key(0), 1))
    tracker.measure(tmp_path, states, metrics.Counters(1))
    (line,) = metrics.read(tmp_path / FILE)
    np.testing.assert_allclose(line["train_return"], [worth().mean()], rtol=1e-5)
    np.testing.assert_allclose(line["train_solve_rate"], [2 / 3], rtol=1e-5)
    assert "gap" not in line and "level_information" not in line  # no unseen levels, no features
    assert "3 training levels" in tracker.first_words()
