"""MinAtar: four Atari games in miniature on 10 x 10 cells, each a family of one level.

The games are gymnax's, and so are their observations: images [10, 10, channels] of zeros and ones
as float32, never scaled.

Source: Young and Tian, 2019, "MinAtar: An Atari-Inspired Testbed for Thorough and Reproducible
Reinforcement Learning Experiments". Differs from it in the time limits of gymnax, and from the code
released with Jackson et al., 2023, "Discovering General Reinforcement Learning Algorithms with
Adversarial Environment Design", in not dividing the observations by 255.
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
"""Ids in gymnax. Its fifth game, Seaquest, has no part in the published meta-tests."""

VARIANTS: dict[str, dict] = {game: {"game": game} for game in IDS}
"""The games."""


@dataclass(frozen=True)
class MinAtar(LevelEnv):
    """One game.

    Episodes end at the latest after 1,000 steps, of Freeway after 2,500.

    Attributes:
        game: `asterix`, `breakout`, `freeway` or `space-invaders`.

    Raises:
        ValueError: an unknown game.
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
        """Actions that have an effect in this game."""
        return _gymnax(self.game).num_actions

    @property
    def default_params(self) -> PyTree:
        """The one level."""
        return _gymnax(self.game).default_params

    def observation_space(self, params: PyTree = None) -> spaces.Space:
        """Images [10, 10, channels]."""
        return _gymnax(self.game).observation_space(params)

    def sample_level(self, key: Key) -> PyTree:
        """The one level."""
        return self.default_params

    def reset_env(self, key: Key, params: PyTree) -> tuple[Float[Array, "10 10 C"], PyTree]:
        """Start of an episode, random in most games."""
        return _gymnax(self.game).reset_env(key, params)

    def step_env(
        self, key: Key, state: PyTree, action: Int[Array, ""] | int | float, params: PyTree
    ) -> tuple[Float[Array, "10 10 C"], PyTree, Float[Array, ""], Bool[Array, ""], dict]:
        """One step: `(obs, state, reward, terminated, info)`."""
        action = jnp.asarray(action, jnp.int32)
        return _gymnax(self.game).step_env(key, state, action, params)

    def is_truncated(self, state: PyTree, params: PyTree) -> Bool[Array, ""]:
        """At the time limit."""
        return _gymnax(self.game).is_truncated(state, params)

    def lifetime(self) -> int:
        """Updates of an agent, as published: at 64 environments and 20 steps, 1.28e8 env steps."""
        return 100_000

    def suites(self) -> dict[str, Callable[[], Suite]]:
        """Every game as a suite of one level, whichever game asks."""
        return {game: functools.partial(_suite, self, game) for game in IDS}


def build(**fields) -> MinAtar:
    """The environment with the given fields."""
    return MinAtar(**fields)


def tiny() -> MinAtar:
    """The game with the fewest parts, for tests of laws."""
    return MinAtar("breakout")


@functools.cache
def _gymnax(game: str) -> OneLevel:
    # The game keeps arrays, which must be no tracers where a trace is the first to ask for it.
    with jax.ensure_compile_time_eval():
        return from_gymnax(IDS[game])


def _suite(env: MinAtar, game: str) -> Suite:
    env = replace(env, game=game)
    level = jax.tree.map(lambda x: x[None], env.default_params)
    return Suite(f"minatar/{game}", env, make_level_set(env, level, (game,)))
