"""Vault: one large level, rooms without a map, three locked doors, and their keys in dead ends.

Moves right, down, left and up, as the map lies; interact picks up the key of the agent's cell and
opens the locked door beside it whose key is held. The agent sees the 7x7 cells around it, not where
they are, what happened last, and which keys it holds. Reaching the treasure pays 1 and ends the
episode; lava ends it without reward.

There is a single level, which the seed gives, and an episode covers a small part of its states. So
memory that lasts over episodes is what finds the treasure, and bonuses within the episode are not
enough: the part that Montezuma's Revenge has in studies of pixels.

Source: rlgen's own.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np

from rlgen.envs.checks import check_ranges
from rlgen.envs.grid.rows import MAX_SIDE, pack
from rlgen.envs.rooms import suites, vault_generator
from rlgen.envs.rooms.base import RoomsFamily
from rlgen.envs.rooms.level import Level, State
from rlgen.envs.rooms.observation import PackedObs
from rlgen.levels import DistributionShift
from rlgen.protocols import LevelEnv
from rlgen.types import Key

__all__ = ["VARIANTS", "Level", "PackedObs", "State", "Vault", "build", "tiny"]

VARIANTS: dict[str, dict] = {
    "small": {"columns": 3, "rows": 3, "room_size": 5, "max_steps": 150},
    "large": {},
}
"""By the number of rooms."""

LEAST, MOST = 0.45, 0.8
"""Steps of the shortest solution, in time limits."""
NUM_OTHERS = 8
FIRST_OTHER = 1_000_003
"""Seed of the first vault of the suite of others."""


@dataclass(frozen=True)
class Vault(RoomsFamily):
    """A vault.

    Attributes:
        seed: which vault.
        columns: rooms from left to right.
        rows: rooms from top to bottom.
        room_size: cells a side of a room, without its walls.
        lava: share of the free cells that become lava, of those that are not on a shortest
            solution nor beside a doorway.
        max_steps: time limit; a shortest solution has from 45% to 80% of it.

    Raises:
        ValueError: a field outside its range; the message says what is allowed.
    """

    seed: int = 0
    columns: int = 6
    rows: int = 4
    room_size: int = 7
    lava: float = 0.15
    max_steps: int = 400

    def __post_init__(self):
        self.check_options()
        check_ranges(
            self,
            ("seed", 0, 2**31 - 1),
            ("columns", 2, 16),
            ("rows", 2, 16),
            ("room_size", 3, 15),
            ("lava", 0.0, 0.5),
            ("max_steps", 1, 10**6),
        )
        if max(self.sides) > MAX_SIDE:
            raise ValueError(
                f"Vault: columns={self.columns}, rows={self.rows} and room_size={self.room_size} "
                f"make a grid of {self.sides} cells; at most {MAX_SIDE} a side are possible"
            )

    @property
    def sides(self) -> tuple[int, int]:
        """Height and width of the grid."""
        pitch = self.room_size + 1
        return self.rows * pitch + 1, self.columns * pitch + 1

    def offers(self, capability: Callable) -> bool:
        """No labelled states, which are for comparing training levels with others: it has one."""
        return super().offers(capability) and capability is not LevelEnv.labelled_states

    def sample_level(self, key: Key) -> Level:
        """The one level.

        Raises:
            ValueError: no vault of this design has a solution of the wanted length.
        """
        design = vault_generator.Design(
            self.columns,
            self.rows,
            self.room_size,
            self.lava,
            round(LEAST * self.max_steps),
            round(MOST * self.max_steps),
        )
        return _level(self.seed, design, self.max_steps)

    def suites(self) -> dict:
        """`test` is the one level; `others` are the vaults of eight other seeds."""
        return {
            "test": functools.partial(suites.single, "vault/test", self, (self,)),
            "others": functools.partial(suites.single, "vault/others", self, _others(self)),
        }

    def ladder(self) -> dict[str, DistributionShift]:
        """Other vaults; see `rlgen.evaluation.ladder.ladder`."""
        return {"others": DistributionShift("V3", "of other seeds", "others")}


def build(**fields) -> Vault:
    """The environment with the given fields."""
    return Vault(**fields)


def tiny() -> Vault:
    """A small vault, for tests of laws."""
    return Vault(columns=3, rows=2, room_size=3, max_steps=80)


def _others(env: Vault) -> tuple[Vault, ...]:
    return tuple(replace(env, seed=FIRST_OTHER + i) for i in range(NUM_OTHERS))


@functools.lru_cache(maxsize=64)
def _level(seed: int, design: vault_generator.Design, max_steps: int) -> Level:
    # Concrete even when asked for under a trace, which would else leak into later calls.
    plan = vault_generator.draw_plan(seed, design)
    height, width = plan.walls.shape
    with jax.ensure_compile_time_eval():
        return Level(
            pack(jnp.asarray(plan.walls), outside=True),
            pack(jnp.asarray(plan.lava), outside=False),
            jnp.asarray(plan.doors, jnp.int32),
            jnp.int32(0),
            jnp.asarray(1 << np.arange(vault_generator.NUM_KEYS), jnp.int32),
            jnp.asarray(plan.keys, jnp.int32),
            jnp.asarray(plan.start, jnp.int32),
            jnp.asarray(plan.goal, jnp.int32),
            jnp.int32(max_steps),
            height,
            width,
        )
