"""Episodic counts: 1 for a step into a state that is new in this episode, 0 otherwise.

The first state of an episode is met when the episode begins, so a step that stays there earns
nothing. With `decay` a step earns 1/√Nₑ(ψ(s')) instead, with Nₑ the visits in this episode, this
one included.

Source: Henaff, Jiang and Raileanu, 2023, "A Study of Global and Episodic Bonuses for Exploration in
Contextual MDPs"; 1/√Nₑ: Raileanu and Rocktäschel, 2020, "RIDE". Differs from the released code,
where a step that ends an episode is filed under the next one's first state, which is then not met
in its own episode.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import jax.numpy as jnp
from jaxtyping import Array, Float

from rlgen.algos.bonuses import count_tables, state_keys
from rlgen.protocols import LevelEnv
from rlgen.types import Key, Metrics, Rollout

__all__ = ["LOST", "VARIANTS", "Episodic", "build", "tiny"]

TABLES = ("auto", "exact", "stamped")
LOST = 0.01
"""Share of steps that drive out another key above which a table is too small."""
VARIANTS: dict[str, dict] = {name: {"key": name} for name in state_keys.KEYS}


@dataclass(frozen=True)
class Episodic(state_keys.KeyedBonus):
    """A table of each slot's running episode, exact where keys are few, hashed otherwise.

    In a hashed table two keys of an episode on one cell drive each other out, so that a return may
    look new: the metric `episodic_lost` is the share of steps that drove one out, and
    `episodic_full` the share of cells that the running episodes use. Above 0.01 (`LOST`) the table
    is too small for the run: raise `log_size`. A new key looks old with probability 2⁻¹⁶ where
    another one has been on its cell.

    Attributes:
        table: exact, stamped (hashed), or auto: exact where that is no larger.
        decay: whether a return earns 1/√Nₑ, and not 0.
        log_size: a slot's hashed table has 2^log_size cells of 4 bytes (6 with `decay`).
        bins: of observations with floats: cells a unit into which they are rounded; 0 keeps all
            their bits.

    Raises:
        ValueError: a field outside its range, or a key that the environment cannot give.
    """

    table: Literal["auto", "exact", "stamped"] = "auto"
    decay: bool = False
    log_size: int = 12
    bins: int = 10

    def __post_init__(self):
        state_keys.check_key(self.env, self.key, "episodic")
        state_keys.check_table(self.key, self.table, TABLES, "episodic")
        state_keys.check_ranges(self, {"log_size": (1, 24), "bins": (0, 2**20)}, "episodic")

    @property
    def _exact(self) -> bool:
        return self.wants_exact(self.table, self.log_size)

    def init(self, key: Key, num_slots: int) -> count_tables.Marks:
        """No episode has met anything."""
        size = state_keys.num_values(self.env, self.key) if self._exact else 2**self.log_size
        return count_tables.no_marks(num_slots, size, self.decay)

    def apply(
        self, key: Key, state: count_tables.Marks, rollout: Rollout, weight: Float[Array, " N"]
    ) -> tuple[count_tables.Marks, Float[Array, "T N"], Metrics]:
        """See `rlgen.protocols.Bonus`; nothing is shared, so weights only choose what is told."""
        visits = state_keys.read_visits(rollout, self.key, self.bins)
        if self._exact:
            cells = count_tables.own_cells(visits)
            tags = count_tables.Around(*(jnp.zeros_like(x, jnp.uint32) for x in cells))
        else:
            cells, tags = count_tables.hashed_cells(visits, 2**self.log_size)
        marks, met = count_tables.mark_visits(state, cells, tags, rollout.first, visits.known)
        novelty = (met.times == 1).astype(jnp.float32)
        if self.decay:
            novelty = 1 / jnp.sqrt(met.times.astype(jnp.float32))
        counts = visits.known & (weight > 0)[None]
        lost = (met.lost & counts).sum() / jnp.maximum(counts.sum(), 1)
        used = (marks.mark >> 16 == marks.stamp[:, None]).mean(1, dtype=jnp.float32)
        full = jnp.where(weight > 0, used, 0.0).sum() / jnp.maximum((weight > 0).sum(), 1)
        metrics = {"episodic_lost": lost, "episodic_full": full}
        return marks, jnp.where(visits.known, novelty, 0.0), metrics

    def warnings(self, metrics: Mapping[str, Any]) -> list[str]:
        """What a user should hear of the metrics of an update: a table too small for episodes."""
        lost, full = (float(metrics[name]) for name in ("episodic_lost", "episodic_full"))
        if not lost > LOST:
            return []
        return [
            f"episodic: {lost:.1%} of the steps drove another state of their episode out of a "
            f"table of {2**self.log_size} cells, {full:.0%} full, and a return to it looks new; "
            f"raise log_size from {self.log_size} to {self.log_size + 2}"
        ]


def build(env: LevelEnv, **fields) -> Episodic:
    """Episodic counts for an environment: of positions if it has any, else of observations."""
    return Episodic(env, **{"key": state_keys.default_key(env), **fields})


def tiny(env: LevelEnv) -> Episodic:
    """Return the smallest instance, for the law tests."""
    return build(env, log_size=6)
