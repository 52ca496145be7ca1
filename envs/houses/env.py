"""Houses: explore a house of six to twelve rooms; there is no goal and, by default, no reward.

The agent steps right, down, left or up. It observes its own position and the 7x7 cells around it,
except the cells that walls hide. Episodes last until the time limit. The measure of performance is
the coverage: the fraction of the free cells that the agent has seen during an episode. With
`pay_coverage`, the reward of a step is the fraction of the free cells that are seen for the first
time, so the return of an episode equals its coverage. Suites always use this reward, even for
agents that were trained without reward. The return that `rlgen eval` prints for a suite is
therefore the coverage.

The environment has no method `success`, because no fraction counts as solved. It has no method
`solve`, because the shortest tour of a house is not known.

Source: the reward-free exploration of scanned houses in Henaff et al., 2023, "A Study of Global and
Episodic Bonuses for Exploration in Contextual MDPs". Differs from that study in using a grid.
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
    """Family of houses of a fixed size.

    Attributes:
        size: Number of cells per side.
        num_rooms: Smallest and largest number of rooms of a sampled house.
        min_side: Smallest side of a room, in cells.
        max_steps: Time limit of sampled levels, in steps.
        pay_coverage: If True, the return of an episode is its coverage; if False, the
            return is always 0.

    Raises:
        ValueError: A field is out of range, or `num_rooms` allows more rooms than are sure to fit.
    """

    size: int = 41
    num_rooms: tuple[int, int] = (6, 12)
    min_side: int = 5
    max_steps: int = 500
    pay_coverage: bool = False

    suite_fields = ()

    def __post_init__(self):
        check_ranges(
            self, ("size", 5, MAX_SIDE), ("min_side", 2, self.size), ("max_steps", 1, 10**6)
        )
        most = most_rooms(self.size, self.min_side)
        fewest, wanted = self.num_rooms
        if not 1 <= fewest <= wanted <= most or wanted < 2:
            raise ValueError(
                f"Houses: num_rooms={self.num_rooms} must be the smallest and the largest number "
                f"of rooms; the smallest is at least 1, and the largest is in 2 .. {most} for "
                f"size={self.size} and min_side={self.min_side}"
            )

    # Interface of gymnax.

    @property
    def num_actions(self) -> int:
        """Number of actions: right, down, left and up."""
        return 4

    @property
    def default_params(self) -> Level:
        """A house without inner walls, with the agent in the centre."""
        hall = jnp.zeros((self.size, self.size), bool)
        return make_level(hall, (self.size // 2, self.size // 2), self.max_steps)

    def observation_space(self, params: Level | None = None) -> spaces.Dict:
        """Space of the observation: the packed cells in view and the agent's position."""
        word, cell = (spaces.Box(0, top, (), dtype) for top, dtype in self._ranges())
        window = spaces.Dict({"upper": word, "lower": word})
        return spaces.Dict({"walls": window, "seen": window, "x": cell, "y": cell})

    def reset_env(self, key: Key, params: Level) -> tuple[Obs, State]:
        """Start an episode, without randomness; the cells in view count as seen."""
        x, y = params.start[0], params.start[1]
        obs = look(params, x, y)
        seen = remember(obs, jnp.zeros_like(params.walls), x, y)
        return obs, State(x, y, jnp.zeros_like(x), seen, jnp.zeros_like(x))

    def step_env(
        self, key: Key, state: State, action: Int[Array, ""] | int | float, params: Level
    ) -> tuple[Obs, State, Float[Array, ""], Bool[Array, ""], dict]:
        """One step: `(obs, state, reward, terminated, info)`; `terminated` is always False."""
        x, y = state.x, state.y
        for number, (dx, dy) in enumerate(MOVES):
            x = x + jnp.where(action == number, dx, 0)
            y = y + jnp.where(action == number, dy, 0)
        blocked = is_set(params.walls, x, y)  # the cells outside the house are walls, too
        x, y = jnp.where(blocked, state.x, x), jnp.where(blocked, state.y, y)
        obs = look(params, x, y)
        seen = remember(obs, state.seen, x, y)
        reward, num_paid = jnp.float32(0), state.num_paid
        if self.pay_coverage:  # the first step is also rewarded for the cells seen at the start
            num_paid = num_cells(seen)
            reward = (num_paid - state.num_paid) / params.num_free
        return obs, State(x, y, state.time + 1, seen, num_paid), reward, jnp.bool_(False), {}

    def observe(
        self, key: Key, state: State, action: Int[Array, ""] | int | float | None, params: Level
    ) -> Obs:
        """Return the cells in view and the agent's position."""
        return look(params, state.x, state.y)

    # Interface of a family of levels.

    def sample_level(self, key: Key) -> Level:
        """Sample a house of random rooms; every free cell can be reached."""
        return self.level_of(jax.random.uniform(key, (self.num_draws(),)))

    def num_draws(self) -> int:
        """Number of random numbers that `level_of` needs."""
        return generator.num_draws(self._shape())

    def level_of(self, draws: Float[Array, " D"]) -> Level:
        """Build a house from numbers in [0, 1); uniform numbers give a random house."""
        return make_level(*generator.layout(self._shape(), draws), self.max_steps)

    def unpack(self, obs: Obs) -> dict[str, Float[Array, "..."]]:
        """Expand to `image` [..., 7, 7, 2] (walls, cells in sight) and `vector` [..., 2] (x, y)."""
        return unpack(obs, self.size)

    def coverage(self, state: State, level: Level) -> Float[Array, ""]:
        """Fraction of the free cells that the agent has seen so far in an episode."""
        return num_cells(state.seen) / level.num_free

    def position(self, state: State, level: Level) -> Int[Array, ""]:
        """Index of the agent's cell, counted row by row from the top left."""
        return state.y * self.size + state.x

    def num_positions(self) -> int:
        """Number of cells, walls included."""
        return self.size**2

    def level_hash(self, level: Level) -> UInt32[Array, "2"]:
        """Hash of walls and start; the time limit is ignored."""
        return level_hash((level.walls, level.start))

    def level_features(self, level: Level) -> dict[str, Array]:
        """Numbers of free and wall cells, and the coverage of an agent that never moves."""
        start = self.reset_env(jax.random.key(0), level)[1]
        return {
            "num_free": level.num_free,
            "num_walls": self.size**2 - level.num_free,
            "first_coverage": self.coverage(start, level),
        }

    def suites(self) -> dict[str, Callable[[], level_sets.Suite]]:
        """Suites by name (see `suites`); every suite has the default size and rewards coverage."""
        return suites.suites(self)

    def for_evaluation(self) -> "Houses":
        """Return a copy that rewards coverage, the score of agents trained without reward."""
        return replace(self, pay_coverage=True)

    def ladder(self) -> dict[str, level_sets.DistributionShift]:
        """Houses with more rooms than any training house; see `rlgen.evaluation.ladder`."""
        return {"crowded": level_sets.DistributionShift("V2", "of 13 to 15 rooms", "crowded")}

    # Host side.

    def level_image(self, level: Level) -> np.ndarray:
        """Picture of a level with the agent at its start, uint8[H, W, 3]."""
        return render.level_image(level)

    def render(self, level: Level | State, state: State | Level) -> np.ndarray:
        """Picture of a state, seen cells tinted; gymnax's order `(state, level)` also works."""
        return render.render(*level_first(level, state, Level, State))

    def _shape(self) -> Shape:
        return Shape(self.size, self.num_rooms, self.min_side)

    def _ranges(self) -> tuple[tuple[int, Any], ...]:
        return (2**32 - 1, jnp.uint32), (self.size - 1, jnp.int8)


def build(**fields) -> Houses:
    """Build the environment with the given fields."""
    return Houses(**fields)


def tiny() -> Houses:
    """Return small houses of two to four rooms, for the tests in `tests/laws`."""
    return Houses(size=11, num_rooms=(2, 4), min_side=2, max_steps=24, pay_coverage=True)
