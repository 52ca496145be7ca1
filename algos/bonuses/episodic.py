"""Episodic count-based bonus: 1 for a step into a state that is new in this episode, else 0.

The first state of an episode is counted when the episode begins, so a step that stays in that state
has bonus 0. With `decay` the bonus is 1/√Nₑ(ψ(s')). The key ψ(s') that identifies the next state s'
is either the observation or a feature, such as the position. Nₑ is the number of visits to the key
in this episode, including this visit.

Source: Henaff, Jiang and Raileanu, 2023, "A Study of Global and Episodic Bonuses for Exploration in
Contextual MDPs"; 1/√Nₑ: Raileanu and Rocktäschel, 2020, "RIDE". Differs from the code of Henaff,
Jiang and Raileanu in the steps that end an episode. In that code, a step that ends an episode is
counted under the first state of the next episode, and the next episode does not count its first
state. Here, such a step is counted under the state that it led to. If observations are counted,
however, such a step is not counted and has bonus 0.
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
"""If a larger fraction of steps evicts another key, the table is considered too small."""
VARIANTS: dict[str, dict] = {name: {"key": name} for name in state_keys.KEYS}


@dataclass(frozen=True)
class Episodic(state_keys.KeyedBonus):
    """Count-based bonus with an exact or hashed table of each slot's running episode.

    In a hashed table, several keys may share a cell. If two keys of one episode share a cell, they
    evict each other, and a revisit may then look new. The metric `episodic_lost` is the fraction of
    steps that evicted another key. The metric `episodic_full` is the fraction of cells that the
    running episodes use. If `episodic_lost` exceeds 0.01 (`LOST`), the table is too small for the
    run, and `log_size` should be raised. If another key of the episode occupies the cell of a new
    key, the new key looks visited with probability 2⁻¹⁶.

    Attributes:
        table: Kind of table: `exact`, `stamped` (hashed) or `auto`. `auto` chooses `exact` if an
            exact table needs no more cells than a hashed table, and `stamped` otherwise.
        decay: Whether the bonus of each visit is 1/√Nₑ, where Nₑ counts the episode's visits to the
            state; if false, the bonus is 1 at the first visit and 0 later.
        log_size: Base-2 logarithm of the number of cells in a slot's hashed table. A cell has
            4 bytes, or 6 bytes with `decay`.
        bins: Number of bins per unit. Before hashing, floats in observations are rounded to the
            nearest bin; with 0, floats are not rounded.

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
        """See `rlgen.protocols.Bonus`; tables are per slot, so weights affect only the metrics."""
        visits = state_keys.read_visits(rollout, self.key, self.bins)
        if self._exact:
            cells = count_tables.own_cells(visits)
            # A cell has one key, so the stamp alone decides whether the key was visited.
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
        # A cell is in use if its stamp is that of the slot's running episode.
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
            f"episodic: {lost:.1%} of the steps evicted another state of the same episode from the "
            f"table of {2**self.log_size} cells, of which {full:.0%} are in use; a revisit of an "
            f"evicted state looks new; raise log_size from {self.log_size} to {self.log_size + 2}"
        ]


def build(env: LevelEnv, **fields) -> Episodic:
    """Return an episodic bonus for an environment.

    If the environment provides positions, visits to positions are counted; otherwise visits to
    observations are counted.
    """
    return Episodic(env, **{"key": state_keys.default_key(env), **fields})


def tiny(env: LevelEnv) -> Episodic:
    """Return the smallest instance, for the tests in `tests/laws`."""
    return build(env, log_size=6)
