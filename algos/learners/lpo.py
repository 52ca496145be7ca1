"""An agent trained by PPO with a learned drift in the place of clipping.

Sources: Lu et al., 2022, "Discovered Policy Optimisation" (LPO); Jackson et al., 2024, "Discovering
Temporally-Aware Reinforcement Learning Algorithms" (TA-LPO).
"""

from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from rlgen.algos.learners.ppo import PPO, PPOState
from rlgen.algos.rules.files import UNTRAINED, load_rule, net_of, rule_pinned_file
from rlgen.algos.rules.networks import Drift, known_lifetime
from rlgen.nn.actor_critic import ActorCritic
from rlgen.protocols import LevelEnv, RuleLearner
from rlgen.types import Key, Metrics, PyTree, Rollout


class LPOState(NamedTuple):
    """An agent and the drift it learns by."""

    rule: PyTree  # constant
    agent: PPOState
    lifetime: Int[Array, ""]  # N, updates that the agent will have

    @property
    def params(self) -> PyTree:
        """What is trained."""
        return self.agent.params


class Surrogate(NamedTuple):
    """ρ A less the drift, of one agent at one time."""

    net: Drift
    params: PyTree
    life_used: Float[Array, ""]

    def __call__(
        self, log_ratio: Float[Array, "*B"], advantage: Float[Array, "*B"]
    ) -> Float[Array, "*B"]:
        """The surrogate of every step."""
        drift = self.net(self.params, log_ratio, advantage, self.life_used)
        return jnp.exp(log_ratio) * advantage - drift


@dataclass(frozen=True)
class LPO(RuleLearner):
    """PPO whose surrogate is a rule's.

    Attributes:
        agent: who acts and learns; its clipping is the rule's business.
        rule: a run of meta-training, a `.npz` file, the name of a rule that ships with rlgen, or
            `untrained`.
        net: sizes of an untrained rule; a learned one has its own.
        num_updates: of the agent's life, for a rule with a clock; `rlgen train` sets it from
            `--steps`.

    Raises:
        ValueError: the rule cannot be loaded, is none of drifts, or does not fit `net`; at `init`,
            a rule with a clock and a life of unknown length.
    """

    env: LevelEnv
    agent: PPO
    rule: str = UNTRAINED
    net: Drift = field(default_factory=Drift)
    num_updates: int = 0

    def __post_init__(self):
        net_of(self.rule, self.net)  # refuses what does not fit

    @property
    def rule_net(self) -> Drift:
        """The drift without its parameters."""
        return net_of(self.rule, self.net)

    @property
    def bptt_steps(self) -> int:
        """The agent's."""
        return self.agent.bptt_steps

    @property
    def reads(self) -> frozenset[str]:
        """What the agent reads."""
        return self.agent.reads

    @property
    def least_slots(self) -> int:
        """The agent's."""
        return self.agent.least_slots

    def discounting(self) -> dict[str, Any]:
        """The agent's."""
        return self.agent.discounting()

    def check(self, num_steps: int, num_slots: int) -> None:
        """Refuse rollouts that the agent refuses."""
        self.agent.check(num_steps, num_slots)

    def spanning(self, num_updates: int) -> "LPO":
        """The same, whose agent learns from so many updates."""
        return replace(self, num_updates=num_updates, agent=self.agent.spanning(num_updates))

    def without_schedule(self) -> "LPO":
        """The same, its agent with a constant learning rate."""
        return replace(self, agent=self.agent.without_schedule())

    def for_env(self, env: LevelEnv) -> "LPO":
        """The same in another environment."""
        return replace(self, env=env, agent=replace(self.agent, env=env))

    def init(self, key: Key) -> LPOState:
        """A newborn agent and the rule; an untrained one is drawn like the agent."""
        if self.rule != UNTRAINED:
            return self.init_with(key, load_rule(self.rule, Drift).params)
        # The rule's key is not the agent's, so that the agent is PPO's to the bit.
        return self.init_with(key, self.net.init(jax.random.fold_in(key, 1)))

    def init_with(
        self, key: Key, rule: PyTree, lifetime: Int[Array, ""] | tuple[()] = ()
    ) -> LPOState:
        """A newborn agent that will learn by the given parameters of a rule.

        Args:
            key: consumed.
            rule: parameters.
            lifetime: updates of its life; `()` for the field `num_updates`.
        """
        known = lifetime
        if isinstance(known, tuple):
            known = known_lifetime(self.rule_net.clock, self.num_updates)
        return LPOState(rule, self.agent.init(key), jnp.int32(known))

    def initial_carry(self, num_slots: int) -> PyTree:
        """Recurrent state at the start of an episode, [N, ...]."""
        return self.agent.initial_carry(num_slots)

    def act(
        self, key: Key, state: LPOState, carry: PyTree, obs: PyTree, first: Bool[Array, " N"]
    ) -> tuple[PyTree, Int[Array, " N"], Float[Array, " N"], Float[Array, " N"]]:
        """Sample an action; see `rlgen.protocols.Learner`."""
        return self.agent.act(key, state.agent, carry, obs, first)

    def value(
        self, state: LPOState, carry: PyTree, obs: PyTree, first: Bool[Array, " N"]
    ) -> Float[Array, " N"]:
        """Value of an observation."""
        return self.agent.value(state.agent, carry, obs, first)

    def update(
        self, key: Key, state: LPOState, rollout: Rollout, weight: Float[Array, " N"]
    ) -> tuple[LPOState, Metrics]:
        """Some epochs on one rollout [T, N], as PPO's."""
        life_used = state.agent.num_updates / state.lifetime
        surrogate = Surrogate(self.rule_net, state.rule, life_used)
        agent, metrics = replace(self.agent, surrogate=surrogate).update(
            key, state.agent, rollout, weight
        )
        return state._replace(agent=agent), metrics

    def pinned_files(self) -> dict[str, bytes]:
        """A hash of the rule that is followed, for a run to notice if its file changes."""
        return rule_pinned_file(self.rule, Drift)


def build(env: LevelEnv, **fields: Any) -> LPO:
    """PPO of a learned drift for an environment; fields of `LPO`."""
    agent = fields.pop("agent", None) or PPO(env)
    return LPO(env, agent, **fields)


def tiny(env: LevelEnv) -> LPO:
    """The smallest instance, for tests of laws."""
    network = ActorCritic(core="none", hidden_size=8, head_size=8, conv_features=2)
    agent = PPO(env, network, learning_rate=1e-3, num_epochs=2, num_minibatches=2)
    return build(env, agent=agent, net=Drift(hidden_size=4), num_updates=4)
