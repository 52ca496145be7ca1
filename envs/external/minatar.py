"""MinAtar: four miniature Atari games on 10 x 10 cells, each with a single level.

Games and observations are those of gymnax. Observations are images [10, 10, channels] of zeros and
ones as float32, without scaling.

Source: Young and Tian, 2019, "MinAtar: An Atari-Inspired Testbed for Thorough and Reproducible
Reinforcement Learning Experiments". Differs from their environment in that the time limits are
those of gymnax. The code released with Jackson et al., 2023, "Discovering General Reinforcement
Learning Algorithms with Adversarial Environment Design", divides the observations by 255, and rlgen
does not.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
from gymnax.environments import spaces
from jaxtyping import Array, Bool, Float, Int

from rlgen import registry
from rlgen.gymnax import OneLevel, from_gymnax
from rlgen.levels import Suite, make_level_set
from rlgen.protocols import LevelEnv
from rlgen.types import Key, PyTree

__all__ = ["VARIANTS", "MinAtar", "build", "tiny"]

IDS: dict[str, str] = {
    "asterix": "Asterix-MinAtar",
    "breakout": "Breakout-MinAtar",
    "freeway": "Freeway-MinAtar",
    "space-invaders": "SpaceInvaders-MinAtar",
}
"""Ids in gymnax, by game.

MinAtar's fifth game, Seaquest, is not used in published meta-tests of learned rules.
"""

VARIANTS: dict[str, dict] = {game: {"game": game} for game in IDS}
"""Fields of each game."""


@dataclass(frozen=True)
class MinAtar(LevelEnv):
    """One game of MinAtar.

    Episodes are truncated after 1,000 steps, or after 2,500 steps in Freeway.

    Attributes:
        game: Name of the game: `asterix`, `breakout`, `freeway` or `space-invaders`.

    Raises:
        ValueError: The game is unknown.
    """

    game: str = "breakout"

    def __post_init__(self):
        if self.game not in IDS:
            hint = registry.did_you_mean(str(self.game), IDS)
            raise ValueError(f"MinAtar: game={self.game!r} is unknown; {hint}")

    @property
    def name(self) -> str:
        """Name of the game in gymnax."""
        return IDS[self.game]

    @property
    def num_actions(self) -> int:
        """Number of actions that have an effect in this game."""
        return _gymnax(self.game).num_actions

    @property
    def default_params(self) -> PyTree:
        """The single level."""
        return _gymnax(self.game).default_params

    def observation_space(self, params: PyTree = None) -> spaces.Space:
        """Space of images [10, 10, channels]."""
        return _gymnax(self.game).observation_space(params)

    def sample_level(self, key: Key) -> PyTree:
        """Return the single level."""
        return self.default_params

    def reset_env(self, key: Key, params: PyTree) -> tuple[Float[Array, "10 10 C"], PyTree]:
        """Start an episode; the initial state is random in most games."""
        return _gymnax(self.game).reset_env(key, params)

    def step_env(
        self, key: Key, state: PyTree, action: Int[Array, ""] | int | float, params: PyTree
    ) -> tuple[Float[Array, "10 10 C"], PyTree, Float[Array, ""], Bool[Array, ""], dict]:
        """One step: `(obs, state, reward, terminated, info)`."""
        action = jnp.asarray(action, jnp.int32)
        return _gymnax(self.game).step_env(key, state, action, params)

    def is_truncated(self, state: PyTree, params: PyTree) -> Bool[Array, ""]:
        """True at the time limit of the game."""
        return _gymnax(self.game).is_truncated(state, params)

    def lifetime(self) -> int:
        """Number of updates per agent in published meta-tests of learned rules.

        With 64 environments and 20 steps per update, these updates take 1.28e8 env steps.
        """
        return 100_000

    def suites(self) -> dict[str, Callable[[], Suite]]:
        """Suites by name; each of the four games is a suite of one level.

        An agent that was trained on a game has seen the level of this game.
        """
        return {game: functools.partial(_suite, self, game) for game in IDS}


def build(**fields) -> MinAtar:
    """Build the environment with the given fields."""
    return MinAtar(**fields)


def tiny() -> MinAtar:
    """Return the simplest game, for the tests in `tests/laws`."""
    return MinAtar("breakout")


@functools.cache
def _gymnax(game: str) -> OneLevel:
    # If a game were first created under a trace, the arrays in it would be leaked tracers.
    with jax.ensure_compile_time_eval():
        return from_gymnax(IDS[game])


def _suite(env: MinAtar, game: str) -> Suite:
    env = replace(env, game=game)
    # A batch of one level: a leading axis of size 1 on every leaf.
    level = jax.tree.map(lambda x: x[None], env.default_params)
    return Suite(f"minatar/{game}", env, make_level_set(env, level, (game,), split="seen"))
