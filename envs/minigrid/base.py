"""Base of MiniGrid's families, whose levels are functions of uniform numbers.

Held-out levels are drawn from streams of their own, the same in every version of numpy. Training
levels are drawn from all levels there are; in the smallest worlds, of which there are few, some of
them will be among those held out.
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
    """A family of MiniGrid's worlds: pick up the target within the time limit.

    A family is a frozen dataclass.

    Attributes:
        penalize_time: whether success after t steps is worth 1 - 0.9 t / limit.
        encoding: how `unpack` gives a cell in view: its numbers of object, colour and state,
            divided by ten, or one flag for each value.
    """

    penalize_time: bool = False
    encoding: Literal["codes", "one-hot"] = "codes"

    family: ClassVar[str]
    """Its name in the registry, from which the streams of held-out levels follow."""
    variants: ClassVar[Mapping[str, dict]]
    """Fields by the variant's name."""
    held_out: ClassVar[tuple[str, ...]]
    """The variants that are suites."""

    def __post_init__(self):
        """Refuse an unknown encoding."""
        check_choices(self, encoding=("codes", "one-hot"))

    @abc.abstractmethod
    def num_draws(self) -> int:
        """How many uniform numbers make a level."""

    @abc.abstractmethod
    def level_of(self, uniform: Float[Array, " n"]) -> Level:
        """The level of `num_draws()` numbers from 0 to below 1."""

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
        """A world as upstream draws them; each can be solved."""
        return self.level_of(room_grid.uniforms(key, self.num_draws()))

    def unpack(self, obs: PackedObs) -> dict[str, Float[Array, "..."]]:
        """`image` [..., 7, 7, 3 or 17] and one-hot `direction` [..., 4]."""
        return view.unpack(obs, self.encoding)

    def success(
        self, episode_return: Float[Array, "..."], terminated: Bool[Array, "..."]
    ) -> Bool[Array, "..."]:
        """An episode is solved when picking up the target ended it."""
        return terminated

    def position(self, state: State, level: Level) -> Int[Array, ""]:
        """The agent's cell, row by row."""
        return position_of(state, level)

    @abc.abstractmethod
    def num_positions(self) -> int:
        """Cells of the world, walls included."""

    def event(self, state: State, level: Level) -> Int[Array, ""]:
        """What the last step did, a place in `EVENTS`."""
        return state.event

    def num_events(self) -> int:
        """Length of `EVENTS`."""
        return len(EVENTS)

    def level_hash(self, level: Level) -> UInt32[Array, "2"]:
        """Equal for equal worlds, whatever their time limits."""
        return level_hash(hash_parts(level))

    def suites(self) -> dict[str, Callable[[], level_sets.Suite]]:
        """Held-out levels of the variants in `held_out`, by the variant's name."""
        return {name: functools.partial(_suite, self, name) for name in self.held_out}

    # Host side.

    def level_image(self, level: Level) -> np.ndarray:
        """Picture of a level, uint8[H * tile, W * tile, 3]."""
        return pictures.render(level)

    def render(self, level: Level | State, state: State | Level) -> np.ndarray:
        """Picture of a moment of an episode; also takes `(state, level)`, gymnax's order."""
        return pictures.render(*level_first(level, state, Level, State))

    def load_levels(self, path: Path | str) -> level_sets.LevelSet:
        """Levels of an `.npz` of rlgen.

        Raises:
            ValueError: unreadable, or of another size or kind.
        """
        return level_sets.load_levels(path, self.default_params)


def draw(env: MiniGridFamily, stream: str, num: int) -> Level:
    """The first levels `[num, ...]` of a stream."""
    bits = np.random.PCG64(np.random.SeedSequence(list(stream.encode())))
    raw = bits.random_raw(num * env.num_draws()).reshape(num, env.num_draws())
    uniform = jnp.asarray((raw >> np.uint64(40)) * 2.0**-24, jnp.float32)  # exactly
    return jax.jit(jax.vmap(env.level_of))(uniform)


def _suite(env: Any, name: str) -> level_sets.Suite:
    env = replace(env, **env.variants[name])
    levels = draw(env, f"{env.family}/{name}", NUM_LEVELS)
    names = tuple(f"{name}-{i:03d}" for i in range(NUM_LEVELS))
    made = level_sets.make_level_set(env, levels, names, version=VERSION)
    return level_sets.Suite(f"{env.family}/{name}", env, made)


@functools.lru_cache(maxsize=64)
def _example(env: MiniGridFamily) -> Level:
    # Concrete even when asked for under a trace, as gymnax's own `step` does.
    with jax.ensure_compile_time_eval():
        return jax.tree.map(lambda x: x[0], draw(env, f"{env.family}/example", 1))
