"""RIDE: change of learned features in a step, divided by the square root of a visit count.

    b = ‖φ(s') − φ(s)‖ / √Nₑ(s')

Nₑ(s') is the number of visits to s' in the episode. The features φ are learned by an inverse and a
forward dynamics model, as in `icm`. A step that ends an episode has bonus 0.

Source: Raileanu and Rocktäschel, 2020, "RIDE: Rewarding Impact-Driven Exploration for
Procedurally-Generated Environments".
"""

from dataclasses import dataclass

import jax.numpy as jnp
from jaxtyping import Array, Float

from rlgen.algos.bonuses import encoders, episodic, icm
from rlgen.algos.bonuses.dynamics import Dynamics
from rlgen.algos.bonuses.times_counts import TimesCounts
from rlgen.algos.bonuses.training import Fit
from rlgen.protocols import Bonus, LevelEnv
from rlgen.types import Key, Metrics, Rollout

__all__ = ["RIDE", "VARIANTS", "build", "tiny"]

VARIANTS: dict[str, dict] = {"uncounted": {"counted": False}}


@dataclass(frozen=True)
class RIDE(TimesCounts):
    """Bonus from the impact of a step, ‖φ(s') − φ(s)‖, multiplied by an episodic bonus.

    Attributes:
        dynamics: Feature encoder φ with an inverse and a forward model, as in `icm`.
        discount: Episodic bonus, such as 1/√Nₑ, that multiplies the impact; `()` stands for 1.
    """

    dynamics: Dynamics
    discount: Bonus | tuple[()] = ()

    @property
    def counts(self) -> Bonus | tuple[()]:
        """The episodic bonus `discount`."""
        return self.discount

    def init_networks(self, key: Key, num_slots: int) -> Fit:
        """Return the untrained networks of `dynamics`."""
        return self.dynamics.init(key)

    def judge(
        self, key: Key, networks: Fit, rollout: Rollout, weight: Float[Array, " N"]
    ) -> tuple[Fit, Float[Array, "T N"], Metrics]:
        """Return the updated networks, ‖φ(s') − φ(s)‖ of each step, and metrics."""
        seen = self.dynamics.look(networks.params, rollout)
        phi = seen.phi.reshape(-1, rollout.first.shape[1], seen.phi.shape[-1])  # [T + 1, N, d]
        # If a step ended an episode, the next row is the first observation of the next episode.
        bonus = jnp.where(rollout.done, 0.0, encoders.length(phi[1:] - phi[:-1]))
        networks, metrics = self.dynamics.learn(key, networks, seen, weight)
        return networks, bonus, metrics


def build(env: LevelEnv, counted: bool = True, key: str = "", **fields) -> RIDE:
    """Return RIDE for an environment.

    Args:
        env: The environment.
        counted: Whether the change of features, ‖φ(s') − φ(s)‖, is divided by √Nₑ.
        key: Kind of key whose visits Nₑ counts, as in `episodic`; "" uses the default of
            `episodic`.
        fields: Fields of `Dynamics`, as in `icm`.
    """
    counts = episodic.build(env, decay=True, **({"key": key} if key else {})) if counted else ()
    return RIDE(icm.build(env, **fields).dynamics, counts)


def tiny(env: LevelEnv) -> RIDE:
    """Return the smallest instance, for the tests in `tests/laws`."""
    return RIDE(icm.tiny(env).dynamics, episodic.build(env, decay=True, log_size=6))
