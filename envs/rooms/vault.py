"""Vault: one large level of many rooms, with three locked doors and their keys in dead ends.

The actions are right, down, left, up and interact. The first four move the agent in the fixed
directions of the grid. If the agent's cell contains a key, interact picks up this key. Otherwise
interact opens a locked door in a neighbouring cell, provided that the agent holds the key of this
door. The agent observes the 7x7 cells around it, but not its own position; it also observes the
event of the last step and the keys that it holds. Reaching the treasure gives reward 1 and ends the
episode; lava ends the episode without reward.

There is a single level, determined by the seed, and an episode covers only a small part of the
level's states. Finding the treasure requires a memory of the states visited in earlier episodes. An
episodic bonus has no such memory, so it is not enough. The vault plays the role that Montezuma's
Revenge has in studies with pixels.

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
"""Variants, named by size."""

LEAST, MOST = 0.45, 0.8
"""Bounds on the length of the shortest solution, as fractions of the time limit."""
NUM_OTHERS = 8  # number of vaults in the suite `others`
FIRST_OTHER = 1_000_003
"""Seed of the first vault of the suite `others`."""


@dataclass(frozen=True)
class Vault(RoomsFamily):
    """Family with a single level: the vault that the seed determines.

    Attributes:
        seed: Seed that determines the vault.
        columns: Number of rooms from left to right.
        rows: Number of rooms from top to bottom.
        room_size: Number of cells per side of a room, without its walls.
        lava: Fraction of the eligible free cells that contain lava. A cell is eligible if it has no
            key, is not on the shortest solution, and is neither in nor next to a doorway.
        max_steps: Time limit in steps; the shortest solution takes 45% to 80% of it.

    Raises:
        ValueError: A field is out of range; the message states the allowed range.
    """

    seed: int = 0
    columns: int = 6
    rows: int = 4
    room_size: int = 7
    lava: float = 0.15
    max_steps: int = 400

    suite_fields = ("seed", "columns", "rows", "room_size", "lava", "max_steps")

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
                f"make a grid of {self.sides} cells; at most {MAX_SIDE} per side are possible"
            )

    @property
    def sides(self) -> tuple[int, int]:
        """Height and width of the grid, in cells."""
        pitch = self.room_size + 1
        return self.rows * pitch + 1, self.columns * pitch + 1

    def offers(self, capability: Callable) -> bool:
        """Return whether the family offers a capability; it does not offer `labelled_states`.

        Labelled states serve to compare levels, and this family has only one level.
        """
        return super().offers(capability) and capability is not LevelEnv.labelled_states

    def sample_level(self, key: Key) -> Level:
        """Return the single level.

        Raises:
            ValueError: No vault of this design has a solution of the required length.
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
        """Return functions that build the suites, by name.

        `seen` has the single level, which is the level of training; `others` has the vaults of
        eight other seeds.
        """
        return {
            "seen": functools.partial(suites.single, "vault/seen", self, (self,), "seen"),
            "others": functools.partial(suites.single, "vault/others", self, _others(self)),
        }

    def ladder(self) -> dict[str, DistributionShift]:
        """Vaults of other seeds; see `rlgen.evaluation.ladder.ladder`."""
        return {"others": DistributionShift("V3", "of other seeds", "others")}


def build(**fields) -> Vault:
    """The environment with the given fields."""
    return Vault(**fields)


def tiny() -> Vault:
    """Return a small vault, for the tests in `tests/laws`."""
    return Vault(columns=3, rows=2, room_size=3, max_steps=80)


def _others(env: Vault) -> tuple[Vault, ...]:
    return tuple(replace(env, seed=FIRST_OTHER + i) for i in range(NUM_OTHERS))


@functools.lru_cache(maxsize=64)
def _level(seed: int, design: vault_generator.Design, max_steps: int) -> Level:
    # The arrays are concrete even if JAX traces the caller; otherwise tracers would leak into later
    # calls through the cache.
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
