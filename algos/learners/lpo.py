"""LPO: a PPO agent trained with a learned drift function in place of clipping.

A drift function penalises changes from the policy that collected the data. The parameters of the
drift function are called a rule. They stay fixed here; `rlgen.algos.meta` trains them.

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
    """An agent and the parameters of its drift function."""

    rule: PyTree  # parameters of the drift function; constant
    agent: PPOState
    lifetime: Int[Array, ""]  # N, number of updates in the agent's lifetime

    @property
    def params(self) -> PyTree:
        """Trained parameters: those of the agent."""
        return self.agent.params


class Surrogate(NamedTuple):
    """Surrogate objective ρ A minus the learned drift, after n of the N updates of a lifetime."""

    net: Drift
    params: PyTree
    life_used: Float[Array, ""]  # n/N

    def __call__(
        self, log_ratio: Float[Array, "*B"], advantage: Float[Array, "*B"]
    ) -> Float[Array, "*B"]:
        """Return the surrogate of each step."""
        drift = self.net(self.params, log_ratio, advantage, self.life_used)
        return jnp.exp(log_ratio) * advantage - drift


@dataclass(frozen=True)
class LPO(RuleFollower):
    """PPO whose surrogate objective uses a learned drift function.

    Attributes:
        agent: PPO agent that acts and is trained; its clipping is replaced by the learned drift.
        rule: Run folder of meta-training, a `.npz` file, the name of a rule that ships with
            rlgen, or `untrained`.
        net: Sizes of an untrained rule; a learned rule has its own sizes.
        num_updates: Number of updates in the agent's lifetime, which `rlgen train` computes from
            `--steps`. Rules with a clock need this number, because the used fraction of the
            lifetime is one of their inputs.

    Raises:
        ValueError: If the rule cannot be loaded, is not a drift function, or does not fit `net`.
            `init` raises a ValueError if the rule has a clock and `num_updates` is 0.
    """

    env: LevelEnv
    agent: PPO
    rule: str = UNTRAINED
    net: Drift = field(default_factory=Drift)
    num_updates: int = 0

    def __post_init__(self):
        net_of(self.rule, self.net)  # raises if the rule does not fit

    @property
    def bptt_steps(self) -> int:
        """Sequence length of the agent."""
        return self.agent.bptt_steps

    @property
    def reads(self) -> frozenset[str]:
        """Optional rollout fields that the agent needs."""
        return self.agent.reads

    @property
    def least_slots(self) -> int:
        """Smallest number of slots that the agent supports."""
        return self.agent.least_slots

    def discounting(self) -> dict[str, Any]:
        """Return the agent's settings for advantage estimation."""
        return self.agent.discounting()

    def check(self, num_steps: int, num_slots: int) -> None:
        """Check that the agent supports rollouts of this size."""
        self.agent.check(num_steps, num_slots)

    def spanning(self, num_updates: int) -> "LPO":
        """Return a copy whose agent has a lifetime of `num_updates` updates."""
        return replace(self, num_updates=num_updates, agent=self.agent.spanning(num_updates))

    def without_schedule(self) -> "LPO":
        """Return a copy whose agent has a constant learning rate."""
        return replace(self, agent=self.agent.without_schedule())

    def for_env(self, env: LevelEnv) -> "LPO":
        """Return a copy for another environment."""
        return replace(self, env=env, agent=replace(self.agent, env=env))

    def init(self, key: Key) -> LPOState:
        """Return a new agent and its rule; an untrained rule is initialised from the same key."""
        if self.rule != UNTRAINED:
            return self.init_with(key, load_rule(self.rule, Drift).params)
        # The agent's key is not split, so that the agent is bit-identical to an agent of PPO.
        return self.init_with(key, self.net.init(jax.random.fold_in(key, 1)))

    def newborn(self, key: Key, rule: PyTree, lifetime: int | Int[Array, ""]) -> LPOState:
        """Return a new agent with the given rule parameters and lifetime."""
        return LPOState(rule, self.agent.init(key), jnp.int32(lifetime))

    def update(
        self, key: Key, state: LPOState, rollout: Rollout, weight: Float[Array, " N"]
    ) -> tuple[LPOState, Metrics]:
        """Train the agent on one rollout [T, N] by PPO's epochs with the learned drift."""
        life_used = state.agent.num_updates / state.lifetime  # n/N, constant over the epochs
        # The surrogate is set here and not at construction, because it contains traced parameters.
        surrogate = Surrogate(self.rule_net, state.rule, life_used)
        agent, metrics = replace(self.agent, surrogate=surrogate).update(
            key, state.agent, rollout, weight
        )
        return state._replace(agent=agent), metrics


def build(env: LevelEnv, **fields: Any) -> LPO:
    """Return LPO for an environment; `fields` are those of `LPO`."""
    agent = fields.pop("agent", None) or PPO(env)
    return LPO(env, agent, **fields)


def tiny(env: LevelEnv) -> LPO:
    """Return the smallest instance, for the tests in `tests/laws`."""
    network = ActorCritic(core="none", hidden_size=8, head_size=8, conv_features=2)
    agent = PPO(env, network, learning_rate=1e-3, num_epochs=2, num_minibatches=2)
    return build(env, agent=agent, net=Drift(hidden_size=4), num_updates=4)
