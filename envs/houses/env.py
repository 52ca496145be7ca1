"""Houses: see as much as can be seen of six to twelve rooms; there is no goal and no reward.

The agent steps right, down, left or up, sees the 7x7 cells around it, but not through walls, and
knows where in the square it is. Episodes last until the time limit. What counts is the coverage:
the share of the free cells that an episode saw. With `pay_coverage`, each step is paid the share
that it saw first, so that the return of an episode is its coverage. Suites are played so, whatever
the agent was trained with: what `rlgen eval` prints as their return is the coverage.

There is no `success`, as no coverage is enough, and no `solve`, as the shortest tour of a house is
not known.

Source: the reward-free exploration of scanned houses in Henaff et al., 2023, "A Study of Global and
Episodic Bonuses for Exploration in Contextual MDPs". Differs from it in being a grid.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from gymnax.environments import spaces
from jaxtyping import Array, Bool, Float, Int, UInt32

from rlgen import levels as level_sets
from rlgen.envs.checks import check_ranges
from rlgen.envs.grid.draw import level_first
from rlgen.envs.grid.rows import MAX_SIDE, MOVES, is_set
from rlgen.envs.houses import generator, render, suites
from rlgen.envs.houses.generator import Shape, most_rooms
from rlgen.envs.houses.view import (
    Level,
    Obs,
    State,
    look,
    make_level,
    num_cells,
    remember,
    unpack,
)
from rlgen.protocols import LevelEnv, level_hash
from rlgen.types import Key

VARIANTS: dict[str, dict] = {"reward-free": {}, "paid": {"pay_coverage": True}}


@dataclass(frozen=True)
class Houses(LevelEnv):
    """The houses of one size.

    Attributes:
        size: cells a side.
        num_rooms: fewest and most rooms of the houses sampled here.
        min_side: least side of a room, in cells.
        max_steps: time limit of the levels made here.
        pay_coverage: whether the return of an episode is its coverage, else 0.

    Raises:
        ValueError: a field out of its range, or more rooms than always find room.
    """

    size: int = 41
    num_rooms: tuple[int, int] = (6, 12)
    min_side: int = 5
    max_steps: int = 500
    pay_coverage: bool = False

    def __post_init__(self):
        check_ranges(
            self, ("size", 5, MAX_SIDE), ("min_side", 2, self.size), ("max_steps", 1, 10**6)
        )
        most = most_rooms(self.size, self.min_side)
        fewest, wanted = self.num_rooms
        if not 1 <= fewest <= wanted <= most or wanted < 2:
            raise ValueError(
                f"Houses: num_rooms={self.num_rooms} must be the fewest and the most rooms, from 1 "
                f"and from 2 to {most} with size={self.size} and min_side={self.min_side}"
            )

    # What gymnax asks for.

    @property
    def num_actions(self) -> int:
        """Right, down, left, up."""
        return 4

    @property
    def default_params(self) -> Level:
        """A hall without walls, the agent in the middle."""
        hall = jnp.zeros((self.size, self.size), bool)
        return make_level(hall, (self.size // 2, self.size // 2), self.max_steps)

    def observation_space(self, params: Level | None = None) -> spaces.Dict:
        """Words of cells and the agent's place."""
        word, cell = (spaces.Box(0, top, (), dtype) for top, dtype in self._ranges())
        window = spaces.Dict({"upper": word, "lower": word})
        return spaces.Dict({"walls": window, "seen": window, "x": cell, "y": cell})

    def reset_env(self, key: Key, params: Level) -> tuple[Obs, State]:
        """Start of an episode; nothing about it is random, and what is in view has been seen."""
        x, y = params.start[0], params.start[1]
        obs = look(params, x, y)
        seen = remember(obs, jnp.zeros_like(params.walls), x, y)
        return obs, State(x, y, jnp.zeros_like(x), seen, jnp.zeros_like(x))

    def step_env(
        self, key: Key, state: State, action: Int[Array, ""] | int | float, params: Level
    ) -> tuple[Obs, State, Float[Array, ""], Bool[Array, ""], dict]:
        """One step: `(obs, state, reward, terminated, info)`; it never terminates."""
        x, y = state.x, state.y
        for number, (dx, dy) in enumerate(MOVES):
            x = x + jnp.where(action == number, dx, 0)
            y = y + jnp.where(action == number, dy, 0)
        blocked = is_set(params.walls, x, y)
        x, y = jnp.where(blocked, state.x, x), jnp.where(blocked, state.y, y)
        obs = look(params, x, y)
        seen = remember(obs, state.seen, x, y)
        reward, num_paid = jnp.float32(0), state.num_paid
        if self.pay_coverage:  # what the first observation showed is paid with the first step
            num_paid = num_cells(seen)
            reward = (num_paid - state.num_paid) / params.num_free
        return obs, State(x, y, state.time + 1, seen, num_paid), reward, jnp.bool_(False), {}

    def observe(
        self, key: Key, state: State, action: Int[Array, ""] | int | float | None, params: Level
    ) -> Obs:
        """The cells in view and where they are."""
        return look(params, state.x, state.y)

    # What makes it a family of levels.

    def sample_level(self, key: Key) -> Level:
        """A house of random rooms; all of it can be reached."""
        return self.level_of(jax.random.uniform(key, (self.num_draws(),)))

    def num_draws(self) -> int:
        """How many numbers `level_of` asks for."""
        return generator.num_draws(self._shape())

    def level_of(self, draws: Float[Array, " D"]) -> Level:
        """The house that some numbers in [0, 1) make: uniform ones, for a random house."""
        return make_level(*generator.layout(self._shape(), draws), self.max_steps)

    def unpack(self, obs: Obs) -> dict[str, Float[Array, "..."]]:
        """`image` [..., 7, 7, 2], walls and all that is seen, and `vector` [..., 2], the place."""
        return unpack(obs, self.size)

    def coverage(self, state: State, level: Level) -> Float[Array, ""]:
        """Share of the free cells that an episode has seen so far."""
        return num_cells(state.seen) / level.num_free

    def position(self, state: State, level: Level) -> Int[Array, ""]:
        """Cells from left to right, row by row from above."""
        return state.y * self.size + state.x

    def num_positions(self) -> int:
        """All cells, walls too."""
        return self.size**2

    def level_hash(self, level: Level) -> UInt32[Array, "2"]:
        """Equal for equal houses with equal starts, whatever their time limits."""
        return level_hash((level.walls, level.start))

    def level_features(self, level: Level) -> dict[str, Array]:
        """Numbers of cells, and the coverage of an episode that does not move."""
        start = self.reset_env(jax.random.key(0), level)[1]
        return {
            "num_free": level.num_free,
            "num_walls": self.size**2 - level.num_free,
            "first_coverage": self.coverage(start, level),
        }

    def suites(self) -> dict[str, Callable[[], level_sets.Suite]]:
        """The suites by name, see `suites`; all of the usual size, and coverage pays."""
        return suites.suites(self)

    def for_evaluation(self) -> "Houses":
        """The same with coverage paid: a reward-free agent is judged by what it covers."""
        return replace(self, pay_coverage=True)

    def ladder(self) -> dict[str, level_sets.DistributionShift]:
        """Houses of more rooms than any that is trained on; see `rlgen.evaluation.ladder`."""
        return {"crowded": level_sets.DistributionShift("V2", "of 13 to 15 rooms", "crowded")}

    # Host side.

    def level_image(self, level: Level) -> np.ndarray:
        """Picture of a level with the agent at its start, uint8[H, W, 3]."""
        return render.level_image(level)

    def render(self, level: Level | State, state: State | Level) -> np.ndarray:
        """Picture of a moment, what was seen tinted; also takes `(state, level)`, as gymnax."""
        return render.render(*level_first(level, state, Level, State))

    def _shape(self) -> Shape:
        return Shape(self.size, self.num_rooms, self.min_side)

    def _ranges(self) -> tuple[tuple[int, Any], ...]:
        return (2**32 - 1, jnp.uint32), (self.size - 1, jnp.int8)


def build(**fields) -> Houses:
    """The environment with the given fields."""
    return Houses(**fields)


def tiny() -> Houses:
    """Small houses of two to four rooms, for tests of laws."""
    return Houses(size=11, num_rooms=(2, 4), min_side=2, max_steps=24, pay_coverage=True)
