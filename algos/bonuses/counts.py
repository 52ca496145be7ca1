"""Global count-based bonus 1/√N, where N is the number of visits to the next state in the run.

The key ψ(s') that identifies the next state s' is either the observation or a feature, such as the
position. N(ψ(s')) is the number of visits to this key up to and including this step, summed over
all slots. The first state of an episode is counted when the episode begins. At each step, the
visits of all slots are counted before any count is read.

Source: Strehl and Littman, 2008, "An analysis of model-based Interval Estimation for Markov
Decision Processes"; as a global bonus: Henaff, Jiang and Raileanu, 2023, "A Study of Global and
Episodic Bonuses for Exploration in Contextual MDPs". Differs from the code of Henaff, Jiang and
Raileanu in two ways. In that code, each of 256 actors has its own table; here, all slots share one
table by default; with `num_groups` equal to the number of slots, each slot has its own table. In
that code, a step that ends an episode is counted under the first state of the next episode. Here,
such a step is counted under the state that it led to. If observations are counted, however, such a
step is not counted and has bonus 0.
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
"""Fraction of used cells above which a hashed table is considered too small.

At this fraction, the probability that a new key looks visited is 0.3 to the power of the number of
rows. With two rows, this probability is 9 %.
"""
VARIANTS: dict[str, dict] = {name: {"key": name} for name in state_keys.KEYS}


class CountsState(NamedTuple):
    """Visit counts of a run."""

    table: UInt32[Array, "G k C"]  # visits per group, row and cell; an exact table has one row


@dataclass(frozen=True)
class Counts(state_keys.KeyedBonus):
    """Count-based bonus with an exact table of all visits in a run, or with a count-min sketch.

    A count-min sketch is a table of fixed size whose cells are chosen by hashes. A sketch never
    underestimates a count. If a new key lands on used cells in all rows, it looks visited. The
    metric `counts_full` is the fraction of used cells in a row. If this fraction exceeds 0.3
    (`FULL`), the table is too small for the run, and `log_size` should be raised by two.

    Attributes:
        table: Kind of table: `exact`, `count-min` or `auto`. `auto` chooses `exact` if an exact
            table needs no more cells than a row of the sketch, and `count-min` otherwise.
        log_size: Base-2 logarithm of the number of cells in a row of a sketch. A cell has 4 bytes;
            about ten cells per distinct key are needed.
        num_rows: Number of rows of a sketch; the count of a key is the minimum over rows.
        num_groups: Number of separate tables; the visits of slot n are counted in table n modulo
            num_groups.
        bins: Number of bins per unit. Before hashing, floats in observations are rounded to the
            nearest bin; with 0, floats are not rounded.

    Raises:
        ValueError: If a field is out of range, or the environment does not provide the key.
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
                f"counts: num_groups={groups} tables of {rows} x {cells} cells exceed the limit of "
                "2^31 - 1 cells in total; lower num_groups, num_rows or log_size"
            )

    @property
    def _exact(self) -> bool:
        return self.wants_exact(self.table, self.log_size)

    @property
    def _shape(self) -> tuple[int, int, int]:
        """Shape of the table: numbers of groups, rows and cells."""
        if self._exact:
            return self.num_groups, 1, state_keys.num_values(self.env, self.key)
        return self.num_groups, self.num_rows, 2**self.log_size

    def init(self, key: Key, num_slots: int) -> CountsState:
        """Return an empty table.

        Raises:
            ValueError: If there are more groups than slots.
        """
        if self.num_groups > num_slots:
            raise ValueError(
                f"counts: num_groups={self.num_groups} exceeds the number of slots, {num_slots}; "
                f"use at most {num_slots}, so that no table stays empty"
            )
        return CountsState(jnp.zeros(self._shape, jnp.uint32))

    def apply(
        self, key: Key, state: CountsState, rollout: Rollout, weight: Float[Array, " N"]
    ) -> tuple[CountsState, Float[Array, "T N"], Metrics]:
        """See `rlgen.protocols.Bonus`; a slot of weight 0 reads counts but adds no visits."""
        visits = state_keys.read_visits(rollout, self.key, self.bins)
        if self._exact:
            # [T, N] -> [T, N, 1]: an exact table has one row.
            own = count_tables.own_cells(visits)
            cells = count_tables.Around(own.before[..., None], own.after[..., None])
        else:
            cells = count_tables.hashed_rows(visits, 2**self.log_size, self.num_rows)
        counts = (weight > 0)[None]  # [1, N]
        table, times = count_tables.count_visits(
            state.table, cells, rollout.first & counts, visits.known & counts
        )
        # A slot with weight 0 may read a count of 0.
        novelty = 1 / jnp.sqrt(jnp.maximum(times, 1).astype(jnp.float32))
        # Row 0 represents all rows, because all hashes distribute keys equally well.
        full = (table[:, 0] > 0).mean(dtype=jnp.float32)
        metrics = {"counts_full": full, "counts_distinct": self._distinct(full)}
        return CountsState(table), jnp.where(visits.known, novelty, 0.0), metrics

    def warnings(self, metrics: Mapping[str, Any]) -> list[str]:
        """Return a warning if the table is too small for the run."""
        full = float(metrics["counts_full"])
        if self._exact or not full > FULL:
            return []
        return [
            f"counts: {full:.0%} of the {2**self.log_size} cells in a row of the table are in use, "
            f"but at most {FULL:.0%} should be; new keys look visited with probability "
            f"{full**self.num_rows:.0%}; raise log_size from {self.log_size} to {self.log_size + 2}"
        ]

    def _distinct(self, full: Float[Array, ""]) -> Float[Array, ""]:
        """Number of distinct keys per group; for a sketch, an estimate from the used cells."""
        if self._exact:
            return full * state_keys.num_values(self.env, self.key)
        size = 2**self.log_size
        # If D keys are hashed to `size` cells, the expected fraction of used cells is
        # 1 - exp(-D / size). The minimum avoids log(0).
        return -size * jnp.log1p(-jnp.minimum(full, 1 - 1 / size))


def build(env: LevelEnv, **fields) -> Counts:
    """Return a bonus that counts positions, or observations if there are no positions."""
    return Counts(env, **{"key": state_keys.default_key(env), **fields})


def tiny(env: LevelEnv) -> Counts:
    """Return the smallest instance, for the tests in `tests/laws`."""
    return build(env, log_size=8)
