"""LPG: an agent trained by a learned update rule; the rule's parameters stay fixed here.

The rule is a network that reads a rollout. For each step it outputs a target π̂ for the policy and a
target ŷ for the agent's prediction y. The prediction is a vector of m probabilities that the agent
outputs for each observation; the rule determines its meaning. `Agent` makes the updates, also
during meta-training (`rlgen.algos.meta`). `LPG` is the learner that applies a trained rule.

Source: Oh et al., 2020, "Discovering Reinforcement Learning Algorithms" (LPG).
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
"""Number folded into an agent's key to sample `told_lifetime` in a control experiment."""


class AgentState(NamedTuple):
    """Parameters and optimiser states of one agent."""

    actor: PyTree  # observation -> logits of A actions
    bootstrap: PyTree  # observation -> logits of the prediction y, m categories
    critic: PyTree  # observation -> value; the rule does not read it
    actor_opt: PyTree
    bootstrap_opt: PyTree
    critic_opt: PyTree
    num_updates: Int[Array, ""]  # n, number of updates so far in this lifetime
    lifetime: Int[Array, ""]  # N, number of updates in the whole lifetime
    told_lifetime: Int[Array, ""]  # N as the rule's input; may be wrong in control experiments


class AgentStats(NamedTuple):
    """Differentiable statistics of an update, as means over the batch."""

    entropy: Float[Array, ""]  # of the policy after the update, nats
    prediction_entropy: Float[Array, ""]  # of y after the update, nats
    kl: Float[Array, ""]  # KL(y ‖ ŷ) before the update, nats
    loss: Float[Array, ""]  # the agent's loss before the update


@dataclass(frozen=True)
class Agent(Actor):
    """Agent that is updated towards the targets of a rule.

    The agent plays in W slots, which are called its workers. An update is one gradient step on
    -mean(π̂ log π(a|s)) + kl_coef · mean KL(y(s) ‖ ŷ). The targets π̂ and ŷ are constants of this
    loss. The gradient is written in closed form rather than obtained by differentiation. A
    derivative of the update with respect to the targets then needs only one ordinary reverse pass.

    Attributes:
        network: Architecture of three separate networks: the policy, the prediction y and the
            critic.
        optimizer: Optimiser of each of the three networks.
        learning_rate: Step size of the policy.
        bootstrap_learning_rate: Step size of the prediction.
        critic_learning_rate: Step size of the critic.
        kl_coef: Weight α_y of the prediction's loss.
        discount: Discount γ per step.
        gae_lambda: λ of the generalised advantage estimate and of the critic's targets.
        bootstrap_truncation: Whether the critic's targets are bootstrapped where an episode is
            truncated at the time limit; if false, truncation is treated as termination. The rule
            does not distinguish truncation from termination.
        num_predictions: Size m of the prediction vector; with 0, the rule determines the size.

    Raises:
        ValueError: If a field is out of range, the environment's actions are continuous, or the
            network does not fit the environment's observations.
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
    num_predictions: int = field(default=8, metadata={"config": False})  # set by the rule

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
        # A softmax over one category is constant and would carry no information.
        wrong = self.num_predictions < 0 or self.num_predictions == 1
        _refuse(wrong, "num_predictions", self.num_predictions, "at least 2, or 0 for the rule's")

    def for_rule(self, rule: Rule) -> "Agent":
        """Return a copy whose prediction vector has the size that the rule needs.

        Raises:
            ValueError: If `num_predictions` of this agent is neither 0 nor the size that the rule
                needs.
        """
        if self.num_predictions not in (0, rule.num_predictions):
            raise ValueError(
                f"the agent has num_predictions={self.num_predictions}, but the rule has "
                f"num_predictions={rule.num_predictions}; set it to 0 for the agent, which then "
                "uses the rule's value"
            )
        return dataclasses.replace(self, num_predictions=rule.num_predictions)

    def init(self, key: Key, lifetime: int | Int[Array, ""] = 1) -> AgentState:
        """Return a new agent.

        Args:
            key: Random key.
            lifetime: Number N of updates in the agent's lifetime. Only rules that have N as an
                input (rules with a clock) use this number.

        Raises:
            ValueError: If `num_predictions` is 0.
        """
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
        """Return an empty carry, because the agent has no memory."""
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
        """Return the critic's value of each observation."""
        del carry, first
        return self.network.apply(self.env, state.critic, obs)[:, 0]

    def log_policy(self, state: AgentState, obs: PyTree) -> Float[Array, "B A"]:
        """Return the log-probabilities of all actions."""
        return jax.nn.log_softmax(self.network.apply(self.env, state.actor, obs))

    def inputs(self, state: AgentState, rollout: Rollout) -> RuleInputs:
        """Compute the rule's inputs from a rollout [T, W] of this agent; differentiable in `state`.

        The policy π and the prediction y are recomputed with the current parameters, so that
        meta-gradients pass through π and y.
        """
        num_steps, num_workers = rollout.reward.shape
        log_pi = self.log_policy(state, _flat(rollout.obs)).reshape(num_steps, num_workers, -1)
        every_obs = jax.tree.map(
            lambda x, last: jnp.concatenate([x, last]), rollout.obs, rollout.last_obs
        )
        logits = self.network.apply(self.env, state.bootstrap, _flat(every_obs))
        # [T + 1, W, m]. If step t ended an episode, y[t + 1] belongs to the next episode, and the
        # rule masks it.
        y = jax.nn.softmax(logits).reshape(num_steps + 1, num_workers, -1)
        return RuleInputs(
            # The agent's reward includes the bonus. Scores of levels read the extrinsic reward.
            reward=rollout.reward + rollout.bonus,
            done=rollout.done,
            # A probability rather than its logarithm, as in Oh et al.
            action_prob=jnp.exp(_chosen(log_pi, rollout.action)),
            prediction=y[:-1],
            next_prediction=y[1:],
            discount=jnp.full_like(rollout.reward, self.discount),
            # n/N uses the true lifetime. The control experiment `told_horizons` changes only log N.
            life_used=jnp.full_like(rollout.reward, state.num_updates / state.lifetime),
            log_horizon=jnp.full_like(rollout.reward, log_horizon(state.told_lifetime)),
        )

    def learn(
        self, state: AgentState, rollout: Rollout, targets: Targets, weight: Float[Array, " W"]
    ) -> tuple[AgentState, AgentStats]:
        """Make one gradient step towards the targets; differentiable in `state` and `targets`.

        For a batch of B steps with equal weights, the gradient with respect to logit k of the
        policy is -π̂ (1[k = a] - π_k) / B. The gradient with respect to logit j of the prediction
        is α_y y_j (log y_j - log ŷ_j - KL) / B. Each gradient is multiplied by the Jacobian of the
        network that returns these logits.

        Args:
            state: State of one agent.
            rollout: Rollout [T, W] of this agent.
            targets: Targets of the rule, [T, W].
            weight: Weight of each of the W workers (slots). Weights are normalised to sum 1, and at
                least one weight must be above 0.

        Returns:
            The state after the step, with the critic unchanged, and statistics of the update.
        """
        # One vjp per network maps the gradient with respect to the logits to the gradient with
        # respect to the parameters. Differentiation is therefore not nested.
        obs, share = _flat(rollout.obs), _share(weight, rollout.reward.shape[0])
        # All arrays are flattened to B = T W rows. `share` sums to 1, so weighted sums are means.
        target = _flat(targets)
        logits, to_actor = jax.vjp(lambda p: self.network.apply(self.env, p, obs), state.actor)
        u, to_bootstrap = jax.vjp(lambda p: self.network.apply(self.env, p, obs), state.bootstrap)
        gain, d_logits = _policy_signal(logits, _flat(rollout.action), target.policy)
        kl, d_u = _prediction_signal(u, target.log_prediction)
        # `share` is applied to the cotangents, since a vjp is linear in them.
        grad_actor = to_actor(share[:, None] * d_logits)[0]
        grad_bootstrap = to_bootstrap(self.kl_coef * share[:, None] * d_u)[0]

        # The two networks have separate optimiser states, so each gradient is clipped by its norm.
        step, rates = self.optimizer.step, (self.learning_rate, self.bootstrap_learning_rate)
        actor, actor_opt = step(state.actor, state.actor_opt, grad_actor, rates[0])
        bootstrap, bootstrap_opt = step(
            state.bootstrap, state.bootstrap_opt, grad_bootstrap, rates[1]
        )
        stats = AgentStats(
            # Entropies are those after the step: the meta-loss regularises the updated networks,
            # and its gradient reaches the targets through the step.
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
        """Return the loss that `learn` minimises, as a function of the parameters; for tests."""
        obs, share = _flat(rollout.obs), _share(weight, rollout.reward.shape[0])
        hat, log_y_hat = _flat(targets)
        log_pi = jax.nn.log_softmax(self.network.apply(self.env, actor, obs))
        log_y = jax.nn.log_softmax(self.network.apply(self.env, bootstrap, obs))
        # KL(y ‖ ŷ), with the agent's prediction as the first argument.
        kl = (jnp.exp(log_y) * (log_y - log_y_hat)).sum(-1)
        gain = hat * _chosen(log_pi, _flat(rollout.action))
        return (share * (self.kl_coef * kl - gain)).sum()

    def advantage(self, rollout: Rollout) -> Float[Array, "T W"]:
        """Return generalised advantage estimates from the values recorded in the rollout."""
        return gae(rollout, self.discount, self.gae_lambda, self.bootstrap_truncation)

    def learn_critic(
        self, state: AgentState, rollout: Rollout, weight: Float[Array, " W"]
    ) -> tuple[AgentState, Float[Array, ""]]:
        """Make one gradient step of the critic on the mean squared error of its values.

        Differs from the code released with GROOVE (Jackson et al., 2023), in which the gradient of
        the critic is always 0.

        Returns:
            The state after the step, and the mean squared error before the step.
        """
        obs, share = _flat(rollout.obs), _share(weight, rollout.reward.shape[0])
        # The λ-return A + v uses the values recorded in the rollout, so it is a constant.
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
    """Return an agent with tables for enumerable observations, and with networks for others.

    Tables are trained by clipped gradient descent with step sizes 40 (policy), 4 (prediction) and 4
    (critic), as in the code released with GROOVE (Jackson et al., 2023). Networks are trained by
    Adam with step size 1e-3.

    Args:
        env: Environment with discrete actions.
        fields: Fields of `Agent` that replace these defaults.

    Raises:
        ValueError: As in `Agent`.
    """
    network = fields.pop("network", None) or approximator_for(env)
    # Gradients are clipped to norm 0.5, so with step size 40 the table changes by a norm of at most
    # 20 per update.
    defaults: dict[str, object] = {"optimizer": Optimizer(kind="sgd", max_grad_norm=0.5)}
    if not isinstance(network, Table):
        rates = ("learning_rate", "bootstrap_learning_rate", "critic_learning_rate")
        defaults = dict.fromkeys(rates, 1e-3)
        defaults["optimizer"] = Optimizer(kind="adam", max_grad_norm=0.5)
    return Agent(env, network, **(defaults | fields))  # pyright: ignore[reportArgumentType]


def _policy_signal(
    logits: Float[Array, "B A"], action: Int[Array, " B"], hat: Float[Array, " B"]
) -> tuple[Float[Array, " B"], Float[Array, "B A"]]:
    """Return π̂ log π(a|s) of each step, and the gradient of -π̂ log π(a|s) in the logits."""
    log_pi = jax.nn.log_softmax(logits)
    # ∂ log π(a) / ∂ logit_k = 1[k = a] - π_k.
    direction = jax.nn.one_hot(action, logits.shape[-1]) - jnp.exp(log_pi)
    return hat * _chosen(log_pi, action), -hat[:, None] * direction


def _prediction_signal(
    logits: Float[Array, "B m"], log_target: Float[Array, "B m"]
) -> tuple[Float[Array, " B"], Float[Array, "B m"]]:
    """Return KL(y ‖ ŷ) of each step, and the gradient of KL(y ‖ ŷ) in the logits of y."""
    log_y = jax.nn.log_softmax(logits)
    excess = log_y - log_target
    # With logits u of y, ∂KL/∂u_j = Σ_k ∂y_k/∂u_j (excess_k + 1). The 1 drops out because Σ_k y_k
    # is constant, and ∂y_k/∂u_j = y_k (1[k = j] - y_j) leaves y_j (excess_j - KL).
    kl = (jnp.exp(log_y) * excess).sum(-1)
    return kl, jnp.exp(log_y) * (excess - kl[:, None])


def _flat(tree: PyTree) -> PyTree:
    """Flatten [T, W, ...] to [T W, ...]."""
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), tree)


def _share(weight: Float[Array, " W"], num_steps: int) -> Float[Array, " TW"]:
    """Return the weight of each step in the flattened batch; the weights sum to 1."""
    share = weight / (jnp.maximum(weight.sum(), 1e-8) * num_steps)
    # `_flat` merges [T, W] with workers last, so the W weights are repeated T times.
    return jnp.tile(share, num_steps)


def _chosen(log_pi: Float[Array, "*B A"], action: Int[Array, "*B"]) -> Float[Array, "*B"]:
    # A mask is used because the derivative of a gather would be a scatter. `where` also avoids
    # 0 · (−inf) at impossible actions.
    chosen = jax.nn.one_hot(action, log_pi.shape[-1], dtype=bool)
    return jnp.where(chosen, log_pi, 0.0).sum(-1)


def _refuse(wrong: bool, name: str, value: object, allowed: str) -> None:
    if wrong:
        raise ValueError(f"the agent's {name} must be {allowed}, got {value}")


class LPGState(NamedTuple):
    """An agent and the parameters of its update rule."""

    rule: PyTree  # parameters of the rule; constant
    agent: AgentState

    @property
    def params(self) -> dict[str, PyTree]:
        """Trained parameters of the agent."""
        agent = self.agent
        return {"actor": agent.actor, "bootstrap": agent.bootstrap, "critic": agent.critic}


@dataclass(frozen=True)
class LPG(RuleFollower):
    """Learner that applies a learned update rule once per rollout.

    The rollout's slots are the workers of one agent. A bonus is added to the reward. A rule with a
    clock has two more inputs: the used fraction n/N of the agent's lifetime after n of N updates,
    and a scaled log N.

    Attributes:
        agent: Agent that acts and is trained; the rule determines the size of its prediction.
        rule: Run folder of meta-training, a `.npz` file, the name of a rule that ships with
            rlgen, or `untrained`.
        net: Sizes of an untrained rule; a learned rule has its own sizes.
        num_updates: Number N of updates in the agent's lifetime, needed by a rule with a clock;
            `rlgen train` computes it from `--steps`.
        frozen_clock: Whether a rule with a clock receives n/N = 0.5 in every update, as a control
            experiment.
        told_horizons: Lifetimes for a control experiment. If the tuple is not empty, a rule with a
            clock receives the logarithm of one of these lifetimes, sampled for each agent, in place
            of log N. The input n/N remains correct.

    Raises:
        ValueError: If the rule cannot be loaded, or does not fit the agent or `net`. `init` raises
            a ValueError if the rule has a clock and `num_updates` is 0.
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
        self.agent.for_rule(self.rule_net)  # raises if the rule does not fit the agent

    def init(self, key: Key) -> LPGState:
        """Return a new agent and its rule; an untrained rule is initialised from the same key."""
        if self.rule != UNTRAINED:
            return self.init_with(key, load_rule(self.rule, Rule).params)
        key_rule, key_agent = jax.random.split(key)
        return self.init_with(key_agent, self.net.init(key_rule))

    def newborn(self, key: Key, rule: PyTree, lifetime: int | Int[Array, ""]) -> LPGState:
        """Return a new agent with the given rule parameters and lifetime."""
        agent = self._agent.init(key, lifetime)
        if self.told_horizons:
            horizons = jnp.asarray(self.told_horizons, jnp.int32)
            # The key is folded and not split, so that this option does not change the agent's
            # initial parameters.
            told = jax.random.choice(jax.random.fold_in(key, _TOLD), horizons)
            agent = agent._replace(told_lifetime=told)
        return LPGState(rule, agent)

    def spanning(self, num_updates: int) -> "LPG":
        """Return a copy whose agent has a lifetime of `num_updates` updates."""
        return replace(self, num_updates=num_updates)

    def discounting(self) -> dict[str, Any]:
        """Return the agent's settings for advantage estimation."""
        return discounting(self.agent)

    def for_env(self, env: LevelEnv) -> "LPG":
        """Return a copy for another environment.

        If the new environment is of the same family, the agent keeps its hyperparameters.
        Otherwise, the agent has the defaults of `build_agent`.
        """
        if type(env) is type(self.env):
            return replace(self, env=env, agent=replace(self.agent, env=env))
        return replace(self, env=env, agent=build_agent(env, num_predictions=0))

    def log_policy(self, state: LPGState, obs: PyTree) -> Float[Array, "B A"]:
        """Return the log-probabilities of all actions."""
        return self.agent.log_policy(state.agent, obs)

    def update(
        self, key: Key, state: LPGState, rollout: Rollout, weight: Float[Array, " N"]
    ) -> tuple[LPGState, Metrics]:
        """Make one step towards the rule's targets and one critic step on a rollout [T, N]."""
        del key
        # In slots of weight 0, values are replaced by 0, because 0 times NaN would be NaN.
        rollout = _without(weight <= 0, rollout)
        agent = self._agent
        inputs = agent.inputs(state.agent, rollout)
        if self.frozen_clock:
            inputs = inputs._replace(life_used=jnp.full_like(rollout.reward, 0.5))
        targets = self.rule_net(state.rule, inputs)
        learned, stats = agent.learn(state.agent, rollout, targets, weight)
        # The rule does not read the critic. Scores of levels use the critic's values.
        learned, critic_loss = agent.learn_critic(learned, rollout, weight)
        # [1, N]: metrics are means over steps and weighted sums over slots.
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
        """Return KL(policy before ‖ policy after) of an update at each step, in nats."""
        obs = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), rollout.obs)
        before = self.agent.log_policy(state.agent, obs)
        after = self.agent.log_policy(learned, obs)
        return (jnp.exp(before) * (before - after)).sum(-1).reshape(rollout.reward.shape)

    @property
    def _agent(self) -> Agent:
        return self.agent.for_rule(self.rule_net)


def build(env: LevelEnv, **fields: Any) -> LPG:
    """Return LPG for an environment; `fields` are those of `LPG`."""
    agent = fields.pop("agent", None) or build_agent(env, num_predictions=0)
    return LPG(env, agent, **fields)


def tiny(env: LevelEnv) -> LPG:
    """Return the smallest instance, for the tests in `tests/laws`."""
    net = Rule(hidden_size=8, num_predictions=4, embedding_size=4)
    return build(env, net=net, num_updates=4)


def _without(unused: Bool[Array, " N"], rollout: Rollout) -> Rollout:
    """Return the rollout with rewards, bonuses and values of unused slots set to 0."""
    names = ("reward", "bonus", "value", "next_value")
    kept = {name: jnp.where(unused[None], 0.0, getattr(rollout, name)) for name in names}
    return rollout._replace(**kept)
