"""Adaptation: zero-shot before the first update, then the same learning as the student's."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlgen.algos.learners.ppo import PPO
from rlgen.evaluation import zero_shot
from rlgen.evaluation.ladder import few_shot
from rlgen.levels import Suite, make_level_set
from rlgen.nn.actor_critic import ActorCritic
from rlgen.students import OnPolicy, OnPolicyState
from rlgen.testing import Probe
from rlgen.types import Slots
from tests.standins.stubs import Unrun

ENV = Probe("policy")  # rewards: action 0 gives 1, action 1 gives -1
NETWORK = ActorCritic(core="none", hidden_size=4, head_size=4)
LEARNER = PPO(ENV, NETWORK, learning_rate=0.05, num_epochs=2, anneal=True, num_updates=1)
CURRICULUM = SimpleNamespace(student=OnPolicy(ENV, LEARNER, num_steps=8), num_slots=4)
SEEDS, POINTS = 2, (0, 1, 3, 12)


@pytest.fixture(scope="module")
def policies():
    states = jax.vmap(LEARNER.init)(jax.random.split(jax.random.key(1), SEEDS))
    return zero_shot.Policies("run", ENV, LEARNER, states, {})


@pytest.fixture(scope="module")
def suite():
    level = jax.vmap(ENV.sample_level)(jax.random.split(jax.random.key(2), 6))
    return Suite("probe/some", ENV, make_level_set(ENV, level))


@pytest.fixture(scope="module")
def found(policies, suite):
    levels, rest = few_shot.split(suite, 2)
    play = few_shot.Play(attempts=8, seed=5)
    return few_shot.adapt(policies, CURRICULUM, rest, levels, POINTS, play), levels, rest


@pytest.mark.thorough
def test_before_the_first_update_it_is_zero_shot_bit_for_bit(policies, found):
    adaptation, _, rest = found
    plain = zero_shot.evaluate(policies, rest, 8, 5)
    np.testing.assert_array_equal(adaptation.evaluations[0].episode_return, plain.episode_return)


@pytest.mark.thorough
def test_every_point_is_what_the_student_learns_one_update_at_a_time(policies, found):
    adaptation, levels, rest = found
    student = few_shot.student_of(CURRICULUM, ENV)
    run = jax.jit(student.run)
    every = []
    for s, key in enumerate(jax.random.split(jax.random.key(5), SEEDS)):
        state = OnPolicyState(jax.tree.map(lambda x, s=s: x[s : s + 1], policies.states), ())
        for i in range(3):
            key_level, key_run = jax.random.split(jax.random.fold_in(key, i))
            row = jax.random.randint(key_level, (4, 1), 0, 2)
            level = jax.tree.map(lambda x, row=row: x[row], levels.level)
            zero = jnp.zeros(4, jnp.int32)
            slots = Slots(level, (), zero[:, None] - 1, zero, jnp.ones(4), ())
            state, _, _ = run(key_run, state, slots, jnp.ones(4, bool))
        every.append(jax.tree.map(lambda x: x[0], state.learner))
    states = jax.tree.map(lambda *x: jnp.stack(x), *every)
    plain = zero_shot.evaluate(policies._replace(states=states), rest, 8, 5)
    third = adaptation.evaluations[POINTS.index(3)]
    np.testing.assert_array_equal(third.episode_return, plain.episode_return)


@pytest.mark.thorough
def test_learning_helps_and_an_annealed_rate_starts_over(found):
    first, *_, last = (e.episode_return.mean() for e in found[0].evaluations)
    assert last > 0.9 > first + 0.3
    assert found[0].steps_per_update == 4 * 8
    learner = few_shot.student_of(CURRICULUM, ENV).learner
    assert isinstance(learner, PPO) and not learner.anneal


def test_levels_to_adapt_on_are_none_of_those_to_be_scored_on(suite):
    levels, rest = few_shot.split(suite, 2)
    assert sorted((*levels.names, *rest.levels.names)) == sorted(suite.levels.names)
    for num in (0, 6):
        with pytest.raises(ValueError, match=f"{num} of the 6 levels of probe/some to adapt on"):
            few_shot.split(suite, num)


@pytest.mark.parametrize("points", [(), (1, 2), (0, 2, 2), (0, -1)])
def test_points_rise_from_zero(points):
    with pytest.raises(
        ValueError, match="few-shot must be increasing numbers of updates that start at 0"
    ):
        few_shot.check_updates(points)


def test_a_rule_is_sent_to_the_evaluation_of_rules():
    with pytest.raises(ValueError, match="rlgen eval RUN --horizons"):
        few_shot.student_of(SimpleNamespace(student=Unrun()), ENV)
