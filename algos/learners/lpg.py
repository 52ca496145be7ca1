"""An agent trained by a learned update rule.

Source: Oh et al., 2020, "Discovering Reinforcement Learning Algorithms" (LPG); the rule may come of
any meta-training (`algos/meta/`). Here it is as it was learned, and learns no more.
"""

from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from rlgen.algos.meta._agent import Agent, AgentState, build_agent
from rlgen.algos.meta._clock import known_lifetime
from rlgen.algos.meta._rule import Rule
from rlgen.algos.meta.files import UNTRAINED, load_rule, net_of, rule_keepsake
from rlgen.protocols import LevelEnv
from rlgen.types import Key, Metrics, PyTree, Rollout

_TOLD = 0x544F4C44
"""Folded into an agent's key, for what its clock is told in a control experiment."""


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
class LPG:
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

    needs_last_obs: ClassVar[bool] = True

    env: LevelEnv
    agent: Agent
    rule: str = UNTRAINED
    net: Rule = field(default_factory=Rule)
    num_updates: int = 0
    frozen_clock: bool = False
    told_horizons: tuple[int, ...] = ()

    def __post_init__(self):
        self.agent.for_rule(self.rule_net)

    @property
    def rule_net(self) -> Rule:
        """The rule without its parameters."""
        return net_of(self.rule, self.net)

    def init(self, key: Key) -> LPGState:
        """A newborn agent and the rule; an untrained one is drawn like the agent."""
        if self.rule != UNTRAINED:
            return self.init_with(key, load_rule(self.rule, Rule).params)
        key_rule, key_agent = jax.random.split(key)
        return self.init_with(key_agent, self.net.init(key_rule))

    def init_with(
        self, key: Key, rule: PyTree, lifetime: Int[Array, ""] | tuple[()] = ()
    ) -> LPGState:
        """A newborn agent that will learn by the given parameters of a rule.

        Args:
            key: consumed.
            rule: parameters.
            lifetime: updates of its life; `()` for the field `num_updates`.
        """
        if isinstance(lifetime, tuple):
            lifetime = known_lifetime(self.rule_net.clock, self.num_updates)
        agent = self._agent.init(key, lifetime)
        if self.told_horizons:
            horizons = jnp.asarray(self.told_horizons, jnp.int32)
            told = jax.random.choice(jax.random.fold_in(key, _TOLD), horizons)
            agent = agent._replace(told_lifetime=told)
        return LPGState(rule, agent)

    def for_env(self, env: LevelEnv) -> "LPG":
        """The same in another environment.

        Within its family an agent keeps its hyperparameters; elsewhere it has `build_agent`'s.
        """
        if type(env) is type(self.env):
            return replace(self, env=env, agent=replace(self.agent, env=env))
        return replace(self, env=env, agent=build_agent(env, num_predictions=0))

    def initial_carry(self, num_slots: int) -> tuple[()]:
        """Nothing is remembered from step to step."""
        return self.agent.initial_carry(num_slots)

    def act(
        self, key: Key, state: LPGState, carry: PyTree, obs: PyTree, first: Bool[Array, " N"]
    ) -> tuple[PyTree, Int[Array, " N"], Float[Array, " N"], Float[Array, " N"]]:
        """Sample an action; see `rlgen.protocols.Learner`."""
        return self.agent.act(key, state.agent, carry, obs, first)

    def value(
        self, state: LPGState, carry: PyTree, obs: PyTree, first: Bool[Array, " N"]
    ) -> Float[Array, " N"]:
        """Value of an observation; the critic serves curricula's scores, not the rule."""
        return self.agent.value(state.agent, carry, obs, first)

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

    def keepsakes(self) -> dict[str, bytes]:
        """A hash of the rule that is followed, for a run to notice if its file changes."""
        return rule_keepsake(self.rule, Rule)

    @property
    def _agent(self) -> Agent:
        return self.agent.for_rule(self.rule_net)


def build(env: LevelEnv, **fields: Any) -> LPG:
    """An agent for an environment that learns by a rule; fields of `LPG`."""
    agent = fields.pop("agent", None) or build_agent(env, num_predictions=0)
    return LPG(env, agent, **fields)


def tiny(env: LevelEnv) -> LPG:
    """The smallest instance, for tests of laws."""
    net = Rule(hidden_size=8, num_predictions=4, embedding_size=4)
    return build(env, net=net, num_updates=4)


def _without(unused: Bool[Array, " N"], rollout: Rollout) -> Rollout:
    """The rollout with zeros for whatever was paid or expected in some slots."""
    names = ("reward", "bonus", "value", "next_value")
    kept = {name: jnp.where(unused[None], 0.0, getattr(rollout, name)) for name in names}
    return rollout._replace(**kept)
