"""Two simulated devices (see `conftest.py`) compared with one, on the real training loop."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlgen import config
from rlgen.algos.recipes.ued import plr
from rlgen.envs import maze
from rlgen.parallel import sharding
from rlgen.protocols import Student
from rlgen.runs.program import compile_run
from rlgen.runs.spec import Plan, RunSpec
from rlgen.types import Outcome, Slots

UPDATES = 3
SMALL = {
    "num_slots": 4,
    "student.num_steps": 8,
    "student.learner.network.hidden_size": 4,
    "student.learner.network.head_size": 4,
    "student.learner.network.conv_features": 2,
    "student.learner.learning_rate": 1e-2,
    "student.learner.num_epochs": 1,
    "sampler.capacity": 8,
    "sampler.min_fill": 0.1,
}


def trained(seeds: int, devices: int):
    """Return states and metrics after one chunk, checking the shardings."""
    spec = RunSpec("plr", seeds=seeds, devices=devices)
    curriculum = config.override(plr.build(maze.tiny(), learner="ppo"), SMALL)
    program = compile_run(spec, curriculum, Plan(UPDATES, UPDATES, 32))
    states = program.init()
    spread = len(states.slots.buffer_index.sharding.device_set)
    states, metrics, finite, _ = program.chunk(states, 0)
    assert len(states.slots.buffer_index.sharding.device_set) == spread == devices
    assert all(x.all() for x in jax.device_get(finite).values())
    return jax.device_get(states), jax.device_get(metrics)


@pytest.fixture(scope="module")
def on_one():
    return trained(seeds=2, devices=1)


def assert_close(x, y):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), x, y)


@pytest.mark.thorough
def test_the_reference_trains(on_one):
    """Without training, the comparisons below would be vacuous."""
    assert on_one[1]["levels_replay"].sum() > 0
    assert np.isfinite(on_one[1]["loss"]).all()
    assert on_one[0].student.learner.num_updates.tolist() == [[UPDATES], [UPDATES]]


@pytest.mark.thorough
def test_seeds_over_two_devices_are_seeds_on_one(on_one):
    assert_close(trained(seeds=2, devices=2), on_one)


@pytest.mark.thorough
def test_slots_over_two_devices_are_slots_on_one(on_one):
    first = jax.tree.map(lambda x: x[:1], on_one)
    assert_close(trained(seeds=1, devices=2), first)


class Echo(Student):
    """Student that returns twice its weights."""

    def init(self, key, num_slots):
        return ()

    def policy(self, states) -> Any:
        return None, states

    def run(self, key, state, slots, fresh):
        return slots.weight * 2.0, Outcome(done=fresh), {}


def test_each_device_plays_its_own_slots():
    """New levels arrive in every update, so their sharding is set in every update."""
    student = sharding.SplitSlots(Echo(), sharding.make_mesh(2, 1, 4))
    rows = jnp.zeros((4, 1), jnp.int32)

    @jax.jit
    def run():
        weight = jnp.arange(4.0)  # created inside jit, like levels
        slots = Slots(
            level=rows, score_state=(), buffer_index=rows, origin=rows[:, 0], weight=weight
        )
        return student.run(jax.random.key(0), (), slots, jnp.ones(4, bool))[0]

    out = run()
    assert out.sharding.shard_shape(out.shape) == (2,)
    np.testing.assert_array_equal(out, [0, 2, 4, 6])


@pytest.mark.parametrize(
    ("devices", "seeds", "num_slots", "axis"),
    [(2, 4, 3, "seeds"), (2, 1, 4, "slots"), (2, 3, 4, "slots"), (1, 2, 3, "seeds")],
)
def test_seeds_are_split_where_they_divide_and_slots_elsewhere(devices, seeds, num_slots, axis):
    assert sharding.make_mesh(devices, seeds, num_slots).axis_names == (axis,)


def test_impossible_devices_are_refused_with_what_would_do():
    with pytest.raises(ValueError, match=r"devices=3, but there are 2 \(cpu\)"):
        sharding.make_mesh(3, 3, 3)
    with pytest.raises(ValueError, match=r"neither the 3 seeds nor num_slots=5.*multiple of 2"):
        sharding.make_mesh(2, 3, 5)
    with pytest.raises(ValueError, match="devices must be at least 1"):
        dataclasses.replace(RunSpec("plr"), devices=0)
