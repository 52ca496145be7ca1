"""The learned drift: how dearly a policy pays for each step away from the one that collected data.

In mirror learning a policy maximises the mean of ρ A - drift(ρ, A), where ρ = π/π_old and A is the
advantage. Any drift that is never negative and, at ρ = 1, is 0 with its gradient keeps the promise
that the policy improves. PPO's clipping is one such drift; here a network says another.

Sources: Kuba et al., 2022, "Mirror Learning: A Unifying Framework of Policy Optimisation"; Lu et
al., 2022, "Discovered Policy Optimisation" (LPO); Jackson et al., 2024, "Discovering
Temporally-Aware Reinforcement Learning Algorithms" (TA-LPO).
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from rlgen.types import Key, PyTree

MARGIN = 1e-4
"""Outputs of the network nearer to 0 than this count as 0: no drift around a ratio of 1."""


@dataclass(frozen=True)
class Drift:
    """A network without biases, of features that are all 0 at ρ = 1. Its parameters stand apart.

    The features are l = log ρ, l², 1 - ρ, (1 - ρ)², and A times each of them. With a clock there
    are the same eight times n/N as well; log N would not vanish at ρ = 1.

    Attributes:
        hidden_size: units of the one hidden layer.
        on_clipping: add PPO's clipping to the network's output, and begin with a network whose
            output is 0: the search begins at PPO.
        clip: ε of that clipping.
        clock: whether the drift depends on the part of its life that the agent has lived.

    Raises:
        ValueError: a size below 1, or a clip that is not above 0.
    Differs from released code: the margin is taken off the network's output on both sides, not off
    the sum with PPO's drift, which it made smaller than PPO's.
    """

    hidden_size: int = 128
    on_clipping: bool = True
    clip: float = 0.2
    clock: bool = False

    is_even = True
    """Parameters p and -p are the same drift, as tanh is odd and no layer has a bias."""

    def __post_init__(self):
        if self.hidden_size < 1:
            raise ValueError(f"a drift's hidden_size must be at least 1, got {self.hidden_size}")
        if not self.clip > 0:
            raise ValueError(f"a drift's clip must be above 0, got {self.clip}")

    def init(self, key: Key) -> PyTree:
        """Parameters: 1,152 by default, 2,176 with a clock, as in the papers."""
        key_hidden, key_out = jax.random.split(key)
        lecun = jax.nn.initializers.lecun_normal()
        num_inputs = 16 if self.clock else 8
        hidden = lecun(key_hidden, (num_inputs, self.hidden_size), jnp.float32)
        if self.on_clipping:
            return {"hidden": hidden, "out": jnp.zeros((self.hidden_size, 1))}
        return {"hidden": hidden, "out": lecun(key_out, (self.hidden_size, 1), jnp.float32)}

    def __call__(
        self,
        params: PyTree,
        log_ratio: Float[Array, "*B"],
        advantage: Float[Array, "*B"],
        life_used: float | Float[Array, ""] = 0.0,
    ) -> Float[Array, "*B"]:
        """The drift of every step, 0 or more.

        Args:
            params: from `init`.
            log_ratio: log ρ.
            advantage: A, normalised.
            life_used: n/N, of the one agent; read with a clock only.
        """
        ratio = jnp.exp(log_ratio)
        own = [log_ratio, log_ratio**2, 1 - ratio, (1 - ratio) ** 2]
        features = jnp.stack([*own, *(advantage * x for x in own)], axis=-1)
        if self.clock:
            features = jnp.concatenate([features, life_used * features], axis=-1)
        # The last axis goes before anything is added: [B, 1] + [B] would be [B, B].
        out = (jnp.tanh(features @ params["hidden"]) @ params["out"])[..., 0]
        out = jnp.sign(out) * jax.nn.relu(jnp.abs(out) - MARGIN)
        if self.on_clipping:
            out += clipping_drift(ratio, advantage, self.clip)
        return jax.nn.relu(out)


def clipping_drift(
    ratio: Float[Array, "*B"], advantage: Float[Array, "*B"], clip: float
) -> Float[Array, "*B"]:
    """PPO's: what ρ A exceeds its clipped value by.

    Source: Schulman et al., 2017, "Proximal Policy Optimization Algorithms", equation 7, as a
    drift.
    """
    return jax.nn.relu((ratio - jnp.clip(ratio, 1 - clip, 1 + clip)) * advantage)
