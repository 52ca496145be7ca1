"""RIDE: how far a step moved in features of what actions control, less for each return.

    b = ‖φ(s') − φ(s)‖ / √Nₑ(s')

Source: Raileanu and Rocktäschel, 2020, "RIDE: Rewarding Impact-Driven Exploration for
Procedurally-Generated Environments". A step that ends an episode is paid 0.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from rlgen.algos.bonuses import encoders, episodic, icm
from rlgen.algos.bonuses.dynamics import Dynamics
from rlgen.algos.bonuses.training import Fit
from rlgen.protocols import Bonus, LevelEnv
from rlgen.types import Key, Metrics, PyTree, Rollout

__all__ = ["RIDE", "VARIANTS", "RIDEState", "build", "tiny"]

VARIANTS: dict[str, dict] = {"uncounted": {"counted": False}}


class RIDEState(NamedTuple):
    """The networks and the episodic counts; `()` without them."""

    networks: Fit
    counts: PyTree


@dataclass(frozen=True)
class RIDE(Bonus):
    """Impact in features that the dynamics are learned in, discounted by an episodic count.

    Attributes:
        dynamics: the features, learned with an inverse and a forward model as in `icm`.
        discount: what the impact is multiplied by, a bonus such as 1/√Nₑ; `()` is 1.
    """

    dynamics: Dynamics
    discount: Bonus | tuple[()] = ()

    @property
    def features(self) -> tuple[str, ...]:
        """What is counted."""
        return () if isinstance(self.discount, tuple) else self.discount.features

    @property
    def pairs(self) -> bool:
        """It judges what a step led to."""
        return True

    def init(self, key: Key, num_slots: int) -> RIDEState:
        """Untrained networks, and nothing counted."""
        key_networks, key_counts = jax.random.split(key)
        networks = self.dynamics.init(key_networks)
        if isinstance(self.discount, tuple):
            return RIDEState(networks, ())
        return RIDEState(networks, self.discount.init(key_counts, num_slots))

    def apply(
        self, key: Key, state: RIDEState, rollout: Rollout, weight: Float[Array, " N"]
    ) -> tuple[RIDEState, Float[Array, "T N"], Metrics]:
        """See `rlgen.protocols.Bonus`."""
        key_networks, key_counts = jax.random.split(key)
        seen = self.dynamics.look(state.networks.params, rollout)
        phi = seen.phi.reshape(-1, rollout.first.shape[1], seen.phi.shape[-1])
        bonus = jnp.where(rollout.done, 0.0, encoders.length(phi[1:] - phi[:-1]))
        networks, metrics = self.dynamics.learn(key_networks, state.networks, seen, weight)
        if isinstance(self.discount, tuple):
            return RIDEState(networks, ()), bonus, metrics
        counts, share, told = self.discount.apply(key_counts, state.counts, rollout, weight)
        return RIDEState(networks, counts), bonus * share, told | metrics

    def warnings(self, metrics: Mapping[str, Any]) -> list[str]:
        """What the counts have to say of the metrics of an update."""
        return [] if isinstance(self.discount, tuple) else self.discount.warnings(metrics)


def build(env: LevelEnv, counted: bool = True, key: str = "", **fields) -> RIDE:
    """RIDE for an environment.

    Args:
        env: the environment.
        counted: whether returns are paid less.
        key: what is counted, as in `episodic`; "" is its choice.
        fields: of the dynamics, as in `icm`.
    """
    counts = episodic.build(env, decay=True, **({"key": key} if key else {})) if counted else ()
    return RIDE(icm.build(env, **fields).dynamics, counts)


def tiny(env: LevelEnv) -> RIDE:
    """The smallest instance, for tests of laws."""
    return RIDE(icm.tiny(env).dynamics, episodic.build(env, decay=True, log_size=6))
