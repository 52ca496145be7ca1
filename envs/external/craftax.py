"""Craftax: survive, mine and craft in an open world of nine floors (needs the extra `craftax`).

    pip install "rlgen[craftax]"

A level is the key that its world grows from, so that an agent can be trained on a finite number of
worlds and tested on others; the creatures move anew in each episode. An achievement pays once an
episode: 1 in the classic game, 1 to 8 in the full one; each point of health pays 0.1, up or down.
Observations are symbols in one vector, 8,268 numbers or 1,345 in the classic game.

Growing a world is dear beside a step, and every slot starts one in each update: use long rollouts.

Source: Matthews et al., 2024, "Craftax: A Lightning-Fast Benchmark for Open-Ended Reinforcement
Learning"; the classic game is Hafner, 2021, "Benchmarking the Spectrum of Agent Capabilities".
Differs from the package in that the world is the level's and not drawn at each reset, and in that
the time limit truncates and does not terminate.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import no_type_check

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from gymnax.environments import spaces
from jaxtyping import Array, Bool, Float, Int, UInt8, UInt32

from rlgen import registry
from rlgen.envs.external import craftax_adapter as package
from rlgen.levels import Suite, make_level_set
from rlgen.protocols import LevelEnv
from rlgen.types import Key, PyTree

__all__ = ["EXTRA", "VARIANTS", "Craftax", "Level", "State", "build", "tiny"]

EXTRA = package.EXTRA
"""The package that has to be installed before anything can be played."""
VARIANTS: dict[str, dict] = {game: {"game": game} for game in package.GAMES}
"""The games; `symbolic` is the full one."""
SUITES = {"heldout": (64, 640_001), "heldout-256": (256, 640_002)}  # worlds and seed


@no_type_check  # JAX also builds it of what is not an array
@struct.dataclass
class Level:
    """One world."""

    world: UInt32[Array, "*batch 2"]  # the data of the key that it grows from
    max_steps_in_episode: Int[Array, "*batch"]


@no_type_check
@struct.dataclass
class State:
    """A moment of an episode."""

    game: PyTree  # the package's state
    event: Int[Array, "*batch"]  # 1 + the achievement that the last step unlocked; 0 for none


@dataclass(frozen=True)
class Craftax(LevelEnv):
    """Worlds of one game.

    Attributes:
        game: `symbolic`, the full game, or `classic`, one floor and 22 achievements.
        max_steps: time limit of an episode; 0 for the published 100,000, or 10,000 of `classic`.

    Raises:
        ValueError: an unknown game or a negative limit; and from reset, step and render, if the
            package craftax is missing.
    """

    game: str = "symbolic"
    max_steps: int = 0

    def __post_init__(self):
        if self.game not in package.GAMES:
            hint = registry.did_you_mean(str(self.game), package.GAMES)
            raise ValueError(f"Craftax: game={self.game!r} is unknown; {hint}")
        if not 0 <= self.max_steps < package.NEVER:
            raise ValueError(
                f"Craftax: max_steps={self.max_steps} must be positive, or 0 for the game's own "
                f"limit, {package.GAMES[self.game].max_steps}"
            )

    # What gymnax asks for.

    @property
    def name(self) -> str:
        """Name of the game in the package."""
        return package.GAMES[self.game].id

    @property
    def num_actions(self) -> int:
        """Moves, tools and recipes: 43, or 17 in the classic game."""
        return package.GAMES[self.game].num_actions

    def observation_space(self, params: Level | None = None) -> spaces.Box:
        """A vector without bounds: most entries are 0 or 1, but health and enchantments pass 1."""
        num_inputs = package.GAMES[self.game].num_inputs
        return spaces.Box(-jnp.inf, jnp.inf, (num_inputs,), jnp.float32)

    def reset_env(self, key: Key, params: Level) -> tuple[Float[Array, " F"], State]:
        """The first moment of the level's world, the same each time."""
        obs, state = package.begin(self.game, params.world)
        return obs, State(state, jnp.int32(0))

    def step_env(
        self, key: Key, state: State, action: Int[Array, ""] | int | float, params: Level
    ) -> tuple[Float[Array, " F"], State, Float[Array, ""], Bool[Array, ""], dict]:
        """One step: `(obs, state, reward, terminated, info)`."""
        step = package.step(self.game, key, state.game, jnp.asarray(action, jnp.int32))
        unlocked = step.state.achievements & ~state.game.achievements
        event = jnp.where(unlocked.any(), unlocked.argmax() + 1, 0).astype(jnp.int32)
        return step.obs, State(step.state, event), step.reward, step.is_over, {}

    def is_truncated(self, state: State, params: Level) -> Bool[Array, ""]:
        """At the time limit."""
        return state.game.timestep >= params.max_steps_in_episode

    # What makes it a family of levels.

    def sample_level(self, key: Key) -> Level:
        """Any world."""
        limit = self.max_steps or package.GAMES[self.game].max_steps
        return Level(jax.random.key_data(key), jnp.int32(limit))

    def position(self, state: State, level: Level) -> Int[Array, ""]:
        """The cell that the agent is on: floor by floor, row by row."""
        _, rows, columns = package.GAMES[self.game].shape
        y, x = state.game.player_position
        return (package.floor_of(self.game, state.game) * rows + y) * columns + x

    def num_positions(self) -> int:
        """Cells of all floors: 20,736, or 4,096 in the classic game."""
        floors, rows, columns = package.GAMES[self.game].shape
        return floors * rows * columns

    def event(self, state: State, level: Level) -> Int[Array, ""]:
        """1 + the achievement that the last step unlocked, the first in order if several."""
        return state.event

    def num_events(self) -> int:
        """Nothing, and the achievements: 68, or 23 in the classic game."""
        return 1 + package.GAMES[self.game].num_achievements

    def render(self, level: Level, state: State) -> UInt8[np.ndarray, "H W 3"]:
        """What the agent sees; the package's pictures, which take a while to load. On the host."""
        picture = np.asarray(package.painter(self.game)(state.game))
        return np.clip(picture, 0, 255).astype(np.uint8)

    def suites(self) -> dict[str, Callable[[], Suite]]:
        """`heldout` and `heldout-256`: worlds of keys of their own."""
        return {name: functools.partial(_suite, self, name) for name in SUITES}


def build(**fields) -> Craftax:
    """The environment with the given fields."""
    return Craftax(**fields)


def tiny() -> Craftax:
    """The classic game in short episodes, for tests of laws."""
    return Craftax("classic", max_steps=16)


def _suite(env: Craftax, name: str) -> Suite:
    num, seed = SUITES[name]
    levels = jax.vmap(env.sample_level)(jax.random.split(jax.random.key(seed), num))
    names = tuple(f"world-{i:03d}" for i in range(num))
    return Suite(f"craftax/{name}", env, make_level_set(env, levels, names))
