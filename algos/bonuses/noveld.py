"""NovelD: increase in novelty over a step, rewarded at the first visit in an episode.

    b = max(n(s') - c n(s), 0) g(s')

n is the novelty measured by random network distillation (RND), c is a constant factor, and g is an
episodic count-based bonus. The difference rewards only steps that leave the explored region. The
factor g prevents the reward from being collected repeatedly within an episode.

Source: Zhang et al., 2021, "NovelD: A Simple yet Effective Exploration Criterion". The variant
`ungated`, meant to be multiplied by E3B, has c = 0.1 and no factor g, as in Henaff, Jiang and
Raileanu, 2023, "A Study of Global and Episodic Bonuses for Exploration in Contextual MDPs". In the
code of Henaff, Jiang and Raileanu, a step that ends an episode is rewarded for the first state of
the next episode; here, such a step has bonus 0.
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
    """Bonus from the increase in novelty over a step, multiplied by an episodic bonus.

    Attributes:
        novelty: Novelty n of an observation.
        gate: Episodic bonus g that multiplies the difference; `()` stands for 1.
        scale: Factor c of the novelty n(s) before the step.

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
        """The episodic bonus `gate`."""
        return self.gate

    def init_networks(self, key: Key, num_slots: int) -> rnd.RNDState:
        """Return the untrained networks of `novelty`."""
        return self.novelty.init(key, num_slots)

    def judge(
        self, key: Key, networks: rnd.RNDState, rollout: Rollout, weight: Float[Array, " N"]
    ) -> tuple[rnd.RNDState, Float[Array, "T N"], Metrics]:
        """Return the updated networks, max(n(s') - c n(s), 0) of each step, and metrics."""
        # One pass computes n(s) and n(s'), because row t + 1 is the next observation of row t.
        judged = self.novelty.judge(networks, rollout)  # novelty [T + 1, N]
        gain = jnp.maximum(judged.novelty[1:] - self.scale * judged.novelty[:-1], 0.0)
        # If a step ended an episode, the next row is the first observation of the next episode.
        bonus = jnp.where(rollout.done, 0.0, gain)
        networks, metrics = self.novelty.learn(key, networks, judged, weight)
        return networks, bonus, metrics


def build(
    env: LevelEnv, gate: str = "first", key: str = "", scale: float = 0.5, **fields
) -> NovelD:
    """Return NovelD for an environment.

    Args:
        env: The environment.
        gate: Episodic bonus g. `first`: 1 at the first visit to a state in an episode, and 0 later.
            `isqrt`: 1/√Nₑ, where Nₑ counts the visits to the state in the episode. `none`: 1.
        key: Kind of key whose visits g counts, as in `episodic`; "" uses the default of `episodic`.
        scale: Factor c of the novelty n(s) before the step.
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
    """Return the smallest instance, for the tests in `tests/laws`."""
    return NovelD(rnd.tiny(env), episodic.tiny(env))
