"""Meta-gradients against finite differences and a second implementation; agent lifetimes."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlgen.algos.learners.a2c import build as build_a2c
from rlgen.algos.learners.lpg import build_agent
from rlgen.algos.meta.meta_gradient import Batch, MetaGradient, flatten_workers, play
from rlgen.algos.rules.networks import Rule
from rlgen.returns import gae
from rlgen.testing.common import new_slots
from rlgen.types import Task
from tests.standins.two_states import TwoStates

ENV = TwoStates()
N, W, T, K = 4, 6, 5, 2
AGENT = build_agent(ENV, num_predictions=0, learning_rate=2.0, critic_learning_rate=0.3)
RULE = Rule(hidden_size=6, num_predictions=3, embedding_size=4)
STUDENT = MetaGradient(
    ENV, AGENT, RULE, num_workers=W, rollout_steps=T, num_inner_updates=K, block=3, stagger=False
)


def levels(num=N):
    return jax.vmap(ENV.sample_level)(jax.random.split(jax.random.key(7), num))


def slots_of(lifetime=3 * K, num=N):
    level = jax.tree.map(lambda x: x[:, None], levels(num))
    return new_slots(Task(level, jnp.full((num, 1), lifetime)), ())


@pytest.fixture(scope="module")
def batch():
    """Agents after a few updates, so that no gradient vanishes by symmetry."""
    state = STUDENT.init(jax.random.key(0), N)
    state, _, _ = jax.jit(STUDENT.run)(jax.random.key(1), state, slots_of(), jnp.ones(N, bool))
    population = state.population
    share, keys = jnp.array([0.4, 0.3, 0.2, 0.1]), jax.random.split(jax.random.key(2), N)
    left = jnp.array([4, 4, 1, 2])
    return state.rule, Batch(population.agents, population.running, levels(), left, share, keys)


def direction(tree, seed):
    leaves, kind = jax.tree.flatten(tree)
    keys = jax.random.split(jax.random.key(seed), len(leaves))
    noise = [jax.random.normal(k, x.shape) for k, x in zip(keys, leaves, strict=True)]
    size = jnp.sqrt(sum((x**2).sum() for x in noise))
    return jax.tree.unflatten(kind, [x / size for x in noise])


def slope(function, at, along, step=3e-3):
    """Fourth-order central difference, since single precision rules out a tiny step."""

    def value(times):
        return float(function(jax.tree.map(lambda x, d: x + times * step * d, at, along)))

    return (8 * (value(1) - value(-1)) - (value(2) - value(-2))) / (12 * step)


def inner(x, y):
    return float(sum((a * b).sum() for a, b in zip(*map(jax.tree.leaves, (x, y)), strict=True)))


@pytest.mark.thorough
def test_the_meta_gradient_is_the_slope_of_the_meta_loss(batch):
    rule, agents = batch
    loss = jax.jit(lambda rule: STUDENT._meta_loss(rule, agents)[0])
    gradient = jax.jit(jax.grad(loss))(rule)
    for seed in range(3):
        along = direction(rule, seed)
        expected = slope(loss, rule, along)
        assert inner(gradient, along) == pytest.approx(expected, rel=0.03, abs=2e-4)
    assert abs(slope(loss, rule, direction(rule, 0))) > 1e-3


def by_hand(rule, agents, recorded=()):
    """Compute the meta-loss agent by agent and update by update, with `recorded` rule inputs."""
    inner_agent, everyone, total, asked = STUDENT.inner_agent, jnp.ones(W), 0.0, []
    for i in range(N):
        one = jax.tree.map(lambda x, i=i: x[i : i + 1], agents)
        state, running = jax.tree.map(lambda x: x[0], one.agents), one.running
        costs = []
        for k in range(min(K, int(one.left[0]))):
            key = jax.random.fold_in(one.key[0], k)[None]
            frozen = jax.tree.map(lambda x: jax.lax.stop_gradient(x)[None], state)
            played, running = play(STUDENT, key, inner_agent, frozen, one.level, running)
            played = jax.tree.map(lambda x: x[0], played)
            inputs = inner_agent.inputs(state, played)
            asked.append(inputs)
            inputs = recorded[len(asked) - 1] if recorded else inputs
            targets = RULE(rule, inputs)
            critic = inner_agent.learn_critic(state, played, everyone)[0]
            state, stats = inner_agent.learn(state, played, targets, everyone)
            state = state._replace(critic=critic.critic, critic_opt=critic.critic_opt)
            squares = jnp.exp(2 * targets.log_prediction).sum(-1).mean()
            costs.append(
                STUDENT.target_coef * (targets.policy**2).mean()
                + STUDENT.target_prediction_coef * squares
                - STUDENT.policy_entropy_coef * stats.entropy
                - STUDENT.prediction_entropy_coef * stats.prediction_entropy
            )
        for k in range(len(costs), K):  # an agent past its lifetime plays on without learning
            key = jax.random.fold_in(one.key[0], k)[None]
            frozen = jax.tree.map(lambda x: jax.lax.stop_gradient(x)[None], state)
            _, running = play(STUDENT, key, inner_agent, frozen, one.level, running)
        key = jax.random.fold_in(one.key[0], K)[None]
        frozen = jax.tree.map(lambda x: jax.lax.stop_gradient(x)[None], state)
        last, _ = play(STUDENT, key, inner_agent, frozen, one.level, running)
        last = jax.tree.map(lambda x: x[0], last)
        log_policy = jax.nn.log_softmax(state.actor)
        advantage = gae(last, inner_agent.discount, inner_agent.gae_lambda)
        advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
        gains = [
            log_policy[last.obs[t, w], last.action[t, w]] * advantage[t, w]
            for t in range(T)
            for w in range(W)
        ]
        total += one.share[0] * (sum(costs) / len(costs) - sum(gains) / (T * W))
    return total, asked


@pytest.mark.thorough
def test_the_meta_loss_is_the_sum_over_agents_updates_and_steps(batch):
    rule, agents = batch
    loss, _ = jax.jit(STUDENT._meta_loss)(rule, agents)
    expected, _ = by_hand(rule, agents)
    assert float(loss) == pytest.approx(float(expected), rel=1e-4, abs=1e-6)


@pytest.mark.thorough
def test_without_the_input_path_the_inputs_of_the_rule_are_constants(batch):
    rule, agents = batch
    _, told = by_hand(rule, agents)
    told = jax.lax.stop_gradient(told)
    expected = jax.grad(lambda rule: by_hand(rule, agents, told)[0])(rule)
    released = replace(STUDENT, meta_grad_through_inputs=False)
    gradient = jax.jit(jax.grad(lambda rule: released._meta_loss(rule, agents)[0]))(rule)
    full = jax.jit(jax.grad(lambda rule: STUDENT._meta_loss(rule, agents)[0]))(rule)
    assert inner(gradient, gradient) > 0
    for found, right in zip(*map(jax.tree.leaves, (gradient, expected)), strict=True):
        np.testing.assert_allclose(found, right, rtol=2e-3, atol=2e-5)
    gap = jax.tree.map(jnp.subtract, gradient, full)
    assert inner(gap, gap) > 1e-6 * inner(full, full)


@pytest.mark.thorough
@pytest.mark.parametrize("change", [{"remat": True}, {"agents_per_chunk": 2}])
def test_saving_memory_does_not_change_the_gradient(batch, change):
    rule, agents = batch
    plain = jax.jit(STUDENT._gradient)(rule, agents)
    saving = jax.jit(replace(STUDENT, **change)._gradient)(rule, agents)
    for x, y in zip(*map(jax.tree.leaves, (plain, saving)), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-6)


@pytest.mark.thorough
def test_critics_learn_what_a_policy_is_worth():
    """Compared with each state's value in closed form; released code never changes its critic."""
    student = replace(STUDENT, num_workers=32)
    state = live(student, slots_of(1000), 40)[-1][2]
    agents = state.population.agents
    stay, change = jnp.moveaxis(jax.nn.softmax(agents.actor), -1, 0)  # [N, 2]
    goes_on = STUDENT.agent.discount * (1 - ENV.end_prob)
    for i, payoff in enumerate(levels().payoff):
        moves = np.diag(stay[i]) + np.diag(change[i])[:, ::-1]
        value = np.linalg.solve(np.eye(2) - goes_on * moves, stay[i] * payoff)
        often = moves[0] > 0.2  # states that episodes, which start in state 0, visit
        error = np.abs(agents.critic[i, :, 0] - value)[often]
        assert (error < 0.3 * np.abs(value)[often] + 0.1).all(), (value, agents.critic[i])


# Lifetimes.


def live(student, slots, num_updates, num=N, seed=0):
    state = student.init(jax.random.key(seed), num)
    run, fresh, told = jax.jit(student.run), jnp.ones(num, bool), []
    for i in range(num_updates):
        state, outcome, metrics = run(jax.random.key(100 + i), state, slots, fresh)
        fresh = outcome.done
        told.append((outcome, metrics, state))
    return told


@pytest.fixture(scope="module")
def with_rivals():
    student = replace(STUDENT, antagonist=build_a2c(ENV))
    task = slots_of()
    task = task._replace(
        level=task.level._replace(lifetime=jnp.array([K, 2 * K, 3 * K, 3 * K - 1])[:, None]),
        buffer_index=jnp.array([-1, 3, -1, -1])[:, None],
    )
    return live(student, task, 6), task


@pytest.mark.thorough
def test_an_agent_lives_as_long_as_its_task_says(with_rivals):
    told, _ = with_rivals
    done = np.array([outcome.done for outcome, _, _ in told])
    expected = [[i % every == 0 for every in (1, 2, 3, 3)] for i in range(1, 7)]
    np.testing.assert_array_equal(done, expected)
    last = told[2][2].population.agents.num_updates
    np.testing.assert_array_equal(last, [K, K, 3 * K, 3 * K - 1])  # 3K - 1 is not exceeded


@pytest.mark.thorough
def test_returns_need_a_finished_agent_and_antagonists_an_unknown_level(with_rivals):
    told, task = with_rivals
    for outcome, metrics, state in told:
        done, unseen = np.asarray(outcome.done), np.asarray(task.buffer_index[:, 0] < 0)
        assert metrics["returns_computed"] == done.sum() + (done & unseen).sum()
        np.testing.assert_array_equal(np.isfinite(outcome.lifetimes.student_return), done)
        np.testing.assert_array_equal(
            np.isfinite(outcome.lifetimes.antagonist_return), done & unseen
        )
        assert outcome.spent.env_steps["antagonist"] == unseen.sum() * K * T * W
        policy = jax.nn.log_softmax(state.population.agents.actor)
        worth = jax.vmap(ENV.expected_return)(levels(), policy)
        np.testing.assert_allclose(
            outcome.lifetimes.student_return[done], worth[done], rtol=1e-4, atol=1e-5
        )


def test_a_busy_agent_goes_on_where_it_was(with_rivals):
    told, _ = with_rivals
    running = [state.population.running for _, _, state in told]
    assert (np.asarray(running[1].state.time) > 0).any()
    counts = np.array([state.population.agents.num_updates for _, _, state in told])
    np.testing.assert_array_equal(counts[:3, 2], [K, 2 * K, 3 * K])


@pytest.mark.thorough
def test_a_staggered_run_begins_with_all_ages_and_calls_none_of_them_evidence():
    student = replace(STUDENT, stagger=True)
    told = live(student, slots_of(5 * K, num=64), 6, num=64)
    ages = np.asarray(told[0][2].population.age)
    assert set(ages) == {K * i for i in range(1, 6)}
    first = [np.asarray(outcome.done & ~outcome.lifetimes.complete) for outcome, _, _ in told[:4]]
    for outcome, _, _ in told[:4]:
        assert not np.isfinite(np.asarray(outcome.lifetimes.student_return)).any()
    assert all(mask.any() for mask in first)
    ended = np.asarray(told[4][0].done)
    assert ended.any() and np.isfinite(np.asarray(told[4][0].lifetimes.student_return)[ended]).all()


@pytest.mark.thorough
def test_a_nan_gradient_is_skipped_and_its_agent_is_replaced():
    state = STUDENT.init(jax.random.key(0), N)
    run = jax.jit(STUDENT.run)
    state, outcome, _ = run(jax.random.key(1), state, slots_of(), jnp.ones(N, bool))
    agents = state.population.agents
    agents = agents._replace(actor=agents.actor.at[1].set(jnp.nan))
    diverged = state._replace(population=state.population._replace(agents=agents))
    after, outcome, metrics = run(jax.random.key(2), diverged, slots_of(), outcome.done)
    assert metrics["skipped_meta_gradients"] == 1
    np.testing.assert_array_equal(outcome.done, [False, True, False, False])
    assert not outcome.lifetimes.complete[1]
    for x, y in zip(*map(jax.tree.leaves, (after.rule, diverged.rule)), strict=True):
        np.testing.assert_array_equal(x, y)
    after, _, metrics = run(jax.random.key(3), after, slots_of(), outcome.done)
    assert metrics["skipped_meta_gradients"] == 0 and np.isfinite(metrics["meta_loss"])


@pytest.mark.thorough
def test_a_slot_without_weight_teaches_the_rule_nothing(batch):
    rule, agents = batch
    none = agents._replace(share=jnp.array([0.5, 0.5, 0.0, 0.0]))
    other = none._replace(level=none.level.replace(payoff=none.level.payoff.at[2:].add(5.0)))
    found = [
        jax.jit(jax.grad(lambda r, b: STUDENT._meta_loss(r, b)[0]))(rule, b) for b in (none, other)
    ]
    for x, y in zip(*map(jax.tree.leaves, found), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-8)


@pytest.mark.thorough
def test_the_folded_rollout_has_the_advantages_of_each_worker(batch):
    _, agents = batch
    last, _ = play(
        STUDENT, agents.key, STUDENT.inner_agent, agents.agents, agents.level, agents.running
    )
    flat = jax.tree.map(lambda x: x[0], flatten_workers(last))
    found = gae(flat, 0.99, 0.95).reshape(W, T, N)
    for i in range(N):
        own = gae(jax.tree.map(lambda x, i=i: x[i], last), 0.99, 0.95)
        np.testing.assert_allclose(found[:, :, i].T, own, rtol=1e-5, atol=1e-6)


@pytest.mark.thorough
def test_meta_training_teaches_the_rule_something():
    """On the toy problem, agents reach higher final returns after meta-training than before."""
    student = replace(STUDENT, num_workers=16, rollout_steps=8, learning_rate=1e-2, target_coef=0.0)
    slots = slots_of(8, num=16)
    state = student.init(jax.random.key(0), 16)

    @jax.jit
    def some(state, fresh, key):
        def step(carry, key):
            state, fresh = carry
            state, outcome, metrics = student.run(key, state, slots, fresh)
            return (state, outcome.done), metrics["lifetime_return"]

        return jax.lax.scan(step, (state, fresh), jax.random.split(key, 160))

    _, returns = some(state, jnp.ones(16, bool), jax.random.key(1))
    returns = np.asarray(returns)[np.isfinite(returns)]
    assert returns[-10:].mean() > returns[:2].mean() + 0.3


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"num_inner_updates": 0}, "num_inner_updates must be at least 1"),
        ({"learning_rate": 0.0}, "learning_rate must be above 0"),
        (
            {"rule": Rule(num_predictions=5), "agent": build_agent(ENV, num_predictions=4)},
            "but the rule has num_predictions=5",
        ),
    ],
)
def test_what_cannot_be_is_refused(change, words):
    with pytest.raises(ValueError, match=words):
        replace(STUDENT, **change)
    with pytest.raises(ValueError, match="does not divide"):
        replace(STUDENT, agents_per_chunk=3).check(4)


@pytest.mark.thorough
def test_a_rule_has_no_policy_to_play():
    with pytest.raises(ValueError, match="learned an update rule, not a policy"):
        STUDENT.policy(STUDENT.init(jax.random.key(0), 2))
