"""A second value for the bonus alone, with its own discount and its own notion of an episode."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from rlgen.types import Rollout


@dataclass(frozen=True)
class IntrinsicStream:
    """How the bonus is summed where it has a value of its own.

    Attributes:
        discount: γ of the bonus, per step.
        gae_lambda: λ of its advantage estimate.
        episodic: whether its return ends with the episode; else it runs on into the next ones, so
            that dying costs what could still be found.
        coef: weight of its advantage.
        extrinsic_coef: weight of the reward's advantage beside it.

    Raises:
        ValueError: a discount or λ outside [0, 1].
    Source: Burda et al., 2019, "Exploration by Random Network Distillation", 2.3; the weights are
    1 and 2 there.
    """

    discount: float = 0.99
    gae_lambda: float = 0.95
    episodic: bool = False
    coef: float = 1.0
    extrinsic_coef: float = 1.0

    def __post_init__(self):
        for name in ("discount", "gae_lambda"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"intrinsic.{name} must lie in [0, 1], got {getattr(self, name)}")

    def advantage(
        self, rollout: Rollout, values: Float[Array, "following N"]
    ) -> Float[Array, "T N"]:
        """Generalised advantage estimates of the bonus alone.

        Args:
            rollout: [T, N].
            values: [T + 1, N], the bonus's, of every observation and of what follows the last step.
                Where an episode ended, what follows is the next one's start.
        """
        follows = jnp.where(rollout.done & self.episodic, 0.0, self.discount)
        delta = rollout.bonus + follows * values[1:] - values[:-1]

        def step(advantage: Array, xs: tuple[Array, Array]) -> tuple[Array, Array]:
            delta_t, follows_t = xs
            advantage = delta_t + follows_t * self.gae_lambda * advantage
            return advantage, advantage

        start = jnp.zeros_like(delta[0])
        return jax.lax.scan(step, start, (delta, follows), reverse=True, unroll=8)[1]
