"""Components from a user's own module, and errors raised before anything is compiled."""

from copy import copy
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from rlgen import config, registry, testing
from rlgen.algos.samplers.dred import DRED
from rlgen.algos.samplers.fixed import Fixed
from rlgen.algos.samplers.ncc import NCC
from rlgen.algos.samplers.plr import PLR
from rlgen.algos.samplers.random import Random
from rlgen.algos.samplers.sfl import SFL
from rlgen.algos.scores.max_mc import MaxMC
from rlgen.algos.scores.none import NoScore
from rlgen.bonuses import Shaped
from rlgen.curriculum import Curriculum
from rlgen.protocols import Bonus, Sampler, Score
from rlgen.registry import load
from rlgen.runs.spec import paths_set_by_length
from rlgen.students import OnPolicy
from rlgen.testing.common import assert_component
from tests.standins import trial
from tests.standins.numbers import Numbers
from tests.standins.stubs import Untaught

ENV = testing.Probe()
MODULES = {
    "nothing": "x = 1\n",
    "unmade": (
        "from rlgen.protocols import LevelEnv\n"
        "class Mine(LevelEnv):\n    num_actions = 2\n"
        "def build(**fields):\n    return Mine()\n"
    ),
    "extended": (
        "from rlgen.envs.chain import Chain\n"
        "class Mine(Chain):\n    pass\n"
        "def build(**fields):\n    return Mine()\n"
    ),
    "stranger": "class Mine:\n    pass\ndef build(**fields):\n    return Mine()\n",
    "sampler": "from rlgen.algos.samplers.random import build\n",
    "broken": "def build(**fields):\n    return 1 + ''\n",
}


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """The folder of a user's package `mine`."""
    (tmp_path / "mine").mkdir()
    for name, text in MODULES.items():
        (tmp_path / "mine" / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mine.absent", "cannot import 'mine.absent' as one of the envs"),
        (
            "mine.nothing",
            r"mine.nothing defines no build\(...\), which must return one of the envs",
        ),
        ("mine.unmade", "mine.unmade: Can't instantiate abstract class Mine .*sample_level"),
        ("mine.extended", "mine.extended: Chain is final: Mine must hold one as a field"),
        (
            "mine.stranger",
            "build returns a Mine, which is not a LevelEnv; .*rlgen.protocols.LevelEnv",
        ),
        ("mine.sampler", r"its build\(...\) takes other arguments: missing .* 'env'"),
    ],
)
@pytest.mark.usefixtures("mine")
def test_what_is_no_environment_is_refused_in_one_line(name, message):
    with pytest.raises(ValueError, match=message):
        registry.make_env(name)


@pytest.mark.usefixtures("mine")
def test_a_fault_inside_build_is_shown_as_what_it_is():
    with pytest.raises(TypeError, match="unsupported operand"):
        registry.make_env("mine.broken")


def test_a_component_of_another_kind_is_refused():
    with pytest.raises(ValueError, match=r"rlgen.algos.scores.none is not one of the bonuses"):
        registry.make("bonuses", "rlgen.algos.scores.none", ENV)


# Names.


@dataclass(frozen=True)
class Misspelt(testing.Probe):
    def mutate_level(self, key, levels, num_edits):
        return levels


def test_a_misspelt_optional_method_is_not_taken_for_one_left_out():
    with pytest.raises(
        AssertionError, match=r"mutate_level is not a method .* but mutate_levels is"
    ):
        testing.check_env(Misspelt())


def test_laws_are_of_one_kind():
    with pytest.raises(AssertionError, match="MaxMC is not a Sampler"):
        assert_component(MaxMC(), Sampler)


# Fields of PLR and of a curriculum, set around the tests' type checks.


def with_fields(component: Any, **fields: Any) -> Any:
    component = copy(component)
    for name, value in fields.items():
        object.__setattr__(component, name, value)
    return component


@pytest.mark.parametrize(
    ("fields", "error", "message"),
    [
        ({"decision": MaxMC()}, TypeError, r"decision must be a Decision, such as Alternate\("),
        ({"priority": "rank"}, TypeError, r"a Priority, such as Priority\('rank'.*, got 'rank'"),
        ({"mutator": None}, TypeError, r"mutator must be a Mutator, such as Mutator.*, got None"),
        ({"capacity": float("nan")}, ValueError, "capacity must be at least 1, got nan"),
    ],
)
def test_parts_of_plr_are_what_they_are_to_be(fields, error, message):
    with pytest.raises(error, match=message):
        with_fields(PLR(ENV, Random(ENV)), **fields).__post_init__()


class Seer(Score):
    reads = frozenset({"rollouts"})

    def __call__(self, key, slots, outcome):
        raise NotImplementedError


WHOLE = Curriculum(trial.Student(ENV), Random(ENV), NoScore(), num_slots=4)


@pytest.mark.parametrize(
    ("fields", "error", "message"),
    [
        (
            {"sampler": MaxMC()},
            TypeError,
            "sampler must be a Sampler .*, got MaxMC; make its class",
        ),
        ({"score": object()}, TypeError, "score must be a Score of rlgen.protocols, got object"),
        ({"score": Seer()}, ValueError, r"Seer.reads .* 'rollouts'; did you mean 'rollout'"),
    ],
)
def test_parts_of_a_curriculum_are_what_they_are_to_be(fields, error, message):
    with pytest.raises(error, match=message):
        with_fields(WHOLE, **fields).__post_init__()


def test_reads_written_as_text_are_refused():
    with pytest.raises(ValueError, match="frozenset of fields of the outcome, got 'rollout'"):
        with_fields(WHOLE, score=with_fields(Seer(), reads="rollout")).__post_init__()


class Reader(Sampler):
    """Sampler that reads a field an actor-critic does not report."""

    reads = frozenset({"lifetimes"})

    def init(self, key, memory):
        raise NotImplementedError

    def example_level(self):
        return ENV.sample_level(jax.random.key(0))

    def propose(self, keys, state, slots, free):
        raise NotImplementedError


def test_a_sampler_reads_what_its_source_reads():
    env, source = Numbers(), Reader()
    data = Fixed(env, num_levels=2)
    for sampler in (PLR(env, source), SFL(env, source), NCC(env, source), DRED(env, data, source)):
        assert "lifetimes" in sampler.reads
        with pytest.raises(ValueError, match=f"{type(sampler).__name__} reads .*lifetimes"):
            Curriculum(trial.Student(ENV), sampler, NoScore(), num_slots=4)
    assert "episodes" in DRED(env, data, source).reads


# Metrics and schedules of users' components.


@dataclass(frozen=True)
class Taught(Untaught):
    """Learner that never learns; the length of a run does not set its `num_updates`."""

    num_updates: int = 7

    def act(self, key, state, carry, obs, first):
        zero = jnp.zeros(first.shape)
        return carry, jnp.zeros(first.shape, jnp.int32), zero, zero


class Loud(Bonus):
    """Bonus of 0 that reports a metric under a name that learners use."""

    def init(self, key, num_slots):
        return ()

    def apply(self, key, state, rollout, weight):
        return state, jnp.zeros(rollout.reward.shape), {"gradient_steps": jnp.float32(99)}


def test_a_bonus_does_not_count_the_steps_of_the_learner():
    student = OnPolicy(ENV, Taught(), num_steps=3, bonus=Shaped(Loud()))
    level = jax.vmap(ENV.sample_level)(jax.random.split(jax.random.key(0), 2))
    slots = testing.new_slots(jax.tree.map(lambda x: x[:, None], level), ())
    run = jax.jit(lambda key: student.run(key, student.init(key, 2), slots, jnp.ones(2, bool)))
    assert float(run(jax.random.key(1))[1].spent.gradient_steps) == 1


def test_only_what_spans_the_run_is_set_by_its_length():
    path = "student.learner.num_updates"
    whole = replace(WHOLE, student=OnPolicy(ENV, Taught()))
    assert path in config.flatten(whole) and paths_set_by_length(whole) == set()
    ppo = load("recipes", "dr").build(ENV)
    assert path in paths_set_by_length(ppo)
