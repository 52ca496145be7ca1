"""Discovered policy optimisation (DPO): PPO with a closed-form drift function in place of clipping.

A drift function penalises changes from the policy that collected the data. Lu et al. fitted the
closed form to a drift network that they had learned by meta-training (LPO, see `lpo`).

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
    """Drift function in closed form, as in Lu et al.

    Let ρ be the importance ratio and A the advantage. For good actions (A ≥ 0), the drift is
    relu((ρ - 1) A - α tanh((ρ - 1) A / α)). For bad actions (A < 0), the drift is
    relu(A log ρ - β tanh(A log ρ / β)). The drift penalises good actions that become likelier and
    bad actions that become less likely. With the default coefficients, the penalty is weaker for
    good actions. The drift and its gradient are 0 at ρ = 1.

    Attributes:
        alpha: Coefficient α for good actions, A ≥ 0.
        beta: Coefficient β for bad actions, A < 0.

    Raises:
        ValueError: If a coefficient is not above 0.
    """

    alpha: float = 2.0
    beta: float = 0.6

    def __post_init__(self):
        check_numbers(self, "alpha", "beta", above=0, owner="surrogate.")

    def __call__(
        self, log_ratio: Float[Array, "*B"], advantage: Float[Array, "*B"]
    ) -> Float[Array, "*B"]:
        """Return the surrogate objective, ρ A minus the drift."""
        ratio = jnp.exp(log_ratio)
        return ratio * advantage - self.drift(log_ratio, advantage)

    def drift(
        self, log_ratio: Float[Array, "*B"], advantage: Float[Array, "*B"]
    ) -> Float[Array, "*B"]:
        """Return the drift of each step, which is at least 0."""
        # Near x = 0, x - c tanh(x / c) is about x³ / (3 c²). For x < 0 the difference is negative,
        # so relu returns 0.
        good = (jnp.exp(log_ratio) - 1) * advantage
        bad = log_ratio * advantage
        # If A ≥ 0, ρ > 1 and x = (ρ - 1) A, the derivative of the surrogate with respect to ρ is
        # A / cosh²(x / α). It decreases smoothly, whereas PPO's clipping sets the derivative to 0
        # at a fixed ratio.
        for_good = jax.nn.relu(good - self.alpha * jnp.tanh(good / self.alpha))
        for_bad = jax.nn.relu(bad - self.beta * jnp.tanh(bad / self.beta))
        return jnp.where(advantage >= 0, for_good, for_bad)


def build(env: LevelEnv, **fields: Any) -> PPO:
    """Return feed-forward PPO with `DiscoveredDrift` for an environment."""
    fields.setdefault("surrogate", DiscoveredDrift())
    return PPO(env, **fields)


def tiny(env: LevelEnv) -> PPO:
    """Return the smallest instance, for the tests in `tests/laws`."""
    network = ActorCritic(core="none", hidden_size=8, head_size=8, conv_features=2)
    return build(env, network=network, learning_rate=1e-3, num_epochs=2, num_minibatches=2)
