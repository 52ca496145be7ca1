"""Discovered policy optimisation: PPO with another drift than clipping, found by LPO.

Source: Lu et al., 2022, "Discovered Policy Optimisation".
"""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from rlgen.algos.learners.ppo import PPO
from rlgen.nn.actor_critic import ActorCritic
from rlgen.protocols import LevelEnv, check_numbers


@dataclass(frozen=True)
class DiscoveredDrift:
    """The closed form that the authors read off the network that they had trained.

    Where the advantage A is 0 or more: relu((ρ - 1) A - α tanh((ρ - 1) A / α)); elsewhere
    relu(A log ρ - β tanh(A log ρ / β)). It is 0 with its gradient at ρ = 1, and tolerates likelier
    good actions longer than likelier bad ones.

    Attributes:
        alpha: α, for good actions.
        beta: β, for bad ones.

    Raises:
        ValueError: a coefficient that is not above 0.
    """

    alpha: float = 2.0
    beta: float = 0.6

    def __post_init__(self):
        check_numbers(self, "alpha", "beta", above=0, owner="surrogate.")

    def __call__(
        self, log_ratio: Float[Array, "*B"], advantage: Float[Array, "*B"]
    ) -> Float[Array, "*B"]:
        """ρ A less the drift."""
        ratio = jnp.exp(log_ratio)
        return ratio * advantage - self.drift(log_ratio, advantage)

    def drift(
        self, log_ratio: Float[Array, "*B"], advantage: Float[Array, "*B"]
    ) -> Float[Array, "*B"]:
        """What each step costs, 0 or more."""
        good = (jnp.exp(log_ratio) - 1) * advantage
        bad = log_ratio * advantage
        for_good = jax.nn.relu(good - self.alpha * jnp.tanh(good / self.alpha))
        for_bad = jax.nn.relu(bad - self.beta * jnp.tanh(bad / self.beta))
        return jnp.where(advantage >= 0, for_good, for_bad)


def build(env: LevelEnv, **fields: Any) -> PPO:
    """Feed-forward PPO for an environment, with this drift."""
    fields.setdefault("surrogate", DiscoveredDrift())
    return PPO(env, **fields)


def tiny(env: LevelEnv) -> PPO:
    """Return the smallest instance, for the law tests."""
    network = ActorCritic(core="none", hidden_size=8, head_size=8, conv_features=2)
    return build(env, network=network, learning_rate=1e-3, num_epochs=2, num_minibatches=2)
