"""OnPolicy and the loop around it: skipping, populations, seeds as an axis."""

from collections import Counter
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlgen.algos.learners.ppo import PPO
from rlgen.algos.samplers.plr import PLR, Alternate
from rlgen.algos.samplers.random import Random
from rlgen.algos.scores.max_mc import MaxMC
from rlgen.curriculum import Curriculum
from rlgen.nn.actor_critic import ActorCritic
from rlgen.parallel.seeds import any_over_seeds, same_for_all_seeds
from rlgen.students import OnPolicy, OnPolicyState, successes
from rlgen.testing import Probe, assert_close, assert_same, new_slots, random_rollout
from rlgen.types import Keys
from tests.standins.stubs import Untaught

ENV = Probe("memory")
NETWORK = ActorCritic(core="none", hidden_size=4, head_size=4)
LEARNER = PPO(ENV, NETWORK, learning_rate=0.01, num_epochs=1, bptt_steps=4)
N, NUM_STEPS, NUM_SEEDS, NUM_UPDATES = 4, 8, 4, 8


@pytest.fixture(scope="module")
def slots():
    level = jax.vmap(ENV.sample_level)(jax.random.split(jax.random.key(0), N))
    return new_slots(jax.tree.map(lambda x: x[:, None], level), ())


@pytest.fixture(scope="module")
def pair(slots):
    """A student with a population of two, its state, and its compiled `run`."""
    student = OnPolicy(ENV, LEARNER, NUM_STEPS, population=2)
    state = student.init(jax.random.key(1), 2)
    run = jax.jit(lambda key, weight: student.run(key, state, slots._replace(weight=weight), FREE))
    return student, state, run


FREE = jnp.ones(N, bool)
SEEDS = Keys(0, None)  # pyright: ignore[reportArgumentType]  # axes, not keys


@pytest.mark.thorough
def test_no_weight_skips_the_update_of_every_member(pair):
    _, state, run = pair
    after, outcome, metrics = run(jax.random.key(2), jnp.zeros(N))
    assert_same(after, state, "a skipped update changed the student")
    assert np.isnan(metrics["loss"]) and outcome.spent.gradient_steps == 0
    assert outcome.spent.env_steps["train"] == 0
    assert outcome.spent.env_steps["scout"] == N * NUM_STEPS
    assert outcome.done.all() and outcome.rollout.reward.shape == (2, NUM_STEPS, N)


@pytest.mark.thorough
def test_weights_train_and_are_counted(pair):
    _, _, run = pair
    weight = jnp.asarray([1.0, 0.0, 0.5, 0.0])
    after, outcome, metrics = run(jax.random.key(2), weight)
    assert np.isfinite(metrics["loss"])
    gradient_steps, env_steps = outcome.spent
    assert env_steps["train"] == env_steps["scout"] == 2 * NUM_STEPS
    assert env_steps["antagonist"] == N * NUM_STEPS  # env steps of the second member
    assert gradient_steps == LEARNER.num_epochs * LEARNER.num_minibatches
    np.testing.assert_array_equal(after.learner.num_updates, [1, 1])


@pytest.mark.thorough
def test_population_of_two_is_two_members_with_the_same_keys(pair, slots):
    student, state, run = pair
    key = jax.random.key(2)
    after, outcome, _ = run(key, slots.weight)
    alone = jax.jit(student._run_one)
    for i, key_member in enumerate(jax.random.split(key, 2)):
        member = jax.tree.map(lambda x, i=i: x[i], state)
        expected = alone(key_member, member, slots, FREE)[:2]
        found = jax.tree.map(lambda x, i=i: x[i], (after, outcome.rollout))
        assert_close(found, expected, f"member {i} differs from a single one", 1e-4)


@pytest.mark.thorough
def test_members_differ(pair):
    _, state, _ = pair
    kernels = state.learner.params["actor"]["kernel"]
    assert not np.allclose(kernels[0], kernels[1])


def test_success_is_a_positive_return_where_the_environment_has_no_notion_of_it():
    played = random_rollout(0, 20, 3, 1)
    solved = np.asarray(successes(ENV, played))
    for n in range(3):
        total = 0.0
        for t in range(20):
            total += float(played.reward[t, n])
            assert solved[t, n] == (bool(played.done[t, n]) and total > 0)
            total = 0.0 if played.done[t, n] else total


@pytest.mark.parametrize("field", ["num_steps", "population"])
def test_a_student_of_nothing_is_refused(field):
    with pytest.raises(ValueError, match=f"{field} must be at least 1, got 0"):
        OnPolicy(ENV, LEARNER, **{field: 0})  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("field", ["num_slots", "levels_per_slot"])
def test_a_curriculum_without_levels_is_refused(field):
    student = OnPolicy(ENV, LEARNER, NUM_STEPS)
    with pytest.raises(ValueError, match=f"{field} must be at least 1, got 0"):
        Curriculum(student, Random(ENV), MaxMC(), **{field: 0})


def test_a_curriculum_refuses_what_its_learner_cannot_divide():
    student = OnPolicy(ENV, LEARNER, num_steps=NUM_STEPS + 1)
    with pytest.raises(ValueError, match="bptt_steps=4 does not divide num_steps=9"):
        Curriculum(student, Random(ENV), MaxMC(), num_slots=N)


# Seeds as an axis.


@dataclass(frozen=True)
class Tally(Untaught):
    """Learner that only counts its updates, regardless of their weight."""

    def init(self, key):
        return jnp.int32(0)

    def update(self, key, state, rollout, weight):
        return state + 1, {"loss": jnp.float32(0)}


def test_a_seed_without_weight_stays_as_it_is_beside_one_that_learns():
    student, played = OnPolicy(ENV, Tally(), NUM_STEPS), random_rollout(0, NUM_STEPS, N, 1)

    def learn(weight):
        keys = tuple(jax.random.split(jax.random.key(0)))
        return student._learn(keys, OnPolicyState(jnp.int32(7), ()), played, weight)

    state, _, metrics = jax.vmap(learn)(jnp.asarray([[0.0] * N, [0.0, 0.0, 0.5, 0.0]]))
    np.testing.assert_array_equal(state.learner, [7, 8])
    np.testing.assert_array_equal(metrics["loss"], [np.nan, 0.0])


def test_a_shared_predicate_is_one_answer_for_all_seeds():
    wants = jnp.asarray([[False, True, False], [False, False, False]])
    for row, expected in zip(wants, (True, False), strict=True):
        np.testing.assert_array_equal(jax.vmap(any_over_seeds)(row), [expected] * 3)
    assert any_over_seeds(jnp.bool_(True)) and not any_over_seeds(jnp.bool_(False))
    counter = jnp.full((3,), 5)
    np.testing.assert_array_equal(jax.vmap(same_for_all_seeds)(counter), counter)


@pytest.fixture(scope="module")
def robust():
    """Curriculum of robust PLR, in which some updates train and others only score."""
    sampler = PLR(ENV, Random(ENV), capacity=8, decision=Alternate(0.5), train_on_new=False)
    student = OnPolicy(ENV, LEARNER, NUM_STEPS)
    return Curriculum(student, sampler, MaxMC(), num_slots=N)


def train(curriculum, keys):
    ts = curriculum.init(jax.random.fold_in(keys.own, 1000))
    return curriculum.train(ts, keys, jnp.int32(0), NUM_UPDATES)


def all_keys():
    return Keys(jax.random.split(jax.random.key(7), NUM_SEEDS), jax.random.key(8))


@pytest.fixture(scope="module")
def one_by_one(robust):
    run = jax.jit(lambda keys: train(robust, keys))
    keys = all_keys()
    runs = [run(Keys(own, keys.shared)) for own in keys.own]
    return jax.tree.map(lambda *x: jnp.stack(x), *runs)


@pytest.fixture(scope="module")
def vmapped(robust):
    return jax.vmap(lambda keys: train(robust, keys), in_axes=(SEEDS,))


@pytest.mark.thorough
def test_seeds_side_by_side_are_single_runs(vmapped, one_by_one):
    side_by_side = jax.jit(vmapped)(all_keys())
    trained = np.isfinite(one_by_one[1]["loss"])
    assert trained.any() and not trained.all(), "both kinds of update must occur"
    assert_close(side_by_side, one_by_one, "seeds differ from single runs", 1e-3)
    kernel = one_by_one[0].student.learner.params["actor"]["kernel"]
    assert not np.allclose(kernel[0], kernel[1]), "the seeds do not differ from each other"


def primitives(jaxpr):
    """Count the occurrences of each primitive, including inner programs."""
    found = Counter()
    for equation in jaxpr.eqns:
        found[equation.primitive.name] += 1
        for value in jax.tree.leaves(list(equation.params.values()), is_leaf=is_jaxpr):
            if is_jaxpr(value):
                found += primitives(getattr(value, "jaxpr", value))
    return found


def is_jaxpr(value):
    return hasattr(value, "eqns") or hasattr(value, "jaxpr")


@pytest.mark.thorough
def test_no_branch_becomes_a_select_when_seeds_are_an_axis(robust, vmapped):
    keys = all_keys()
    single = jax.make_jaxpr(lambda keys: train(robust, keys))(Keys(keys.own[0], keys.shared))
    many = jax.make_jaxpr(vmapped)(keys)
    expected = primitives(single.jaxpr)["cond"]
    assert expected >= 4  # time limits, the update, new levels, replay
    assert primitives(many.jaxpr)["cond"] == expected
