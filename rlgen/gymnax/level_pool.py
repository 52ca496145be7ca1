"""Level environments as plain gymnax expects them: each reset draws a level from a pool."""

import functools
from dataclasses import dataclass, replace
from typing import cast, no_type_check

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from gymnax.environments import environment, spaces
from jaxtyping import Array, Bool, Int

from rlgen import registry
from rlgen.protocols import LevelEnv
from rlgen.types import Key, PyTree


@no_type_check  # JAX also builds both of what is not an array
@struct.dataclass
class Pool:
    """K levels, of which each episode is played on one: the params of a `LevelPool`."""

    level: PyTree  # [K, ...]
    max_steps_in_episode: (
        int | Int[Array, "*batch"]
    )  # cuts episodes that their own level would let go on


@no_type_check
@struct.dataclass
class PoolState:
    """An episode on one level of a pool."""

    inner: PyTree  # state of the environment
    index: Int[Array, "*batch"]  # of the level in the pool
    time: Int[Array, "*batch"]  # steps taken


# Not frozen: gymnax's vector wrapper assigns to attributes of its copy. Equality is by fields.
@dataclass(unsafe_hash=True)
class LevelPool(environment.Environment):
    """A level environment as plain gymnax expects one: each reset draws a level from a pool.

    The pool lies in the params. gymnax's `step` computes a reset with every step, so that drawing
    a level from a pool is a gather where generating one would cost more than the step itself.

    Attributes:
        env: the family of levels.
        num_levels: K of the default params, drawn from the family's base distribution.
        seed: of that draw.

    Raises:
        ValueError: `num_levels` below 1.
    """

    env: LevelEnv
    num_levels: int = 4096
    seed: int = 0

    def __post_init__(self):
        if self.num_levels < 1:
            raise ValueError(f"num_levels={self.num_levels}; a pool needs at least 1 level")

    @property
    def name(self) -> str:
        """Name of the family."""
        return self._gymnax.name

    @property
    def num_actions(self) -> int:
        """Number of discrete actions."""
        return self.env.num_actions

    @property
    def default_params(self) -> Pool:
        """The pool of `num_levels` levels that `seed` stands for."""
        return _default_pool(self)

    def params_of(self, level: PyTree) -> Pool:
        """Params that play the given levels `[K, ...]`, say those of a suite."""
        return Pool(level, int(np.max(level.max_steps_in_episode)))

    def level(self, state: PoolState, params: Pool) -> PyTree:
        """The level that an episode is played on."""
        return jax.tree.map(lambda x: jnp.asarray(x).at[state.index].get(mode="clip"), params.level)

    def reset_env(self, key: Key, params: Pool) -> tuple[PyTree, PoolState]:
        """Draw a level, uniformly, and start an episode on it."""
        key_level, key_reset = jax.random.split(key)
        num_levels = jax.tree.leaves(params.level)[0].shape[0]
        index = jax.random.randint(key_level, (), 0, num_levels, jnp.int32)
        state = PoolState((), index, jnp.int32(0))
        obs, inner = self.env.reset_env(key_reset, self.level(state, params))
        return obs, replace(state, inner=inner)

    def step_env(
        self, key: Key, state: PoolState, action: Int[Array, ""], params: Pool
    ) -> tuple[PyTree, PoolState, Array, Array, dict]:
        """One step on the episode's level."""
        level = self.level(state, params)
        obs, inner, reward, terminated, info = self.env.step_env(key, state.inner, action, level)
        return obs, replace(state, inner=inner, time=state.time + 1), reward, terminated, info

    @functools.partial(jax.jit, static_argnames=("self",))
    def step(
        self, key: Key, state: PoolState, action: Int[Array, ""], params: Pool | None = None
    ) -> tuple[PyTree, PoolState, Array, Array, Array, dict]:
        """As gymnax's `step`, which resets by itself, but several times faster on mazes.

        Gymnax observes the end of the step and the start of the next episode and chooses between
        the two; here the state is chosen and then observed. `observe` of the family must not be
        random, or what it gives twice for one state may differ; a family without one is stepped
        by gymnax's own code.
        """
        if type(self._gymnax).observe is environment.Environment.observe:
            return super().step(key, state, action, params)
        params = self.default_params if params is None else params
        key_step, key_reset = jax.random.split(key)
        last_obs, last, reward, terminated, info = self.step_env(key_step, state, action, params)
        truncated = self.is_truncated(last, params)
        _, start = self.reset_env(key_reset, params)
        state = jax.tree.map(lambda x, y: jnp.where(terminated | truncated, x, y), start, last)
        obs = self._gymnax.observe(key_step, state.inner, None, self.level(state, params))
        info = {**info, "terminated": terminated, "truncated": truncated}
        info["final_observation"] = last_obs
        return obs, state, reward, terminated, truncated, info

    def is_truncated(self, state: PoolState, params: Pool) -> Bool[Array, ""]:
        """At the time limit of the level, or of the params if that is shorter."""
        own = self.env.is_truncated(state.inner, self.level(state, params))
        return own | (state.time >= params.max_steps_in_episode)

    def action_space(self, params: Pool | None = None) -> spaces.Space:
        """The family's; it is the same on all levels."""
        return self._gymnax.action_space(_first(self, params))

    def observation_space(self, params: Pool | None = None) -> spaces.Space:
        """The family's; it is the same on all levels."""
        return self._gymnax.observation_space(_first(self, params))

    def render(self, state: PoolState, params: Pool) -> np.ndarray:
        """Picture of a moment of an episode, uint8[H, W, 3], if the family has a renderer."""
        registry.require(self.env, LevelEnv.render, "rendering")
        level = self.level(state, params)
        return self.env.render(level, state.inner)  # pyright: ignore[reportAttributeAccessIssue]

    @property
    def _gymnax(self) -> environment.Environment:
        return cast(environment.Environment, self.env)


def maze_pool(
    num_levels: int = 4096, seed: int = 0, observation: str = "flat", **fields
) -> LevelPool:
    """`rlgen/Maze-v0`: a pool of mazes; further arguments are fields of the maze environment."""
    return LevelPool(maze_level(observation, **fields), num_levels, seed)


def maze_level(observation: str = "flat", **fields) -> LevelEnv:
    """`rlgen/MazeLevel-v0`: mazes whose params are one level, to be mapped over by the caller."""
    return registry.load("envs", "maze").build(observation=observation, **fields)


def _first(env: LevelPool, params: Pool | None) -> PyTree:
    params = env.default_params if params is None else params
    return jax.tree.map(lambda x: x[0], params.level)


@functools.lru_cache(maxsize=16)
def _default_pool(env: LevelPool) -> Pool:
    # Concrete even when asked for under a trace, as gymnax's own `step` does without params.
    with jax.ensure_compile_time_eval():
        keys = jax.random.split(jax.random.key(env.seed), env.num_levels)
        return env.params_of(jax.jit(jax.vmap(env.env.sample_level))(keys))
