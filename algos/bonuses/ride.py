"""RIDE: how far a step moved in features of what actions control, less for each return.

    b = ‖φ(s') − φ(s)‖ / √Nₑ(s')

Source: Raileanu and Rocktäschel, 2020, "RIDE: Rewarding Impact-Driven Exploration for
Procedurally-Generated Environments". A step that ends an episode is paid 0.
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
    """Impact in features that the dynamics are learned in, discounted by an episodic count.

    Attributes:
        dynamics: the features, learned with an inverse and a forward model as in `icm`.
        discount: what the impact is multiplied by, a bonus such as 1/√Nₑ; `()` is 1.
    """

    dynamics: Dynamics
    discount: Bonus | tuple[()] = ()

    @property
    def counts(self) -> Bonus | tuple[()]:
        """The discount."""
        return self.discount

    def init_networks(self, key: Key, num_slots: int) -> Fit:
        """Those of the dynamics."""
        return self.dynamics.init(key)

    def judge(
        self, key: Key, networks: Fit, rollout: Rollout, weight: Float[Array, " N"]
    ) -> tuple[Fit, Float[Array, "T N"], Metrics]:
        """The length of each step in the features."""
        seen = self.dynamics.look(networks.params, rollout)
        phi = seen.phi.reshape(-1, rollout.first.shape[1], seen.phi.shape[-1])
        bonus = jnp.where(rollout.done, 0.0, encoders.length(phi[1:] - phi[:-1]))
        networks, metrics = self.dynamics.learn(key, networks, seen, weight)
        return networks, bonus, metrics


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
    """Return the smallest instance, for the law tests."""
    return RIDE(icm.tiny(env).dynamics, episodic.build(env, decay=True, log_size=6))
