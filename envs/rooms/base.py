"""Base of the families on grids of walls, lava, doors and keys: observation, dynamics, solver."""

import abc
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np
from gymnax.environments import spaces
from jaxtyping import Array, Bool, Float, Int

from rlgen import levels as level_sets
from rlgen.envs.checks import check_choices
from rlgen.envs.grid.draw import level_first
from rlgen.envs.grid.rows import unpack_rows
from rlgen.envs.rooms import dynamics, observation, solver
from rlgen.envs.rooms import labelled_states as best_actions
from rlgen.envs.rooms import render as pictures
from rlgen.envs.rooms.level import Level, State, start_of
from rlgen.protocols import LevelEnv
from rlgen.types import Key, PyTree, Solution

OPENING_PROB = 1 / 3
"""Chance that a jammed door opens to who walks into it."""


@dataclass(frozen=True, kw_only=True)
class RoomsFamily(LevelEnv, abstract=True):
    """A family of grids of walls, lava, doors and keys.

    A family is a frozen dataclass that draws levels, and says what it has of doors.

    Attributes:
        observation: `packed`, the 7x7 cells around the agent, or `full`, the whole grid.
        occlusion: whether walls and shut doors hide what is behind them.
        clock: whether the steps taken are seen.
        noise: whether a random colour is seen, another at every step.
    """

    observation: Literal["packed", "full"] = "packed"
    occlusion: bool = False
    clock: bool = False
    noise: bool = False

    doors_closed: ClassVar[bool] = True
    """Whether a door may be shut."""
    doors_jam: ClassVar[bool] = False
    """Whether a closed door may stay shut when it is walked into."""

    @property
    @abc.abstractmethod
    def sides(self) -> tuple[int, int]:
        """Height and width of the grid."""

    @abc.abstractmethod
    def sample_level(self, key: Key) -> Level:
        """A random level that can be solved."""

    def check_options(self) -> None:
        """Refuse options that make no observation.

        Raises:
            ValueError: the message names the field.
        """
        check_choices(self, observation=("packed", "full"))
        if self.observation == "full" and self.occlusion:
            raise ValueError(
                f"{type(self).__name__}: occlusion=True is for observation='packed'; "
                "set it to False"
            )

    # What gymnax asks for.

    @property
    def num_actions(self) -> int:
        """Right, down, left, up and interact."""
        return 5

    def observation_space(self, params: Level | None = None) -> spaces.Dict:
        """Of the observation that the fields chose."""
        key = jax.random.key(0)
        obs = jax.eval_shape(lambda: self.reset_env(key, self.sample_level(key))[0])
        return observation.space_of(obs)

    def reset_env(self, key: Key, params: Level) -> tuple[PyTree, State]:
        """Start of an episode on a level; only the noise is random."""
        state = start_of(params)
        return self.observe(key, state, None, params), state

    def step_env(
        self, key: Key, state: State, action: Int[Array, ""] | int | float, params: Level
    ) -> tuple[PyTree, State, Float[Array, ""], Bool[Array, ""], dict]:
        """One step: `(obs, state, reward, terminated, info)`."""
        door_opens = True
        if self.doors_jam:
            key_door, key = jax.random.split(key)
            door_opens = jax.random.bernoulli(key_door, OPENING_PROB)
        outcome = dynamics.step(state, action, params, door_opens)
        obs = self.observe(key, outcome.state, action, params)
        return obs, outcome.state, outcome.reward, outcome.terminated, {}

    def observe(
        self,
        key: Key,
        state: State,
        action: Int[Array, ""] | int | float | None,
        params: Level,
    ) -> PyTree:
        """What the agent sees, in the kind that the fields chose."""
        full = self.observation == "full"
        options = observation.Options(full, self.occlusion, self.clock, self.noise)
        return observation.observe(key, state, params, options)

    # What makes it a family of levels.

    def unpack(self, obs: PyTree) -> dict[str, Float[Array, "..."]]:
        """Any observation as `image` [..., H, W, C] and `vector` [..., F]; see `observation`."""
        return observation.unpack(obs)

    def success(
        self, episode_return: Float[Array, "..."], terminated: Bool[Array, "..."]
    ) -> Bool[Array, "..."]:
        """An episode is solved when it paid: lava ends it, too."""
        return episode_return > 0

    def solve(self, level: Level) -> Solution:
        """Fewest steps and what they earn within the level's time limit, exactly."""
        return solver.solve(level, self.doors_closed)

    def offers(self, capability: Callable) -> bool:
        """No labelled states where doors jam.

        The best actions are not those of the fewest steps there.
        """
        jams = capability is LevelEnv.labelled_states and self.doors_jam
        return super().offers(capability) and not jams

    def labelled_states(self, key: Key, level: Level, num: int) -> tuple[State, Bool[Array, "S 5"]]:
        """States drawn evenly, each with the best actions."""
        self.must_offer(LevelEnv.labelled_states)
        return best_actions.labelled_states(key, level, num, doors_closed=self.doors_closed)

    def position(self, state: State, level: Level) -> Int[Array, ""]:
        """The agent's cell, `y * width + x`; on the wall around lava, the nearest cell."""
        height, width = self.sides
        return jnp.clip(state.y, 0, height - 1) * width + jnp.clip(state.x, 0, width - 1)

    def num_positions(self) -> int:
        """All cells of the grid."""
        height, width = self.sides
        return height * width

    def event(self, state: State, level: Level) -> Int[Array, ""]:
        """What the last step did: see `dynamics`."""
        return state.event

    def num_events(self) -> int:
        """Nothing and eight events."""
        return dynamics.NUM_EVENTS

    def feature_values(
        self, level: Level, feature: str, discount: float | Float[Array, ""]
    ) -> Float[Array, " Z"]:
        """The least optimal value of the states that look alike; 0 where none leads to success.

        Args:
            level: one level.
            feature: `position` or `event`.
            discount: the value of a state is this to the power of the fewest steps to success.

        Raises:
            ValueError: another feature.
        """
        if feature == "position":
            return solver.position_values(level, discount, self.doors_closed)
        if feature == "event":
            return solver.event_values(level, discount, self.doors_closed, self.doors_jam)
        raise ValueError(f"feature={feature!r} is none of position, event")

    def level_features(self, level: Level) -> dict[str, Array]:
        """Scalars that describe a level; `coverage` is the time limit in reachable cells."""
        here = solver.map_of(level, self.doors_closed)
        visited = solver.any_plane(solver.reachable(here))
        num_reached = unpack_rows(visited, level.height, level.width).sum()
        solution = self.solve(level)
        return {
            "num_reached": num_reached,
            "coverage": level.max_steps_in_episode / num_reached,
            "optimal_steps": solution.steps,
            "solvable": solution.solvable,
            "distance": jnp.abs(level.start - level.goal).sum(),
        }

    # Host side.

    def level_image(self, level: Level) -> np.ndarray:
        """Picture of a level, uint8[H * tile, W * tile, 3]."""
        return pictures.level_image(level)

    def render(
        self, level: Level | State, state: State | Level, highlight: bool = True
    ) -> np.ndarray:
        """Picture of a moment of an episode; also takes `(state, level)`, gymnax's order."""
        return pictures.render(*level_first(level, state, Level, State), highlight)

    def load_levels(self, path: Path | str) -> level_sets.LevelSet:
        """Levels of an `.npz` of rlgen.

        Raises:
            ValueError: unreadable, or of another family or size.
        """
        return level_sets.load_levels(path, self.default_params)
