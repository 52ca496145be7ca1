"""Key corridor: fetch a ball from behind a locked door; its key lies in some room opposite.

A corridor runs between rooms on its left and right. The ball lies in a random room on the right
behind the only locked door, the key of its colour in a random one on the left. Picking up the ball
ends the episode with reward 1. Hands must be empty for that, so the key has to be dropped. The time
limit, 30 steps times the square of the size of a room, truncates: it is never part of `terminated`.

Source: Chevalier-Boisvert et al., 2023, "Minigrid & Miniworld", `MiniGrid-KeyCorridor`, whose rules
and distribution of levels these are. Differs from it in giving a level as data, the observation as
49 bytes, which `unpack` expands, and, unless `penalize_time` is set, the same reward early or late.
Navix ends its episodes on a goal instead.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from gymnax.environments import spaces
from jaxtyping import Array, Bool, Float, Int, UInt32

from rlgen import levels as level_sets
from rlgen.envs.minigrid import (
    corridor_generator,
    dynamics,
    render,
    room_grid,
    solver,
    suites,
    view,
)
from rlgen.envs.minigrid.level import (
    EVENTS,
    LONGEST,
    NOWHERE,
    Level,
    State,
    first_state,
    hash_parts,
    position_of,
)
from rlgen.envs.minigrid.view import PackedObs
from rlgen.protocols import level_hash
from rlgen.types import Key, Solution

__all__ = ["EVENTS", "VARIANTS", "KeyCorridor", "Level", "PackedObs", "State", "build", "tiny"]

VARIANTS: dict[str, dict] = {
    f"s{size}r{rows}": {"room_size": size, "num_rows": rows}
    for size, rows in ((3, 1), (3, 2), (3, 3), (4, 3), (5, 3), (6, 3))
}
"""Fields of MiniGrid's corridors."""


@dataclass(frozen=True)
class KeyCorridor(suites.Drawn):
    """The family of key corridors of one size. Equal instances share compilations.

    Attributes:
        room_size: cells a side of a room, with the walls that it shares with its neighbours.
        num_rows: rooms on either side of the corridor.
        penalize_time: whether success after t steps is worth 1 - 0.9 t / limit.
        encoding: how `unpack` gives a cell in view: its numbers of object, colour and state,
            divided by ten, or one flag for each value.

    Raises:
        ValueError: a size that makes no such world, or an unknown encoding.
    """

    room_size: int = 6
    num_rows: int = 3
    penalize_time: bool = False
    encoding: Literal["codes", "one-hot"] = "codes"

    def __post_init__(self):
        widest = (LONGEST - 1) // 3 + 1
        if not 3 <= self.room_size <= widest:
            raise ValueError(f"KeyCorridor: room_size={self.room_size} is not in 3 .. {widest}")
        most = (LONGEST - 1) // (self.room_size - 1)
        if not 1 <= self.num_rows <= min(most, 8):
            raise ValueError(
                f"KeyCorridor: num_rows={self.num_rows} is not in 1 .. {min(most, 8)}, the most "
                f"for room_size={self.room_size}; usual are 1 .. 3"
            )
        view.check_encoding("KeyCorridor", self.encoding)

    # What gymnax asks for.

    @property
    def num_actions(self) -> int:
        """Left, right, forward, pick up, drop, toggle, and one that does nothing."""
        return 7

    @property
    def default_params(self) -> Level:
        """An example level, always the same."""
        return _example(self)

    def observation_space(self, params: Level | None = None) -> spaces.Dict:
        """Of the packed view."""
        return view.observation_space()

    def reset_env(self, key: Key, params: Level) -> tuple[PackedObs, State]:
        """Start of an episode on a level; nothing about it is random."""
        state = first_state(params)
        return self.observe(key, state, None, params), state

    def step_env(
        self, key: Key, state: State, action: Int[Array, ""] | int | float, params: Level
    ) -> tuple[PackedObs, State, Float[Array, ""], Bool[Array, ""], dict]:
        """One step: `(obs, state, reward, terminated, info)`."""
        state, success = dynamics.after(params, state, action)
        reward = dynamics.reward(params, state, success, self.penalize_time)
        return self.observe(key, state, action, params), state, reward, success, {}

    def observe(
        self, key: Key, state: State, action: Int[Array, ""] | int | float | None, params: Level
    ) -> PackedObs:
        """The 7x7 cells ahead, as far as they are not hidden, and the direction."""
        return view.packed_view(params, state)

    # What makes it a family of levels.

    def sample_level(self, key: Key) -> Level:
        """A corridor as upstream draws them; each can be solved."""
        return self.level_of(room_grid.uniforms(key, self.num_draws()))

    def level_of(self, uniform: Float[Array, " n"]) -> Level:
        """The level of `num_draws()` numbers from 0 to below 1."""
        limit = 30 * self.room_size**2
        return corridor_generator.level_of(uniform, self.room_size, self.num_rows, limit)

    def num_draws(self) -> int:
        """How many uniform numbers make a level."""
        return corridor_generator.num_draws(self.num_rows)

    def unpack(self, obs: PackedObs) -> dict[str, Float[Array, "..."]]:
        """`image` [..., 7, 7, 3 or 17] and one-hot `direction` [..., 4]."""
        return view.unpack(obs, self.encoding)

    def success(
        self, episode_return: Float[Array, "..."], terminated: Bool[Array, "..."]
    ) -> Bool[Array, "..."]:
        """An episode is solved when the ball ended it."""
        return terminated

    def solve(self, level: Level) -> Solution:
        """Fewest steps and best return within the level's time limit, exactly."""
        return solver.solve(level, self.penalize_time)

    def position(self, state: State, level: Level) -> Int[Array, ""]:
        """The agent's cell, row by row."""
        return position_of(state, level)

    def num_positions(self) -> int:
        """Cells of the world, walls included."""
        height, width = self._plan().walls.shape
        return height * width

    def event(self, state: State, level: Level) -> Int[Array, ""]:
        """What the last step did, a place in `EVENTS`."""
        return state.event

    def num_events(self) -> int:
        """Length of `EVENTS`."""
        return len(EVENTS)

    def level_hash(self, level: Level) -> UInt32[Array, "2"]:
        """Equal for equal worlds, whatever their time limits."""
        return level_hash(hash_parts(level))

    def level_features(self, level: Level) -> dict[str, Array]:
        """Scalars that describe a level."""
        return {
            "optimal_steps": self.solve(level).steps,
            "num_doors": (level.door_cell != NOWHERE).sum(),
            "key_row": level.object_cell[0] // 32 // (self.room_size - 1),
            "ball_row": level.object_cell[1] // 32 // (self.room_size - 1),
        }

    # Host side.

    def level_image(self, level: Level) -> np.ndarray:
        """Picture of a level, uint8[H * tile, W * tile, 3]."""
        return render.render(level)

    def render(self, level: Level | State, state: State | Level) -> np.ndarray:
        """Picture of a moment of an episode; also takes `(state, level)`, gymnax's order."""
        if isinstance(level, State):
            level, state = state, level
        assert isinstance(level, Level) and isinstance(state, State)
        return render.render(level, state)

    def load_levels(self, path: Path | str) -> level_sets.LevelSet:
        """Levels of an `.npz` of rlgen.

        Raises:
            ValueError: unreadable, or of another size.
        """
        return level_sets.load_levels(path, self.default_params)

    def suites(self) -> dict[str, Callable[[], level_sets.Suite]]:
        """Held-out levels of four sizes: name to a function that makes a suite."""
        make = functools.partial(_variant, self)
        names = ("s3r3", "s4r3", "s5r3", "s6r3")
        return {name: functools.partial(suites.suite, "key-corridor", name, make) for name in names}

    def ladder(self) -> dict[str, level_sets.DistributionShift]:
        """Corridors of another size; see `rlgen.evaluation.ladder.ladder`."""
        others = [size for size in (3, 4, 5, 6) if size != self.room_size]
        about = "of rooms of {} cells across"
        return {
            f"s{n}r3": level_sets.DistributionShift("V2", about.format(n), f"s{n}r3")
            for n in others
        }

    def _plan(self) -> corridor_generator.Plan:
        return corridor_generator.plan(self.room_size, self.num_rows)


def build(**fields) -> KeyCorridor:
    """The environment with the given fields."""
    return KeyCorridor(**fields)


def tiny() -> KeyCorridor:
    """The smallest instance, for law tests."""
    return KeyCorridor(room_size=3, num_rows=1)


@functools.lru_cache(maxsize=64)
def _example(env: KeyCorridor) -> Level:
    return suites.example(env, "key-corridor")


def _variant(env: KeyCorridor, name: str) -> KeyCorridor:
    return replace(env, **VARIANTS[name])
