"""Meta-training of an update rule by meta-gradients through the agents' inner-loop updates.

Each slot holds a task (a level and a lifetime), an agent and the agent's workers, which are copies
of the environment. In every update of the curriculum (a meta-step), each agent is updated K times
by the rule and then plays one more rollout. The policy-gradient loss on that rollout is
differentiated through the K updates with respect to the rule. Agents persist from one meta-step to
the next. At the end of an agent's lifetime, the agent and its task are replaced.

Sources: Oh et al., 2020, "Discovering Reinforcement Learning Algorithms" (LPG), equation 4; Jackson
et al., 2023, "Discovering General Reinforcement Learning Algorithms with Adversarial Environment
Design" (GROOVE), whose curriculum is implemented by the sampler and the score.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
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
    """N agents with their workers and, optionally, one hand-designed antagonist per agent."""

    agents: AgentState
    running: RolloutCarry  # [N, W, ...], running episodes of the agents' workers
    antagonists: PyTree  # [N, ...], states of the antagonists; () if there are no antagonists
    antagonists_running: RolloutCarry | tuple[()]  # running episodes of the antagonists' workers
    age: Int[Array, " N"]  # number of updates since the start of the lifetime
    complete: Bool[Array, " N"]  # whether the agent started at age 0 and has not diverged


class MetaState(NamedTuple):
    """N agents at different ages, and the rule that updates them."""

    rule: PyTree
    opt_state: PyTree
    population: Population  # [N, ...]
    num_updates: Int[Array, ""]  # number of updates of the rule (meta-steps)


class Batch(NamedTuple):
    """Inputs of the meta-loss of n agents, [n, ...]."""

    agents: AgentState
    running: RolloutCarry  # [n, W, ...]
    level: PyTree
    left: Int[Array, " n"]  # number of updates left in each lifetime
    share: Float[Array, " n"]  # weight of each agent in the mean over agents
    key: Key


class InnerLoopOutput(NamedTuple):
    """Results [n, ...] of K inner updates of n agents, without the meta-loss."""

    agents: AgentState
    running: RolloutCarry
    last: Rollout  # [n, T, W]: rollout after the last update, used for the meta-loss
    entropy: Float[Array, " n"]  # entropy of the policy in nats, mean over the K updates
    target_rms: Float[Array, " n"]  # root mean square of π̂, mean over the K updates
    critic_loss: Float[Array, " n"]  # loss of the critic on `last`, before the critic's step


@dataclass(frozen=True)
class MetaGradient(Student):
    """Student that meta-trains an update rule by meta-gradients.

    The rule outputs a target π̂ for an agent's policy π and a target ŷ for the agent's prediction y.
    Gradients flow through these outputs. They do not flow through the sampling of data or through
    the agents' critics, which are the baselines of the meta-loss and are trained separately.

    Attributes:
        agent: Agent that the rule updates.
        rule: Sizes of the rule.
        antagonist: Hand-designed learner that is trained alongside each agent on new levels, to
            compute algorithmic regret; `()` disables antagonists.
        num_inner_updates: Number K of agent updates per meta-step.
        rollout_steps: Number T of env steps of each worker (see `num_workers`) in one agent update.
        num_workers: Number W of an agent's workers: environments that all have the agent's level.
        learning_rate: Step size with which Adam updates the rule.
        max_grad_norm: Maximum global norm of the meta-gradient; 0 disables clipping.
        policy_entropy_coef: Weight β₀ of the entropy of the agents' policies.
        prediction_entropy_coef: Weight β₁ of the entropy of the agents' predictions.
        target_coef: Weight β₂ of the penalty on π̂².
        target_prediction_coef: Weight β₃ of the penalty on the sum of ŷ².
        meta_grad_through_inputs: Whether to differentiate through the rule's inputs in later inner
            updates; false in the code released with GROOVE.
        normalize_advantage: Whether advantages are normalised to mean 0 and standard deviation 1
            over each agent's batch.
        stagger: Whether a run starts with agents of different ages, so that they are not all
            replaced in the same meta-step. The results of agents that start at an age above 0 are
            not used, because their lifetimes are incomplete.
        remat: Whether to recompute each inner update in the backward pass, which saves memory but
            needs a third more arithmetic.
        agents_per_chunk: Number of agents whose meta-gradient is computed at once; 0 means all.
        eval_episodes: Number of episodes in which a final policy is evaluated if its return cannot
            be computed exactly.
        block: Number of agents that are initialised or evaluated at once, and number of antagonists
            that are updated at once.

    Raises:
        ValueError: If a field is out of range, or the rule and the agent do not fit each other.
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
    averaged_over = MappingProxyType({"lifetime_return": "lifetimes_ended"})

    def __post_init__(self):
        least = {"num_inner_updates": 1, "rollout_steps": 1, "num_workers": 1, "block": 1}
        least |= {"agents_per_chunk": 0, "eval_episodes": 1, "max_grad_norm": 0}
        for name, low in least.items():
            if getattr(self, name) < low:
                raise ValueError(f"{name} must be at least {low}, got {getattr(self, name)}")
        if not self.learning_rate > 0:
            raise ValueError(f"learning_rate must be above 0, got {self.learning_rate}")
        self.agent.for_rule(self.rule)  # raises if the rule does not fit the agent

    @property
    def inner_agent(self) -> Agent:
        """The agent, with a prediction vector of the rule's size."""
        return self.agent.for_rule(self.rule)

    @property
    def num_steps(self) -> int:
        """Env steps of each slot per meta-step, including the rollout of the meta-loss."""
        return (self.num_inner_updates + 1) * self.rollout_steps * self.num_workers

    def check(self, num_slots: int) -> None:
        """Check that the agents of `num_slots` slots can be divided into chunks.

        Raises:
            ValueError: If `agents_per_chunk` does not divide `num_slots`.
        """
        if self.agents_per_chunk and num_slots % self.agents_per_chunk:
            raise ValueError(
                f"agents_per_chunk={self.agents_per_chunk} does not divide num_slots={num_slots}; "
                "choose a divisor, or 0 for all at once"
            )

    def init(self, key: Key, num_slots: int) -> MetaState:
        """Return an untrained rule, and placeholder agents that the first update replaces."""
        key_rule, key_agents, key_level = jax.random.split(key, 3)
        params = self.rule.init(key_rule)
        level = self.env.sample_level(key_level)
        level = jax.tree.map(lambda x: jnp.broadcast_to(x, (num_slots, *jnp.shape(x))), level)
        task = Task(level, jnp.ones(num_slots, jnp.int32))
        population = spawn_agents(self, key_agents, task, jnp.zeros(num_slots, jnp.int32))
        return MetaState(params, self._optimizer().init(params), population, jnp.int32(0))

    def policy(self, states: MetaState) -> tuple[Learner, PyTree]:
        """Raise an error, because a rule has no policy. To evaluate a rule, train agents with it.

        Raises:
            ValueError: Always.
        """
        raise ValueError(NO_POLICY)

    def learner_with_rule(self, states: MetaState, env: LevelEnv) -> tuple[LPG, PyTree]:
        """Return a learner for `env` that applies a rule, and the rules of S seeds, [S, ...].

        If `env` is of the family on which the rule was trained, agents keep their hyperparameters.
        Otherwise, agents have the defaults of `build_agent`.
        """
        learner = LPG(self.env, replace(self.agent, num_predictions=0), net=self.rule)
        return learner.for_env(env), states.rule

    def files(self, states: MetaState, origin: Mapping[str, Any]) -> dict[str, bytes]:
        """Return each seed's rule as a file for `rlgen.algos.rules.files.load_rule`.

        Args:
            states: States of S seeds.
            origin: Metadata of the run; its entry `seed` is the first of the seeds.
        """
        origin = {**origin, "discount": self.agent.discount}
        return rule_files(self.rule, states.rule, states.num_updates, origin)

    def per_slot(self, state: MetaState) -> MetaState:
        """Return, for each part of the state, whether the part has an axis of slots."""
        return MetaState(False, False, True, False)  # pyright: ignore[reportArgumentType]

    def run(
        self, key: Key, state: MetaState, slots: Slots, fresh: Bool[Array, " N"]
    ) -> tuple[MetaState, Outcome, Metrics]:
        """Run one meta-step: K updates of every agent by the rule, and one update of the rule."""
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
        # An index of -1 marks a new level, for which no antagonist's return is known yet.
        unseen = slots.buffer_index[:, 0] < 0
        # Ages are those before the meta-step, so antagonists have as many updates left as agents.
        population = train_antagonists(self, key_follow, population, task, unseen)
        age = population.age + self.num_inner_updates
        population = population._replace(
            agents=inner_output.agents, running=inner_output.running, age=age
        )
        # Divergence is tested before `done`, because divergence ends an agent's lifetime.
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
        # `inner_output[2:]` are the fields `last`, `entropy`, `target_rms` and `critic_loss`.
        metrics |= _inner_loop_metrics(*inner_output[2:], share=share) | _lifetime_metrics(
            lifetimes, done
        )
        return MetaState(rule, opt_state, population, state.num_updates + 1), outcome, metrics

    def _replace(
        self, key: Key, state: MetaState, task: Task, fresh: Bool[Array, " N"]
    ) -> Population:
        """Replace the agents of fresh slots; at the start of a run, new agents differ in age."""
        key_birth, key_age = jax.random.split(key)
        # Ages are multiples of K, because every meta-step adds K.
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
        """Update the rule, unless the meta-loss or its gradient is not finite."""
        norm = global_norm(gradient)
        good = jnp.isfinite(norm) & jnp.isfinite(loss)
        updates, opt_state = self._optimizer().update(gradient, state.opt_state, state.rule)
        rule = optax.apply_updates(state.rule, updates)
        # Adam's moments are also kept, because a NaN would stay in them for the rest of the run.
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
        """Compute the meta-loss and its gradient, for all agents at once or chunk by chunk."""
        # The `vmap` over agents is inside the loss, so each weight of the rule has one gradient.
        value_and_grad = jax.value_and_grad(self._meta_loss, has_aux=True)
        num_agents = batch.left.size
        size = self.agents_per_chunk or num_agents
        if size == num_agents:
            (loss, inner_output), gradient = value_and_grad(rule, batch)
            return loss, gradient, inner_output
        # The loss is a weighted sum over agents, so the losses and gradients of chunks are added.
        chunks = jax.tree.map(lambda x: x.reshape(-1, size, *x.shape[1:]), batch)

        def add(total: tuple, chunk: Batch) -> tuple[tuple, InnerLoopOutput]:
            (loss, inner_output), gradient = value_and_grad(rule, chunk)
            return jax.tree.map(jnp.add, total, (loss, gradient)), inner_output

        zero = jnp.zeros(()), jax.tree.map(jnp.zeros_like, rule)
        (loss, gradient), inner_output = jax.lax.scan(add, zero, chunks)
        inner_output = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), inner_output)
        return loss, gradient, inner_output

    def _meta_loss(self, rule: PyTree, batch: Batch) -> tuple[Float[Array, ""], InnerLoopOutput]:
        """Compute the meta-loss from K updates and the rollout after them.

        The loss of an agent is the policy-gradient loss on the last rollout plus the mean cost of
        the regularisers over the inner updates. The meta-loss is the weighted sum of these losses.
        """

        def update(carry: tuple, k: Array) -> tuple[tuple, tuple]:
            agents, running = carry
            keys = jax.vmap(lambda key: jax.random.fold_in(key, k))(batch.key)
            # Data is a constant: no score-function term covers the agents' influence on sampling.
            frozen = jax.lax.stop_gradient(agents)
            played, running = play(self, keys, self.inner_agent, frozen, batch.level, running)
            learned, cost, told = learn(rule, agents, played)
            # After the end of a lifetime, updates change neither the agent nor its cost.
            active = k < batch.left
            agents = tree_where(active, learned, agents)
            return (agents, running), (jnp.where(active, cost, 0.0), told)

        learn = jax.checkpoint(self._inner_update) if self.remat else self._inner_update
        steps = jnp.arange(self.num_inner_updates)
        # The carry is (agents, running), and `costs` is [K, n].
        (agents, running), (costs, told) = jax.lax.scan(update, batch[:2], steps)
        # `steps.size` is K; the inner updates used the indices 0 to K - 1.
        keys = jax.vmap(lambda key: jax.random.fold_in(key, steps.size))(batch.key)
        frozen = jax.lax.stop_gradient(agents)
        last, running = play(self, keys, self.inner_agent, frozen, batch.level, running)
        num_active = jnp.clip(batch.left, 1, steps.size)  # at least 1, as a divisor
        # The loss uses `agents` and not `frozen`, so that the K updates are differentiated.
        loss = jax.vmap(self._policy_loss)(agents, last) + costs.sum(0) / num_active
        # The advantages of the policy loss use values recorded before this critic step.
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
        """Update n agents by the rule; also return the regularisers' costs and metrics, [n]."""
        # `asked` lets gradients pass from the targets to earlier updates; GROOVE's code omits this.
        asked = agents if self.meta_grad_through_inputs else jax.lax.stop_gradient(agents)
        inputs = jax.vmap(self.inner_agent.inputs)(asked, played)
        targets = self._apply_update_rule(rule, inputs)
        everyone = jnp.ones(self.num_workers)
        learned, stats = jax.vmap(self.inner_agent.learn, in_axes=(0, 0, 0, None))(
            agents, played, targets, everyone
        )
        # The critic is only a baseline, so no meta-gradient passes through its training.
        taught, _ = jax.vmap(self._learn_critic)(jax.lax.stop_gradient(agents), played)
        learned = learned._replace(critic=taught.critic, critic_opt=taught.critic_opt)
        square = (targets.policy**2).mean((1, 2))
        cost = (
            # β₂ mean(π̂²) + β₃ mean(Σ_j ŷ_j²) - β₀ H(π) - β₁ H(y)
            self.target_coef * square
            + self.target_prediction_coef * jnp.exp(2 * targets.log_prediction).sum(-1).mean((1, 2))
            - self.policy_entropy_coef * stats.entropy
            - self.prediction_entropy_coef * stats.prediction_entropy
        )
        return learned, cost, (stats.entropy, jnp.sqrt(square))

    def _apply_update_rule(self, rule: PyTree, inputs: RuleInputs) -> Targets:
        """Compute the rule's targets for n agents, [n, T, W], in one pass over all workers."""
        num_agents, num_workers = inputs.reward.shape[0], inputs.reward.shape[2]

        # [n, T, W] -> [T, n W] and back. As the rule treats workers independently, all agents can
        # be one batch, and the gradient of each of the rule's weights is one matrix product.
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
        """Return the policy-gradient loss of one agent on its last rollout [T, W]."""
        advantage = self.inner_agent.advantage(last)
        if self.normalize_advantage:
            # Advantages are normalised per agent, because returns depend on the level.
            advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
        obs = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), last.obs)
        log_policy = self.inner_agent.log_policy(state, obs)
        log_prob = jnp.take_along_axis(log_policy, last.action.reshape(-1, 1), axis=1)[:, 0]
        # This is the policy gradient in equation 4 of Oh et al., negated because Adam minimises.
        return -(log_prob * jax.lax.stop_gradient(advantage).ravel()).mean()

    def _spent(
        self, population: Population, unseen: Bool[Array, " N"], num_agents: int, steps: Array
    ) -> Spent:
        """Return the cost: one rule update, and env steps of agents, antagonists and evaluation."""
        followed = (unseen & population.complete).sum() if self.antagonist else 0
        inner = self.num_inner_updates * self.rollout_steps * self.num_workers
        env_steps = {
            "train": jnp.full((), num_agents * self.num_steps, jnp.float32),
            "antagonist": jnp.float32(followed * inner),
            "evaluate": steps,
        }
        return Spent(1.0, env_steps)

    def discounting(self) -> dict[str, Any]:
        """Return the agents' settings for advantage estimation."""
        return discounting(self.agent)


def spawn_agents(
    student: MetaGradient,
    key: Key,
    task: Task,
    age: Int[Array, " N"],
    fresh: Bool[Array, " N"] | None = None,
    old: Population | None = None,
) -> Population:
    """Return a population in which the agents of fresh slots are new.

    Args:
        student: The student that the agents belong to.
        key: Random key.
        task: Task of each slot.
        age: Age at which a new agent starts.
        fresh: Whether the agent of each slot is replaced; None creates all agents.
        old: Population before the replacement; None creates all agents.
    """

    def born(xs: tuple) -> tuple:
        return jax.vmap(lambda key, task, age: _init_agent(student, key, task, age))(*xs)

    xs = jax.random.split(key, age.size), task, age
    if fresh is None or old is None:
        agents, running, antagonists, antagonists_running = born(xs)
        return Population(agents, running, antagonists, antagonists_running, age, age == 0)
    # `map_where` initialises only the fresh slots, `block` at a time. `old[:4]` are the four fields
    # that `_init_agent` returns.
    parts = map_where(fresh, born, xs, old[:4], student.block)
    return Population(
        *parts,
        age=jnp.where(fresh, age, old.age),
        complete=jnp.where(fresh, age == 0, old.complete),
    )


def _init_agent(student: MetaGradient, key: Key, task: Task, age: Int[Array, ""]) -> tuple:
    """Return an agent, its running episodes, its antagonist and the antagonist's episodes.

    The antagonist and its episodes are () if the student has no antagonist.
    """
    key_agent, key_begin, key_rival, key_theirs = jax.random.split(key, 4)
    copies = _for_workers(student, task.level)
    # An agent that starts at an age above 0 is untrained, but n/N is that after `age` updates.
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
    """Continue the episodes of n agents for T steps; return rollouts [n, T, W] and the new carry.

    Args:
        student: The student that the agents belong to.
        keys: Random keys, [n].
        learner: Actor that the states belong to.
        states: States of the agents, [n, ...].
        level: Level of each agent, [n, ...].
        running: Running episodes of each agent's workers, [n, W, ...].
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
    """Update antagonists K times, in slots with a new level and a complete lifetime.

    For a replayed level, the antagonist's return is already known. In slots with an incomplete
    lifetime, results are not used.
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
    """Evaluate the agents whose lifetime has `ended`, and return results and env steps used.

    The returns of other agents and of untrained antagonists are not computed and are NaN.
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
    """Replace states that are not finite by zeros, and return which agents diverged.

    If the state of an agent or of its antagonist has a value that is not finite, the agent is
    marked as diverged and its lifetime as incomplete. The results of a diverged agent are not used.
    """
    diverged = _has_nonfinite(population.agents, population.age) | _has_nonfinite(
        population.antagonists, population.age
    )
    # The zeros are placeholders, because a diverged agent is replaced at the next update.
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
    """Reshape rollouts [N, T, W] of N agents to one rollout [1, W T, N], one worker after another.

    Scores of levels read this format. If the last step of a worker does not terminate an episode,
    this step is marked as truncated, so that no episode spans two workers.
    """
    num_steps = last.reward.shape[1]
    # With `bootstrap_truncation`, a truncated step is bootstrapped from its own `next_value`.
    at_end = (jnp.arange(num_steps) == num_steps - 1)[None, :, None]
    at_start = (jnp.arange(num_steps) == 0)[None, :, None]
    last = last._replace(
        obs=(),
        carry=(),
        last_obs=(),
        first=last.first | at_start,
        truncated=last.truncated | (at_end & ~last.terminated),
    )
    # [N, T, W] -> [W, T, N] -> [1, W T, N]; the first axis is the population axis of scores.
    return jax.tree.map(lambda x: x.transpose(2, 1, 0).reshape(1, -1, x.shape[0]), last)


def _for_workers(student: MetaGradient, level: PyTree) -> PyTree:
    """Repeat one level for W workers, [W, 1, ...]."""
    shape = (student.num_workers, 1)
    return jax.tree.map(lambda x: jnp.broadcast_to(x, shape + jnp.shape(x)), level)


def _inner_loop_metrics(
    last: Rollout, entropy: Array, target_rms: Array, critic_loss: Array, share: Float[Array, " N"]
) -> Metrics:
    """Return means over the agents, weighted by `share`.

    Args:
        last: Rollouts of the meta-loss, [N, T, W].
        entropy: Policy entropy, [N].
        target_rms: Root mean square of π̂, [N].
        critic_loss: Loss of the critic, [N].
        share: Weight of each agent, [N].
    """

    # Agents whose statistics are not finite have diverged and are excluded.
    def mean(x: Array) -> Array:
        return jnp.where(jnp.isfinite(x), share * x, 0.0).sum()

    return {
        "reward": mean(last.reward.mean((1, 2))),
        "policy_entropy": mean(entropy),
        "target_rms": mean(target_rms),
        "critic_loss": mean(critic_loss),
    }


def _lifetime_metrics(lifetimes: LifetimeResults, done: Bool[Array, " N"]) -> Metrics:
    """Return the number of completed lifetimes and their mean results (NaN if the number is 0).

    A lifetime is incomplete if the agent diverged, or if the agent began the run at an age above 0.
    Incomplete lifetimes are counted separately and excluded from the means.
    """
    ended = done & lifetimes.complete
    compared = ended & jnp.isfinite(lifetimes.antagonist_return)
    gap = lifetimes.antagonist_return - lifetimes.student_return
    return {
        "lifetimes_ended": ended.sum().astype(jnp.float32),
        "lifetimes_truncated": (done & ~lifetimes.complete).sum().astype(jnp.float32),
        "returns_computed": (ended.sum() + compared.sum()).astype(jnp.float32),
        "lifetime_return": lifetimes.student_return.mean(where=ended),
        "lifetime_antagonist_return": lifetimes.antagonist_return.mean(where=compared),
        "lifetime_regret": gap.mean(where=compared),
    }


def rule_student_and_score(env: LevelEnv, learner: str, score: str) -> tuple[MetaGradient, Score]:
    """Return a meta-gradient student and a score of its tasks.

    Args:
        env: Environment of the agents.
        learner: Name of the learner that serves as antagonist; "" disables antagonists.
        score: Name of the score, which is built with the agents' discounting.
    """
    agent = build_agent(env)
    antagonist = registry.make("learners", learner, env) if learner else ()
    judge = registry.make("scores", score, TaskEnv(env), lpg.build(env, agent=agent))
    return MetaGradient(env, agent, antagonist=antagonist), judge
