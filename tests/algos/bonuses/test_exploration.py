"""The exploration study: its levels, its resumption, and (slow) the orderings it reports."""

import importlib
import sys

import jax
import numpy as np
import pytest

from rlgen.types import Keys
from tests.paths import ROOT

FOLDER = str(ROOT / "scripts" / "reproduce")


@pytest.fixture(scope="module")
def study():
    """The study's scripts, imported by the names under which they import each other."""
    sys.path.insert(0, FOLDER)
    names = ("_exploration_run", "_exploration_tasks", "exploration")
    yield [importlib.import_module(name) for name in names]
    sys.path.remove(FOLDER)


@pytest.fixture
def small(study, monkeypatch):
    """The smallest study: one task with two values of its parameter, and two bonuses."""
    run, tasks, script = study
    monkeypatch.setattr(run, "POOL", 8)
    monkeypatch.setattr(run, "ATTEMPTS", 4)
    task = tasks.TASKS["corridors"]._replace(
        values=(0.0, 1.0),
        fields={"length": 3, "max_steps": 3},
        settings={"num_slots": 4, "student.num_steps": 6},
        steps=24 * 40,
        bonuses={"no bonus": ("", 0.0), "global": ("counts/position", 0.1)},
    )
    monkeypatch.setitem(tasks.TASKS, "corridors", task)
    return run, script, task


@pytest.mark.thorough
def test_a_pool_has_exactly_as_many_levels_as_there_are_contexts(study, monkeypatch):
    run, tasks, _ = study
    monkeypatch.setattr(run, "POOL", 8)
    task = tasks.TASKS["rooms"]._replace(
        env="keyroom/s5", settings={"num_slots": 16, "levels_per_slot": 2}
    )
    curriculum = run.method(task, "no bonus")
    state = jax.jit(curriculum.init)(jax.random.key(0))
    keys = Keys(jax.random.key(1), jax.random.key(2))
    propose = jax.jit(curriculum.sampler.propose)

    def met(num):
        pool = run._pool(task, num)
        slots = propose(keys, pool, state.slots, state.free)[1]
        rows = [np.asarray(x).reshape(32, -1) for x in jax.tree.leaves(slots.level)]
        return len(np.unique(np.concatenate(rows, 1), axis=0))

    assert [met(1), met(3)] == [1, 3]
    assert met(0) > 8  # more than the pool holds: new levels


@pytest.mark.thorough
def test_a_study_is_written_resumed_and_drawn(small, tmp_path, monkeypatch):
    _, script, task = small
    arguments = ["--tasks", "corridors", "--seeds", "2", "--out", str(tmp_path)]
    assert script.main(arguments) == 0
    names = {path.name for path in tmp_path.iterdir()}
    figures = {"winners.png", "visits-corridors.png", "episode-corridors.png"}
    assert names == figures | {"study.md", "corridors-no-bonus.npz", "corridors-global.npz"}
    with np.load(tmp_path / "corridors-global.npz") as cell:
        assert cell["trained"].shape == (2, 2) and cell["visits"].shape == (2, 16)
        assert cell["steps"][-1] == task.steps
        # One episode of three steps: each has the bonus of its position; no steps follow.
        assert np.isfinite(cell["paid"][:, :3]).all() and (cell["visits"].sum(1) == 48).all()
    text = (tmp_path / "study.md").read_text()
    assert "| sharing 0 |" in text and "Interquartile mean" in text

    def never(*_):
        raise AssertionError("a finished cell was trained again")

    monkeypatch.setattr(script, "run_cell", never)
    assert script.main(arguments) == 0
    assert (tmp_path / "study.md").read_text() == text


@pytest.mark.parametrize(
    ("arguments", "content", "message"),
    [
        (["--seeds", "3"], None, "was trained with 1 seeds, 2 dial values"),
        ([], b"half a cell", "is damaged or is not a cell of this study"),
    ],
)
def test_a_cell_that_does_not_fit_is_refused(small, tmp_path, arguments, content, message):
    run, script, task = small
    path = tmp_path / "corridors-no-bonus.npz"
    zero = np.zeros((2, 1))
    script._save(path, run.Cell(zero, zero, np.array([task.steps]), zero, zero, zero, 0.0, 0.0))
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SystemExit, match=message):
        script.main(["--tasks", "corridors", "--seeds", "1", "--out", str(tmp_path), *arguments])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--tasks", "room"], "unknown task 'room'; did you mean 'rooms'?"),
        (["--tasks", "rooms", "--bonuses", "e3c"], "unknown bonus 'e3c'; did you mean 'e3b'?"),
        (["--seeds", "0"], "--seeds must be at least 1"),
    ],
)
def test_wrong_options_are_refused(study, capsys, arguments, message):
    with pytest.raises(SystemExit):
        study[2].main(arguments)
    assert message in capsys.readouterr().err


# Orderings of the study, one or two minutes each on one core; docs/results.md has the long runs.


def solved(study, task, bonus, value, steps):
    """Return the share of episodes that one agent solves at the end of training."""
    run, tasks, _ = study
    cell = run.run_cell(tasks.TASKS[task]._replace(values=(value,)), bonus, 1, steps)
    return float(cell.trained[0, 0])


@pytest.mark.slow
def test_with_a_new_level_every_time_global_novelty_fails_and_episodic_does_not(study):
    assert solved(study, "rooms", "global", 0, 2e6) <= 0.1
    assert solved(study, "rooms", "episodic", 0, 2e6) >= 0.5


@pytest.mark.slow
@pytest.mark.parametrize(("contexts", "steps", "least"), [(1, 1e6, 0.9), (0, 2e6, 0.7)])
def test_the_product_succeeds_on_one_level_and_on_new_ones(study, contexts, steps, least):
    assert solved(study, "rooms", "product", contexts, steps) >= least


@pytest.mark.slow
def test_the_feature_decides_whether_levels_share_anything(study):
    """In one task, events recur in every level and positions do not."""
    assert solved(study, "keyroom", "global, events", 0, 2e6) >= 0.6
    assert solved(study, "keyroom", "global", 0, 2e6) <= 0.4
