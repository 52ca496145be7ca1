"""An agent trained by a learned update rule: `Agent` is the agent itself, `LPG` the learner.

Source: Oh et al., 2020, "Discovering Reinforcement Learning Algorithms" (LPG); the rule may come
from any meta-training (`algos/meta/`). Here it is fixed.
"""

import dataclasses
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from rlgen.algos.rules.files import UNTRAINED, RuleFollower, load_rule
from rlgen.algos.rules.networks import Rule, RuleInputs, Targets, log_horizon
from rlgen.nn import distributions
from rlgen.nn.approximators import Table, approximator_for, check_actions
from rlgen.nn.optimizers import Optimizer
from rlgen.protocols import Actor, Approximator, LevelEnv, check_numbers
from rlgen.returns import discounting, gae
from rlgen.types import Key, Metrics, PyTree, Rollout

_TOLD = 0x544F4C44
"""Folded into an agent's key, for what its clock is told in a control experiment."""


class AgentState(NamedTuple):
    """Parameters and optimisers of one agent."""

    actor: PyTree  # observation -> logits of A actions
    bootstrap: PyTree  # observation -> logits of the prediction y, m categories
    critic: PyTree  # observation -> value; of no concern to the rule
    actor_opt: PyTree
    bootstrap_opt: PyTree
    critic_opt: PyTree
    num_updates: Int[Array, ""]  # n, updates in this life
    lifetime: Int[Array, ""]  # N, updates that the life will have
    told_lifetime: Int[Array, ""]  # what a clock says of N; another number in control experiments


class AgentStats(NamedTuple):
    """What an update did, mean over the batch; differentiable like the update itself."""

    entropy: Float[Array, ""]  # of the policy after the update, nats
    prediction_entropy: Float[Array, ""]  # of y after the update, nats
    kl: Float[Array, ""]  # KL(y ‖ ŷ) before the update, nats
    loss: Float[Array, ""]  # what was descended, before the update


@dataclass(frozen=True)
class Agent(Actor):
    """Acts, tells the rule what it did, and does what the rule says.

    One gradient step of -mean(π̂ log π(a|s)) + kl_coef · mean KL(y(s) ‖ ŷ), in which π̂ and ŷ are
    constants. The step is written out, not differentiated, so that a derivative with respect to the
    targets is an ordinary reverse pass.

    Attributes:
        network: form of the policy, the prediction and the critic, one each.
        learning_rate: step size of the policy.
        bootstrap_learning_rate: step size of the prediction.
        critic_learning_rate: step size of the critic.
        kl_coef: α_y, weight of the prediction's loss.
        discount: γ, per step.
        gae_lambda: λ of the advantages and of the critic's targets.
        bootstrap_truncation: whether a time limit bootstraps in the critic's targets (`False`: it
            counts as termination). For the rule, an end is an end.
        num_predictions: m; 0 is whatever the rule has.

    Raises:
        ValueError: a field outside its range, or an environment whose actions are continuous or
            whose observations the network cannot take.
    """

    reads: ClassVar[frozenset[str]] = frozenset({"last_obs"})

    env: LevelEnv
    network: Approximator
    optimizer: Optimizer = field(default_factory=Optimizer)
    learning_rate: float = 40.0
    bootstrap_learning_rate: float = 4.0
    critic_learning_rate: float = 4.0
    kl_coef: float = 0.5
    discount: float = 0.99
    gae_lambda: float = 0.95
    bootstrap_truncation: bool = True
    num_predictions: int = field(default=8, metadata={"config": False})  # the rule's to say

    def __post_init__(self):
        check_actions(self.env)
        self.network.check(self.env)
        check_numbers(
            self,
            "learning_rate",
            "bootstrap_learning_rate",
            "critic_learning_rate",
            above=0,
            owner="the agent's ",
        )
        _refuse(not self.kl_coef >= 0, "kl_coef", self.kl_coef, "0 or more")
        check_numbers(self, "discount", "gae_lambda", least=0, most=1, owner="the agent's ")
        wrong = self.num_predictions < 0 or self.num_predictions == 1
        _refuse(wrong, "num_predictions", self.num_predictions, "at least 2, or 0 for the rule's")

    def for_rule(self, rule: Rule) -> "Agent":
        """The same agent with as many predictions as the rule has.

        Raises:
            ValueError: it was made with another number of them.
        """
        if self.num_predictions not in (0, rule.num_predictions):
            raise ValueError(
                f"the agent makes num_predictions={self.num_predictions}, but the rule was made "
                f"for {rule.num_predictions}; leave the agent's at 0 to take over the rule's"
            )
        return dataclasses.replace(self, num_predictions=rule.num_predictions)

    def init(self, key: Key, lifetime: int | Int[Array, ""] = 1) -> AgentState:
        """A newborn agent, which will have `lifetime` updates; of concern to a clock alone."""
        if self.num_predictions == 0:
            raise ValueError("the agent's num_predictions is 0: call for_rule(rule) first")
        key_actor, key_bootstrap, key_critic = jax.random.split(key, 3)
        actor = self.network.init(key_actor, self.env, self.env.num_actions)
        bootstrap = self.network.init(key_bootstrap, self.env, self.num_predictions)
        critic = self.network.init(key_critic, self.env, 1)
        start = self.optimizer.init
        opts = start(actor), start(bootstrap), start(critic)
        known = jnp.int32(lifetime)
        return AgentState(actor, bootstrap, critic, *opts, jnp.int32(0), known, known)

    def initial_carry(self, num_slots: int) -> tuple[()]:
        """Nothing is remembered from step to step."""
        del num_slots
        return ()

    def act(
        self, key: Key, state: AgentState, carry: PyTree, obs: PyTree, first: Bool[Array, " W"]
    ) -> tuple[PyTree, Int[Array, " W"], Float[Array, " W"], Float[Array, " W"]]:
        """Sample an action; see `rlgen.protocols.Learner`."""
        logits = self.network.apply(self.env, state.actor, obs)
        action = distributions.sample(key, logits)
        value = self.value(state, carry, obs, first)
        return carry, action, distributions.log_prob(logits, action), value

    def value(
        self, state: AgentState, carry: PyTree, obs: PyTree, first: Bool[Array, " W"]
    ) -> Float[Array, " W"]:
        """The critic's value of an observation."""
        del carry, first
        return self.network.apply(self.env, state.critic, obs)[:, 0]

    def log_policy(self, state: AgentState, obs: PyTree) -> Float[Array, "B A"]:
        """Log-probabilities of all actions."""
        return jax.nn.log_softmax(self.network.apply(self.env, state.actor, obs))

    def inputs(self, state: AgentState, rollout: Rollout) -> RuleInputs:
        """What the rule is told of a rollout [T, W] of this agent; differentiable in `state`."""
        num_steps, num_workers = rollout.reward.shape
        log_pi = self.log_policy(state, _flat(rollout.obs)).reshape(num_steps, num_workers, -1)
        every_obs = jax.tree.map(
            lambda x, last: jnp.concatenate([x, last]), rollout.obs, rollout.last_obs
        )
        logits = self.network.apply(self.env, state.bootstrap, _flat(every_obs))
        y = jax.nn.softmax(logits).reshape(num_steps + 1, num_workers, -1)
        return RuleInputs(
            reward=rollout.reward + rollout.bonus,
            done=rollout.done,
            action_prob=jnp.exp(_chosen(log_pi, rollout.action)),
            prediction=y[:-1],
            next_prediction=y[1:],
            discount=jnp.full_like(rollout.reward, self.discount),
            life_used=jnp.full_like(rollout.reward, state.num_updates / state.lifetime),
            log_horizon=jnp.full_like(rollout.reward, log_horizon(state.told_lifetime)),
        )

    def learn(
        self, state: AgentState, rollout: Rollout, targets: Targets, weight: Float[Array, " W"]
    ) -> tuple[AgentState, AgentStats]:
        """One step towards the targets; differentiable in `state` and `targets`.

        The gradient's closed form, of a batch of B steps with equal weights: with respect to the
        logits of the policy -π̂ (1[k = a] - π_k) / B, to those of the prediction
        α_y y_j (log y_j - log ŷ_j - KL) / B; one product with each network's Jacobian follows.

        Args:
            state: of one agent.
            rollout: [T, W], of this agent.
            targets: [T, W].
            weight: of each worker; only their ratios matter, but one must be above 0.
        """
        obs, share = _flat(rollout.obs), _share(weight, rollout.reward.shape[0])
        target = _flat(targets)
        logits, to_actor = jax.vjp(lambda p: self.network.apply(self.env, p, obs), state.actor)
        u, to_bootstrap = jax.vjp(lambda p: self.network.apply(self.env, p, obs), state.bootstrap)
        gain, d_logits = _policy_signal(logits, _flat(rollout.action), target.policy)
        kl, d_u = _prediction_signal(u, target.log_prediction)
        grad_actor = to_actor(share[:, None] * d_logits)[0]
        grad_bootstrap = to_bootstrap(self.kl_coef * share[:, None] * d_u)[0]

        step, rates = self.optimizer.step, (self.learning_rate, self.bootstrap_learning_rate)
        actor, actor_opt = step(state.actor, state.actor_opt, grad_actor, rates[0])
        bootstrap, bootstrap_opt = step(
            state.bootstrap, state.bootstrap_opt, grad_bootstrap, rates[1]
        )
        stats = AgentStats(
            entropy=(share * self._entropy(actor, obs)).sum(),
            prediction_entropy=(share * self._entropy(bootstrap, obs)).sum(),
            kl=(share * kl).sum(),
            loss=(share * (self.kl_coef * kl - gain)).sum(),
        )
        new = state._replace(actor=actor, bootstrap=bootstrap, num_updates=state.num_updates + 1)
        return new._replace(actor_opt=actor_opt, bootstrap_opt=bootstrap_opt), stats

    def loss(
        self,
        actor: PyTree,
        bootstrap: PyTree,
        rollout: Rollout,
        targets: Targets,
        weight: Float[Array, " W"],
    ) -> Float[Array, ""]:
        """What `learn` descends, as a function of the parameters; nothing but tests need it."""
        obs, share = _flat(rollout.obs), _share(weight, rollout.reward.shape[0])
        hat, log_y_hat = _flat(targets)
        log_pi = jax.nn.log_softmax(self.network.apply(self.env, actor, obs))
        log_y = jax.nn.log_softmax(self.network.apply(self.env, bootstrap, obs))
        kl = (jnp.exp(log_y) * (log_y - log_y_hat)).sum(-1)
        gain = hat * _chosen(log_pi, _flat(rollout.action))
        return (share * (self.kl_coef * kl - gain)).sum()

    def advantage(self, rollout: Rollout) -> Float[Array, "T W"]:
        """Generalised advantage estimates from the values that the critic gave while playing."""
        return gae(rollout, self.discount, self.gae_lambda, self.bootstrap_truncation)

    def learn_critic(
        self, state: AgentState, rollout: Rollout, weight: Float[Array, " W"]
    ) -> tuple[AgentState, Float[Array, ""]]:
        """One step of the critic on its mean squared error, and that error before the step.

        Differs from GROOVE's code, where the critic's gradient is identically 0.
        """
        obs, share = _flat(rollout.obs), _share(weight, rollout.reward.shape[0])
        target = _flat(self.advantage(rollout) + rollout.value)

        def error(critic: PyTree) -> Float[Array, ""]:
            value = self.network.apply(self.env, critic, obs)[:, 0]
            return (share * (value - target) ** 2).sum()

        loss, grads = jax.value_and_grad(error)(state.critic)
        critic, critic_opt = self.optimizer.step(
            state.critic, state.critic_opt, grads, self.critic_learning_rate
        )
        return state._replace(critic=critic, critic_opt=critic_opt), loss

    def _entropy(self, params: PyTree, obs: PyTree) -> Float[Array, " B"]:
        return distributions.entropy(self.network.apply(self.env, params, obs))


def build_agent(env: LevelEnv, **fields: object) -> Agent:
    """The agent for an environment: a table where its observations can be counted, else a network.

    Tables learn by clipped gradient descent with rates 40, 4 and 4, as in GROOVE's code; networks
    by Adam with rate 1e-3.

    Args:
        env: with discrete actions.
        fields: of `Agent`, instead of these.

    Raises:
        ValueError: as `Agent`.
    """
    network = fields.pop("network", None) or approximator_for(env)
    defaults: dict[str, object] = {"optimizer": Optimizer(kind="sgd", max_grad_norm=0.5)}
    if not isinstance(network, Table):
        rates = ("learning_rate", "bootstrap_learning_rate", "critic_learning_rate")
        defaults = dict.fromkeys(rates, 1e-3)
        defaults["optimizer"] = Optimizer(kind="adam", max_grad_norm=0.5)
    return Agent(env, network, **(defaults | fields))  # pyright: ignore[reportArgumentType]


def _policy_signal(
    logits: Float[Array, "B A"], action: Int[Array, " B"], hat: Float[Array, " B"]
) -> tuple[Float[Array, " B"], Float[Array, "B A"]]:
    """π̂ log π(a|s) of each step, and the derivative of its negative for the logits."""
    log_pi = jax.nn.log_softmax(logits)
    direction = jax.nn.one_hot(action, logits.shape[-1]) - jnp.exp(log_pi)
    return hat * _chosen(log_pi, action), -hat[:, None] * direction


def _prediction_signal(
    logits: Float[Array, "B m"], log_target: Float[Array, "B m"]
) -> tuple[Float[Array, " B"], Float[Array, "B m"]]:
    """KL(y ‖ ŷ) of each step, and its derivative for the logits of y."""
    log_y = jax.nn.log_softmax(logits)
    excess = log_y - log_target
    kl = (jnp.exp(log_y) * excess).sum(-1)
    return kl, jnp.exp(log_y) * (excess - kl[:, None])


def _flat(tree: PyTree) -> PyTree:
    """[T, W, ...] as one batch axis."""
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), tree)


def _share(weight: Float[Array, " W"], num_steps: int) -> Float[Array, " TW"]:
    """Of each step in the whole batch; they sum to 1."""
    share = weight / (jnp.maximum(weight.sum(), 1e-8) * num_steps)
    return jnp.tile(share, num_steps)


def _chosen(log_pi: Float[Array, "*B A"], action: Int[Array, "*B"]) -> Float[Array, "*B"]:
    chosen = jax.nn.one_hot(action, log_pi.shape[-1], dtype=bool)
    return jnp.where(chosen, log_pi, 0.0).sum(-1)


def _refuse(wrong: bool, name: str, value: object, allowed: str) -> None:
    if wrong:
        raise ValueError(f"the agent's {name} must be {allowed}, got {value}")


class LPGState(NamedTuple):
    """An agent and the rule it learns by."""

    rule: PyTree  # constant
    agent: AgentState

    @property
    def params(self) -> dict[str, PyTree]:
        """What is trained."""
        agent = self.agent
        return {"actor": agent.actor, "bootstrap": agent.bootstrap, "critic": agent.critic}


@dataclass(frozen=True)
class LPG(RuleFollower):
    """Does what a learned rule says, once a rollout.

    The rollout's slots are the workers of one agent. A bonus counts as reward.

    Attributes:
        agent: who acts and learns; makes as many predictions as the rule has.
        rule: a run of meta-training, a `.npz` file, the name of a rule that ships with rlgen, or
            `untrained`.
        net: sizes of an untrained rule; a learned one has its own.
        num_updates: of the agent's life, for a rule with a clock; `rlgen train` sets it from
            `--steps`.
        frozen_clock: control experiment: a rule with a clock is told n/N = 0.5 all through a life.
        told_horizons: control experiment: it is told one of these lifetimes, drawn for each agent,
            in place of the true N; n/N stays true.

    Raises:
        ValueError: the rule cannot be loaded, or does not fit the agent or `net`; at `init`, a rule
            with a clock and a life of unknown length.
    """

    reads: ClassVar[frozenset[str]] = frozenset({"last_obs"})

    env: LevelEnv
    agent: Agent
    rule: str = UNTRAINED
    net: Rule = field(default_factory=Rule)
    num_updates: int = 0
    frozen_clock: bool = False
    told_horizons: tuple[int, ...] = ()

    def __post_init__(self):
        self.agent.for_rule(self.rule_net)

    def init(self, key: Key) -> LPGState:
        """A newborn agent and the rule; an untrained one is drawn like the agent."""
        if self.rule != UNTRAINED:
            return self.init_with(key, load_rule(self.rule, Rule).params)
        key_rule, key_agent = jax.random.split(key)
        return self.init_with(key_agent, self.net.init(key_rule))

    def newborn(self, key: Key, rule: PyTree, lifetime: int | Int[Array, ""]) -> LPGState:
        """An agent of a known lifetime that will learn by the given parameters of a rule."""
        agent = self._agent.init(key, lifetime)
        if self.told_horizons:
            horizons = jnp.asarray(self.told_horizons, jnp.int32)
            told = jax.random.choice(jax.random.fold_in(key, _TOLD), horizons)
            agent = agent._replace(told_lifetime=told)
        return LPGState(rule, agent)

    def spanning(self, num_updates: int) -> "LPG":
        """The same, whose agent lives for so many updates."""
        return replace(self, num_updates=num_updates)

    def discounting(self) -> dict[str, Any]:
        """The agent's."""
        return discounting(self.agent)

    def for_env(self, env: LevelEnv) -> "LPG":
        """The same in another environment.

        Within its family an agent keeps its hyperparameters; elsewhere it has `build_agent`'s.
        """
        if type(env) is type(self.env):
            return replace(self, env=env, agent=replace(self.agent, env=env))
        return replace(self, env=env, agent=build_agent(env, num_predictions=0))

    def log_policy(self, state: LPGState, obs: PyTree) -> Float[Array, "B A"]:
        """Log-probabilities of all actions."""
        return self.agent.log_policy(state.agent, obs)

    def update(
        self, key: Key, state: LPGState, rollout: Rollout, weight: Float[Array, " N"]
    ) -> tuple[LPGState, Metrics]:
        """One step towards the rule's targets, and one of the critic, on a rollout [T, N]."""
        del key
        # Weights multiply, and 0 times NaN is NaN: what must not count is taken out altogether.
        rollout = _without(weight <= 0, rollout)
        agent = self._agent
        inputs = agent.inputs(state.agent, rollout)
        if self.frozen_clock:
            inputs = inputs._replace(life_used=jnp.full_like(rollout.reward, 0.5))
        targets = self.rule_net(state.rule, inputs)
        learned, stats = agent.learn(state.agent, rollout, targets, weight)
        learned, critic_loss = agent.learn_critic(learned, rollout, weight)
        share = (weight / weight.sum())[None]
        metrics = {
            **stats._asdict(),
            "critic_loss": critic_loss,
            "policy_target": (share * targets.policy).mean(0).sum(),
            "policy_target_size": (share * jnp.abs(targets.policy)).mean(0).sum(),
            "policy_step": (share * self._policy_step(state, learned, rollout)).mean(0).sum(),
        }
        return LPGState(state.rule, learned), metrics

    def _policy_step(
        self, state: LPGState, learned: AgentState, rollout: Rollout
    ) -> Float[Array, "T N"]:
        """KL(policy before ‖ policy after) of an update, where the rollout was, nats."""
        obs = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), rollout.obs)
        before = self.agent.log_policy(state.agent, obs)
        after = self.agent.log_policy(learned, obs)
        return (jnp.exp(before) * (before - after)).sum(-1).reshape(rollout.reward.shape)

    @property
    def _agent(self) -> Agent:
        return self.agent.for_rule(self.rule_net)


def build(env: LevelEnv, **fields: Any) -> LPG:
    """An agent for an environment that learns by a rule; fields of `LPG`."""
    agent = fields.pop("agent", None) or build_agent(env, num_predictions=0)
    return LPG(env, agent, **fields)


def tiny(env: LevelEnv) -> LPG:
    """Return the smallest instance, for the law tests."""
    net = Rule(hidden_size=8, num_predictions=4, embedding_size=4)
    return build(env, net=net, num_updates=4)


def _without(unused: Bool[Array, " N"], rollout: Rollout) -> Rollout:
    """The rollout with zeros for whatever was paid or expected in some slots."""
    names = ("reward", "bonus", "value", "next_value")
    kept = {name: jnp.where(unused[None], 0.0, getattr(rollout, name)) for name in names}
    return rollout._replace(**kept)
