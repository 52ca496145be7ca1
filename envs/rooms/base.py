"""Base class of the families on grids of walls, lava, doors and keys."""

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
"""Probability that a door opens when the agent walks into it, in families whose doors jam."""


@dataclass(frozen=True, kw_only=True)
class RoomsFamily(LevelEnv, abstract=True):
    """Base class of grid families with doors: observation, dynamics and exact solver.

    A family is a frozen dataclass that samples levels and declares the kinds of its doors.

    Attributes:
        observation: Observed cells: `packed` for the 7x7 cells around the agent, `full` for the
            whole grid.
        occlusion: If True, walls and shut doors hide the cells behind them.
        clock: If True, the number of steps taken is observed.
        noise: If True, a random colour is observed, which is resampled at every step.
    """

    observation: Literal["packed", "full"] = "packed"
    occlusion: bool = False
    clock: bool = False
    noise: bool = False

    doors_closed: ClassVar[bool] = True
    """True if the family has doors that can be shut."""
    doors_jam: ClassVar[bool] = False
    """True if a closed door may stay shut when the agent walks into it."""

    optimum_is_bound = True  # the search is exact, and assumes that no door jams

    @property
    @abc.abstractmethod
    def sides(self) -> tuple[int, int]:
        """Height and width of the grid, in cells."""

    @abc.abstractmethod
    def sample_level(self, key: Key) -> Level:
        """Sample a solvable level."""

    def check_options(self) -> None:
        """Reject invalid options of the observation.

        Raises:
            ValueError: An option is unknown, or two options are incompatible; the message names the
                field.
        """
        check_choices(self, observation=("packed", "full"))
        if self.observation == "full" and self.occlusion:
            raise ValueError(
                f"{type(self).__name__}: occlusion=True requires observation='packed'; "
                "set it to False"
            )

    # Interface of gymnax.

    @property
    def num_actions(self) -> int:
        """Number of actions: right, down, left, up and interact."""
        return 5

    def observation_space(self, params: Level | None = None) -> spaces.Dict:
        """Space of the kind of observation chosen by the fields."""
        key = jax.random.key(0)
        obs = jax.eval_shape(lambda: self.reset_env(key, self.sample_level(key))[0])
        return observation.space_of(obs)

    def reset_env(self, key: Key, params: Level) -> tuple[PyTree, State]:
        """Start an episode on a level; only the observed noise is random."""
        state = start_of(params)
        return self.observe(key, state, None, params), state

    def step_env(
        self, key: Key, state: State, action: Int[Array, ""] | int | float, params: Level
    ) -> tuple[PyTree, State, Float[Array, ""], Bool[Array, ""], dict]:
        """One step: `(obs, state, reward, terminated, info)`."""
        door_opens = True
        if self.doors_jam:
            key_door, key = jax.random.split(key)  # from here on, `key` serves the noise
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
        """Return the observation of a state; the fields of the family determine its contents."""
        full = self.observation == "full"
        options = observation.Options(full, self.occlusion, self.clock, self.noise)
        return observation.observe(key, state, params, options)

    # Interface of a family of levels.

    def unpack(self, obs: PyTree) -> dict[str, Float[Array, "..."]]:
        """Unpack `obs` to `image` [..., H, W, C] and `vector` [..., F].

        The module `observation` describes the contents of image and vector.
        """
        return observation.unpack(obs)

    def success(
        self, episode_return: Float[Array, "..."], terminated: Bool[Array, "..."]
    ) -> Bool[Array, "..."]:
        """Return whether the episode gave reward.

        Lava also terminates an episode, but without reward.
        """
        return episode_return > 0

    def solve(self, level: Level) -> Solution:
        """Compute the optimal solution, by an exact search.

        The result holds the length of the shortest solution and the return of this solution within
        the time limit.
        """
        return solver.solve(level, self.doors_closed)

    def offers(self, capability: Callable) -> bool:
        """Return whether the family offers a capability.

        A family whose doors jam does not offer `labelled_states`, because its best actions differ
        from the actions of a shortest path.
        """
        jams = capability is LevelEnv.labelled_states and self.doors_jam
        return super().offers(capability) and not jams

    def labelled_states(self, key: Key, level: Level, num: int) -> tuple[State, Bool[Array, "S 5"]]:
        """Draw states uniformly, each with the mask of its best actions."""
        self.must_offer(LevelEnv.labelled_states)
        return best_actions.labelled_states(key, level, num, doors_closed=self.doors_closed)

    def position(self, state: State, level: Level) -> Int[Array, ""]:
        """Index of the agent's cell, `y * width + x`.

        If the agent is outside the grid, the index is that of the nearest cell of the grid.
        """
        # Where lava surrounds the grid, a final state can be one step outside.
        height, width = self.sides
        return jnp.clip(state.y, 0, height - 1) * width + jnp.clip(state.x, 0, width - 1)

    def num_positions(self) -> int:
        """Number of cells of the grid."""
        height, width = self.sides
        return height * width

    def event(self, state: State, level: Level) -> Int[Array, ""]:
        """Event of the last step, one of the constants in `dynamics`."""
        return state.event

    def num_events(self) -> int:
        """Number of events, including the event `NOTHING`."""
        return dynamics.NUM_EVENTS

    def feature_values(
        self, level: Level, feature: str, discount: float | Float[Array, ""]
    ) -> Float[Array, " Z"]:
        """For each feature value z, the lowest optimal value of the reachable states with this z.

        The optimal value of a state is `discount` to the power of the length of the shortest path
        to the goal, and 0 if the goal cannot be reached. The result is also 0 for each z that no
        reachable state has.

        Args:
            level: One level.
            feature: `position` or `event`.
            discount: Discount factor per step.

        Raises:
            ValueError: The feature is unknown.
        """
        if feature == "position":
            return solver.position_values(level, discount, self.doors_closed)
        if feature == "event":
            return solver.event_values(level, discount, self.doors_closed, self.doors_jam)
        raise ValueError(f"feature={feature!r} is none of position, event")

    def level_features(self, level: Level) -> dict[str, Array]:
        """Scalars that describe a level.

        `coverage` is the time limit divided by the number of reachable cells.
        """
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
        """Picture of a state of an episode.

        The first two arguments may also have gymnax's order, `(state, level)`.
        """
        return pictures.render(*level_first(level, state, Level, State), highlight)

    def load_levels(self, path: Path | str) -> level_sets.LevelSet:
        """Load levels from an `.npz` file of rlgen.

        Raises:
            ValueError: The file is unreadable, or its levels have a different family or size.
        """
        return level_sets.load_levels(path, self.default_params)
