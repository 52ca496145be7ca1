"""An agent trained by PPO with a learned drift in the place of clipping.

Sources: Lu et al., 2022, "Discovered Policy Optimisation" (LPO); Jackson et al., 2024, "Discovering
Temporally-Aware Reinforcement Learning Algorithms" (TA-LPO).
"""

from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from rlgen.algos.learners.ppo import PPO, PPOState
from rlgen.algos.rules.files import UNTRAINED, RuleFollower, load_rule, net_of
from rlgen.algos.rules.networks import Drift
from rlgen.nn.actor_critic import ActorCritic
from rlgen.protocols import LevelEnv
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
class LPO(RuleFollower):
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

    def newborn(self, key: Key, rule: PyTree, lifetime: int | Int[Array, ""]) -> LPOState:
        """An agent of a known lifetime that will learn by the given parameters of a rule."""
        return LPOState(rule, self.agent.init(key), jnp.int32(lifetime))

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


def build(env: LevelEnv, **fields: Any) -> LPO:
    """PPO of a learned drift for an environment; fields of `LPO`."""
    agent = fields.pop("agent", None) or PPO(env)
    return LPO(env, agent, **fields)


def tiny(env: LevelEnv) -> LPO:
    """Return the smallest instance, for the law tests."""
    network = ActorCritic(core="none", hidden_size=8, head_size=8, conv_features=2)
    agent = PPO(env, network, learning_rate=1e-3, num_epochs=2, num_minibatches=2)
    return build(env, agent=agent, net=Drift(hidden_size=4), num_updates=4)
