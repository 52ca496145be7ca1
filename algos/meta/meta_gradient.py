"""Meta-gradients: a learned update rule, improved by differentiating through what it taught.

Each slot holds an agent, with its own level and its own workers. In every update of the curriculum
all agents learn K times by the rule and then play once more; how well that went is differentiated
through the K updates with respect to the rule. Agents live on to the next update; one that has had
as many updates as its task's lifetime dies and makes room for a new task.

Sources: Oh et al., 2020, "Discovering Reinforcement Learning Algorithms" (LPG), equation 4; Jackson
et al., 2023, "Discovering General Reinforcement Learning Algorithms with Adversarial Environment
Design" (GROOVE), whose curriculum is a matter of the sampler and the score.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int

from rlgen import registry
from rlgen.algos.learners import lpg
from rlgen.algos.learners.lpg import LPG, Agent, AgentState, build_agent
from rlgen.algos.rules.files import NO_POLICY, rule_files
from rlgen.algos.rules.networks import Rule, RuleInputs, Targets
from rlgen.algos.samplers.lifetimes import TaskEnv
from rlgen.nn.optimizers import global_norm
from rlgen.parallel.seeds import map_where, tree_where
from rlgen.protocols import Actor, Learner, LevelEnv, Score, Student
from rlgen.returns import discounting
from rlgen.rollout import RolloutCarry, continue_rollout, evaluate_policy, reset_slots
from rlgen.types import Key, LifetimeResults, Metrics, Outcome, PyTree, Rollout, Slots, Spent, Task


class Population(NamedTuple):
    """N agents, each with its workers and, if there is one, a hand-designed antagonist."""

    agents: AgentState
    running: RolloutCarry  # [N, W, ...]
    antagonists: PyTree  # [N, ...] the antagonist's; () if there is none
    antagonists_running: RolloutCarry | tuple[()]
    age: Int[Array, " N"]  # updates lived
    complete: Bool[Array, " N"]  # was born at age 0


class MetaState(NamedTuple):
    """N agents at different ages, and the rule that they learn by."""

    rule: PyTree
    opt_state: PyTree
    population: Population  # [N, ...]
    num_updates: Int[Array, ""]  # of the rule


class Batch(NamedTuple):
    """What the meta-loss of n agents is computed from, [n, ...]."""

    agents: AgentState
    running: RolloutCarry  # [n, W, ...]
    level: PyTree
    left: Int[Array, " n"]  # updates that each has still to live
    share: Float[Array, " n"]  # in the mean over agents
    key: Key


class InnerLoopOutput(NamedTuple):
    """What comes out of K inner updates beside the loss, [n, ...]."""

    agents: AgentState
    running: RolloutCarry
    last: Rollout  # [n, T, W]: played after the last update, the evidence of the meta-loss
    entropy: Float[Array, " n"]
    target_rms: Float[Array, " n"]
    critic_loss: Float[Array, " n"]


@dataclass(frozen=True)
class MetaGradient(Student):
    """The student whose learning is a learning rule.

    Only what the rule puts out is differentiated: the sampling of the data is not, nor are the
    agents' critics, which serve as baselines of the meta-loss and learn by themselves.

    Attributes:
        antagonist: a learner by hand that is trained beside each agent on levels without a past,
            for algorithmic regret; `()` for none.
        num_inner_updates: K, updates of an agent between two of the rule.
        rollout_steps: T, env steps of each worker in one of an agent's updates.
        num_workers: W, environments of each agent, all on its level.
        learning_rate: of the rule, by Adam.
        max_grad_norm: clips the global norm of the rule's gradient; 0 turns it off.
        policy_entropy_coef: β₀, reward for the entropy of the agents' policies.
        prediction_entropy_coef: β₁, reward for the entropy of the agents' predictions.
        target_coef: β₂, cost of π̂².
        target_prediction_coef: β₃, cost of the sum of ŷ².
        meta_grad_through_inputs: also differentiate what later updates feed into the rule; `False`
            is what released code does.
        normalize_advantage: to mean 0 and deviation 1 over each agent's batch.
        stagger: begin a run with agents of all ages, so that they do not all die at once. What the
            first ones leave behind is no evidence of a level, as their lives were cut short.
        remat: compute each inner update again when it is differentiated: less memory, a third more
            arithmetic.
        agents_per_chunk: agents whose gradient is computed at a time; 0 for all.
        eval_episodes: played to judge an agent at its end, where there is no exact way.
        block: agents that are born, judged or followed by an antagonist at a time.

    Raises:
        ValueError: a field outside its range, or a rule and an agent that do not fit each other.
    """

    env: LevelEnv
    agent: Agent
    rule: Rule = field(default_factory=Rule)
    antagonist: Learner | tuple[()] = ()
    num_inner_updates: int = 5
    rollout_steps: int = 20
    num_workers: int = 64
    learning_rate: float = 1e-4
    max_grad_norm: float = 1.0
    policy_entropy_coef: float = 0.05
    prediction_entropy_coef: float = 0.001
    target_coef: float = 0.005
    target_prediction_coef: float = 0.001
    meta_grad_through_inputs: bool = True
    normalize_advantage: bool = True
    stagger: bool = True
    remat: bool = False
    agents_per_chunk: int = 0
    eval_episodes: int = 64
    block: int = 8

    max_levels_per_slot = 1
    gives = frozenset({"rollout", "lifetimes", "episodes"})

    def __post_init__(self):
        least = {"num_inner_updates": 1, "rollout_steps": 1, "num_workers": 1, "block": 1}
        least |= {"agents_per_chunk": 0, "eval_episodes": 1, "max_grad_norm": 0}
        for name, low in least.items():
            if getattr(self, name) < low:
                raise ValueError(f"{name} must be at least {low}, got {getattr(self, name)}")
        if not self.learning_rate > 0:
            raise ValueError(f"learning_rate must be above 0, got {self.learning_rate}")
        self.agent.for_rule(self.rule)

    @property
    def inner_agent(self) -> Agent:
        """The agent, with as many predictions as the rule has."""
        return self.agent.for_rule(self.rule)

    @property
    def num_steps(self) -> int:
        """Env steps of each slot in an update: those learned from and those of the meta-loss."""
        return (self.num_inner_updates + 1) * self.rollout_steps * self.num_workers

    def check(self, num_slots: int) -> None:
        """Refuse agents that do not divide into chunks, before anything is compiled."""
        if self.agents_per_chunk and num_slots % self.agents_per_chunk:
            raise ValueError(
                f"agents_per_chunk={self.agents_per_chunk} does not divide num_slots={num_slots}; "
                "choose a divisor, or 0 for all at once"
            )

    def init(self, key: Key, num_slots: int) -> MetaState:
        """An untrained rule, and agents that the first update replaces."""
        key_rule, key_agents, key_level = jax.random.split(key, 3)
        params = self.rule.init(key_rule)
        level = self.env.sample_level(key_level)
        level = jax.tree.map(lambda x: jnp.broadcast_to(x, (num_slots, *jnp.shape(x))), level)
        task = Task(level, jnp.ones(num_slots, jnp.int32))
        population = spawn_agents(self, key_agents, task, jnp.zeros(num_slots, jnp.int32))
        return MetaState(params, self._optimizer().init(params), population, jnp.int32(0))

    def policy(self, states: MetaState) -> tuple[Learner, PyTree]:
        """There is none: a rule is evaluated by what agents learn from it.

        Raises:
            ValueError: always.
        """
        raise ValueError(NO_POLICY)

    def learner_with_rule(self, states: MetaState, env: LevelEnv) -> tuple[LPG, PyTree]:
        """A learner for any environment that learns by the rules, and the rules [S, ...].

        Agents in the family that the rule was trained on keep their hyperparameters; elsewhere they
        have those of `build_agent`.
        """
        learner = LPG(self.env, replace(self.agent, num_predictions=0), net=self.rule)
        return learner.for_env(env), states.rule

    def files(self, states: MetaState, origin: Mapping[str, Any]) -> dict[str, bytes]:
        """Each seed's rule as a file that `rlgen.algos.rules.files.load_rule` reads.

        Args:
            states: of S seeds.
            origin: the run that they are of; `seed` is the first seed's.
        """
        origin = {**origin, "discount": self.agent.discount}
        return rule_files(self.rule, states.rule, states.num_updates, origin)

    def per_slot(self, state: MetaState) -> MetaState:
        """The agents have an axis of slots."""
        return MetaState(False, False, True, False)  # pyright: ignore[reportArgumentType]

    def run(
        self, key: Key, state: MetaState, slots: Slots, fresh: Bool[Array, " N"]
    ) -> tuple[MetaState, Outcome, Metrics]:
        """K updates of every agent by the rule, and one of the rule."""
        key_birth, key_learn, key_follow, key_end = jax.random.split(key, 4)
        task: Task = jax.tree.map(lambda x: x[:, 0], slots.level)
        population = self._replace(key_birth, state, task, fresh)
        share = slots.weight / jnp.maximum(slots.weight.sum(), 1e-8)
        batch = Batch(
            population.agents,
            population.running,
            task.level,
            task.lifetime - population.age,
            share,
            jax.random.split(key_learn, share.size),
        )
        loss, gradient, inner_output = self._gradient(state.rule, batch)
        rule, opt_state, metrics = self._improve(state, loss, gradient)
        unseen = slots.buffer_index[:, 0] < 0
        population = train_antagonists(self, key_follow, population, task, unseen)
        age = population.age + self.num_inner_updates
        population = population._replace(
            agents=inner_output.agents, running=inner_output.running, age=age
        )
        population, diverged = reset_diverged(population)
        done = (age >= task.lifetime) | diverged
        lifetimes, steps = evaluate_finished(
            self, key_end, population, task, done & population.complete, unseen
        )
        outcome = Outcome(
            done,
            flatten_workers(inner_output.last),
            lifetimes,
            lifetimes.as_episodes(done),
            self._spent(population, unseen, share.size, steps),
        )
        metrics |= _inner_loop_metrics(*inner_output[2:], share=share) | _lifetime_metrics(
            lifetimes, done
        )
        return MetaState(rule, opt_state, population, state.num_updates + 1), outcome, metrics

    def _replace(
        self, key: Key, state: MetaState, task: Task, fresh: Bool[Array, " N"]
    ) -> Population:
        """New agents in the fresh slots; at the start of a run, of all ages."""
        key_birth, key_age = jax.random.split(key)
        num_chunks = jnp.maximum(task.lifetime // self.num_inner_updates, 1)
        age = jax.random.randint(key_age, fresh.shape, 0, num_chunks) * self.num_inner_updates
        age = jnp.where(self.stagger & (state.num_updates == 0), age, 0)
        return spawn_agents(self, key_birth, task, age, fresh, state.population)

    def _optimizer(self) -> optax.GradientTransformation:
        adam = optax.adam(self.learning_rate)
        if self.max_grad_norm == 0:
            return adam
        return optax.chain(optax.clip_by_global_norm(self.max_grad_norm), adam)

    def _improve(
        self, state: MetaState, loss: Float[Array, ""], gradient: PyTree
    ) -> tuple[PyTree, PyTree, Metrics]:
        """A step of the rule, unless its gradient is not a number."""
        norm = global_norm(gradient)
        good = jnp.isfinite(norm) & jnp.isfinite(loss)
        updates, opt_state = self._optimizer().update(gradient, state.opt_state, state.rule)
        rule = optax.apply_updates(state.rule, updates)
        rule, opt_state = tree_where(good, (rule, opt_state), (state.rule, state.opt_state))
        metrics = {
            "meta_loss": jnp.where(good, loss, jnp.nan),
            "meta_grad_norm": jnp.where(good, norm, jnp.nan),
            "skipped_meta_gradients": (~good).astype(jnp.float32),
        }
        return rule, opt_state, metrics

    def _gradient(
        self, rule: PyTree, batch: Batch
    ) -> tuple[Float[Array, ""], PyTree, InnerLoopOutput]:
        """The meta-loss and its gradient, of all agents at once or chunk by chunk."""
        value_and_grad = jax.value_and_grad(self._meta_loss, has_aux=True)
        num_agents = batch.left.size
        size = self.agents_per_chunk or num_agents
        if size == num_agents:
            (loss, inner_output), gradient = value_and_grad(rule, batch)
            return loss, gradient, inner_output
        chunks = jax.tree.map(lambda x: x.reshape(-1, size, *x.shape[1:]), batch)

        def add(total: tuple, chunk: Batch) -> tuple[tuple, InnerLoopOutput]:
            (loss, inner_output), gradient = value_and_grad(rule, chunk)
            return jax.tree.map(jnp.add, total, (loss, gradient)), inner_output

        zero = jnp.zeros(()), jax.tree.map(jnp.zeros_like, rule)
        (loss, gradient), inner_output = jax.lax.scan(add, zero, chunks)
        inner_output = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), inner_output)
        return loss, gradient, inner_output

    def _meta_loss(self, rule: PyTree, batch: Batch) -> tuple[Float[Array, ""], InnerLoopOutput]:
        """Of K updates and the batch played after them, a weighted sum over agents."""

        def update(carry: tuple, k: Array) -> tuple[tuple, tuple]:
            agents, running = carry
            keys = jax.vmap(lambda key: jax.random.fold_in(key, k))(batch.key)
            frozen = jax.lax.stop_gradient(agents)
            played, running = play(self, keys, self.inner_agent, frozen, batch.level, running)
            learned, cost, told = learn(rule, agents, played)
            active = k < batch.left
            agents = tree_where(active, learned, agents)
            return (agents, running), (jnp.where(active, cost, 0.0), told)

        learn = jax.checkpoint(self._inner_update) if self.remat else self._inner_update
        steps = jnp.arange(self.num_inner_updates)
        (agents, running), (costs, told) = jax.lax.scan(update, batch[:2], steps)
        keys = jax.vmap(lambda key: jax.random.fold_in(key, steps.size))(batch.key)
        frozen = jax.lax.stop_gradient(agents)
        last, running = play(self, keys, self.inner_agent, frozen, batch.level, running)
        num_active = jnp.clip(batch.left, 1, steps.size)
        loss = jax.vmap(self._policy_loss)(agents, last) + costs.sum(0) / num_active
        taught, critic_loss = jax.vmap(self._learn_critic)(frozen, last)
        alive = batch.left > 0
        agents = tree_where(
            alive, agents._replace(critic=taught.critic, critic_opt=taught.critic_opt), agents
        )
        entropy, target_rms = (x.mean(0) for x in told)
        inner_output = InnerLoopOutput(agents, running, last, entropy, target_rms, critic_loss)
        return (batch.share * loss).sum(), jax.lax.stop_gradient(inner_output)

    def _inner_update(
        self, rule: PyTree, agents: AgentState, played: Rollout
    ) -> tuple[AgentState, Float[Array, " n"], tuple]:
        """One update of n agents by the rule; their regularisers' costs; what is told of it."""
        asked = agents if self.meta_grad_through_inputs else jax.lax.stop_gradient(agents)
        inputs = jax.vmap(self.inner_agent.inputs)(asked, played)
        targets = self._apply_update_rule(rule, inputs)
        everyone = jnp.ones(self.num_workers)
        learned, stats = jax.vmap(self.inner_agent.learn, in_axes=(0, 0, 0, None))(
            agents, played, targets, everyone
        )
        taught, _ = jax.vmap(self._learn_critic)(jax.lax.stop_gradient(agents), played)
        learned = learned._replace(critic=taught.critic, critic_opt=taught.critic_opt)
        square = (targets.policy**2).mean((1, 2))
        cost = (
            self.target_coef * square
            + self.target_prediction_coef * jnp.exp(2 * targets.log_prediction).sum(-1).mean((1, 2))
            - self.policy_entropy_coef * stats.entropy
            - self.prediction_entropy_coef * stats.prediction_entropy
        )
        return learned, cost, (stats.entropy, jnp.sqrt(square))

    def _apply_update_rule(self, rule: PyTree, inputs: RuleInputs) -> Targets:
        """The rule's targets for n agents, [n, T, W], by one pass over all their workers."""
        num_agents, num_workers = inputs.reward.shape[0], inputs.reward.shape[2]

        def flat(x: Array) -> Array:
            x = x.swapaxes(0, 1)
            return x.reshape(x.shape[0], num_agents * num_workers, *x.shape[3:])

        def back(x: Array) -> Array:
            x = x.reshape(x.shape[0], num_agents, num_workers, *x.shape[2:])
            return x.swapaxes(0, 1)

        return jax.tree.map(back, self.rule(rule, jax.tree.map(flat, inputs)))

    def _learn_critic(self, state: AgentState, played: Rollout) -> tuple[AgentState, Array]:
        return self.inner_agent.learn_critic(state, played, jnp.ones(self.num_workers))

    def _policy_loss(self, state: AgentState, last: Rollout) -> Float[Array, ""]:
        """Minus the gain of one agent's policy on the batch [T, W] that it played last."""
        advantage = self.inner_agent.advantage(last)
        if self.normalize_advantage:
            advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
        obs = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), last.obs)
        log_policy = self.inner_agent.log_policy(state, obs)
        log_prob = jnp.take_along_axis(log_policy, last.action.reshape(-1, 1), axis=1)[:, 0]
        return -(log_prob * jax.lax.stop_gradient(advantage).ravel()).mean()

    def _spent(
        self, population: Population, unseen: Bool[Array, " N"], num_agents: int, steps: Array
    ) -> Spent:
        """One step of the rule; the env steps of the agents, their antagonists and their judges."""
        followed = (unseen & population.complete).sum() if self.antagonist else 0
        inner = self.num_inner_updates * self.rollout_steps * self.num_workers
        env_steps = {
            "train": jnp.full((), num_agents * self.num_steps, jnp.float32),
            "antagonist": jnp.float32(followed * inner),
            "evaluate": steps,
        }
        return Spent(1.0, env_steps)

    def discounting(self) -> dict[str, Any]:
        """The agents'."""
        return discounting(self.agent)


def spawn_agents(
    student: MetaGradient,
    key: Key,
    task: Task,
    age: Int[Array, " N"],
    fresh: Bool[Array, " N"] | None = None,
    old: Population | None = None,
) -> Population:
    """The population with new agents where `fresh`; a whole one if there is none yet."""

    def born(xs: tuple) -> tuple:
        return jax.vmap(lambda key, task, age: _init_agent(student, key, task, age))(*xs)

    xs = jax.random.split(key, age.size), task, age
    if fresh is None or old is None:
        agents, running, antagonists, antagonists_running = born(xs)
        return Population(agents, running, antagonists, antagonists_running, age, age == 0)
    parts = map_where(fresh, born, xs, old[:4], student.block)
    return Population(
        *parts,
        age=jnp.where(fresh, age, old.age),
        complete=jnp.where(fresh, age == 0, old.complete),
    )


def _init_agent(student: MetaGradient, key: Key, task: Task, age: Int[Array, ""]) -> tuple:
    key_agent, key_begin, key_rival, key_theirs = jax.random.split(key, 4)
    copies = _for_workers(student, task.level)
    agent = student.inner_agent.init(key_agent, task.lifetime)._replace(num_updates=age)
    running = reset_slots(key_begin, student.env, student.inner_agent, copies)
    if isinstance(student.antagonist, tuple):
        return agent, running, (), ()
    rival = student.antagonist.init(key_rival)
    return agent, running, rival, reset_slots(key_theirs, student.env, student.antagonist, copies)


def play(
    student: MetaGradient,
    keys: Key,
    learner: Actor,
    states: PyTree,
    level: PyTree,
    running: RolloutCarry,
) -> tuple[Rollout, RolloutCarry]:
    """T further steps of n agents, [n, T, W].

    Args:
        keys: [n].
        learner: whose states these are.
        states, level, running: [n, ...].
    """

    def one(
        key: Key, state: PyTree, level: PyTree, running: RolloutCarry
    ) -> tuple[Rollout, RolloutCarry]:
        copies = _for_workers(student, level)
        player = (learner, state)
        return continue_rollout(key, student.env, player, copies, running, student.rollout_steps)

    return jax.vmap(one)(keys, states, level, running)


def train_antagonists(
    student: MetaGradient,
    key: Key,
    population: Population,
    task: Task,
    unseen: Bool[Array, " N"],
) -> Population:
    """The antagonists' own K updates, on levels without a past alone.

    On a level that was lived on before, the antagonist's return is known. Nor is one trained beside
    an agent whose life is no evidence.
    """
    antagonist = student.antagonist
    if isinstance(antagonist, tuple):
        return population
    everyone = jnp.ones(student.num_workers)

    def learn(key: Key, state: PyTree, played: Rollout) -> PyTree:
        return antagonist.update(key, state, played, everyone)[0]

    def some(xs: tuple) -> tuple:
        keys, level, left, antagonists, running = xs

        def update(carry: tuple, k: Array) -> tuple[tuple, None]:
            antagonists, running = carry
            pairs = jax.vmap(lambda key: jax.random.split(jax.random.fold_in(key, k)))(keys)
            played, running = play(student, pairs[:, 0], antagonist, antagonists, level, running)
            learned = jax.vmap(learn)(pairs[:, 1], antagonists, played)
            return (tree_where(k < left, learned, antagonists), running), None

        return jax.lax.scan(update, (antagonists, running), jnp.arange(student.num_inner_updates))[
            0
        ]

    theirs = population.antagonists, population.antagonists_running
    keys = jax.random.split(key, population.age.size)
    xs = keys, task.level, task.lifetime - population.age, *theirs
    antagonists, running = map_where(unseen & population.complete, some, xs, theirs, student.block)
    return population._replace(antagonists=antagonists, antagonists_running=running)


def evaluate_finished(
    student: MetaGradient,
    key: Key,
    population: Population,
    task: Task,
    ended: Bool[Array, " N"],
    unseen: Bool[Array, " N"],
) -> tuple[LifetimeResults, Float[Array, ""]]:
    """What the agents whose lives have `ended` reached, and the env steps spent on finding out.

    Nothing is computed for the others, nor for antagonists that were not trained.
    """
    keys = jax.random.split(key, (2, ended.size))
    nothing = jnp.full(ended.shape, jnp.nan), jnp.zeros(ended.shape)

    def judge(learner: Actor, keys: Key, states: PyTree, mask: Array) -> tuple[Array, Array]:
        def one(key: Key, state: PyTree, level: PyTree) -> tuple[Array, Array]:
            return evaluate_policy(key, student.env, learner, state, level, student.eval_episodes)

        xs = keys, states, task.level
        return map_where(mask, lambda xs: jax.vmap(one)(*xs), xs, nothing, student.block)

    own, steps = judge(student.inner_agent, keys[0], population.agents, ended)
    theirs, their_steps = nothing
    if not isinstance(student.antagonist, tuple):
        theirs, their_steps = judge(
            student.antagonist, keys[1], population.antagonists, ended & unseen
        )
    return LifetimeResults(own, theirs, population.complete), steps.sum() + their_steps.sum()


def reset_diverged(population: Population) -> tuple[Population, Bool[Array, " N"]]:
    """The population without numbers that are none, and whose lives that ends.

    An agent or an antagonist whose parameters have diverged is no evidence of anything.
    """
    diverged = _has_nonfinite(population.agents, population.age) | _has_nonfinite(
        population.antagonists, population.age
    )
    agents, antagonists = (
        tree_where(diverged, jax.tree.map(jnp.zeros_like, x), x)
        for x in (population.agents, population.antagonists)
    )
    return population._replace(
        agents=agents, antagonists=antagonists, complete=population.complete & ~diverged
    ), diverged


def _has_nonfinite(states: PyTree, age: Int[Array, " N"]) -> Bool[Array, " N"]:
    found = jnp.zeros(age.shape, bool)
    for leaf in jax.tree.leaves(states):
        bad = ~jnp.isfinite(leaf)
        found |= bad.reshape(bad.shape[0], -1).any(1)
    return found


def flatten_workers(last: Rollout) -> Rollout:
    """The batches [N, T, W] of N agents as a rollout [1, W T, N], one worker after another.

    So that scores of levels can read it: where a worker's part ends, an episode is cut off.
    """
    num_steps = last.reward.shape[1]
    at_end = (jnp.arange(num_steps) == num_steps - 1)[None, :, None]
    at_start = (jnp.arange(num_steps) == 0)[None, :, None]
    last = last._replace(
        obs=(),
        carry=(),
        last_obs=(),
        first=last.first | at_start,
        truncated=last.truncated | (at_end & ~last.terminated),
    )
    return jax.tree.map(lambda x: x.transpose(2, 1, 0).reshape(1, -1, x.shape[0]), last)


def _for_workers(student: MetaGradient, level: PyTree) -> PyTree:
    """One level for W workers, [W, 1, ...]."""
    shape = (student.num_workers, 1)
    return jax.tree.map(lambda x: jnp.broadcast_to(x, shape + jnp.shape(x)), level)


def _inner_loop_metrics(
    last: Rollout, entropy: Array, target_rms: Array, critic_loss: Array, share: Float[Array, " N"]
) -> Metrics:
    """Means over the agents, weighted by their share.

    Args:
        last: [N, T, W], the batch of the meta-loss.
        entropy, target_rms, critic_loss: [N].
        share: [N].
    """

    def mean(x: Array) -> Array:
        return jnp.where(jnp.isfinite(x), share * x, 0.0).sum()

    return {
        "reward": mean(last.reward.mean((1, 2))),
        "policy_entropy": mean(entropy),
        "target_rms": mean(target_rms),
        "critic_loss": mean(critic_loss),
    }


def _lifetime_metrics(lifetimes: LifetimeResults, done: Bool[Array, " N"]) -> Metrics:
    """How many lives ended, and what they reached; NaN where none did.

    A life that was cut is no evidence: it began in the middle, at the start of a run, or the
    agent's parameters were no longer numbers.
    """
    ended = done & lifetimes.complete

    def mean(x: Array, of: Array) -> Array:
        total = jnp.where(of, x, 0.0).sum()
        return jnp.where(of.any(), total / jnp.maximum(of.sum(), 1), jnp.nan)

    compared = ended & jnp.isfinite(lifetimes.antagonist_return)
    gap = lifetimes.antagonist_return - lifetimes.student_return
    return {
        "lifetimes_ended": ended.sum().astype(jnp.float32),
        "lifetimes_truncated": (done & ~lifetimes.complete).sum().astype(jnp.float32),
        "returns_computed": (ended.sum() + compared.sum()).astype(jnp.float32),
        "lifetime_return": mean(lifetimes.student_return, ended),
        "lifetime_antagonist_return": mean(lifetimes.antagonist_return, compared),
        "lifetime_regret": mean(gap, compared),
    }


def rule_student_and_score(env: LevelEnv, learner: str, score: str) -> tuple[MetaGradient, Score]:
    """Who learns a rule, and what judges its tasks, by name.

    Args:
        env: where the agents live.
        learner: the antagonist, trained by hand beside the agents; "" for none.
        score: built to agree with the agents' discounting.
    """
    agent = build_agent(env)
    antagonist = registry.make("learners", learner, env) if learner else ()
    judge = registry.make("scores", score, TaskEnv(env), lpg.build(env, agent=agent))
    return MetaGradient(env, agent, antagonist=antagonist), judge
