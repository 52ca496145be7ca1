"""Obstructed maze: fetch the blue ball from one of the rooms behind locked doors.

A locked door opens to the key of its colour, which lies in the room before it, hidden in a box
where the variant's name has an `h`; a ball lies before the door where it has a `b`. Hands carry one
thing at a time. Picking up the blue ball ends the episode with reward 1. The time limit truncates:
it is never part of `terminated`.

Source: Chevalier-Boisvert et al., 2023, "Minigrid & Miniworld", `MiniGrid-ObstructedMaze`, whose
rules and distribution of levels these are, those of version 1, where keys are placed after the
balls. Differs from it in giving a level as data, the observation as 49 bytes, which `unpack`
expands, and, unless `penalize_time` is set, the same reward early or late.
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
from rlgen.envs.minigrid import dynamics, obstructed_generator, render, room_grid, suites, view
from rlgen.envs.minigrid.level import EVENTS, Level, State, first_state, hash_parts, position_of
from rlgen.envs.minigrid.obstructed_generator import ROOM_SIZE, nine_rooms, two_rooms
from rlgen.envs.minigrid.view import PackedObs
from rlgen.protocols import level_hash
from rlgen.types import Key

__all__ = ["EVENTS", "VARIANTS", "Level", "ObstructedMaze", "PackedObs", "State", "build", "tiny"]

_SIDE, _CENTRE = (2, 1), (1, 1)
_KINDS = {
    # The plan, and how many rooms' cells the time limit has four steps for.
    "1dl": (two_rooms(hidden=False, blocked=False), 2),
    "1dlh": (two_rooms(hidden=True, blocked=False), 2),
    "1dlhb": (two_rooms(hidden=True, blocked=True), 2),
    "2dl": (nine_rooms(1, _SIDE, hidden=False, blocked=False), 4),
    "2dlh": (nine_rooms(1, _SIDE, hidden=True, blocked=False), 4),
    "2dlhb": (nine_rooms(1, _SIDE, hidden=True, blocked=True), 4),
    "1q": (nine_rooms(1, _CENTRE, hidden=True, blocked=True), 5),
    "2q": (nine_rooms(2, _SIDE, hidden=True, blocked=True), 11),
    "full": (nine_rooms(4, _CENTRE, hidden=True, blocked=True), 25),
}
VARIANTS: dict[str, dict] = {name: {"kind": name} for name in _KINDS}
"""MiniGrid's obstructed mazes: doors locked (`dl`), keys hidden, doors blocked, quarters open."""


@dataclass(frozen=True)
class ObstructedMaze(suites.Drawn):
    """The family of obstructed mazes of one kind. Equal instances share compilations.

    Attributes:
        kind: one of `VARIANTS`.
        penalize_time: whether success after t steps is worth 1 - 0.9 t / limit.
        encoding: how `unpack` gives a cell in view: its numbers of object, colour and state,
            divided by ten, or one flag for each value.

    Raises:
        ValueError: an unknown kind or encoding.
    """

    kind: str = "full"
    penalize_time: bool = False
    encoding: Literal["codes", "one-hot"] = "codes"

    def __post_init__(self):
        if self.kind not in _KINDS:
            known = ", ".join(_KINDS)
            raise ValueError(f"ObstructedMaze: kind={self.kind!r} is none of {known}")
        view.check_encoding("ObstructedMaze", self.encoding)

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
        """A maze as upstream draws them; each can be solved."""
        return self.level_of(room_grid.uniforms(key, self.num_draws()))

    def level_of(self, uniform: Float[Array, " n"]) -> Level:
        """The level of `num_draws()` numbers from 0 to below 1."""
        plan, num_rooms = _KINDS[self.kind]
        return obstructed_generator.level_of(uniform, plan, 4 * num_rooms * ROOM_SIZE**2)

    def num_draws(self) -> int:
        """How many uniform numbers make a level."""
        return obstructed_generator.num_draws(_KINDS[self.kind][0])

    def unpack(self, obs: PackedObs) -> dict[str, Float[Array, "..."]]:
        """`image` [..., 7, 7, 3 or 17] and one-hot `direction` [..., 4]."""
        return view.unpack(obs, self.encoding)

    def success(
        self, episode_return: Float[Array, "..."], terminated: Bool[Array, "..."]
    ) -> Bool[Array, "..."]:
        """An episode is solved when the blue ball ended it."""
        return terminated

    def position(self, state: State, level: Level) -> Int[Array, ""]:
        """The agent's cell, row by row."""
        return position_of(state, level)

    def num_positions(self) -> int:
        """Cells of the world, walls included."""
        return _KINDS[self.kind][0].walls.size

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
        """Scalars that describe a level; distances are in cells, walls not minded."""
        x, y = level.object_cell % 32, level.object_cell // 32
        far = abs(x - level.start[0]) + abs(y - level.start[1])
        return {"target_distance": far[0], "nearest_key": far[1 : 1 + self._num_locks()].min()}

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
            ValueError: unreadable, or of another kind.
        """
        return level_sets.load_levels(path, self.default_params)

    def suites(self) -> dict[str, Callable[[], level_sets.Suite]]:
        """Held-out levels of four kinds: name to a function that makes a suite."""
        make = functools.partial(_variant, self)
        return {
            name: functools.partial(suites.suite, "obstructed-maze", name, make)
            for name in ("1dlhb", "2dlhb", "2q", "full")
        }

    def ladder(self) -> dict[str, level_sets.DistributionShift]:
        """Mazes of other kinds; see `rlgen.evaluation.ladder.ladder`."""
        others = [kind for kind in ("1dlhb", "2dlhb", "2q", "full") if kind != self.kind]
        return {
            kind: level_sets.DistributionShift("V3", f"of the kind {kind}", kind) for kind in others
        }

    def _num_locks(self) -> int:
        return len(_KINDS[self.kind][0].locks)


def build(**fields) -> ObstructedMaze:
    """The environment with the given fields."""
    return ObstructedMaze(**fields)


def tiny() -> ObstructedMaze:
    """The smallest instance with all there is, for law tests."""
    return ObstructedMaze("1dlhb")


@functools.lru_cache(maxsize=64)
def _example(env: ObstructedMaze) -> Level:
    return suites.example(env, "obstructed-maze")


def _variant(env: ObstructedMaze, name: str) -> ObstructedMaze:
    return replace(env, **VARIANTS[name])
