"""Laws of the interfaces: abstract methods, final classes, and optional methods and attributes.

The optional methods and attributes of `rlgen.protocols` are found by reflection. Each has a law
that states what callers rely on for any component. The default, an override and all registered
components must satisfy it. Capabilities, whose default raises, share a single law.
"""

import functools
import inspect
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnax.environments import spaces

from rlgen import protocols, testing
from rlgen.algos.rules.networks import Drift, Rule
from rlgen.algos.samplers.lifetimes import TaskEnv
from rlgen.algos.samplers.plr import PLR
from rlgen.algos.samplers.random import Random
from rlgen.algos.scores.algorithmic_regret import AlgorithmicRegret
from rlgen.algos.scores.learnability import Learnability
from rlgen.algos.scores.max_mc import MaxMC
from rlgen.algos.scores.none import NoScore
from rlgen.buffer import LevelBuffer, make_buffer
from rlgen.curriculum import Curriculum
from rlgen.levels import make_level_set
from rlgen.nn.actor_critic import ActorCritic
from rlgen.nn.approximators import MLP, Conv, Separate, Table
from rlgen.nn.cell_actor_critic import CellActorCritic
from rlgen.parallel.sharding import SplitSlots
from rlgen.protocols import (
    FEATURES,
    OPTIONAL_METHODS,
    Actor,
    Approximator,
    Bonus,
    Component,
    Learner,
    LevelEnv,
    MissingCapability,
    Network,
    RuleLearner,
    RuleNet,
    Sampler,
    Score,
    Student,
)
from rlgen.registry import load, missing_extra, names, variants
from rlgen.students import OnPolicy
from rlgen.types import Keys, Outcome
from tests.standins.stubs import Untaught

EASY, HARD = testing.Probe(), testing.Probe("memory")
KEY = jax.random.key(0)
BASES = [x for x in vars(protocols).values() if inspect.isclass(x) and issubclass(x, Component)]
EVIDENCE = frozenset(Outcome._fields) - {"done", "spent"}
DISCOUNTING = {"discount": 0.9, "gae_lambda": 0.8, "bootstrap_truncation": False}


# Declarations of the base classes.


def abstract_names(base: Any) -> list[str]:
    """Names of the methods and properties that a component must define."""
    return sorted(base.__abstractmethods__)


def optional_names(base: type) -> list[str]:
    """Names of methods, properties and attributes that a base declares with a default."""
    return [
        name
        for name, value in vars(base).items()
        if not name.startswith("_") and not getattr(value, "__isabstractmethod__", False)
    ]


def is_capability(value: Any) -> bool:
    """Return whether a value is a method whose default raises `MissingCapability`."""
    return inspect.isfunction(value) and "missing" in inspect.unwrap(value).__code__.co_names


OPTIONAL = [(base, name) for base in BASES for name in optional_names(base) if base != Component]
CAPABILITIES = [pair for pair in OPTIONAL if is_capability(vars(pair[0])[pair[1]])]
DEFAULTS = [pair for pair in OPTIONAL if pair not in CAPABILITIES]


# Components made for a test.


def absent(*args, **kwargs):
    raise NotImplementedError


NEEDED = {
    "num_actions": property(lambda self: 2),
    "horizon": property(lambda self: 4),
    "sample_level": lambda self, key: {"number": jax.random.randint(key, (), 0, 100)},
    "reset_env": lambda self, key, params: (jnp.arange(3), jnp.int32(0)),
    "for_env": lambda self, env: self,
    "example_level": lambda self: jnp.float32(0),
}


def made(base: type, **own: Any) -> Any:
    """Build a component that defines all abstract names and overrides the given defaults."""
    needed = {name: NEEDED.get(name, absent) for name in abstract_names(base)}
    return type(f"Own{base.__name__}", (base,), needed | own)()


def given(answer: Any) -> Callable:
    """Return a method that always returns `answer`."""
    return lambda self, *args, **kwargs: answer


SAMPLERS = [name for name in names("samplers") if name != "generated"]  # it must fit a model first
COMPILED = {
    (LevelEnv, "default_params"),
    (LevelEnv, "unpack"),
    (Sampler, "buffer"),
    (Sampler, "metrics"),
    (Sampler, "lineage"),
}
"""Pairs tested only on components made here; `rlgen.testing` checks them on registered ones."""


@functools.cache
def registered(base: type) -> tuple:
    """Smallest instances of all registered components of a kind."""
    pole, maze = load("envs", "cart-pole").tiny(), load("envs", "maze").tiny()
    found: dict[type, Callable] = {
        LevelEnv: lambda: [load("envs", x).tiny() for x in names("envs") if not missing_extra(x)],
        Network: lambda: [ActorCritic(), CellActorCritic(), Separate(MLP())],
        Approximator: lambda: [MLP(), Table(), Conv()],
        Learner: lambda: [load("learners", name).tiny(pole) for name in names("learners")],
        RuleNet: lambda: [Rule(), Drift()],
        Bonus: lambda: [load("bonuses", name).tiny(maze) for name in names("bonuses")],
        Score: lambda: [load("scores", name).tiny(maze) for name in names("scores")],
        Sampler: lambda: [load("samplers", name).tiny(pole) for name in SAMPLERS],
        Student: lambda: [OnPolicy(EASY, load("learners", "ppo").tiny(EASY))],
    }
    kin = found.get(Learner if base in (Actor, RuleLearner) else base, list)()
    return tuple(x for x in kin if isinstance(x, base))


# The laws.


class Law(NamedTuple):
    """Law of an optional name, and an override that satisfies it."""

    holds: Callable[[Any], object]
    override: Any


def value(name: str, holds: Callable[[Any], bool], override: Any) -> Law:
    """Build the law of an attribute."""

    def law(component):
        assert holds(getattr(component, name)), getattr(component, name)

    return Law(law, override)


def flag(name: str) -> Law:
    return value(name, lambda x: isinstance(x, bool), True)


def at_least_one(name: str) -> Law:
    return value(name, lambda x: isinstance(x, int) and x >= 1, 3)


def subset(name: str, known: frozenset[str]) -> Law:
    return value(name, lambda x: isinstance(x, frozenset) and x <= known, known)


def accepts(*sizes: Any) -> Law:
    """Law: `check` returns None for valid sizes and raises only `ValueError`s with a message."""

    def law(component):
        try:
            assert component.check(*sizes) is None
        except ValueError as refusal:
            assert str(refusal)

    return Law(law, given(None))


def files(name: str, *of: Any) -> Law:
    def law(component):
        assert all(isinstance(x, bytes) for x in getattr(component, name)(*of).values())

    return Law(law, given({"a": b"1"}))


def sentences() -> Law:
    def law(component):
        assert all(isinstance(x, str) for x in component.warnings(defaultdict(float)))

    return Law(law, given(["The table is full."]))


def spanning() -> Law:
    def law(component):
        longer = component.spanning(7)
        assert type(longer) is type(component) and longer.spanning(7) == longer

    return Law(law, lambda self, num_updates: self)


def discounting() -> Law:
    def law(component):
        assert set(component.discounting()) <= set(DISCOUNTING)

    return Law(law, given(DISCOUNTING))


def carries() -> Law:
    def law(component):
        carry = jax.eval_shape(lambda: component.initial_carry(3))
        assert all(leaf.shape[0] == 3 for leaf in jax.tree.leaves(carry))

    return Law(law, lambda self, num_slots: jnp.zeros((num_slots, 2)))


def is_example(env):
    jax.tree.map(np.testing.assert_array_equal, env.default_params, env.default_params)
    like = jax.eval_shape(env.sample_level, KEY)
    testing.assert_shapes(env.default_params, like, "the example is no level")


def counts_actions(env):
    assert env.action_space(None).n == env.num_actions


def unpacks(env):
    like = jax.eval_shape(env.sample_level, KEY)
    obs = jax.eval_shape(env.reset_env, KEY, like)[0]
    for leaf in jax.tree.leaves(jax.eval_shape(env.unpack, obs)):
        assert jnp.issubdtype(leaf.dtype, jnp.floating)


def tells_levels_apart(env):
    found = jax.eval_shape(env.level_hash, jax.eval_shape(env.sample_level, KEY))
    assert found.shape == (2,) and found.dtype == jnp.uint32


def tells_success(env):
    solved = env.success(jnp.array([[1.0, 0.0]]), jnp.array([[True, True]]))
    assert solved.shape == (1, 2) and solved.dtype == bool


def is_evaluated(env):
    other = env.for_evaluation()
    assert isinstance(other, LevelEnv) and other.num_actions == env.num_actions
    assert other.for_evaluation() == other


def has_presets(env):
    for preset in env.presets().values():
        assert set(preset) <= set(getattr(env, "__dataclass_fields__", ()))


def moves(learner):
    """Law: `in_env` moves a learner to another environment, and is the identity in its own."""
    env = getattr(learner, "env", EASY)
    assert learner.in_env(env) == learner
    if hasattr(learner, "env"):
        assert learner.in_env(HARD).env == HARD


def loses_its_schedule(learner):
    plain = learner.without_schedule()
    assert type(plain) is type(learner) and plain.without_schedule() == plain


def takes_its_slots(learner):
    assert learner.least_slots >= 1
    assert learner.check(12, 12 * learner.least_slots) is None


def is_of_one_level(score):
    assert all(jnp.shape(leaf) == () for leaf in jax.tree.leaves(score.initial_state()))


@functools.cache
def asked(sampler: Any) -> tuple:
    """Return abstract state and slots of a sampler, as shapes."""

    def ask():
        level = jax.tree.map(lambda x: jnp.broadcast_to(x, (12, 1, *jnp.shape(x))), example)
        return testing.new_slots(level, jnp.float32(0), sampler.level_info())

    example = sampler.example_level()
    return (), jax.eval_shape(ask)


def observes(sampler):
    if type(sampler).init is not absent:
        return  # covered by `testing.check_sampler`
    state, slots = asked(sampler)
    outcome = Outcome(jnp.ones(12, bool))
    assert sampler.observe(Keys(KEY, KEY), state, slots, jnp.zeros((12, 1)), outcome) == state


def holds_levels(sampler):
    held = sampler.buffer(asked(sampler)[0])
    assert held is None or isinstance(held, LevelBuffer)


def measures(sampler):
    found = jax.eval_shape(sampler.metrics, asked(sampler)[0])
    assert all(leaf.shape == () for leaf in found.values())


def knows_the_past(sampler):
    found = jax.eval_shape(sampler.lineage, *asked(sampler))
    assert set(found) <= {"age", "depth"} and all(x.shape == (12, 1) for x in found.values())


def notes(sampler):
    """Law: `level_info` is constant in shape, because the curriculum repeats it for each slot."""
    first, second = (jax.eval_shape(sampler.level_info) for _ in range(2))
    testing.assert_shapes(first, second, "level_info changed")


def trains_a_share(sampler):
    assert 0 < sampler.trained_updates(4) <= 1


def says_what_has_slots(student):
    state = {"number": jnp.zeros(4)}
    if type(student).init is not absent:
        state = jax.eval_shape(lambda key: student.init(key, 4), KEY)
    prefix = student.per_slot(state)
    told = jax.tree.map(lambda own, part: jax.tree.map(lambda _: own, part), prefix, state)
    assert all(isinstance(own, bool) for own in jax.tree.leaves(told))


def names_are_told(name: str, is_right: Callable[[Any], bool], override: Any) -> Law:
    """Build the law of a method that returns a dict keyed by name."""

    def law(env):
        for key, answer in getattr(env, name)().items():
            assert isinstance(key, str) and is_right(answer), key

    return Law(law, given(override))


BUFFER = make_buffer(2, jnp.float32(0), ())
SOME_LEVELS = make_level_set(EASY, jax.vmap(EASY.sample_level)(jax.random.split(KEY, 2)))
LAWS: dict[tuple[type, str], Law] = {
    (LevelEnv, "lowest_return"): value("lowest_return", np.isfinite, -3.0),
    (LevelEnv, "suite_fields"): value(
        "suite_fields", lambda x: x is None or isinstance(x, tuple), ("size",)
    ),
    (LevelEnv, "default_params"): Law(is_example, property(given({"number": jnp.int32(7)}))),
    (LevelEnv, "action_space"): Law(counts_actions, given(spaces.Discrete(2))),
    (LevelEnv, "unpack"): Law(unpacks, given(jnp.ones(3))),
    (LevelEnv, "success"): Law(tells_success, lambda self, total, terminated: total > 1),
    (LevelEnv, "level_hash"): Law(tells_levels_apart, lambda self, level: jnp.ones(2, jnp.uint32)),
    (LevelEnv, "for_evaluation"): Law(is_evaluated, given(EASY)),
    (LevelEnv, "presets"): Law(has_presets, given({"fast": {}})),
    (LevelEnv, "suites"): names_are_told("suites", callable, {"heldout": absent}),
    (LevelEnv, "ladder"): names_are_told("ladder", bool, {"V1": "a shift"}),
    (Network, "groups"): value("groups", lambda x: isinstance(x, tuple), ("actor", "critic")),
    (Network, "check"): accepts(EASY),
    (Network, "initial_carry"): carries(),
    (Approximator, "check"): accepts(EASY),
    (Actor, "bptt_steps"): value("bptt_steps", lambda x: isinstance(x, int) and x >= 0, 4),
    (Actor, "reads"): subset("reads", frozenset({"last_obs"})),
    (Actor, "initial_carry"): carries(),
    (Learner, "least_slots"): Law(takes_its_slots, 2),
    (Learner, "check"): Law(takes_its_slots, given(None)),
    (Learner, "in_env"): Law(moves, lambda self, env: self),
    (Learner, "spanning"): spanning(),
    (Learner, "without_schedule"): Law(loses_its_schedule, lambda self: self),
    (Learner, "discounting"): discounting(),
    (Learner, "pinned_files"): files("pinned_files"),
    (RuleNet, "is_even"): flag("is_even"),
    (RuleLearner, "in_env"): Law(moves, lambda self, env: self),
    (RuleLearner, "frozen_clock"): value("frozen_clock", lambda x: x in (None, True, False), True),
    (Bonus, "features"): value("features", lambda x: set(x) <= set(FEATURES), ("event",)),
    (Bonus, "pairs"): flag("pairs"),
    (Bonus, "warnings"): sentences(),
    (Score, "reads"): subset("reads", EVIDENCE),
    (Score, "may_be_negative"): flag("may_be_negative"),
    (Score, "accumulate"): flag("accumulate"),
    (Score, "initial_state"): Law(is_of_one_level, given({"best": jnp.float32(0)})),
    (Sampler, "reads"): subset("reads", EVIDENCE),
    (Sampler, "num_blocks"): at_least_one("num_blocks"),
    (Sampler, "train_share"): value("train_share", lambda x: 0 < x <= 1, 0.5),
    (Sampler, "mean_lifetime"): value("mean_lifetime", lambda x: x is None or x >= 1, 2.5),
    (Sampler, "preparation"): value("preparation", lambda x: isinstance(x, str), "fitting"),
    (Sampler, "level_set"): value("level_set", lambda x: x is None or len(x) > 0, SOME_LEVELS),
    (Sampler, "is_set_sampled"): flag("is_set_sampled"),
    (Sampler, "makes_levels"): value("makes_levels", lambda x: isinstance(x, bool), False),
    (Sampler, "observe"): Law(observes, lambda self, keys, state, *told: state),
    (Sampler, "check"): accepts(4, NoScore()),
    (Sampler, "spanning"): spanning(),
    (Sampler, "buffer"): Law(holds_levels, given(BUFFER)),
    (Sampler, "level_info"): Law(notes, given({"age": jnp.int32(0)})),
    (Sampler, "metrics"): Law(measures, given({"pool_size": jnp.int32(0)})),
    (Sampler, "trained_updates"): Law(trains_a_share, given(0.5)),
    (Sampler, "lineage"): Law(knows_the_past, given({"age": jnp.zeros((12, 1), jnp.int32)})),
    (Student, "gives"): subset("gives", EVIDENCE),
    (Student, "num_steps"): at_least_one("num_steps"),
    (Student, "population"): at_least_one("population"),
    (Student, "train_share"): value("train_share", lambda x: 0 < x <= 1, 0.5),
    (Student, "max_levels_per_slot"): value("max_levels_per_slot", lambda x: x is None or x > 0, 1),
    (Student, "full_lifetime"): flag("full_lifetime"),
    (Student, "check"): accepts(4),
    (Student, "spanning"): spanning(),
    (Student, "per_slot"): Law(says_what_has_slots, lambda self, state: {"number": True}),
    (Student, "discounting"): discounting(),
    (Student, "files"): files("files", (), {"seed": 0}),
    (Student, "pinned_files"): files("pinned_files"),
    (Student, "warnings"): sentences(),
}


@pytest.mark.parametrize("pair", DEFAULTS, ids=lambda pair: f"{pair[0].__name__}.{pair[1]}")
def test_what_is_optional_keeps_its_law_by_default_and_overridden(pair):
    base, name = pair
    law = LAWS[pair]  # every new optional name needs a law
    law.holds(made(base))
    law.holds(made(base, **{name: law.override}))
    for component in registered(base) if pair not in COMPILED else ():
        law.holds(component)


def test_no_law_is_about_what_does_not_exist():
    assert set(LAWS) <= set(DEFAULTS)


@pytest.mark.parametrize("pair", CAPABILITIES, ids=lambda pair: f"{pair[0].__name__}.{pair[1]}")
def test_a_capability_is_offered_by_those_that_have_it_and_missing_in_the_others(pair):
    base, name = pair
    capability = vars(base)[name]
    nothing = [None] * (len(inspect.signature(capability).parameters) - 1)
    lacks, offers = made(base), made(base, **{name: given("an answer")})
    assert not lacks.offers(capability) and offers.offers(capability)
    others = [vars(b)[n] for b, n in CAPABILITIES if b in type(offers).__mro__ and n != name]
    assert not any(map(offers.offers, others))
    assert getattr(offers, name)(*nothing) == "an answer"
    with pytest.raises(MissingCapability, match=f"Own{base.__name__} has no {name}"):
        # Unwrapped, because dummy arguments fail the type check.
        inspect.unwrap(capability)(lacks, *nothing)
    assert issubclass(MissingCapability, ValueError)


def test_the_optional_methods_of_an_environment_are_those_that_it_declares():
    # Two methods of gymnax, and two attributes.
    theirs = {"default_params", "action_space", "lowest_return", "suite_fields"}
    assert set(OPTIONAL_METHODS) == set(optional_names(LevelEnv)) - theirs
    assert all(vars(LevelEnv)[name] is method for name, method in OPTIONAL_METHODS.items())


@pytest.mark.parametrize("name", names("envs"))
def test_an_environment_offers_what_it_has(name):
    module = load("envs", name)
    for env in (module.tiny(), *(module.build(**x) for x in variants(module).values())):
        check_offers(env)


def check_offers(env: Any) -> None:
    decides = type(env).offers is not Component.offers  # depends on the fields of the environment
    for base, ability in CAPABILITIES:
        capability = vars(base)[ability]
        if base is not LevelEnv:
            continue
        if getattr(type(env), ability) is capability:
            assert not env.offers(capability)
            nothing = [None] * (len(inspect.signature(capability).parameters) - 1)
            with pytest.raises(MissingCapability, match=f"{type(env).__name__} has no {ability}"):
                inspect.unwrap(capability)(env, *nothing)
        else:
            nothing = [None] * (len(inspect.signature(capability).parameters) - 1)
            if not env.offers(capability):
                assert decides, ability
                with pytest.raises(MissingCapability, match=f"has no {ability}"):
                    inspect.unwrap(getattr(type(env), ability))(env, *nothing)
            assert inspect.isfunction(getattr(type(env), ability)), f"{ability} is not a method"


def test_a_task_offers_what_its_level_does():
    task = TaskEnv(EASY)
    assert not task.offers(LevelEnv.solve)
    with pytest.raises(MissingCapability, match="Probe has no solve"):
        task.solve(task.sample_level(KEY))
    assert TaskEnv(load("envs", "maze").tiny()).offers(LevelEnv.solve)


def test_slots_split_over_devices_give_what_their_student_gives():
    """All attributes that the base declares are equal, because curricula read them."""
    student = OnPolicy(EASY, load("learners", "ppo").tiny(EASY), 5, population=2, train_share=0.5)
    split = SplitSlots(student, jax.make_mesh((1,), ("slots",)))
    names_of = [name for base, name in DEFAULTS if base is Student]
    attributes = [name for name in names_of if not callable(getattr(Student, name))]
    assert len(attributes) > 5
    for name in attributes:
        assert getattr(split, name) == getattr(student, name), name


# Abstract or final.


@pytest.mark.parametrize("base", [base for base in BASES if base != Component])
def test_a_component_that_lacks_what_is_abstract_cannot_be_made(base):
    for name in abstract_names(base):
        needed = {other: absent for other in abstract_names(base) if other != name}
        with pytest.raises(TypeError, match=name):
            type("Lacking", (base,), needed)()


@pytest.mark.parametrize("final", [PLR, OnPolicy, MaxMC, type(made(LevelEnv))])
def test_a_class_that_extends_a_final_one_is_refused(final):
    with pytest.raises(TypeError, match=f"{final.__name__} is final: Own must hold one as a field"):
        type("Own", (final,), {})


def test_a_class_declared_abstract_may_be_extended_by_one_that_is_final():
    class Longer(testing.Probe):
        pass

    assert Longer().num_actions == 2
    with pytest.raises(TypeError, match="Longer is final"):
        type("Longest", (Longer,), {})


# The score of a curriculum is passed to its sampler.


class Aimless(Untaught):
    """Learner that acts at random."""

    def act(self, key, state, carry, obs, first):
        action = jax.random.randint(key, first.shape, 0, 2)
        return carry, action, jnp.zeros(first.shape), jnp.zeros(first.shape)


def plr(**changes):
    """The PLR recipe with a student that compiles quickly."""
    whole = load("recipes", "plr").build(EASY, learner="ppo")
    sampler = replace(whole.sampler, capacity=8)
    small = replace(whole, num_slots=4, student=OnPolicy(EASY, Aimless(), 3), sampler=sampler)
    return replace(small, **changes)


def test_a_replaced_score_is_the_one_whose_memory_is_kept():
    """Regression: the sampler held a separate score whose memory had another shape."""
    whole = replace(plr(), score=Learnability(EASY, accumulate=True))

    @jax.jit
    def once(key):
        return whole.update(whole.init(key), Keys(key, key))[0]

    held = once(KEY).sampler.buffer
    memory = held.level_info.score_state
    assert jax.tree.structure(memory) == jax.tree.structure(whole.score.initial_state())
    size = int(held.size)
    assert size > 0 and (np.asarray(memory.num)[:size] == 3).all()  # every episode has one step


def test_a_replaced_score_without_memory_leaves_none_in_the_buffer():
    whole = replace(plr(), score=Learnability(EASY))
    start = jax.eval_shape(whole.init, KEY)
    after = jax.eval_shape(whole.update, start, Keys(KEY, KEY))[0]
    assert start.sampler.buffer.level_info.score_state == ()
    testing.assert_shapes(after, start, "an update changed the shapes of the state")


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"score": AlgorithmicRegret()}, "AlgorithmicRegret reads the outcome's lifetimes"),
        ({"sampler": made(Sampler, reads=frozenset({"lifetimes"}))}, "OwnSampler reads .*lifetim"),
    ],
)
def test_who_reads_what_the_student_does_not_give_is_refused(changes, sentence):
    fills = "OnPolicy fills episodes, rollout; choose another score, sampler or student"
    with pytest.raises(ValueError, match=f"{sentence}.*, but {fills}"):
        plr(**changes)


def test_a_student_that_gives_nothing_has_scores_that_read_nothing_and_no_other():
    silent = made(Student, env=EASY)
    Curriculum(silent, Random(EASY), NoScore())
    with pytest.raises(ValueError, match="MaxMC reads the outcome's rollout, but OwnStudent fills"):
        Curriculum(silent, Random(EASY), MaxMC())
