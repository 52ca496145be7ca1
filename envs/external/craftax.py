"""Craftax: survive, mine and craft in an open world of nine floors (needs the extra `craftax`).

    pip install "rlgen[craftax]"

A level is the random key from which a world is generated, so an agent can be trained on a finite
number of worlds and tested on others. Creatures move differently in each episode. An achievement is
rewarded once per episode: with 1 in the classic game and with 1 to 8 in the full game. Gaining a
point of health gives reward +0.1, and losing a point gives -0.1. An observation is a
vector of symbolic features: 8,268 numbers in the full game and 1,345 in the classic game.

Generating a world is expensive compared with a step. Every slot (parallel environment) generates a
world in each update, so use long rollouts.

Source: Matthews et al., 2024, "Craftax: A Lightning-Fast Benchmark for Open-Ended Reinforcement
Learning"; the classic game is that of Hafner, 2021, "Benchmarking the Spectrum of Agent
Capabilities". Differs from the package craftax in two points. The world is part of the level
and is not drawn at each reset. The time limit truncates the episode and does not terminate it.
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
"""Name of the package that must be installed before a level can be played."""
VARIANTS: dict[str, dict] = {game: {"game": game} for game in package.GAMES}
"""Fields of each game; `symbolic` is the full game."""
SUITES = {"heldout": (64, 640_001), "heldout-256": (256, 640_002)}  # number of worlds, and seed


@no_type_check  # JAX also builds it with fields that are not arrays
@struct.dataclass
class Level:
    """One world, given by its random key."""

    world: UInt32[Array, "*batch 2"]  # data of the key from which the world is generated
    max_steps_in_episode: Int[Array, "*batch"]


@no_type_check
@struct.dataclass
class State:
    """State of an episode."""

    game: PyTree  # state in the format of the package
    event: Int[Array, "*batch"]  # 1 + index of the achievement unlocked by the last step; 0 if none


@dataclass(frozen=True)
class Craftax(LevelEnv):
    """Family of the worlds of one game.

    Attributes:
        game: `symbolic` for the full game, or `classic` with one floor and 22 achievements.
        max_steps: Time limit of an episode in env steps; 0 selects the limit of the game, which is
            100,000 for `symbolic` and 10,000 for `classic`.

    Raises:
        ValueError: The game is unknown or the limit is negative. Reset, step and render raise this
            error if the package craftax is not installed.
    """

    game: str = "symbolic"
    max_steps: int = 0

    def __post_init__(self):
        if self.game not in package.GAMES:
            hint = registry.did_you_mean(str(self.game), package.GAMES)
            raise ValueError(f"Craftax: game={self.game!r} is unknown; {hint}")
        if not 0 <= self.max_steps < package.NEVER:
            raise ValueError(
                f"Craftax: max_steps={self.max_steps} must be positive, or 0 for the limit of the "
                f"game, {package.GAMES[self.game].max_steps}"
            )

    # Methods required by gymnax.

    @property
    def name(self) -> str:
        """Name of the game in the package."""
        return package.GAMES[self.game].id

    @property
    def num_actions(self) -> int:
        """Number of actions (moves, tools, recipes): 43, or 17 in the classic game."""
        return package.GAMES[self.game].num_actions

    def observation_space(self, params: Level | None = None) -> spaces.Box:
        """Unbounded vector; most entries are 0 or 1, but health and enchantments can exceed 1."""
        num_inputs = package.GAMES[self.game].num_inputs
        return spaces.Box(-jnp.inf, jnp.inf, (num_inputs,), jnp.float32)

    def reset_env(self, key: Key, params: Level) -> tuple[Float[Array, " F"], State]:
        """Start an episode in the world of the level; deterministic."""
        obs, state = package.begin(self.game, params.world)
        return obs, State(state, jnp.int32(0))

    def step_env(
        self, key: Key, state: State, action: Int[Array, ""] | int | float, params: Level
    ) -> tuple[Float[Array, " F"], State, Float[Array, ""], Bool[Array, ""], dict]:
        """One step: `(obs, state, reward, terminated, info)`."""
        step = package.step(self.game, key, state.game, jnp.asarray(action, jnp.int32))
        # Achievements persist within an episode, so a new one is missing in the previous state.
        unlocked = step.state.achievements & ~state.game.achievements
        event = jnp.where(unlocked.any(), unlocked.argmax() + 1, 0).astype(jnp.int32)
        return step.obs, State(step.state, event), step.reward, step.is_over, {}

    def is_truncated(self, state: State, params: Level) -> Bool[Array, ""]:
        """True at the time limit of the level."""
        return state.game.timestep >= params.max_steps_in_episode

    # Methods of a level family.

    def sample_level(self, key: Key) -> Level:
        """Sample a world."""
        limit = self.max_steps or package.GAMES[self.game].max_steps
        return Level(jax.random.key_data(key), jnp.int32(limit))

    def position(self, state: State, level: Level) -> Int[Array, ""]:
        """Cell of the agent, counted floor by floor and row by row."""
        _, rows, columns = package.GAMES[self.game].shape
        y, x = state.game.player_position
        return (package.floor_of(self.game, state.game) * rows + y) * columns + x

    def num_positions(self) -> int:
        """Number of cells of all floors: 20,736, or 4,096 in the classic game."""
        floors, rows, columns = package.GAMES[self.game].shape
        return floors * rows * columns

    def event(self, state: State, level: Level) -> Int[Array, ""]:
        """1 + lowest index of the achievements unlocked by the last step; 0 if it unlocked none."""
        return state.event

    def num_events(self) -> int:
        """Number of events, one per achievement and one for none: 68, or 23 in the classic game."""
        return 1 + package.GAMES[self.game].num_achievements

    def render(self, level: Level, state: State) -> UInt8[np.ndarray, "H W 3"]:
        """Picture of the agent's view, drawn on the host; the first call loads the textures."""
        picture = np.asarray(package.painter(self.game)(state.game))
        return np.clip(picture, 0, 255).astype(np.uint8)

    def suites(self) -> dict[str, Callable[[], Suite]]:
        """Suites by name: `heldout` (64 worlds) and `heldout-256`, each from a fixed seed."""
        return {name: functools.partial(_suite, self, name) for name in SUITES}


def build(**fields) -> Craftax:
    """Build the environment with the given fields."""
    return Craftax(**fields)


def tiny() -> Craftax:
    """Return the classic game with short episodes, for the tests in `tests/laws`."""
    return Craftax("classic", max_steps=16)


def _suite(env: Craftax, name: str) -> Suite:
    num, seed = SUITES[name]
    levels = jax.vmap(env.sample_level)(jax.random.split(jax.random.key(seed), num))
    names = tuple(f"world-{i:03d}" for i in range(num))
    return Suite(f"craftax/{name}", env, make_level_set(env, levels, names))
