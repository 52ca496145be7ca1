"""NovelD: clipped increase in RND novelty across a step, for first visits in the episode.

    b = max(n(s') - c n(s), 0) g(s')

n is the novelty of random network distillation and g an episodic count-based bonus. The difference
rewards only steps across the boundary of the explored region, and g removes the reward for crossing
it repeatedly.

Source: Zhang et al., 2021, "NovelD: A Simple yet Effective Exploration Criterion". The smaller
c = 0.1 and the missing gate in products with E3B follow Henaff, Jiang and Raileanu, 2023, "A Study
of Global and Episodic Bonuses for Exploration in Contextual MDPs". Differs from their code, where
the difference is also taken across the end of an episode; here such a step has bonus 0.
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
    """Clipped difference of novelty across a step, multiplied by an episodic bonus.

    Attributes:
        novelty: Novelty n of an observation.
        gate: Episodic bonus g that multiplies the difference; `()` stands for 1.
        scale: Factor c of the novelty before the step.

    Raises:
        ValueError: If `scale` is negative.
    """

    novelty: rnd.RND
    gate: Bonus | tuple[()] = ()
    scale: float = 0.5

    def __post_init__(self):
        if not self.scale >= 0:
            raise ValueError(f"noveld: scale must be 0 or more, got {self.scale}")

    @property
    def counts(self) -> Bonus | tuple[()]:
        """The gate g."""
        return self.gate

    def init_networks(self, key: Key, num_slots: int) -> rnd.RNDState:
        """Return the untrained networks of the novelty."""
        return self.novelty.init(key, num_slots)

    def judge(
        self, key: Key, networks: rnd.RNDState, rollout: Rollout, weight: Float[Array, " N"]
    ) -> tuple[rnd.RNDState, Float[Array, "T N"], Metrics]:
        """Return the clipped difference of novelty across each step, without the gate."""
        # One pass gives n(s) and n(s'): the successor of row t is row t + 1.
        judged = self.novelty.judge(networks, rollout)  # novelty [T + 1, N]
        gain = jnp.maximum(judged.novelty[1:] - self.scale * judged.novelty[:-1], 0.0)
        # Where an episode ended, the next row is the first observation of another episode.
        bonus = jnp.where(rollout.done, 0.0, gain)
        networks, metrics = self.novelty.learn(key, networks, judged, weight)
        return networks, bonus, metrics


def build(
    env: LevelEnv, gate: str = "first", key: str = "", scale: float = 0.5, **fields
) -> NovelD:
    """Return NovelD for an environment.

    Args:
        env: The environment.
        gate: `first`, 1 at the first visit of an episode and 0 later; `isqrt`, 1/√Nₑ; or `none`.
        key: Key that the gate counts, as in `episodic`; "" uses the default of `episodic`.
        scale: Factor c of the novelty before the step.
        fields: Fields of `RND`.

    Raises:
        ValueError: If `gate` is unknown.
    """
    if gate not in GATES:
        raise ValueError(f"noveld: gate={gate!r} is not one of {', '.join(GATES)}")
    counts = ()
    if gate != "none":
        counts = episodic.build(env, decay=gate == "isqrt", **({"key": key} if key else {}))
    return NovelD(rnd.build(env, **fields), counts, scale)


def tiny(env: LevelEnv) -> NovelD:
    """Return the smallest instance, for the law tests."""
    return NovelD(rnd.tiny(env), episodic.tiny(env))
