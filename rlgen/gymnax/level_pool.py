"""Level environments in plain gymnax form: each reset samples a level from a pool."""

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


@no_type_check  # JAX also builds this class and the next with leaves that are not arrays
@struct.dataclass
class Pool:
    """Params of a `LevelPool`: K levels, one of which is sampled for each episode."""

    level: PyTree  # [K, ...]
    max_steps_in_episode: int | Int[Array, "*batch"]  # upper bound on the levels' time limits


@no_type_check
@struct.dataclass
class PoolState:
    """An episode on one level of a pool."""

    inner: PyTree  # state of the environment
    index: Int[Array, "*batch"]  # index of the level in the pool
    time: Int[Array, "*batch"]  # steps taken


# The class is not frozen, because gymnax's vector wrapper assigns to attributes of its copy.
# `unsafe_hash` computes the hash from the fields, so that equal pools share compiled programs.
@dataclass(unsafe_hash=True)
class LevelPool(environment.Environment):
    """Level environment in plain gymnax form: each reset samples a level from a pool.

    The params hold the pool. gymnax's `step` computes a reset in every step. Generating a level in
    every step would cost more than the step itself, whereas selecting a level from a pool costs
    little.

    Attributes:
        env: family of levels.
        num_levels: K, number of levels in the default params, sampled from the family's base
            distribution.
        seed: random seed for sampling these levels.

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
        """Pool of `num_levels` levels sampled with `seed`."""
        return _default_pool(self)

    def params_of(self, level: PyTree) -> Pool:
        """Params for playing the given levels `[K, ...]`, such as the levels of a suite."""
        return Pool(level, int(np.max(level.max_steps_in_episode)))

    def level(self, state: PoolState, params: Pool) -> PyTree:
        """Level on which an episode is played."""
        return jax.tree.map(lambda x: jnp.asarray(x).at[state.index].get(mode="clip"), params.level)

    def reset_env(self, key: Key, params: Pool) -> tuple[PyTree, PoolState]:
        """Sample a level uniformly and start an episode on it."""
        key_level, key_reset = jax.random.split(key)
        num_levels = jax.tree.leaves(params.level)[0].shape[0]
        index = jax.random.randint(key_level, (), 0, num_levels, jnp.int32)
        state = PoolState((), index, jnp.int32(0))  # for `level`, which reads the index only
        obs, inner = self.env.reset_env(key_reset, self.level(state, params))
        return obs, replace(state, inner=inner)

    def step_env(
        self, key: Key, state: PoolState, action: Int[Array, ""], params: Pool
    ) -> tuple[PyTree, PoolState, Array, Array, dict]:
        """Take one step on the level of the episode."""
        level = self.level(state, params)
        obs, inner, reward, terminated, info = self.env.step_env(key, state.inner, action, level)
        return obs, replace(state, inner=inner, time=state.time + 1), reward, terminated, info

    @functools.partial(jax.jit, static_argnames=("self",))
    def step(
        self, key: Key, state: PoolState, action: Int[Array, ""], params: Pool | None = None
    ) -> tuple[PyTree, PoolState, Array, Array, Array, dict]:
        """Like gymnax's auto-resetting `step`, but several times faster on mazes.

        gymnax computes the observations of both the step's final state and the next episode's first
        state, then selects one of the two. This method selects the state first and computes only
        its observation. The result is correct only if the family's `observe` is deterministic. If
        the family has no `observe`, gymnax's own code is used.
        """
        if type(self._gymnax).observe is environment.Environment.observe:
            return super().step(key, state, action, params)
        params = self.default_params if params is None else params
        key_step, key_reset = jax.random.split(key)
        last_obs, last, reward, terminated, info = self.step_env(key_step, state, action, params)
        # The flag describes the episode before the reset, so it is computed from the state before
        # the reset.
        truncated = self.is_truncated(last, params)
        _, start = self.reset_env(key_reset, params)
        state = jax.tree.map(lambda x, y: jnp.where(terminated | truncated, x, y), start, last)
        # The observation is computed again even where no reset happened, so `observe` must be
        # deterministic.
        obs = self._gymnax.observe(key_step, state.inner, None, self.level(state, params))
        info = {**info, "terminated": terminated, "truncated": truncated}
        info["final_observation"] = last_obs
        return obs, state, reward, terminated, truncated, info

    def is_truncated(self, state: PoolState, params: Pool) -> Bool[Array, ""]:
        """Return whether the episode has reached the time limit of its level or of the pool."""
        own = self.env.is_truncated(state.inner, self.level(state, params))
        return own | (state.time >= params.max_steps_in_episode)

    def action_space(self, params: Pool | None = None) -> spaces.Space:
        """Action space of the family; the same for all levels."""
        return self._gymnax.action_space(_first(self, params))

    def observation_space(self, params: Pool | None = None) -> spaces.Space:
        """Observation space of the family; the same for all levels."""
        return self._gymnax.observation_space(_first(self, params))

    def render(self, state: PoolState, params: Pool) -> np.ndarray:
        """Picture of a state, uint8[H, W, 3], if the family has the capability `render`."""
        registry.require(self.env, LevelEnv.render, "rendering")
        level = self.level(state, params)
        return self.env.render(level, state.inner)  # pyright: ignore[reportAttributeAccessIssue]

    @property
    def _gymnax(self) -> environment.Environment:
        return cast(environment.Environment, self.env)


def maze_pool(
    num_levels: int = 4096, seed: int = 0, observation: str = "flat", **fields
) -> LevelPool:
    """Build `rlgen/Maze-v0`, a pool of mazes; `fields` are fields of the maze environment."""
    return LevelPool(maze_level(observation, **fields), num_levels, seed)


def maze_level(observation: str = "flat", **fields) -> LevelEnv:
    """Build `rlgen/MazeLevel-v0`, whose params are one maze; the caller vmaps over mazes."""
    return registry.load("envs", "maze").build(observation=observation, **fields)


def _first(env: LevelPool, params: Pool | None) -> PyTree:
    params = env.default_params if params is None else params
    return jax.tree.map(lambda x: x[0], params.level)


@functools.lru_cache(maxsize=16)
def _default_pool(env: LevelPool) -> Pool:
    # The arrays must be concrete even during tracing, because `step` without params calls this
    # function inside jit.
    with jax.ensure_compile_time_eval():
        keys = jax.random.split(jax.random.key(env.seed), env.num_levels)
        return env.params_of(jax.jit(jax.vmap(env.env.sample_level))(keys))
