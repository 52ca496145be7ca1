"""The learner driven by a learned rule: its update follows the rule; mismatches are rejected."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnax.environments import spaces

from rlgen.algos.learners import lpg
from rlgen.algos.learners.lpg import Agent, build_agent
from rlgen.algos.rules.files import save_rule
from rlgen.algos.rules.networks import Rule
from rlgen.nn.approximators import MLP, Conv
from rlgen.rollout import rollout
from rlgen.testing import Probe, random_rollout

ENV, T, N, M = Probe("policy"), 6, 4, 3
RULE = Rule(hidden_size=4, num_predictions=M, embedding_size=3)
PARAMS = RULE.init(jax.random.key(8))
LAST = jax.random.normal(jax.random.key(9), (1, N, 4))
ROLLOUT = random_rollout(0, T, N, 1)._replace(last_obs=LAST)


def close(found, expected, tolerance=1e-5):
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for x, y in zip(*map(jax.tree.leaves, (found, expected)), strict=True):
        np.testing.assert_allclose(x, y, rtol=tolerance, atol=tolerance)


@pytest.fixture
def path(tmp_path):
    save_rule(tmp_path / "rule.npz", RULE, PARAMS, {})
    return str(tmp_path / "rule.npz")


@pytest.mark.thorough
def test_it_does_what_the_rule_in_a_file_says(path):
    """The agent has the rule's number of predictions, and its update equals one worked by hand."""
    learner, agent = lpg.build(ENV, rule=path), build_agent(ENV, num_predictions=M)
    state = learner.init(jax.random.key(0))
    close(state.rule, PARAMS, 0)
    close(state.agent, agent.init(jax.random.key(0)), 0)
    assert learner.rule_net == RULE
    weight = jnp.array([1.0, 3.0, 1.0, 0.0])

    @jax.jit
    def by_hand(state):
        targets = RULE(PARAMS, agent.inputs(state, ROLLOUT))
        state, stats = agent.learn(state, ROLLOUT, targets, weight)
        return *agent.learn_critic(state, ROLLOUT, weight), targets, stats

    expected, loss, targets, stats = by_hand(state.agent)
    new, metrics = jax.jit(learner.update)(jax.random.key(1), state, ROLLOUT, weight)
    close(new.agent, expected)
    close(new.rule, PARAMS, 0)
    told = jnp.array([loss, (targets.policy * weight[None]).mean(0).sum() / 5, stats.kl])
    close(jnp.array([metrics[n] for n in ("critic_loss", "policy_target", "kl")]), told)


def test_another_rule_may_be_put_in():
    """A meta-learner's student does so with the rule of each seed."""
    learner = lpg.build(ENV, net=RULE)
    state = learner.init_with(jax.random.key(0), PARAMS)
    close(state.rule, PARAMS, 0)
    obs, first = jnp.zeros((5, 4)), jnp.zeros(5, bool)
    assert learner.log_policy(state, obs).shape == (5, 2)
    assert learner.value(state, (), obs, first).shape == (5,)


def test_its_rollouts_hold_the_last_observation():
    learner = lpg.build(ENV, net=RULE)
    state = learner.init(jax.random.key(0))
    level = jax.tree.map(lambda x: jnp.broadcast_to(x, (N, 1)), ENV.default_params)
    played, _ = rollout(jax.random.key(1), ENV, learner, state, level, T)
    assert played.last_obs.shape == (1, N, *played.obs.shape[2:])


class Torque(Probe):
    """Like gymnax's pendulum, it counts its one continuous action as `num_actions` = 1."""

    @property
    def num_actions(self):
        return 1

    def action_space(self, params=None):
        return spaces.Box(-2.0, 2.0, (1,))


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (
            lambda: lpg.build(Torque()),
            "Torque has a Box as its action space: its actions are continuous",
        ),
        (lambda: Agent(ENV, Conv()), "a convolution needs an image"),
        (lambda: build_agent(ENV, discount=1.1), "discount must lie in .0, 1., got 1.1"),
        (lambda: build_agent(ENV, learning_rate=0.0), "learning_rate must be above 0, got 0.0"),
        (lambda: build_agent(ENV, kl_coef=-1.0), "kl_coef must be 0 or more, got -1.0"),
        (lambda: build_agent(ENV, num_predictions=1), "num_predictions must be at least 2, or 0"),
        (lambda: build_agent(ENV, num_predictions=4).for_rule(RULE), "=4, but the rule has"),
        (
            lambda: lpg.build(ENV, agent=Agent(ENV, MLP()), net=RULE),
            "num_predictions=8, but the rule has num_predictions=3; set",
        ),
        (lambda: lpg.build(ENV, rule="no/such"), "no rule at no/such"),
        (lambda: lpg.build(ENV, rule="lpg", net=RULE), "leave the fields of net at their defaults"),
    ],
)
def test_what_does_not_fit_is_refused(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make()


def test_an_agent_without_a_rule_says_so():
    with pytest.raises(ValueError, match=r"num_predictions is 0: call for_rule\(rule\) first"):
        build_agent(ENV, num_predictions=0).init(jax.random.key(0))
