"""DRED on levels from a file and on levels that are parameter vectors."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlgen import config, registry
from rlgen.levels import make_level_set, save_levels
from rlgen.runs.spec import RunSpec, build
from rlgen.types import Keys

SMALL = {
    "num_slots": 4,
    "levels_per_slot": 2,
    "student.num_steps": 24,
    "student.learner.network.hidden_size": 8,
    "student.learner.num_minibatches": 1,
    "student.learner.num_epochs": 1,
    "student.learner.bptt_steps": 0,
    "sampler.capacity": 16,
    "sampler.source.model.num_epochs": 2,
}


def file_of(env, path, num):
    level = jax.jit(jax.vmap(env.sample_level))(jax.random.split(jax.random.key(3), num))
    save_levels(path, make_level_set(env, level))
    return level


@pytest.mark.parametrize(("name", "kind"), [("maze", "GraphVAE"), ("cart-pole", "MLPVAE")])
def test_dred_trains_on_the_levels_of_a_file(tmp_path, name, kind):
    env = registry.make_env(name)
    fields = {"height": 5, "width": 5, "num_walls": 4, "max_steps": 12} if name == "maze" else {}
    env = config.override(env, fields)
    path = tmp_path / "mine.npz"
    level = file_of(env, path, 6)
    overrides = {**SMALL, "sampler.data.path": str(path)}
    spec = RunSpec("dred", name, learner="ppo", overrides=overrides, env_fields=fields)
    _, curriculum = build(spec)
    sampler: Any = curriculum.sampler
    assert type(sampler.source.model).__name__ == kind
    # The set is configured once, and the generator uses the same one.
    assert sampler.source.data is sampler.data and len(sampler.level_set) == 6
    assert sampler.mixture.num_updates > 1  # set to the length of the run

    @jax.jit
    def run(key):
        keys = Keys(jax.random.key(1), jax.random.key(2))
        return curriculum.train(curriculum.init(key), keys, jnp.int32(0), 6)

    state, metrics = run(jax.random.key(0))
    # Two warm-up updates for six levels in four slots; then replay and proposals alternate.
    np.testing.assert_array_equal(metrics["levels_new"], [0, 0, 0, 1, 0, 1])
    np.testing.assert_array_equal(metrics["weight"], [1, 1, 1, 0, 1, 0])
    np.testing.assert_array_equal(metrics["steps_train"], [96, 96, 96, 0, 96, 0])
    np.testing.assert_array_equal(metrics["steps_scout"], [0, 0, 0, 96, 0, 96])
    held = jax.tree.map(lambda x: x[:6], state.sampler.buffer.level)
    jax.tree.map(np.testing.assert_array_equal, held, level)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(state.student.learner))
