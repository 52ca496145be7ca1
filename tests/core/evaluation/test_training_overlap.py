"""The number of a suite's levels among the known levels of a run, and the sentences on it."""

from dataclasses import replace
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlgen.algos.samplers.fixed import Fixed
from rlgen.algos.samplers.random import Random
from rlgen.envs.chain import Chain
from rlgen.evaluation.episodes import Evaluation
from rlgen.evaluation.from_runs import training_overlap
from rlgen.evaluation.report.training_overlap import overlap_sentences, overlap_warnings
from rlgen.evaluation.zero_shot import Loaded
from rlgen.held_out import digest
from rlgen.levels import Suite, make_level_set, take
from rlgen.runs.records import Buffer

ENV = Chain(length=(5, 9))
EVERY = ENV._level(jnp.arange(5, 10), jnp.array([0, 1, 0, 1, 0]))
SUITE = Suite("chain/some", ENV, make_level_set(ENV, EVERY))  # 5 levels


def loaded(sampler):
    return Loaded("run", ENV, SimpleNamespace(sampler=sampler), (), {}, ())


def found(monkeypatch, tmp_path, sampler, suite=SUITE, **record):
    monkeypatch.setattr(training_overlap.folder, "read", lambda run: record)
    return training_overlap.find_overlap(tmp_path, loaded(sampler), suite)


def evaluation(overlap):
    rows = np.ones((1, 5, 2))
    names = tuple("abcde")
    hashes, steps = np.asarray(SUITE.levels.hash), np.ones(5)
    meta = {"training_overlap": overlap._asdict()}
    return Evaluation(
        "run", "chain/some", "1", names, hashes, steps, steps, rows, rows, rows > 0, meta
    )


def test_levels_of_the_training_set_are_counted(monkeypatch, tmp_path):
    sampler = Fixed(ENV, levels=take(SUITE.levels, [0, 3]))
    one = found(monkeypatch, tmp_path, sampler)
    assert one == (2, 5, 2, ("training set",), "not recorded", "")
    played = [evaluation(one)]
    assert overlap_sentences(played) == [
        "run: 2 of 5 levels of chain/some are among the 2 levels in the run's training set; the "
        "run has no record that training rejected the levels of this suite"
    ]
    assert len(overlap_warnings(played)) == 1 and "2 of the 5" in overlap_warnings(played)[0]


def test_levels_of_buffer_and_log_are_counted_once(monkeypatch, tmp_path):
    rows = np.array([1, 2, 2])
    level = jax.tree.map(lambda x: np.asarray(x)[rows], EVERY)
    buffer = Buffer(level, np.zeros(3), np.zeros((3, 2)), rows, rows, {})
    monkeypatch.setattr(training_overlap, "find_buffer", lambda sampler, states: buffer)
    monkeypatch.setattr(training_overlap, "has_log", lambda run: True)
    # One update, one seed and three slots; the last slot was not trained on.
    logged = jax.tree.map(lambda x: np.asarray(x)[None, None, [2, 3, 4]], EVERY)
    log = SimpleNamespace(level=logged, weight=np.array([[[1.0, 0.5, 0.0]]]))
    monkeypatch.setattr(training_overlap, "open_log", lambda run, allow: (ENV, log))
    one = found(monkeypatch, tmp_path, Random(ENV))
    assert one[:4] == (3, 5, 3, ("level buffer", "curriculum log"))


@pytest.mark.parametrize("protection", ["rejected", "other shape", "seen", "not recorded"])
def test_what_is_known_without_any_level_is_said(protection, monkeypatch, tmp_path):
    levels = make_level_set(ENV, EVERY, split="seen" if protection == "seen" else "test")
    if protection == "other shape":
        levels = replace(levels, level=jax.tree.map(lambda x: x[:, None], levels.level))
    kept = {"some": digest(np.asarray(levels.hash))} if protection == "rejected" else {"some": ""}
    suite = SUITE._replace(levels=levels)
    one = found(monkeypatch, tmp_path, Random(ENV), suite, held_out=kept)
    assert one == (0, 5, 0, (), protection, "")
    played = [evaluation(one)]
    assert overlap_sentences(played)[0].startswith("run: no levels of the run are recorded; ")
    assert overlap_warnings(played) == []


def test_levels_of_a_suite_that_also_occur_in_training_are_no_reason_to_warn(monkeypatch, tmp_path):
    seen = SUITE._replace(levels=make_level_set(ENV, EVERY, split="seen"))
    one = found(monkeypatch, tmp_path, Fixed(ENV, levels=seen.levels), seen)
    assert one[:3] == (5, 5, 5) and overlap_warnings([evaluation(one)]) == []


def test_a_damaged_log_is_named_and_does_not_stop_the_evaluation(monkeypatch, tmp_path):
    def damaged(run, allow):
        raise ValueError("part 3 is cut")

    monkeypatch.setattr(training_overlap, "has_log", lambda run: True)
    monkeypatch.setattr(training_overlap, "open_log", damaged)
    one = found(monkeypatch, tmp_path, Fixed(ENV, levels=take(SUITE.levels, [0, 3])))
    assert one == (2, 5, 2, ("training set",), "not recorded", "part 3 is cut")
    assert overlap_sentences([evaluation(one)])[0].endswith("cannot be read: part 3 is cut")
