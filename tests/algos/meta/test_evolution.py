"""Evolution of rules over whole lifetimes: pairs, groups, step counts, and the files of a run."""

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh

from rlgen.algos.learners import a2c, lpg, lpo, ppo
from rlgen.algos.learners.lpg import Agent, build_agent
from rlgen.algos.meta.evolution_strategy import MetaES
from rlgen.algos.meta.evosax_strategy import Strategy
from rlgen.algos.rules.files import load_rule
from rlgen.algos.rules.networks import Rule
from rlgen.algos.samplers.lifetimes import Lifetimes
from rlgen.algos.samplers.random import Random
from rlgen.algos.scores.none import NoScore
from rlgen.curriculum import Curriculum
from rlgen.evaluation.meta.meta_test import Life, train_agent
from rlgen.rollout import evaluate_policy
from rlgen.runs.spec import RunSpec, build, plan
from rlgen.types import Keys, Slots, Task
from tests.standins.two_states import TwoStates

ENV = TwoStates()
NET = Rule(hidden_size=4, num_predictions=3, embedding_size=2, clock=True)
PAIRS, LIVES = 6, jnp.array([4, 1, 7, 3, 7, 2])


def make(**fields) -> Any:
    learner = lpg.build(ENV, agent=build_agent(ENV, num_predictions=0), net=NET)
    defaults = {"learner": learner, "rollout_steps": 3, "num_workers": 4}
    return MetaES(ENV, **(defaults | fields))


def slots(lifetime=LIVES):
    level = jax.vmap(ENV.sample_level)(jax.random.split(jax.random.key(9), lifetime.size))
    task = jax.tree.map(lambda x: x[:, None], Task(level, lifetime.astype(jnp.int32)))
    row = jnp.full((lifetime.size, 1), -1)
    return Slots(task, (), row, jnp.zeros(lifetime.size, jnp.int32), jnp.ones(lifetime.size))


def run(student, lifetime=LIVES, seed=0):
    given = slots(lifetime)
    state = student.init(jax.random.key(seed), lifetime.size)
    fresh = jnp.ones(lifetime.size, bool)
    return jax.jit(student.run)(jax.random.key(1), state, given, fresh)


def rule(student, state):
    return np.concatenate([x.ravel() for x in jax.tree.leaves(student.rule(state))])


@pytest.fixture(scope="module")
def one_by_one():
    return run(make())


@pytest.mark.thorough
@pytest.mark.parametrize("size", [2, 3, 6])
def test_groups_by_lifetime_give_what_lives_one_by_one_give(one_by_one, size):
    """One group of all pairs is plain masking: every agent is trained for the longest lifetime."""
    student = make(pair_batch_size=size)
    state, outcome, metrics = run(student)
    expected, expected_outcome, _ = one_by_one
    np.testing.assert_allclose(
        outcome.lifetimes.student_return,
        expected_outcome.lifetimes.student_return,
        rtol=1e-4,
        atol=1e-5,
    )
    np.testing.assert_allclose(rule(student, state), rule(student, expected), atol=1e-4)
    groups = np.sort(LIVES).reshape(-1, size)
    np.testing.assert_allclose(
        metrics["useful_updates"], groups.sum() / (groups.max(1).sum() * size), rtol=1e-6
    )


@pytest.mark.thorough
def test_devices_share_the_pairs(one_by_one):
    mesh = Mesh(np.asarray(jax.devices()[:2]), ("slots",), axis_types=(AxisType.Auto,))
    student = make().split_over(mesh)
    state, outcome, metrics = run(student)
    np.testing.assert_allclose(
        outcome.lifetimes.student_return,
        one_by_one[1].lifetimes.student_return,
        rtol=1e-4,
        atol=1e-5,
    )
    np.testing.assert_allclose(rule(student, state), rule(student, one_by_one[0]), atol=1e-4)
    assert metrics["useful_updates"] == 1.0


@pytest.mark.thorough
def test_a_life_is_that_of_a_meta_test():
    """`train_agent` is an independent implementation, without pairs."""
    student, life = make(), 5
    params = jax.tree.map(lambda x: 2 * x, NET.init(jax.random.key(3)))
    level = ENV.sample_level(jax.random.key(4))
    task = Task(level, jnp.int32(life))
    keys = jax.random.split(jax.random.key(5), 400)

    def ours(key):
        state = student._run_lifetime(jnp.int32(life), key, params, task)
        return evaluate_policy(key, ENV, student.learner, state, level)[0]

    def theirs(key):
        learner = replace(student.learner, num_updates=life)
        return train_agent(key, ENV, learner, params, level, Life(life, 4, 3)).final_return

    one, other = (np.asarray(jax.jit(jax.vmap(f))(keys)) for f in (ours, theirs))
    spread = np.sqrt((one.var() + other.var()) / len(keys))
    assert spread > 0 and abs(one.mean() - other.mean()) < 4 * spread


@pytest.mark.thorough
def test_equal_rules_of_a_pair_tie():
    """Both rules of a pair share the task, the initial agent and all random numbers."""
    student = make()
    params = NET.init(jax.random.key(3))
    pairs = jax.tree.map(lambda x: jnp.broadcast_to(x, (PAIRS, 2, *x.shape)), params)
    task = jax.tree.map(lambda x: x[:, 0], slots().level)
    fitness_of_pairs, _ = jax.jit(student._try)(
        jax.random.split(jax.random.key(1), PAIRS), pairs, task
    )
    np.testing.assert_array_equal(fitness_of_pairs.fitness[:, 0], fitness_of_pairs.fitness[:, 1])
    assert (
        len(np.unique(fitness_of_pairs.fitness[:, 0])) == PAIRS
    )  # different pairs do not share them


@pytest.mark.thorough
def test_the_agents_of_a_pair_differ_by_their_rules_alone(one_by_one):
    assert one_by_one[2]["lifetime_gap"] > 0 and one_by_one[2]["ties"] == 0


def test_the_clock_runs_from_birth_to_the_end_of_a_life(monkeypatch):
    student, seen = make(), []
    inputs: Any = Agent.inputs

    def watched(self, state, rollout):
        told: Any = inputs(self, state, rollout)
        clock = told.life_used[0, 0], told.log_horizon[0, 0]
        jax.debug.callback(lambda *x: seen.append(tuple(map(float, x))), *clock)
        return told

    monkeypatch.setattr(Agent, "inputs", watched)
    task = Task(ENV.sample_level(jax.random.key(4)), jnp.int32(4))
    student._run_lifetime(jnp.int32(4), jax.random.key(0), NET.init(jax.random.key(1)), task)
    jax.effects_barrier()
    horizon = np.log(4 / 50) / np.log(5)
    np.testing.assert_allclose(sorted(seen), [(n / 4, horizon) for n in range(4)], rtol=1e-5)


def test_at_ten_to_250_updates_most_updates_executed_are_useful():
    """512 pairs in groups of 32, sorted by log-uniform lifetime; checked without training."""
    sampler = Lifetimes(ENV, Random(ENV), 10, 250)
    drawn = np.sort(sampler._draw(jax.random.key(0), (20, 512)), axis=1)
    useful = {n: drawn.sum() / (drawn.reshape(20, -1, n).max(2).sum() * n) for n in (8, 32)}
    assert useful[32] > 0.85 and useful[8] > 0.97, useful
    curriculum: Any = build(RunSpec(recipe="ta-lpg", env="gridworld", preset="parity"))[1]
    assert (curriculum.num_slots, curriculum.student.pair_batch_size) == (512, 32)
    assert drawn.sum() / (250 * drawn.size) < 0.35  # useful share if all are masked to the longest
    np.testing.assert_allclose(sampler.mean_lifetime, drawn.mean(), rtol=0.03)


def test_seeds_side_by_side_wait_for_none_of_each_others_lives():
    curriculum: Any = build(RunSpec(recipe="ta-lpg", env="gridworld", preset="fast"))[1]
    assert curriculum.sampler.common
    drawn, given, free = {}, slots(jnp.full(64, 250)), jnp.ones(64, bool)
    for common in (True, False):
        sampler = Lifetimes(ENV, Random(ENV), 10, 250, common)
        seeds = jax.random.split(jax.random.key(0), 2)
        _, new = jax.vmap(
            lambda own, s=sampler: s.propose(Keys(own, jax.random.key(1)), (), given, free)
        )(seeds)
        drawn[common] = np.sort(new.level.lifetime[..., 0])
        assert (new.level.level.payoff[0] != new.level.level.payoff[1]).any()  # other levels
    assert (drawn[True][0] == drawn[True][1]).all() and len(set(drawn[True][0])) > 16
    longest = drawn[False].max(0)
    assert drawn[False].sum() < 0.97 * 2 * longest.sum()


@pytest.mark.thorough
def test_evolution_finds_a_rule_that_teaches():
    """Starting from untrained rules, the agents' returns rise by more than 0.5."""
    net = replace(NET, hidden_size=8)
    learner = replace(make().learner, net=net)
    strategy = Strategy(learning_rate=0.05, sigma=0.3, beta1=0.9)
    student = make(learner=learner, strategy=strategy, num_workers=8)
    curriculum = Curriculum(student, Lifetimes(ENV, Random(ENV), 4, 8), NoScore(), num_slots=16)
    ts = curriculum.init(jax.random.key(0))
    keys = Keys(*jax.random.split(jax.random.key(1)))
    _, metrics = jax.jit(lambda ts: curriculum.train(ts, keys, jnp.int32(0), 80))(ts)
    first, last = (
        np.asarray(metrics["lifetime_return"][x]).mean() for x in (slice(5), slice(-10, None))
    )
    assert last > first + 0.5, (first, last)


@pytest.mark.thorough
def test_seeds_side_by_side_are_seeds_apart(one_by_one):
    """Under `vmap` over seeds with different lifetimes, each seed's loop stays independent."""
    student, lifetimes = make(), jnp.stack([LIVES, LIVES[::-1] + 3])
    keys = jax.random.split(jax.random.key(1), 2)
    init = jax.vmap(lambda key: student.init(key, PAIRS))
    states = init(jax.random.split(jax.random.key(0), 2))
    both = jax.vmap(slots)(lifetimes)
    fresh = jnp.ones((2, PAIRS), bool)
    together = jax.jit(jax.vmap(student.run))(keys, states, both, fresh)
    apart = jax.jit(student.run)(keys[1], *jax.tree.map(lambda x: x[1], (states, both, fresh)))
    np.testing.assert_allclose(
        together[1].lifetimes.student_return[1],
        apart[1].lifetimes.student_return,
        rtol=1e-4,
        atol=1e-5,
    )
    np.testing.assert_allclose(
        rule(student, jax.tree.map(lambda x: x[1], together[0])), rule(student, apart[0]), atol=1e-4
    )


@pytest.mark.thorough
def test_steps_are_counted_by_what_they_were_for():
    spent = run(make(pair_batch_size=6))[1].spent.env_steps
    each = 2 * 3 * 4
    assert spent["train"] == each * LIVES.sum()
    assert spent["surplus"] == each * (6 * 7 - LIVES.sum())
    assert spent["evaluate"] == 0  # the stand-in's returns are exact


@pytest.mark.thorough
def test_a_broken_agent_loses_and_breaks_nothing():
    learner = replace(make().learner, agent=replace(make().learner.agent, learning_rate=1e30))
    state, _, metrics = run(make(learner=learner))
    leaves = [x for x in jax.tree.leaves(state) if jnp.issubdtype(x.dtype, jnp.floating)]
    assert all(jnp.isfinite(x).all() for x in leaves)
    assert np.isfinite(metrics["lifetime_return"])


@pytest.mark.thorough
def test_the_mean_begins_at_the_network_at_zeros_or_at_a_trained_rule():
    given = NET.init(jax.random.split(jax.random.split(jax.random.key(0))[0])[0])
    student = make()
    start = rule(student, student.init(jax.random.key(0), PAIRS))
    np.testing.assert_array_equal(
        start, np.concatenate([x.ravel() for x in jax.tree.leaves(given)])
    )
    zeros = make(from_zeros=True)
    assert not rule(zeros, zeros.init(jax.random.key(0), PAIRS)).any()
    trained = make(learner=lpg.build(ENV, rule="grid-lpg"))
    shipped = np.concatenate([x.ravel() for x in jax.tree.leaves(load_rule("grid-lpg").params)])
    np.testing.assert_array_equal(rule(trained, trained.init(jax.random.key(0), PAIRS)), shipped)


@pytest.mark.thorough
def test_every_seed_becomes_a_file(tmp_path):
    student = make()
    states = jax.vmap(lambda key: student.init(key, PAIRS))(jax.random.split(jax.random.key(0)))
    found = student.files(states, {"recipe": "ta-lpg", "seed": 5})
    assert list(found) == ["rules/seed-000.npz", "rules/seed-001.npz"]
    (tmp_path / "one.npz").write_bytes(found["rules/seed-001.npz"])
    learned = load_rule(tmp_path / "one.npz")
    assert learned.rule == NET and learned.meta["seed"] == 6
    second = jax.tree.map(lambda x: x[1], states)
    for x, y in zip(*map(jax.tree.leaves, (learned.params, student.rule(second))), strict=True):
        np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize(
    ("recipe", "net", "clock"),
    [("ta-lpg", Rule, True), ("lpg-es", Rule, False)],
)
def test_recipes_are_of_the_published_sizes(recipe, net, clock):
    spec = RunSpec(recipe=recipe, env="gridworld", preset="parity")
    curriculum: Any = build(spec)[1]
    student = curriculum.student
    assert isinstance(student.learner.net, net) and student.learner.net.clock == clock
    length = plan(spec, curriculum)
    assert 2500 <= length.num_updates < 2600 and curriculum.num_slots == 512
    params = jax.eval_shape(student.learner.net.init, jax.random.key(0))
    assert sum(x.size for x in jax.tree.leaves(params)) == (205_482 if clock else 203_946)


def whole(student, num_slots=PAIRS, sampler=None):
    return Curriculum(student, sampler or Lifetimes(ENV, Random(ENV)), NoScore(), num_slots)


@pytest.mark.parametrize(
    ("build_it", "sentence"),
    [
        (lambda: make(num_workers=0), "num_workers must be at least 1, got 0"),
        (
            lambda: make(learner=lpo.tiny(ENV), from_zeros=True),
            "parameters p and -p of a Drift define the same function",
        ),
        (lambda: whole(make(pair_batch_size=4)), "num_slots=6 cannot be divided into batches"),
        (
            lambda: whole(make(), sampler=Random(ENV)),
            "wrap the sampler in rlgen.algos.samplers.lifetimes",
        ),
        (
            lambda: build(RunSpec(recipe="ta-lpg", env="gridworld", learner="a2c")),
            "the learner 'a2c' has no learned rule",
        ),
        (
            lambda: build(RunSpec(recipe="ta-lpg", env="gridworld", score="max-mc")),
            "in the recipe ta-lpg the score cannot be chosen; omit --score",
        ),
        (
            lambda: build(
                RunSpec(recipe="ta-lpg", env="chain", overrides={"student.strategy.name": "es"})
            ),
            "unknown evolution strategy 'es'",
        ),
        (
            lambda: build(
                RunSpec(recipe="ta-lpg", env="chain", overrides={"sampler.shortest": 300})
            ),
            "shortest=300 is above the longest lifetime, 250",
        ),
        (
            lambda: make().policy(make().init(jax.random.key(0), 1)),
            "learned an update rule, not a policy",
        ),
    ],
)
def test_bad_input_is_refused(build_it, sentence):
    with pytest.raises(ValueError, match=sentence):
        build_it()


def test_learners_that_follow_a_rule_are_rule_learners():
    from rlgen.protocols import RuleLearner

    assert isinstance(lpg.tiny(ENV), RuleLearner)
    assert not isinstance(a2c.tiny(ENV), RuleLearner)
    assert not isinstance(ppo.tiny(ENV), RuleLearner)
