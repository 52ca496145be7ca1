"""The finite training set that a run keeps in its folder."""

import numpy as np
import pytest

from rlgen.algos.samplers.fixed import Fixed
from rlgen.algos.samplers.random import Random
from rlgen.envs import maze
from rlgen.levels import load_levels
from rlgen.runs.records import keep_training_set


def test_a_run_keeps_its_training_set_and_refuses_another(tmp_path):
    env = maze.tiny()
    sampler, other = (Fixed(env, num_levels=6, seed=seed) for seed in (0, 1))
    keep_training_set(tmp_path, sampler)
    kept = load_levels(tmp_path / "train_levels.npz", sampler.example_level())
    np.testing.assert_array_equal(kept.hash, sampler.level_set.hash)
    keep_training_set(tmp_path, sampler)  # as on resuming
    with pytest.raises(ValueError, match="started with the levels in"):
        keep_training_set(tmp_path, other)


def test_samplers_without_a_training_set_leave_no_file(tmp_path):
    keep_training_set(tmp_path, Random(maze.tiny()))
    assert list(tmp_path.iterdir()) == []
