"""The examples in the guide on components are complete, run, and pass the laws of their kinds."""

import importlib
import re
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import install_import_hook

from rlgen import registry, testing
from rlgen.curriculum import Curriculum
from rlgen.students import OnPolicy
from rlgen.types import Keys
from tests.paths import ROOT

TEXT = (ROOT / "docs" / "guides" / "own-components.md").read_text()
EXAMPLES = dict(re.findall(r"^## An? (\w+)\n.*?^```python\n(.*?)^```", TEXT, re.M | re.S))


@pytest.fixture(scope="module")
def example(tmp_path_factory):
    """Function that imports an example as a user's module, with run-time type checks."""
    folder = tmp_path_factory.mktemp("examples")
    for name, source in EXAMPLES.items():
        (folder / f"contributed_{name}.py").write_text(source)
    sys.path.insert(0, str(folder))
    with install_import_hook([f"contributed_{name}" for name in EXAMPLES], "beartype.beartype"):
        yield lambda name: importlib.import_module(f"contributed_{name}")
    sys.path.remove(str(folder))


def test_every_kind_of_component_has_an_example():
    assert {*EXAMPLES} == {"environment", "sampler", "score", "bonus", "learner", "recipe"}


def test_environment(example):
    testing.check_env(example("environment").tiny(), num_steps=6)


@pytest.mark.thorough
def test_sampler(example):
    testing.check_sampler(example("sampler").tiny(example("environment").tiny()))


def test_score(example):
    testing.check_score(example("score").tiny(example("environment").tiny()))


@pytest.mark.thorough
def test_learner(example):
    env = example("environment").tiny()
    testing.check_learner(env, example("learner").tiny(env))


def test_bonus_counts_and_looks_at_no_later_step(example):
    bonus = example("bonus").RareAction(num_actions=7)
    rollout = testing.random_rollout(0, num_steps=6, num_slots=2, levels_per_slot=1)
    key = jax.random.key(0)
    weight = jnp.ones(2)
    state, value, _ = bonus.apply(key, bonus.init(key, 2), rollout, weight)
    later = rollout._replace(action=rollout.action.at[3:].set(0))
    changed = bonus.apply(key, bonus.init(key, 2), later, weight)[1]
    testing.check_bonus(example("environment").tiny(), bonus)
    np.testing.assert_array_equal(value[:3], changed[:3])
    assert (value[3:] != changed[3:]).any() and state.num_taken.sum() == 12
    taken = np.asarray(rollout.action)
    expected = [[(taken[: t + 1] == a).sum() ** -0.5 for a in taken[t]] for t in range(6)]
    np.testing.assert_allclose(value, np.array(expected), rtol=1e-6)


@pytest.mark.thorough
def test_all_of_them_train_together(example):
    env = example("environment").tiny()
    bonus = example("bonus").tiny(env)
    student = OnPolicy(env, example("learner").tiny(env), num_steps=4, bonus=bonus)
    sampler, score = example("sampler").tiny(env), example("score").tiny(env)
    curriculum = Curriculum(student, sampler, score, num_slots=2)

    def train(key):
        keys = Keys(key, key)
        return curriculum.train(curriculum.init(key), keys, jnp.int32(0), 3)

    state, metrics = jax.jit(train)(jax.random.key(0))
    assert state.student.bonus.num_taken.sum() == 3 * 4 * 2
    assert jnp.isfinite(metrics["loss"]).all() and metrics["loss"].shape[0] == 3


def test_recipe(example):
    env = registry.load("envs", "maze").tiny()
    assert example("recipe").build(env).student.num_steps == 512
