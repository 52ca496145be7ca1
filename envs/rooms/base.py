"""What the families on grids of walls, lava, doors and keys have in common.

Nobody inherits here: each family names these functions in its class, as methods. It has the fields
of `Family`, a generator `sample_level`, and says what it has of doors.
"""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, TypeAlias, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from gymnax.environments import spaces
from jaxtyping import Array, Bool, Float, Int

from rlgen import levels as level_sets
from rlgen.envs.grid.rows import unpack_rows
from rlgen.envs.rooms import dynamics, observation, solver
from rlgen.envs.rooms import labelled_states as best_actions
from rlgen.envs.rooms import render as pictures
from rlgen.envs.rooms.level import Level, State, start_of
from rlgen.protocols import LevelEnv
from rlgen.types import Key, PyTree, Solution

OBSERVATIONS = ("packed", "full")


@runtime_checkable
class Family(Protocol):
    """What the functions below need of a family."""

    @property
    def observation(self) -> str:
        """`packed`, the 7x7 cells around the agent, or `full`, the whole grid."""
        ...

    @property
    def occlusion(self) -> bool:
        """Whether walls and shut doors hide what is behind them."""
        ...

    @property
    def clock(self) -> bool:
        """Whether the steps taken are seen."""
        ...

    @property
    def noise(self) -> bool:
        """Whether a random colour is seen, another at every step."""
        ...

    @property
    def sides(self) -> tuple[int, int]:
        """Height and width of the grid."""
        ...

    @property
    def doors_closed(self) -> bool:
        """Whether a door may be shut."""
        ...

    @property
    def doors_jam(self) -> bool:
        """Whether a closed door may stay shut when it is walked into."""
        ...

    def sample_level(self, key: Key) -> Level:
        """A random level that can be solved."""
        ...


Self: TypeAlias = Any
"""A `Family`. Pyright takes methods named in a class for gymnax's own, which know of no family."""


def check_options(family: Any) -> None:
    """Refuse options that make no observation.

    Raises:
        ValueError: the message names the field.
    """
    name = type(family).__name__
    check_choices(family, observation=OBSERVATIONS)
    if family.observation == "full" and family.occlusion:
        raise ValueError(f"{name}: occlusion=True is for observation='packed'; set it to False")


def check_ranges(family: Any, *ranges: tuple[str, int | float, int | float]) -> None:
    """Refuse fields outside their ranges, each given as name, least and greatest value.

    Raises:
        ValueError: the message names the field, its value and what is allowed.
    """
    for field, low, high in ranges:
        value = getattr(family, field)
        if not low <= value <= high:
            raise ValueError(f"{type(family).__name__}: {field}={value} is not in {low} .. {high}")


def check_choices(family: Any, **choices: tuple[str, ...]) -> None:
    """Refuse fields that are none of the given values.

    Raises:
        ValueError: the message names the field, its value and what is allowed.
    """
    for field, known in choices.items():
        value = getattr(family, field)
        if value not in known:
            name = type(family).__name__
            raise ValueError(f"{name}: {field}={value!r} is none of {', '.join(known)}")


# What gymnax asks for.


def num_actions(env: Family) -> int:
    """Right, down, left, up and interact."""
    return 5


def default_params(env: Family) -> PyTree:
    """An example level, always the same."""
    return _example(env)


def action_space(self: Self, params: Level | None = None) -> spaces.Discrete:
    """Five actions on every level."""
    return spaces.Discrete(5)


def observation_space(self: Self, params: Level | None = None) -> spaces.Dict:
    """Of the observation that the fields chose."""
    key = jax.random.key(0)
    obs = jax.eval_shape(lambda: self.reset_env(key, self.sample_level(key))[0])
    return observation.space_of(obs)


def reset_env(self: Self, key: Key, params: Level) -> tuple[PyTree, State]:
    """Start of an episode on a level; only the noise is random."""
    state = start_of(params)
    return observe(self, key, state, None, params), state


def step_env(
    self: Self, key: Key, state: State, action: Int[Array, ""] | int | float, params: Level
) -> tuple[PyTree, State, Float[Array, ""], Bool[Array, ""], dict]:
    """One step: `(obs, state, reward, terminated, info)`."""
    door_opens = True
    if self.doors_jam:
        key_door, key = jax.random.split(key)
        door_opens = jax.random.bernoulli(key_door, OPENING_PROB)
    outcome = dynamics.step(state, action, params, door_opens)
    obs = observe(self, key, outcome.state, action, params)
    return obs, outcome.state, outcome.reward, outcome.terminated, {}


def observe(
    self: Self,
    key: Key,
    state: State,
    action: Int[Array, ""] | int | float | None,
    params: Level,
) -> PyTree:
    """What the agent sees, in the kind that the fields chose."""
    full = self.observation == "full"
    options = observation.Options(full, self.occlusion, self.clock, self.noise)
    return observation.observe(key, state, params, options)


OPENING_PROB = 1 / 3
"""Chance that a jammed door opens to who walks into it."""


# What makes it a family of levels.


def unpack(self: Self, obs: PyTree) -> dict[str, Float[Array, "..."]]:
    """Any observation as `image` [..., H, W, C] and `vector` [..., F]; see `observation`."""
    return observation.unpack(obs)


def success(
    self: Self, episode_return: Float[Array, "..."], terminated: Bool[Array, "..."]
) -> Bool[Array, "..."]:
    """An episode is solved when it paid: lava ends it, too."""
    return episode_return > 0


def solve(self: Self, level: Level) -> Solution:
    """Fewest steps and what they earn within the level's time limit, exactly."""
    return solver.solve(level, self.doors_closed)


def offers(self: Self, capability: Callable) -> bool:
    """No labelled states where doors jam: the best actions are not those of the fewest steps."""
    jams = capability is LevelEnv.labelled_states and self.doors_jam
    return LevelEnv.offers(self, capability) and not jams


def labelled_states(
    self: Self, key: Key, level: Level, num: int
) -> tuple[State, Bool[Array, "S 5"]]:
    """States drawn evenly, each with the best actions."""
    return best_actions.labelled_states(key, level, num, doors_closed=self.doors_closed)


def position(self: Self, state: State, level: Level) -> Int[Array, ""]:
    """The agent's cell, row by row: `y * width + x`; the wall around a grid of lava is clipped."""
    height, width = self.sides
    return jnp.clip(state.y, 0, height - 1) * width + jnp.clip(state.x, 0, width - 1)


def num_positions(self: Self) -> int:
    """All cells of the grid."""
    height, width = self.sides
    return height * width


def event(self: Self, state: State, level: Level) -> Int[Array, ""]:
    """What the last step did: see `dynamics`."""
    return state.event


def num_events(self: Self) -> int:
    """Nothing and eight events."""
    return dynamics.NUM_EVENTS


def feature_values(
    self: Self, level: Level, feature: str, discount: float | Float[Array, ""]
) -> Float[Array, " Z"]:
    """The least optimal value of the states that look alike, 0 where there is no way to success.

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


def level_features(self: Self, level: Level) -> dict[str, Array]:
    """Scalars that describe a level; `coverage` is the time limit in cells that can be reached."""
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


def level_image(self: Self, level: Level) -> np.ndarray:
    """Picture of a level, uint8[H * tile, W * tile, 3]."""
    return pictures.level_image(level)


def render(
    self: Self, level: Level | State, state: State | Level, highlight: bool = True
) -> np.ndarray:
    """Picture of a moment of an episode; also takes `(state, level)`, gymnax's order."""
    if isinstance(level, State):
        level, state = state, level
    assert isinstance(level, Level) and isinstance(state, State)
    return pictures.render(level, state, highlight)


def load_levels(self: Self, path: Path | str) -> level_sets.LevelSet:
    """Levels of an `.npz` of rlgen.

    Raises:
        ValueError: unreadable, or of another family or size.
    """
    return level_sets.load_levels(path, default_params(self))


@functools.lru_cache(maxsize=64)
def _example(env: Family) -> Level:
    # Concrete even when asked for under a trace, as gymnax's own `step` does.
    with jax.ensure_compile_time_eval():
        return jax.jit(env.sample_level)(jax.random.key(0))
