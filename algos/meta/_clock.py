"""What a rule with a clock is told of an agent's life: how much of it is over, and its length.

Source: Jackson et al., 2024, "Discovering Temporally-Aware Reinforcement Learning Algorithms".
"""

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

MIDDLE_HORIZON, HORIZON_SPREAD = 50.0, 5.0
"""Lives of 10, 50 and 250 updates are seen as -1, 0 and 1."""


def log_horizon(lifetime: Int[Array, "*B"]) -> Float[Array, "*B"]:
    """A lifetime N, in updates, as a rule sees it: log(N / 50) / log 5.

    From -1 to 1 for 10 to 250 updates, the lifetimes of TA-LPG's training, and 2.4 for 2,500.
    Differs from released code, where the inputs bear such names but are the raw counts.
    """
    return jnp.log(lifetime / MIDDLE_HORIZON) / jnp.log(HORIZON_SPREAD)


def known_lifetime(clock: bool, num_updates: int) -> int:
    """The length of a life that nobody stated but the learner's own field.

    Raises:
        ValueError: a rule with a clock needs it, and it is 0.
    """
    if clock and not num_updates:
        raise ValueError(
            "the rule sees how much of an agent's life is over: set num_updates to the number of "
            "updates that the agent will have"
        )
    return max(num_updates, 1)
