"""PPO: probe environments, an independent reference implementation, and each option."""

from dataclasses import replace
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from rlgen.algos.learners.ppo import PPO
from rlgen.nn.actor_critic import ActorCritic
from rlgen.rollout import rollout
from rlgen.testing import PROBES, Probe, assert_close, solve_probes

ENV = Probe("memory")
T, N = 8, 6


def make_ppo(core: Literal["lstm", "none"] = "none", **fields):
    network = ActorCritic(core=core, hidden_size=8, head_size=8)
    defaults = {"num_epochs": 1, "discount": 0.9, "gae_lambda": 0.8}
    return PPO(ENV, network, **defaults | fields)


def play(learner, state):
    """Return a rollout of two episodes per slot, with a dense reward so that every step matters."""
    keys = jax.random.split(jax.random.key(3), N)
    level = jax.tree.map(lambda x: x[:, None], jax.vmap(ENV.sample_level)(keys))
    played, _ = rollout(keys[0], ENV, learner, state, level, T)
    return played._replace(reward=jax.random.normal(keys[1], (T, N)))


@pytest.fixture(scope="module")
def agent():
    """A feed-forward policy and a rollout that it generated."""
    learner = make_ppo()
    state = jax.jit(learner.init)(jax.random.key(0))
    return state, jax.jit(lambda: play(learner, state))()


def global_norm(tree):
    return np.sqrt(sum((np.asarray(x) ** 2).sum() for x in jax.tree.leaves(tree)))


def update(learner, state, played, weight=None):
    weight = jnp.ones(N) if weight is None else jnp.asarray(weight)
    return jax.jit(learner.update)(jax.random.key(5), state, played, weight)


# Learning.


def probe_learner(core, **fields):
    def build(env):
        network = ActorCritic(core=core, hidden_size=16, head_size=16)
        settings = {"discount": 0.6, "gae_lambda": 1.0, "num_epochs": 4, "learning_rate": 0.01}
        return PPO(env, network, **settings | fields)

    return build


@pytest.mark.thorough
def test_recurrent_ppo_solves_every_probe():
    answers = solve_probes(probe_learner("lstm"))
    assert {question: answer.solved for question, answer in answers.items()} == dict.fromkeys(
        PROBES, True
    )


@pytest.mark.thorough
def test_feed_forward_ppo_solves_every_probe_but_memory():
    answers = solve_probes(probe_learner("none"))
    assert answers.pop("memory").reward < 0.5  # 0 is chance: the cue is hidden when it matters
    assert all(answer.solved for answer in answers.values()), answers


@pytest.mark.thorough
def test_without_bootstrapping_a_time_limit_is_worth_its_finite_sum():
    build = probe_learner("none", bootstrap_truncation=False)
    answer = solve_probes(build, probes=("time-limit",))["time-limit"]
    finite = np.mean([1, 1 + 0.6, 1 + 0.6 + 0.36])
    np.testing.assert_allclose(answer.right_value, finite, rtol=1e-5)
    assert answer.solved, "the value differs from that of terminating episodes"


# Arithmetic.


def reference_gae(played, discount, gae_lambda):
    """Compute advantages by their definition, a sum over the rest of the episode."""
    reward, value, after, done = (
        np.asarray(x, np.float64)
        for x in (played.reward, played.value, played.next_value, played.done)
    )
    advantage = np.zeros((T, N))
    for t in range(T):
        for n in range(N):
            for k in range(t, T):
                delta = reward[k, n] + discount * after[k, n] - value[k, n]
                advantage[t, n] += (discount * gae_lambda) ** (k - t) * delta
                if done[k, n]:
                    break
    return advantage


def reference_terms(logits, value, played, advantage, weight):
    """Return the terms of PPO's loss over the samples with weight, as `jnp` or `np` floats."""
    use = np.asarray(weight) > 0
    advantage, old_value = advantage[:, use], played.value[:, use]
    target = advantage + old_value
    log_p = logits - jax.scipy.special.logsumexp(logits, axis=-1, keepdims=True)
    taken = jnp.take_along_axis(log_p, played.action[..., None], axis=-1)[..., 0]
    ratio = jnp.exp(taken - played.log_prob)[:, use]
    normal = (advantage - advantage.mean()) / (advantage.std() + 1e-5)
    clipped = jnp.maximum(jnp.minimum(ratio, 1.2), 0.8)
    moved = value[:, use] - old_value
    near = old_value + jnp.maximum(jnp.minimum(moved, 0.2), -0.2)
    squares = jnp.maximum((value[:, use] - target) ** 2, (near - target) ** 2)
    return {
        "policy_loss": -jnp.minimum(ratio * normal, clipped * normal).mean(),
        "value_loss": squares.mean() / 2,
        "entropy": -(jnp.exp(log_p) * log_p).sum(-1)[:, use].mean(),
        "kl": (ratio - 1 - jnp.log(ratio)).mean(),
        "clip_fraction": (abs(ratio - 1) > 0.2).mean(),
    }


@pytest.mark.thorough
def test_one_minibatch_is_the_reference_with_optax(agent):
    """Old log-probabilities and values are shifted so that clipping happens on both sides."""
    state, played = agent
    rng = np.random.default_rng(0)
    moved = {"log_prob": 0.3, "value": 0.4}
    played = played._replace(
        **{
            name: getattr(played, name) + scale * rng.normal(size=(T, N)).astype(np.float32)
            for name, scale in moved.items()
        }
    )
    weight = [1.0, 1.0, 0.0, 1.0, 1.0, 0.0]
    learner = make_ppo(learning_rate=0.01, entropy_coef=0.1, max_grad_norm=0.1)
    advantage = jnp.asarray(reference_gae(played, 0.9, 0.8), jnp.float32)

    def loss(params):
        _, logits, value = learner.network.unroll(ENV, params, (), played.obs, played.first)
        terms = reference_terms(logits, value, played, advantage, weight)
        total = terms["policy_loss"] + 0.5 * terms["value_loss"] - 0.1 * terms["entropy"]
        return total, terms | {"loss": total}

    @jax.jit
    def step(params):
        grads, terms = jax.grad(loss, has_aux=True)(params)
        optimizer = optax.chain(optax.clip_by_global_norm(0.1), optax.adam(0.01, eps=1e-5))
        updates, _ = optimizer.update(grads, optimizer.init(params))
        return grads, terms, optax.apply_updates(params, updates)

    grads, terms, expected = step(state.params)
    new, metrics = update(learner, state, played, weight)

    assert 0.1 < terms["clip_fraction"] < 0.9
    for name, term in terms.items():
        np.testing.assert_allclose(metrics[name], term, rtol=1e-4, atol=1e-5, err_msg=name)
    np.testing.assert_allclose(metrics["grad_norm"], global_norm(grads), rtol=1e-4)
    assert_close(new.params, expected, "the step differs from optax's", tolerance=1e-4)


@pytest.mark.thorough
def test_an_update_starts_at_ratio_one_also_from_stored_states():
    """Each sequence starts from its own stored recurrent state (`bptt_steps`)."""
    learner = make_ppo("lstm", bptt_steps=2)
    state = jax.jit(learner.init)(jax.random.key(0))
    state.params["actor"]["kernel"] *= 100.0  # an initial policy hardly depends on its memory
    played = jax.jit(lambda: play(learner, state))()
    learn = jax.jit(lambda played: learner.update(jax.random.key(5), state, played, jnp.ones(N)))
    _, metrics = learn(played)
    assert abs(float(metrics["kl"])) < 1e-6 and metrics["clip_fraction"] == 0
    wrong = jax.tree.map(lambda x: x[::-1], played.carry)
    _, metrics = learn(played._replace(carry=wrong))
    assert float(metrics["kl"]) > 1e-4, "the carries did not matter, so this test shows nothing"


@pytest.mark.thorough
def test_a_minibatch_without_weight_is_no_step(agent):
    state, played = agent
    one = jax.tree.map(lambda x: x[:, :1], played)
    two = jax.tree.map(lambda x: x[:, :2], played)
    split = make_ppo(num_minibatches=2, learning_rate=0.01)
    whole = replace(split, num_minibatches=1)
    expected, _ = update(whole, state, one, [1.0])
    found, _ = update(split, state, two, [1.0, 0.0])
    assert_close(found, expected, "an empty minibatch moved the parameters", tolerance=1e-6)


# Options.


@pytest.mark.thorough
@pytest.mark.parametrize("ruin", [np.nan, np.inf])
def test_what_is_not_a_number_in_a_slot_without_weight_leaves_no_trace(agent, ruin):
    state, played = agent
    learner = make_ppo(num_minibatches=3, num_epochs=2)
    weight = jnp.asarray([1.0, 0.0, 0.5, 0.0, 1.0, 1.0])
    fields = {
        name: jnp.where(weight[None] > 0, getattr(played, name), ruin)
        for name in ("reward", "bonus", "value", "next_value")
    }
    ruined = update(learner, state, played._replace(**fields), weight)
    clean = update(learner, state, played, weight)
    jax.tree.map(np.testing.assert_array_equal, ruined, clean)
    assert all(np.isfinite(x).all() for x in clean[1].values())


@pytest.mark.thorough
def test_learning_rate_anneals_to_zero_over_learned_rollouts(agent):
    state, played = agent
    learner = make_ppo(anneal=True, num_updates=4, learning_rate=0.1)
    step = jax.jit(learner.update)
    rates, states = [], [state]
    for _ in range(6):
        new, metrics = step(jax.random.key(0), states[-1], played, jnp.ones(N))
        rates.append(float(metrics["learning_rate"]))
        states.append(new)
    np.testing.assert_allclose(rates, [0.1, 0.075, 0.05, 0.025, 0, 0], rtol=1e-5)
    assert_close(states[-1].params, states[-2].params, "a rate of 0 moved the parameters", 0.0)


@pytest.mark.thorough
def test_kl_early_stop_ends_the_epochs(agent):
    """The KL is 0 in the first epoch and above the target in the second, so no third follows."""
    state, played = agent
    stopping = make_ppo(num_epochs=5, target_kl=1e-6, learning_rate=0.05)
    two = replace(stopping, num_epochs=2, target_kl=0.0)
    new, metrics = update(stopping, state, played)
    expected, expected_metrics = update(two, state, played)
    np.testing.assert_allclose(metrics["epochs_run"], 2.0)
    assert_close(new, expected, "training went on above the target KL", tolerance=1e-6)
    for name in ("loss", "entropy", "kl"):  # means over the epochs that were run
        np.testing.assert_allclose(metrics[name], expected_metrics[name], rtol=1e-5)


def test_a_huge_gradient_is_clipped_to_the_global_norm(agent):
    state, played = agent
    huge = played._replace(reward=1e4 * played.reward)
    new, metrics = update(make_ppo(max_grad_norm=0.3, value_clip=0.0), state, huge)
    assert metrics["grad_norm"] > 100
    moments = optax.tree_utils.tree_get(new.opt_state, "mu")
    np.testing.assert_allclose(global_norm(moments) / 0.1, 0.3, rtol=1e-4)  # 1 - b1 = 0.1


@pytest.mark.thorough
def test_a_huge_gradient_is_left_alone_without_clipping(agent):
    state, played = agent
    learner = make_ppo(max_grad_norm=0.0, value_clip=0.0)
    state = state._replace(opt_state=learner.init(jax.random.key(0)).opt_state)
    new, metrics = update(learner, state, played._replace(reward=1e4 * played.reward))
    moments = optax.tree_utils.tree_get(new.opt_state, "mu")
    norm = global_norm(moments) / 0.1
    np.testing.assert_allclose(norm, metrics["grad_norm"], rtol=1e-4)


# Invalid input.


@pytest.mark.parametrize(
    ("fields", "sizes", "message"),
    [
        ({"num_minibatches": 4}, (8, 6), "does not divide the 6 sequences.*one of 1, 2, 3, 6"),
        ({"bptt_steps": 3}, (8, 6), "bptt_steps=3 does not divide num_steps=8"),
        ({"bptt_steps": 4, "num_minibatches": 5}, (8, 6), "does not divide the 12 sequences"),
    ],
)
def test_sizes_that_do_not_divide_are_refused(fields, sizes, message):
    with pytest.raises(ValueError, match=message):
        make_ppo(**fields).check(*sizes)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("num_epochs", 0),
        ("learning_rate", 0.0),
        ("learning_rate", float("nan")),
        ("discount", 1.1),
        ("gae_lambda", -0.1),
        ("clip", 0.0),
        ("target_kl", -1.0),
    ],
)
def test_fields_out_of_range_are_refused_by_name(field, value):
    with pytest.raises(ValueError, match=f"PPO's {field} must (be|lie in)"):
        make_ppo(**{field: value})


def test_sizes_that_divide_are_accepted():
    make_ppo(bptt_steps=4, num_minibatches=6).check(8, 6)
