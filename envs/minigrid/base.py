"""Base class of MiniGrid's families, whose levels are functions of uniform numbers.

Held-out levels are sampled from separate random streams, which are identical in every version of
numpy. Training levels are sampled from all levels of a family and, like those of every family,
replaced if they are held out.
"""

import abc
import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np
from gymnax.environments import spaces
from jaxtyping import Array, Bool, Float, Int, UInt32

from rlgen import levels as level_sets
from rlgen.envs.checks import check_choices
from rlgen.envs.grid.draw import level_first
from rlgen.envs.minigrid import dynamics, room_grid, view
from rlgen.envs.minigrid import render as pictures
from rlgen.envs.minigrid.level import EVENTS, Level, State, first_state, hash_parts, position_of
from rlgen.envs.minigrid.view import PackedObs
from rlgen.protocols import LevelEnv, level_hash
from rlgen.types import Key

VERSION = "1"
NUM_LEVELS = 100


@dataclass(frozen=True, kw_only=True)
class MiniGridFamily(LevelEnv, abstract=True):
    """Base class of MiniGrid's worlds: the agent has to pick up the target within the time limit.

    A family is a frozen dataclass.

    Attributes:
        penalize_time: If True, solving a level after t steps gives reward 1 - 0.9 t / limit, where
            `limit` is the time limit. If False, the reward is 1.
        encoding: Network input for each cell in view. `codes` gives the codes of the cell's object,
            colour and state, divided by ten. `one-hot` gives a flag for each value of each code.
    """

    penalize_time: bool = False
    encoding: Literal["codes", "one-hot"] = "codes"

    suite_fields = ()

    family: ClassVar[str]
    """Name in the registry, from which the random streams of held-out levels are derived."""
    variants: ClassVar[Mapping[str, dict]]
    """Fields of each variant, by name."""
    held_out: ClassVar[tuple[str, ...]]
    """Names of the variants that have a suite of held-out levels."""

    def __post_init__(self):
        """Reject an unknown encoding."""
        check_choices(self, encoding=("codes", "one-hot"))

    @abc.abstractmethod
    def num_draws(self) -> int:
        """Number of uniform numbers that a level needs."""

    @abc.abstractmethod
    def level_of(self, uniform: Float[Array, " n"]) -> Level:
        """Build a level from `num_draws()` numbers in [0, 1)."""

    # Interface of gymnax.

    @property
    def num_actions(self) -> int:
        """Seven actions: left, right, forward, pick up, drop, toggle, and one that does nothing."""
        return 7

    @property
    def default_params(self) -> Level:
        """A fixed example level."""
        return _example(self)

    def observation_space(self, params: Level | None = None) -> spaces.Dict:
        """Space of the packed observation."""
        return view.observation_space()

    def reset_env(self, key: Key, params: Level) -> tuple[PackedObs, State]:
        """Start an episode on a level, without randomness."""
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
        """Return the visible cells among the 7x7 cells ahead, and the agent's direction."""
        return view.packed_view(params, state)

    # Interface of a family of levels.

    def sample_level(self, key: Key) -> Level:
        """Sample a world from MiniGrid's distribution; every world is solvable."""
        return self.level_of(room_grid.uniforms(key, self.num_draws()))

    def unpack(self, obs: PackedObs) -> dict[str, Float[Array, "..."]]:
        """Expand `obs` to `image` [..., 7, 7, 3 or 17] and one-hot `direction` [..., 4]."""
        return view.unpack(obs, self.encoding)

    def success(
        self, episode_return: Float[Array, "..."], terminated: Bool[Array, "..."]
    ) -> Bool[Array, "..."]:
        """Return whether the episode was solved, that is, whether the target was picked up."""
        return terminated

    def position(self, state: State, level: Level) -> Int[Array, ""]:
        """Index of the agent's cell, counted row by row."""
        return position_of(state, level)

    @abc.abstractmethod
    def num_positions(self) -> int:
        """Number of cells of the world, walls included."""

    def event(self, state: State, level: Level) -> Int[Array, ""]:
        """Effect of the last step, as an index into `EVENTS`."""
        return state.event

    def num_events(self) -> int:
        """Number of events, the length of `EVENTS`."""
        return len(EVENTS)

    def level_hash(self, level: Level) -> UInt32[Array, "2"]:
        """Hash of all parts of a level except the time limit."""
        return level_hash(hash_parts(level))

    def suites(self) -> dict[str, Callable[[], level_sets.Suite]]:
        """Return functions that build the suites of held-out levels, by the name of the variant."""
        return {name: functools.partial(_suite, self, name) for name in self.held_out}

    # Host side.

    def level_image(self, level: Level) -> np.ndarray:
        """Picture of a level, uint8[H * tile, W * tile, 3]."""
        return pictures.render(level)

    def render(self, level: Level | State, state: State | Level) -> np.ndarray:
        """Picture of a state of an episode.

        The first two arguments may also have gymnax's order, `(state, level)`.
        """
        return pictures.render(*level_first(level, state, Level, State))

    def load_levels(self, path: Path | str) -> level_sets.LevelSet:
        """Load levels from an `.npz` file of rlgen.

        Raises:
            ValueError: The file is unreadable, or its levels have a different size or kind.
        """
        return level_sets.load_levels(path, self.default_params)


def draw(env: MiniGridFamily, stream: str, num: int) -> Level:
    """Sample the first `num` levels of a random stream, `[num, ...]`."""
    bits = np.random.PCG64(np.random.SeedSequence(list(stream.encode())))
    raw = bits.random_raw(num * env.num_draws()).reshape(num, env.num_draws())
    # Multiples of 2**-24 are exact in float32.
    uniform = jnp.asarray((raw >> np.uint64(40)) * 2.0**-24, jnp.float32)
    return jax.jit(jax.vmap(env.level_of))(uniform)


def _suite(env: Any, name: str) -> level_sets.Suite:
    env = replace(env, **env.variants[name])
    levels = draw(env, f"{env.family}/{name}", NUM_LEVELS)
    names = tuple(f"{name}-{i:03d}" for i in range(NUM_LEVELS))
    made = level_sets.make_level_set(env, levels, names, version=VERSION)
    return level_sets.Suite(f"{env.family}/{name}", env, level_sets.sealed_if_large(made))


@functools.lru_cache(maxsize=64)
def _example(env: MiniGridFamily) -> Level:
    # The arrays are concrete even if JAX traces the caller, for example gymnax's own `step`.
    with jax.ensure_compile_time_eval():
        return jax.tree.map(lambda x: x[0], draw(env, f"{env.family}/example", 1))
