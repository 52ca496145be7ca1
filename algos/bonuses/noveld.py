"""NovelD: how much newer a step's successor is than where the step began, once an episode.

    b = max(n(s') - c n(s), 0) g(s')

with n of random network distillation and g an episodic count, so that only steps over the border
of the known are paid, and not for going to and fro across it.

Source: Zhang et al., 2021, "NovelD: A Simple yet Effective Exploration Criterion"; the weaker c of
0.1 and no gate in products with E3B, Henaff, Jiang and Raileanu, 2023, "A Study of Global and
Episodic Bonuses for Exploration in Contextual MDPs". Differs from their code, where the difference
straddles the end of an episode; here such a step is paid 0.
"""

from dataclasses import dataclass

import jax.numpy as jnp
from jaxtyping import Array, Float

from rlgen.algos.bonuses import episodic, rnd
from rlgen.algos.bonuses.times_counts import TimesCounts
from rlgen.protocols import Bonus, LevelEnv
from rlgen.types import Key, Metrics, Rollout

__all__ = ["VARIANTS", "NovelD", "build", "tiny"]

GATES = ("first", "isqrt", "none")
VARIANTS: dict[str, dict] = {
    "isqrt": {"gate": "isqrt"},
    "ungated": {"gate": "none", "scale": 0.1},
}


@dataclass(frozen=True)
class NovelD(TimesCounts):
    """The clipped difference of novelty across a step, times an episodic bonus.

    Attributes:
        novelty: n.
        gate: g, a bonus; `()` is 1.
        scale: c.

    Raises:
        ValueError: a negative scale.
    """

    novelty: rnd.RND
    gate: Bonus | tuple[()] = ()
    scale: float = 0.5

    def __post_init__(self):
        if not self.scale >= 0:
            raise ValueError(f"noveld: scale must be 0 or more, got {self.scale}")

    @property
    def counts(self) -> Bonus | tuple[()]:
        """The gate."""
        return self.gate

    def init_networks(self, key: Key, num_slots: int) -> rnd.RNDState:
        """Those of the novelty."""
        return self.novelty.init(key, num_slots)

    def judge(
        self, key: Key, networks: rnd.RNDState, rollout: Rollout, weight: Float[Array, " N"]
    ) -> tuple[rnd.RNDState, Float[Array, "T N"], Metrics]:
        """The clipped difference of novelty across each step."""
        judged = self.novelty.judge(networks, rollout)
        gain = jnp.maximum(judged.novelty[1:] - self.scale * judged.novelty[:-1], 0.0)
        bonus = jnp.where(rollout.done, 0.0, gain)
        networks, metrics = self.novelty.learn(key, networks, judged, weight)
        return networks, bonus, metrics


def build(
    env: LevelEnv, gate: str = "first", key: str = "", scale: float = 0.5, **fields
) -> NovelD:
    """NovelD for an environment.

    Args:
        env: the environment.
        gate: `first`, 1 for the first visit of an episode; `isqrt`, 1/√Nₑ; or `none`.
        key: what the gate counts, as in `episodic`; "" is its choice.
        scale: c.
        fields: of RND.

    Raises:
        ValueError: an unknown gate.
    """
    if gate not in GATES:
        raise ValueError(f"noveld: gate={gate!r} is none of {', '.join(GATES)}")
    counts = ()
    if gate != "none":
        counts = episodic.build(env, decay=gate == "isqrt", **({"key": key} if key else {}))
    return NovelD(rnd.build(env, **fields), counts, scale)


def tiny(env: LevelEnv) -> NovelD:
    """Return the smallest instance, for the law tests."""
    return NovelD(rnd.tiny(env), episodic.tiny(env))
