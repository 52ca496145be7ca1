"""The learned rule's network: against a plain loop, and which inputs affect which targets."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlgen.algos.rules.networks import Rule, RuleInputs

T, B, M = 6, 3, 4
RULES = [
    Rule("gru", 5, M, 3),
    Rule("lstm", 5, M, 3, clock=True),
    Rule("gru", 5, M, 3, discount_input=False),
]


def make_inputs(seed=0) -> Any:
    rng = np.random.default_rng(seed)
    y, y_next = rng.dirichlet(np.ones(M), (2, T, B)).astype(np.float32)
    done: Any = np.zeros((T, B), bool)
    done[2, 0] = done[0, 1] = done[T - 1, 1] = True  # no episode ends in worker 2
    reward, prob, *rest = rng.uniform(0.1, 1, (5, T, B)).astype(np.float32)
    return RuleInputs(reward, done, prob, y, y_next, *rest)


def parameters(rule, seed=1):
    """Return parameters of the rule with non-zero biases."""
    params = rule.init(jax.random.key(seed))
    keys = jax.random.split(jax.random.key(seed + 1), len(jax.tree.leaves(params)))
    keys = jax.tree.unflatten(jax.tree.structure(params), list(keys))
    return jax.tree.map(lambda x, k: x + 0.2 * jax.random.normal(k, x.shape), params, keys)


@pytest.fixture(scope="module", params=RULES, ids=["gru", "lstm", "blind"])
def case(request):
    """A rule, its parameters and a compiled call of it."""
    rule = request.param
    params, call = parameters(rule), jax.jit(rule)
    return rule, params, lambda inputs: jax.tree.map(np.asarray, call(params, inputs))


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def relu(x):
    return np.maximum(x, 0)


def affine(layer, x):
    return x @ layer["kernel"] + layer["bias"]


def gru_cell(p, h, x):
    size = h.size
    a, b = x @ p["inputs"] + p["bias"], h @ p["recurrent"]
    r, z = sigmoid(a[:size] + b[:size]), sigmoid(a[size:-size] + b[size:-size])
    n = np.tanh(a[-size:] + r * (b[-size:] + p["recurrent_bias"]))
    return (1 - z) * n + z * h


def lstm_cell(p, c, h, x):
    i, f, g, o = np.split(x @ p["inputs"] + h @ p["recurrent"] + p["bias"], 4)
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    return c, sigmoid(o) * np.tanh(c)


def slow(rule, params, inputs, b):
    """Compute the targets of one worker step by step, from last to first."""
    params = jax.tree.map(lambda x: np.asarray(x, np.float64), params)
    phi = lambda y: affine(params["embed_out"], relu(affine(params["embed_hidden"], y)))  # noqa: E731
    h = c = np.zeros(rule.hidden_size)
    policy, log_y = np.zeros(T), np.zeros((T, M))
    for t in reversed(range(T)):
        done = inputs.done[t, b]
        x = [inputs.reward[t, b], float(done)]
        x += [inputs.discount[t, b]] if rule.discount_input else []
        following = 0.0 if done else phi(inputs.next_prediction[t, b])[0]
        x += [inputs.action_prob[t, b], phi(inputs.prediction[t, b])[0], following]
        x += [inputs.life_used[t, b], inputs.log_horizon[t, b]] if rule.clock else []
        if done:
            h, c = 0 * h, 0 * c
        if rule.core == "gru":
            h = gru_cell(params["core"], h, np.array(x))
        else:
            c, h = lstm_cell(params["core"], c, h, np.array(x))
        out = affine(params["heads"], relu(h))
        policy[t], u = out[0], out[1:]
        log_y[t] = u - np.log(np.exp(u).sum())
    return policy, log_y


@pytest.mark.thorough
def test_it_is_a_plain_loop_from_last_to_first(case):
    rule, params, call = case
    inputs = make_inputs()
    targets = call(inputs)
    for b in range(B):
        policy, log_y = slow(rule, params, inputs, b)
        np.testing.assert_allclose(targets.policy[:, b], policy, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(targets.log_prediction[:, b], log_y, rtol=1e-4, atol=1e-5)


@pytest.mark.thorough
@pytest.mark.parametrize("s", range(T))
def test_a_step_is_heard_as_far_back_as_its_episode_began(case, s):
    """An edit affects the earlier steps of its episode, and no other step or worker."""
    _, _, call = case
    inputs = make_inputs()
    before = call(inputs)
    for b in range(B):
        reward = inputs.reward.copy()
        reward[s, b] += 3.0
        after = call(inputs._replace(reward=reward))
        heard = np.zeros((T, B), bool)
        heard[: s + 1, b] = [not inputs.done[t:s, b].any() for t in range(s + 1)]
        np.testing.assert_array_equal(after.policy != before.policy, heard)
        changed = (after.log_prediction != before.log_prediction).any(-1)
        np.testing.assert_array_equal(changed, heard)


@pytest.mark.parametrize("field", RuleInputs._fields)
def test_every_input_matters(case, field):
    rule, _, call = case
    inputs = make_inputs()
    value = getattr(inputs, field)
    new = value[..., ::-1] if value.ndim == 3 else ~value if value.dtype == bool else value + 0.5
    new = np.concatenate([value[:4], new[4:5], value[5:]])  # edits a step in mid-episode
    after, before = call(inputs._replace(**{field: new})), call(inputs)
    changed = bool((after.policy[4] != before.policy[4]).all())
    seen = {"discount": rule.discount_input, "life_used": rule.clock, "log_horizon": rule.clock}
    assert changed == seen.get(field, True)


def test_what_follows_an_end_is_not_read(case):
    _, _, call = case
    inputs = make_inputs()
    spoilt = np.where(inputs.done[..., None], np.float32(np.nan), inputs.next_prediction)
    for found, expected in zip(
        call(inputs._replace(next_prediction=spoilt)), call(inputs), strict=True
    ):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.thorough
def test_one_batch_of_all_agents_is_each_agent_by_itself(case):
    """They agree in the targets and in the gradient of their sum, one product for all agents."""
    rule, params, _ = case
    several = [make_inputs(seed) for seed in range(2)]
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *several)
    side_by_side = jax.tree.map(lambda *x: jnp.concatenate(x, axis=1), *several)

    def total(params, inputs, call):
        targets = call(params, inputs)
        return (targets.policy**2).sum() - (targets.log_prediction**2).sum()

    grad = jax.jit(jax.value_and_grad(total), static_argnums=2)
    together = grad(params, side_by_side, rule)
    apart = grad(params, stacked, jax.vmap(rule, in_axes=(None, 0)))
    for found, expected in zip(*map(jax.tree.leaves, (together, apart)), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("rule", "num"),
    [
        (Rule(discount_input=False), 203_946),
        (Rule(), 204_714),
        (Rule(clock=True), 206_250),
        (Rule("lstm"), 271_786),
    ],
)
def test_it_has_as_many_parameters_as_it_says(rule, num):
    shapes = jax.eval_shape(rule.init, jax.random.key(0))
    assert sum(x.size for x in jax.tree.leaves(shapes)) == num


def test_it_begins_with_orthogonal_gates_and_no_bias():
    params = Rule(hidden_size=8).init(jax.random.key(0))
    for gate in np.split(np.asarray(params["core"]["recurrent"]), 3, axis=1):
        np.testing.assert_allclose(gate @ gate.T, np.eye(8), atol=1e-5)
    biases = [x for x in jax.tree.leaves(params) if x.ndim == 1]
    assert len(biases) == 5 and not any(x.any() for x in biases)


@pytest.mark.parametrize(
    ("field", "value", "sentence"),
    [
        ("hidden_size", 0, "hidden_size must be at least 1, got 0"),
        ("num_predictions", 1, "num_predictions must be at least 2, got 1"),
        ("embedding_size", 0, "embedding_size must be at least 1, got 0"),
    ],
)
def test_bad_sizes_are_refused(field, value, sentence):
    with pytest.raises(ValueError, match=sentence):
        Rule(**{field: value})
