"""Episodic count-based bonus: 1 for a step into a state that is new in this episode, else 0.

The first state of an episode is counted when the episode begins, so a step that stays there has
bonus 0. With `decay` the bonus is 1/√Nₑ(ψ(s')), with Nₑ the number of visits to the key in this
episode, this visit included.

Source: Henaff, Jiang and Raileanu, 2023, "A Study of Global and Episodic Bonuses for Exploration in
Contextual MDPs"; 1/√Nₑ: Raileanu and Rocktäschel, 2020, "RIDE". Differs from the released code,
where a step that ends an episode is counted under the first state of the next episode, and that
state is then not counted in its own episode.
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
"""Fraction of steps that evict another key above which a table is considered too small."""
VARIANTS: dict[str, dict] = {name: {"key": name} for name in state_keys.KEYS}


@dataclass(frozen=True)
class Episodic(state_keys.KeyedBonus):
    """Table of each slot's running episode: exact if the keys are enumerable, else hashed.

    In a hashed table two keys of one episode that share a cell evict each other, so that a revisit
    may look new. The metric `episodic_lost` is the fraction of steps that evicted another key, and
    `episodic_full` the fraction of cells that the running episodes use. If `episodic_lost` exceeds
    0.01 (`LOST`), the table is too small for the run, and `log_size` should be raised. A new key
    looks visited with probability 2⁻¹⁶ if another key of the episode occupies its cell.

    Attributes:
        table: Kind of table: `exact`, `stamped` (hashed), or `auto`, which is exact if that takes
            no more cells than the hashed table.
        decay: Whether the bonus is 1/√Nₑ at every visit; if false, only the first visit counts.
        log_size: A slot's hashed table has 2^log_size cells of 4 bytes (6 with `decay`).
        bins: Bins per unit to which floats in observations are rounded before hashing; 0 hashes
            their exact bits.

    Raises:
        ValueError: If a field is out of range, or the environment does not provide the key.
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
        """Return empty tables."""
        size = state_keys.num_values(self.env, self.key) if self._exact else 2**self.log_size
        return count_tables.no_marks(num_slots, size, self.decay)

    def apply(
        self, key: Key, state: count_tables.Marks, rollout: Rollout, weight: Float[Array, " N"]
    ) -> tuple[count_tables.Marks, Float[Array, "T N"], Metrics]:
        """See `rlgen.protocols.Bonus`; slots share nothing, so weights only affect the metrics."""
        visits = state_keys.read_visits(rollout, self.key, self.bins)
        if self._exact:
            cells = count_tables.own_cells(visits)
            # One key per cell: the stamp alone decides whether it was visited.
            tags = count_tables.Around(*(jnp.zeros_like(x, jnp.uint32) for x in cells))
        else:
            cells, tags = count_tables.hashed_cells(visits, 2**self.log_size)
        marks, met = count_tables.mark_visits(state, cells, tags, rollout.first, visits.known)
        # Nₑ includes this visit, so the first visit has Nₑ = 1.
        novelty = (met.times == 1).astype(jnp.float32)
        if self.decay:
            novelty = 1 / jnp.sqrt(met.times.astype(jnp.float32))
        counts = visits.known & (weight > 0)[None]
        lost = (met.lost & counts).sum() / jnp.maximum(counts.sum(), 1)
        # Cells whose stamp is that of the slot's running episode; older ones are free.
        used = (marks.mark >> 16 == marks.stamp[:, None]).mean(1, dtype=jnp.float32)
        full = jnp.where(weight > 0, used, 0.0).sum() / jnp.maximum((weight > 0).sum(), 1)
        metrics = {"episodic_lost": lost, "episodic_full": full}
        return marks, jnp.where(visits.known, novelty, 0.0), metrics

    def warnings(self, metrics: Mapping[str, Any]) -> list[str]:
        """Return a warning if the table is too small for the episodes."""
        lost, full = (float(metrics[name]) for name in ("episodic_lost", "episodic_full"))
        if not lost > LOST:
            return []
        return [
            f"episodic: {lost:.1%} of the steps evicted another state of their episode from a "
            f"table of {2**self.log_size} cells, {full:.0%} full, so that revisiting it looks new; "
            f"raise log_size from {self.log_size} to {self.log_size + 2}"
        ]


def build(env: LevelEnv, **fields) -> Episodic:
    """Return episodic counts for an environment.

    Positions are counted if the environment provides them, else observations.
    """
    return Episodic(env, **{"key": state_keys.default_key(env), **fields})


def tiny(env: LevelEnv) -> Episodic:
    """Return the smallest instance, for the law tests."""
    return build(env, log_size=6)
