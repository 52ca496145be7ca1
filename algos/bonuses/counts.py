"""Global counts: 1/√N(ψ(s')) for the state s' that a step leads to, over a whole run.

N is how often the key ψ(s') was met by the end of the step, this visit included; all slots count
together. The first state of an episode is met when the episode begins. In one step all slots are
counted, then read.

Source: Strehl and Littman, 2008, "An analysis of model-based Interval Estimation for Markov
Decision Processes"; as a global bonus: Henaff, Jiang and Raileanu, 2023, "A Study of Global and
Episodic Bonuses for Exploration in Contextual MDPs". Differs from the study's code, where each of
256 actors has a table of its own (`num_groups` as large as the number of slots does the same, if
actors are slots), and where a step that ends an episode is filed under the next one's first state.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, UInt32

from rlgen.algos.bonuses import count_tables, state_keys
from rlgen.protocols import LevelEnv
from rlgen.types import Key, Metrics, Rollout

__all__ = ["FULL", "VARIANTS", "Counts", "CountsState", "build", "tiny"]

TABLES = ("auto", "exact", "count-min")
FULL = 0.3
"""Share of used cells above which a hashed table is too small; a new key then looks old with
probability 0.3 to the power of the number of rows, 9 % with two."""
VARIANTS: dict[str, dict] = {name: {"key": name} for name in state_keys.KEYS}


class CountsState(NamedTuple):
    """What a run has met."""

    table: UInt32[Array, "G k C"]  # visits by group, row and cell; an exact table has one row


@dataclass(frozen=True)
class Counts(state_keys.KeyedBonus):
    """A table of all visits of a run, exact where keys are few, a count-min sketch otherwise.

    A sketch never counts too little. A key that lands on used cells in all rows is taken for known:
    the metric `counts_full` is the share of used cells in a row. Above 0.3 (`FULL`) the table is
    too small for the run: raise `log_size` by two.

    Attributes:
        table: exact, count-min, or auto: exact where that is no larger.
        log_size: a row of a sketch has 2^log_size cells of 4 bytes; wants ten cells a distinct key.
        num_rows: of a sketch; a key's count is the least of its rows'.
        num_groups: separate tables; slot n counts in number n modulo this.
        bins: of observations with floats: cells a unit into which they are rounded; 0 keeps all
            their bits.

    Raises:
        ValueError: a field outside its range, or a key that the environment cannot give.
    """

    table: Literal["auto", "exact", "count-min"] = "auto"
    log_size: int = 20
    num_rows: int = 2
    num_groups: int = 1
    bins: int = 10

    def __post_init__(self):
        state_keys.check_key(self.env, self.key, "counts")
        state_keys.check_table(self.key, self.table, TABLES, "counts")
        bounds = {"log_size": (1, 28), "num_rows": (1, 8), "num_groups": (1, 2**20)}
        state_keys.check_ranges(self, {**bounds, "bins": (0, 2**20)}, "counts")
        groups, rows, cells = self._shape
        if groups * rows * cells >= 2**31:
            raise ValueError(
                f"counts: num_groups={groups} tables of {rows} x {cells} cells are more than the "
                "2^31 that can be addressed; lower num_groups, num_rows or log_size"
            )

    @property
    def _exact(self) -> bool:
        return self.wants_exact(self.table, self.log_size)

    @property
    def _shape(self) -> tuple[int, int, int]:
        """Groups, rows and cells."""
        if self._exact:
            return self.num_groups, 1, state_keys.num_values(self.env, self.key)
        return self.num_groups, self.num_rows, 2**self.log_size

    def init(self, key: Key, num_slots: int) -> CountsState:
        """Nothing was met.

        Raises:
            ValueError: more groups than slots.
        """
        if self.num_groups > num_slots:
            raise ValueError(
                f"counts: num_groups={self.num_groups} is more than the {num_slots} slots; some "
                "tables would stay empty"
            )
        return CountsState(jnp.zeros(self._shape, jnp.uint32))

    def apply(
        self, key: Key, state: CountsState, rollout: Rollout, weight: Float[Array, " N"]
    ) -> tuple[CountsState, Float[Array, "T N"], Metrics]:
        """See `rlgen.protocols.Bonus`; a slot of weight 0 reads the counts of the others."""
        visits = state_keys.read_visits(rollout, self.key, self.bins)
        if self._exact:
            own = count_tables.own_cells(visits)
            cells = count_tables.Around(own.before[..., None], own.after[..., None])
        else:
            cells = count_tables.hashed_rows(visits, 2**self.log_size, self.num_rows)
        counts = (weight > 0)[None]
        table, times = count_tables.count_visits(
            state.table, cells, rollout.first & counts, visits.known & counts
        )
        novelty = 1 / jnp.sqrt(jnp.maximum(times, 1).astype(jnp.float32))
        full = (table[:, 0] > 0).mean(dtype=jnp.float32)
        metrics = {"counts_full": full, "counts_distinct": self._distinct(full)}
        return CountsState(table), jnp.where(visits.known, novelty, 0.0), metrics

    def warnings(self, metrics: Mapping[str, Any]) -> list[str]:
        """What a user should hear of the metrics of an update: a table too small for the run."""
        full = float(metrics["counts_full"])
        if self._exact or not full > FULL:
            return []
        return [
            f"counts: {full:.0%} of the {2**self.log_size} cells of a table are in use, above "
            f"{FULL:.0%}: new keys look old with probability {full**self.num_rows:.0%}; "
            f"raise log_size from {self.log_size} to {self.log_size + 2}"
        ]

    def _distinct(self, full: Float[Array, ""]) -> Float[Array, ""]:
        """Different keys met, a group: counted, or estimated from the share of used cells."""
        if self._exact:
            return full * state_keys.num_values(self.env, self.key)
        size = 2**self.log_size
        return -size * jnp.log1p(-jnp.minimum(full, 1 - 1 / size))


def build(env: LevelEnv, **fields) -> Counts:
    """Counts for an environment: of positions if it has any, else of observations."""
    return Counts(env, **{"key": state_keys.default_key(env), **fields})


def tiny(env: LevelEnv) -> Counts:
    """Return the smallest instance, for the law tests."""
    return build(env, log_size=8)
