"""A2C: credit per step, optimisers per parameter group, probe environments, invalid input."""

from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct
from gymnax.environments import spaces

from rlgen.algos.learners.a2c import A2C, build
from rlgen.nn.actor_critic import ActorCritic
from rlgen.nn.approximators import MLP, Separate, Table
from rlgen.nn.optimizers import Optimizer
from rlgen.protocols import LevelEnv
from rlgen.rollout import continue_rollout, reset_slots
from rlgen.testing import PROBES, Probe, assert_close, assert_same, random_rollout, solve_probes

S, A, T, N = 5, 2, 6, 3


@struct.dataclass
class Corridor:
    max_steps_in_episode: jax.Array


@dataclass(frozen=True)
class Walk(LevelEnv):
    """Corridor of S states; reaching its right end gives reward 1 and terminates the episode."""

    @property
    def num_actions(self):
        return A

    def num_states(self):
        return S

    def sample_level(self, key):
        return Corridor(jnp.int32(40))

    def reset_env(self, key, params):
        return jnp.int32(0), jnp.zeros(2, jnp.int32)

    def step_env(self, key, state, action, params):
        place = jnp.clip(state[0] + 2 * action - 1, 0, S - 1)
        end = place == S - 1
        return place, jnp.stack([place, state[1] + 1]), end.astype(jnp.float32), end, {}

    def is_truncated(self, state, params):
        return state[1] >= params.max_steps_in_episode

    def observation_space(self, params=None):
        return spaces.Discrete(S)


def tabular(**fields):
    return build(Walk(), **{"optimizer": Optimizer("sgd", max_grad_norm=0.0)} | fields)


def made_up():
    """Return random tabular parameters, and a rollout of random states, actions and rewards."""
    keys = jax.random.split(jax.random.key(1), 3)
    played = random_rollout(0, T, N, 1)
    played = played._replace(obs=jax.random.randint(keys[0], (T, N), 0, S))
    params = {
        "actor": jax.random.normal(keys[1], (S, A)),
        "critic": jax.random.normal(keys[2], (S, 1)),
    }
    return params, played


def learn(learner, params, played, weight=None):
    state = learner.init(jax.random.key(0))._replace(params=params)
    weight = jnp.ones(N) if weight is None else jnp.asarray(weight)
    return jax.jit(learner.update)(jax.random.key(0), state, played, weight)


def step_by_step(learner, params, played, weight):
    """Compute the gradient as a sum over single steps, in NumPy."""
    done = np.asarray(played.done)
    played = jax.tree.map(np.asarray, played)
    actor, critic = np.asarray(params["actor"]), np.asarray(params["critic"])
    discount, trace = learner.discount, learner.discount * learner.gae_lambda
    advantage = np.zeros((T, N))
    for n in range(N):
        following = 0.0
        for t in reversed(range(T)):
            following = 0.0 if done[t, n] else following
            delta = played.reward[t, n] + discount * played.next_value[t, n] - played.value[t, n]
            following = advantage[t, n] = delta + trace * following
    target = advantage + played.value
    share = np.broadcast_to(weight / (T * np.sum(weight)), (T, N))
    mean = (share * advantage).sum()
    normal = (advantage - mean) / np.sqrt((share * (advantage - mean) ** 2).sum())
    grads = {"actor": np.zeros((S, A)), "critic": np.zeros((S, 1))}
    for t in range(T):
        for n in range(N):
            s, chosen = played.obs[t, n], np.eye(A)[played.action[t, n]]
            p = np.exp(actor[s]) / np.exp(actor[s]).sum()
            entropy = -(p * np.log(p)).sum()
            grads["actor"][s] -= share[t, n] * normal[t, n] * (chosen - p)
            by_logit = -p * (np.log(p) + entropy)
            grads["actor"][s] -= share[t, n] * learner.entropy_coef * by_logit
            error = critic[s, 0] - target[t, n]
            grads["critic"][s] += share[t, n] * learner.value_coef * 2 * error
    return grads


@pytest.mark.parametrize("weight", [[1.0, 1.0, 1.0], [0.0, 2.0, 0.5]])
def test_the_gradient_is_a_sum_over_steps_each_with_its_own_advantage(weight):
    learner = tabular(value_coef=0.7, entropy_coef=0.1, learning_rate=2.0)
    params, played = made_up()
    state, _ = learn(learner, params, played, weight)
    grads = step_by_step(learner, params, played, np.asarray(weight))
    for group, rate in (("actor", 2.0), ("critic", 4.0)):
        expected = np.asarray(params[group]) - rate * grads[group]
        np.testing.assert_allclose(state.params[group], expected, rtol=1e-4, atol=1e-5)


def test_the_advantage_has_the_shape_of_the_log_probabilities():
    params, played = made_up()
    learner = tabular()
    batch = learner._batch(played, jnp.ones(N))
    _, logits, value = learner.network.unroll(Walk(), params, (), played.obs, played.first)
    assert batch.advantage.shape == batch.target.shape == value.shape == logits.shape[:-1] == (T, N)


def test_groups_are_clipped_apart():
    """A large critic gradient must not shorten the actor's step."""
    learner = tabular(learning_rate=1.0, critic_learning_rate=3.0, optimizer=Optimizer("sgd", 0.01))
    params, played = made_up()
    far = params | {"critic": params["critic"] + 1e3}
    near, wild = (learn(learner, p, played)[0].params for p in (params, far))
    assert_same(wild["actor"], near["actor"], "the critic's gradient changed the actor's step")
    step = np.linalg.norm(np.asarray(wild["critic"] - far["critic"]))
    np.testing.assert_allclose(step, 3.0 * 0.01, rtol=1e-2)
    np.testing.assert_allclose(np.linalg.norm(near["actor"] - params["actor"]), 0.01, rtol=1e-4)


def test_groups_have_their_own_optimizer_states():
    learner = tabular(optimizer=Optimizer("adam"))
    params, played = made_up()
    state = learn(learner, params, played)[0]
    assert set(state.opt_state) == {"actor", "critic"}
    assert state.opt_state["actor"].mean.shape == (S, A)
    assert state.opt_state["critic"].num_steps == state.num_updates == 1


@pytest.mark.parametrize("ruin", ["reward", "value", "next_value"])
def test_what_is_not_a_number_in_a_slot_without_weight_leaves_no_trace(ruin):
    params, played = made_up()
    ruined = played._replace(**{ruin: getattr(played, ruin).at[:, 1].set(jnp.nan)})
    found = learn(tabular(), params, ruined, [1.0, 0.0, 1.0])
    expected = learn(tabular(), params, played, [1.0, 0.0, 1.0])
    assert_same(found, expected, "a slot of weight 0 changed the result")
    assert np.isfinite(found[1]["loss"])


def test_the_value_loss_falls_on_one_rollout():
    params, played = made_up()
    learner = tabular(optimizer=Optimizer("sgd"))
    losses = []
    for _ in range(4):
        state, metrics = learn(learner, params, played)
        params = state.params
        losses.append(float(metrics["value_loss"]))
    assert losses == sorted(losses, reverse=True) and losses[-1] < 0.9 * losses[0], losses


# Learning.


@pytest.mark.thorough
def test_tables_learn_a_corridor():
    """The default tabular agent improves from a random walk to the shortest path."""
    env, workers, num_steps = Walk(), 16, 20
    learner = build(env)
    level = jax.vmap(env.sample_level)(jax.random.split(jax.random.key(0), workers))
    level = jax.tree.map(lambda x: x[:, None], level)

    def update(carry, key):
        state, running = carry
        played, running = continue_rollout(key, env, (learner, state), level, running, num_steps)
        state, metrics = learner.update(key, state, played, jnp.ones(workers))
        return (state, running), (played.reward.mean(), metrics["value_loss"])

    @jax.jit
    def train(key):
        running = reset_slots(key, env, learner, level)
        carry = (learner.init(key), running)
        return jax.lax.scan(update, carry, jax.random.split(key, 120))

    (state, _), (reward, _) = train(jax.random.key(2))
    best = 1 / (S - 1)  # a reward every S - 1 steps
    # Averaged over 20 updates, since rounding, and so the actions, differ between machines.
    assert reward[0] < 0.5 * best and reward[-20:].mean() > 0.9 * best
    right = np.asarray(learner.log_policy(state, jnp.arange(S)))[: S - 1, 1]
    assert (right > np.log(0.8)).all()


def answers(network, probes, num_updates):
    def make(env):
        learner = A2C(env, network, discount=0.6, gae_lambda=1.0)
        return replace(learner, learning_rate=0.01, critic_learning_rate=0.01)

    return solve_probes(make, probes, num_updates)


@pytest.mark.thorough
@pytest.mark.parametrize(
    "network", [Separate(MLP((16,))), ActorCritic(core="none", hidden_size=16, head_size=16)]
)
def test_every_probe_but_memory_is_solved(network):
    asked = tuple(name for name in PROBES if name != "memory")
    found = answers(network, asked, 400)
    assert {name for name, answer in found.items() if answer.solved} == set(asked)


@pytest.mark.thorough
def test_a_recurrent_network_solves_memory():
    network = ActorCritic(core="gru", hidden_size=16, head_size=16)
    assert answers(network, ("memory",), 400)["memory"].solved


# Reported policies, and invalid input.


@pytest.mark.thorough
def test_log_policy_is_the_policy_that_acts():
    learner = A2C(Probe(), Separate(MLP((4,))))
    state, obs = learner.init(jax.random.key(0)), jax.random.normal(jax.random.key(1), (50, 4))
    log_policy = learner.log_policy(state, obs)
    _, action, log_prob, _ = learner.act(jax.random.key(2), state, (), obs, jnp.zeros(50, bool))
    np.testing.assert_allclose(np.exp(log_policy).sum(1), 1.0, rtol=1e-5)
    assert_close(log_prob, log_policy[jnp.arange(50), action], "actions follow a different policy")


@pytest.mark.thorough
def test_log_policy_of_a_network_with_memory_is_refused():
    learner = A2C(Probe(), ActorCritic(core="gru", hidden_size=4, head_size=4))
    state = learner.init(jax.random.key(0))
    with pytest.raises(ValueError, match="needs a network without memory"):
        learner.log_policy(state, jnp.zeros((2, 4)))


def test_states_that_are_numbered_get_tables():
    assert build(Walk()).network == Separate(Table())
    assert build(Walk(), learning_rate=20.0).learning_rate == 20.0
    assert build(Probe()).network == ActorCritic(core="none")


def test_an_environment_that_the_network_cannot_take_is_refused():
    with pytest.raises(ValueError, match="a table needs an environment with num_states"):
        A2C(Probe(), Separate(Table())).check(T, N)


@pytest.mark.parametrize(
    ("field", "value"),
    [("learning_rate", 0.0), ("critic_learning_rate", -1.0), ("discount", 1.5), ("value_coef", -1)],
)
def test_fields_out_of_range_are_refused_by_name(field, value):
    with pytest.raises(ValueError, match=f"A2C's {field} must (be|lie) .*, got {value}"):
        replace(A2C(Probe()), **{field: float(value)})
