"""Agents trained by a learned rule: the closed form of the update, its signs and derivatives."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnax.environments import spaces

from rlgen.algos.learners.lpg import Agent, build_agent
from rlgen.algos.rules.networks import Rule, Targets
from rlgen.nn.approximators import MLP, Table
from rlgen.nn.optimizers import Optimizer
from rlgen.protocols import Approximator, LevelEnv
from rlgen.testing import Probe, random_rollout

S, A, M, T, W = 5, 3, 4, 6, 3
PLAIN = Optimizer("sgd", max_grad_norm=0.0)
ONES = jnp.ones(W)


@dataclass(frozen=True)
class Cells(LevelEnv):
    """Environment with five states and three actions; only its shapes matter here."""

    @property
    def num_actions(self):
        return A

    def num_states(self):
        return S

    def unpack(self, obs):
        return jax.nn.one_hot(obs, S)

    def sample_level(self, key):
        return jnp.int32(0)

    def reset_env(self, key, params):
        return jnp.int32(0), jnp.int32(0)

    def step_env(self, key, state, action, params):
        return state, state, jnp.float32(0), jnp.bool_(False), {}

    def is_truncated(self, state, params):
        return jnp.bool_(False)

    def observation_space(self, params=None):
        return spaces.Discrete(S)


@dataclass(frozen=True)
class OneHot(Approximator):
    """Table computed as a matrix product with the one-hot state."""

    def init(self, key, env, num_outputs):
        return jnp.zeros((S, num_outputs))

    def apply(self, env, params, obs):
        return jax.nn.one_hot(obs, S) @ params


ENV = Cells()


def agent_of(network, optimizer=PLAIN, **fields):
    names = ("learning_rate", "bootstrap_learning_rate", "critic_learning_rate")
    given: dict[str, Any] = dict.fromkeys(names, 1.0) | {"num_predictions": M} | fields
    return Agent(ENV, network, optimizer, **given)


def newborn(agent, seed=0):
    """Return a new agent whose parameters are not zero."""
    state = agent.init(jax.random.key(seed))
    leaves, structure = jax.tree.flatten((state.actor, state.bootstrap, state.critic))
    keys = jax.random.split(jax.random.key(seed + 1), len(leaves))
    leaves = [x + jax.random.normal(k, x.shape) for x, k in zip(leaves, keys, strict=True)]
    actor, bootstrap, critic = jax.tree.unflatten(structure, leaves)
    return state._replace(actor=actor, bootstrap=bootstrap, critic=critic)


def make_rollout(seed=0):
    rng = np.random.default_rng(seed)
    return random_rollout(seed, T, W, 1)._replace(
        obs=jnp.asarray(rng.integers(0, S, (T, W)), jnp.int32),
        action=jnp.asarray(rng.integers(0, A, (T, W)), jnp.int32),
        last_obs=jnp.asarray(rng.integers(0, S, (1, W)), jnp.int32),
    )


def make_targets(seed=0):
    keys = jax.random.split(jax.random.key(seed), 2)
    log_y = jax.nn.log_softmax(jax.random.normal(keys[1], (T, W, M)))
    return Targets(jax.random.normal(keys[0], (T, W)), log_y)


ROLLOUT, TARGETS = make_rollout(), make_targets()
WEIGHT = jnp.array([1.0, 0.0, 2.5])


def close(found, expected, tolerance=1e-5):
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for x, y in zip(*map(jax.tree.leaves, (found, expected)), strict=True):
        np.testing.assert_allclose(x, y, rtol=tolerance, atol=tolerance)


@pytest.mark.thorough
def test_the_loss_is_that_of_the_paper():
    """Sum the loss step by step from a table's rows; the KL's first argument is the agent's."""
    agent = agent_of(Table(), kl_coef=0.7)
    state = newborn(agent)
    softmax = lambda x: np.exp(x) / np.exp(x).sum()  # noqa: E731
    expected = 0.0
    for t in range(T):
        for w in range(W):
            obs, action = ROLLOUT.obs[t, w], ROLLOUT.action[t, w]
            pi, y = softmax(state.actor[obs]), softmax(state.bootstrap[obs])
            kl = (y * (np.log(y) - TARGETS.log_prediction[t, w])).sum()
            loss = 0.7 * kl - TARGETS.policy[t, w] * np.log(pi[action])
            expected += loss * WEIGHT[w] / (T * 3.5)
    found = agent.loss(state.actor, state.bootstrap, ROLLOUT, TARGETS, WEIGHT)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.thorough
@pytest.mark.parametrize("weight", [ONES, WEIGHT], ids=["equal", "unequal"])
@pytest.mark.parametrize("network", [Table(), MLP((6,), "tanh")], ids=["table", "mlp"])
def test_the_closed_form_is_the_gradient_of_the_loss(network, weight):
    """A step of plain descent with learning rate 1 subtracts the gradient, which is compared."""
    agent = agent_of(network, kl_coef=0.7)
    state = newborn(agent)
    loss = lambda actor, y: agent.loss(actor, y, ROLLOUT, TARGETS, weight)  # noqa: E731
    before = state.actor, state.bootstrap
    expected = jax.jit(jax.grad(loss, argnums=(0, 1)))(*before)
    learned, stats = jax.jit(agent.learn)(state, ROLLOUT, TARGETS, weight)
    after = learned.actor, learned.bootstrap
    close(jax.tree.map(jnp.subtract, before, after), expected)
    np.testing.assert_allclose(stats.loss, loss(*before), rtol=1e-5)
    close(learned.critic, state.critic, 0)
    assert learned.num_updates == 1


@pytest.mark.thorough
def test_a_table_is_the_one_hot_agent_in_values_and_meta_gradients():
    """The gradient is taken with respect to the rule, through two updates and the rule's inputs."""
    rule = Rule(hidden_size=4, num_predictions=M, embedding_size=3)

    def meta_loss(params, network):
        agent = agent_of(network, Optimizer("sgd"), learning_rate=3.0)
        state = newborn(agent_of(Table()))
        for rollout in (ROLLOUT, make_rollout(1)):
            targets = rule(params, agent.inputs(state, rollout))
            state, stats = agent.learn(state, rollout, targets, WEIGHT)
            state, _ = agent.learn_critic(state, rollout, WEIGHT)
        return (agent.log_policy(state, jnp.arange(S))[:, 0]).sum(), (state, stats)

    learn = jax.jit(jax.value_and_grad(meta_loss, has_aux=True), static_argnums=1)
    params = rule.init(jax.random.key(3))
    found, expected = learn(params, Table()), learn(params, OneHot())
    close(found, expected)
    assert all(jnp.abs(x).max() > 1e-7 for x in jax.tree.leaves(found[1]["heads"]))


def test_positive_targets_make_the_action_likelier_and_negative_ones_less():
    agent, state = agent_of(Table()), agent_of(Table()).init(jax.random.key(0))
    rollout = ROLLOUT._replace(obs=jnp.zeros((T, W), jnp.int32), action=jnp.ones((T, W), jnp.int32))
    for sign in (1.0, -1.0):
        targets = TARGETS._replace(policy=jnp.full((T, W), sign))
        learned, _ = agent.learn(state, rollout, targets, ONES)
        gain = agent.log_policy(learned, jnp.array([0]))[0, 1] + jnp.log(A)
        assert sign * gain > 0.1


def test_kl_takes_the_agents_prediction_first():
    """KL of a certain from a uniform prediction: log 2 in one direction, unbounded in the other."""
    agent = agent_of(Table(), num_predictions=2)
    state = agent.init(jax.random.key(0))._replace(bootstrap=jnp.tile(jnp.array([30.0, 0]), (S, 1)))
    even = Targets(jnp.zeros((T, W)), jnp.full((T, W, 2), -jnp.log(2)))
    _, stats = agent.learn(state, ROLLOUT, even, ONES)
    np.testing.assert_allclose(stats.kl, np.log(2), rtol=1e-5)
    np.testing.assert_allclose(stats.loss, 0.5 * np.log(2), rtol=1e-5)
    np.testing.assert_allclose(stats.entropy, np.log(A), rtol=1e-5)


def test_predictions_move_to_their_targets():
    agent = agent_of(Table())
    state = newborn(agent)
    learned, before = agent.learn(state, ROLLOUT, TARGETS, ONES)
    _, after = agent.learn(learned, ROLLOUT, TARGETS, ONES)
    assert after.kl < before.kl


@pytest.mark.thorough
@pytest.mark.parametrize("network", [Table(), MLP((6,))], ids=["table", "mlp"])
def test_a_worker_without_weight_leaves_no_trace(network):
    agent = agent_of(network, Optimizer("adam"))
    state = newborn(agent)

    @jax.jit
    def both(rollout, targets):
        learned, stats = agent.learn(state, rollout, targets, WEIGHT)
        return agent.learn_critic(learned, rollout, WEIGHT), stats

    def spoilt(x):
        return x.at[:, 1].set(7.0)

    wild = ROLLOUT._replace(reward=spoilt(ROLLOUT.reward), value=spoilt(ROLLOUT.value))
    targets = Targets(spoilt(TARGETS.policy), TARGETS.log_prediction)
    close(both(wild, targets), both(ROLLOUT, TARGETS), 0)
    without = jax.tree.map(lambda x: x[:, jnp.array([0, 2])], (ROLLOUT, TARGETS))
    learn = jax.jit(agent.learn)
    alone, stats = learn(state, *without, WEIGHT[jnp.array([0, 2])] / 7)
    found, told = learn(state, ROLLOUT, TARGETS, WEIGHT)
    close((found.actor, found.bootstrap, told), (alone.actor, alone.bootstrap, stats), 1e-4)


def test_inputs_stand_where_they_belong():
    agent = agent_of(Table(), discount=0.9)
    state = newborn(agent)
    rollout = ROLLOUT._replace(bonus=jnp.ones((T, W)))
    inputs = agent.inputs(state, rollout)
    pi, y = (np.asarray(jax.nn.softmax(x)) for x in (state.actor, state.bootstrap))
    obs, action = np.asarray(rollout.obs), np.asarray(rollout.action)
    following = np.concatenate([obs[1:], rollout.last_obs])
    close(inputs.action_prob, pi[obs, action])
    close(inputs.prediction, y[obs])
    close(inputs.next_prediction, y[following])
    close(inputs.reward, rollout.reward + 1)
    np.testing.assert_array_equal(inputs.done, rollout.terminated | rollout.truncated)
    assert (np.asarray(inputs.discount) == np.float32(0.9)).all()


def test_advantages_have_the_shape_of_what_they_weigh():
    """One number per step; another axis would turn a mean of products into one of all pairs."""
    agent = agent_of(Table())
    assert agent.advantage(ROLLOUT).shape == ROLLOUT.log_prob.shape == (T, W)
    obs, first = jnp.arange(S), jnp.zeros(S, bool)
    _, action, log_prob, value = agent.act(jax.random.key(0), newborn(agent), (), obs, first)
    assert action.shape == log_prob.shape == value.shape == (S,)


def test_actions_follow_the_reported_policy():
    agent = agent_of(Table())
    state, obs = newborn(agent), jnp.full(4000, 2)
    _, action, log_prob, value = agent.act(jax.random.key(0), state, (), obs, obs < 0)
    log_pi = agent.log_policy(state, jnp.arange(S))[2]
    close(log_prob, log_pi[action])
    close(value, jnp.full(4000, state.critic[2, 0]))
    shares = np.bincount(action, minlength=A) / 4000
    np.testing.assert_allclose(shares, np.exp(log_pi), atol=0.03)


@pytest.mark.thorough
@pytest.mark.parametrize("network", [Table(), MLP((6,))], ids=["table", "mlp"])
def test_the_critic_learns(network):
    """The critic's gradient is not 0, as it is in GROOVE's released code."""
    agent = agent_of(network, Optimizer("adam"), critic_learning_rate=0.05)
    start = state = newborn(agent)
    step = jax.jit(agent.learn_critic)
    losses = []
    for _ in range(30):
        state, loss = step(state, ROLLOUT, ONES)
        losses.append(float(loss))
    assert losses[-1] < 0.7 * losses[0]
    for x, y in zip(*map(jax.tree.leaves, (state.critic, start.critic)), strict=True):
        assert (x != y).any()
    close((state.actor, state.bootstrap), (start.actor, start.bootstrap), 0)


@pytest.mark.parametrize("bootstraps", [True, False])
def test_the_critic_steps_towards_the_return(bootstraps):
    """One step of three workers, by hand: terminated, truncated at the time limit, neither."""
    agent = agent_of(Table(), discount=0.5, bootstrap_truncation=bootstraps)
    rollout = jax.tree.map(lambda x: x[:1], ROLLOUT)._replace(
        obs=jnp.array([[0, 1, 2]]),
        reward=jnp.array([[1.0, 2.0, 3.0]]),
        terminated=jnp.array([[True, False, False]]),
        truncated=jnp.array([[False, True, False]]),
        next_value=jnp.array([[0.0, 4.0, 4.0]]),
        value=jnp.zeros((1, W)),
    )
    state, loss = agent.learn_critic(agent.init(jax.random.key(0)), rollout, ONES)
    targets = np.array([1.0, 4.0 if bootstraps else 2.0, 5.0])
    np.testing.assert_allclose(state.critic[:3, 0], 2 * targets / 3, rtol=1e-5)
    np.testing.assert_allclose(loss, (targets**2).mean(), rtol=1e-5)


@pytest.mark.thorough
@pytest.mark.parametrize("network", [Table(), MLP((6,), "tanh")], ids=["table", "mlp"])
def test_derivatives_through_two_updates_are_finite_differences(network):
    """Clipped descent is differentiated by targets and state along a random direction."""
    agent = agent_of(network, Optimizer("sgd", max_grad_norm=0.1), learning_rate=5.0)
    state, later = newborn(agent), make_rollout(1)
    at = TARGETS, state.actor, state.bootstrap

    @jax.jit
    def objective(at):
        targets, actor, bootstrap = at
        now = state._replace(actor=actor, bootstrap=bootstrap)
        for rollout in (ROLLOUT, later):
            now, stats = agent.learn(now, rollout, targets, WEIGHT)
        chosen = agent.log_policy(now, jnp.arange(S))[:, 0].sum()
        return chosen + stats.entropy + 2 * stats.prediction_entropy + stats.kl

    keys = iter(jax.random.split(jax.random.key(5), len(jax.tree.leaves(at))))
    way = jax.tree.map(lambda x: jax.random.normal(next(keys), x.shape), at)
    gradient = jax.jit(jax.grad(objective))(at)
    along = sum((g * d).sum() for g, d in zip(*map(jax.tree.leaves, (gradient, way)), strict=True))
    eps = 5e-3
    up = objective(jax.tree.map(lambda x, d: x + eps * d, at, way))
    down = objective(jax.tree.map(lambda x, d: x - eps * d, at, way))
    np.testing.assert_allclose(along, (up - down) / (2 * eps), rtol=2e-2)


@pytest.mark.parametrize("kind", ["sgd", "adam"])
def test_derivatives_are_finite_where_nothing_is_to_be_learned(kind):
    """For targets that already hold, the gradient, whose norm is clipped, is exactly 0."""
    agent = agent_of(Table(), Optimizer(kind))
    state = agent.init(jax.random.key(0))
    met = Targets(jnp.zeros((T, W)), jnp.full((T, W, M), -jnp.log(M)))

    def objective(targets):
        learned, stats = agent.learn(state, ROLLOUT, targets, ONES)
        return learned.actor[0, 0] + learned.bootstrap[0, 0] + stats.kl

    gradient = jax.jit(jax.grad(objective))(met)
    assert all(np.isfinite(x).all() for x in gradient)
    assert np.abs(gradient.policy).max() > 0


def test_tables_descend_steeply_and_networks_by_adam():
    table, network = build_agent(ENV), build_agent(Probe())
    assert table.network == Table() and table.optimizer == Optimizer("sgd", max_grad_norm=0.5)
    rates = [(a.learning_rate, a.bootstrap_learning_rate) for a in (table, network)]
    assert rates == [(40.0, 4.0), (1e-3, 1e-3)]
    assert network.network == MLP() and network.optimizer == Optimizer("adam", max_grad_norm=0.5)
    assert build_agent(ENV, learning_rate=7.0).learning_rate == 7.0
