"""Grid worlds: walk over objects that pay or cost, may end the episode and may come back.

Go up, down, left, right, or stay. Walking onto an object collects it: it pays its reward, ends the
episode with a probability, and comes back with another one in each later step. The time limit
truncates: it is never part of `terminated`. In *tabular* modes a level's objects stay where they
are, and the observation is the number of the state; in the others, `rand-…`, objects are placed
anew in each episode and whenever they come back. These are the environments in which learning
rules are meta-learned.

Sources: Oh et al., 2020, "Discovering Reinforcement Learning Algorithms"; Jackson et al., 2023,
"Discovering General Reinforcement Learning Algorithms with Adversarial Environment Design".
Differs from the code released with the latter in that objects are never placed inside walls, time
is not part of the observation, and observations are integers, which `unpack` expands.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np
from gymnax.environments import spaces
from jaxtyping import Array, Bool, Float, Int

from rlgen.envs.grid.draw import level_first
from rlgen.envs.gridworld import dynamics, generator, observation, render, solver, suites
from rlgen.envs.gridworld.level import NUM_ACTIONS, Level, State
from rlgen.envs.gridworld.modes import MODES
from rlgen.levels import Suite
from rlgen.protocols import LevelEnv
from rlgen.registry import did_you_mean
from rlgen.types import Key, PyTree, Solution

VARIANTS = {mode: {"mode": mode} for mode in MODES}
"""Fields of the environment by the name of its mode."""

_TABULAR_ONLY = (LevelEnv.num_states, LevelEnv.solve, LevelEnv.expected_return)


@dataclass(frozen=True)
class GridWorld(LevelEnv):
    """The grid worlds of one mode. Equal instances share compilations.

    Attributes:
        mode: which levels: `all`, `debug`, `small`, `medium` or `large` (random ones), `dense`,
            `sparse`, `long`, `longer` or `long-dense` (designed by hand), one of nine mazes such as
            `labyrinth`, `handcrafted` or `mazes` (any of these five or nine), or one with moving
            objects: `rand-all`, `rand-dense`, `rand-long`, `rand-small`, `rand-sparse`,
            `rand-very-dense`, `rand-tiny`.
    """

    mode: str = "all"

    def __post_init__(self):
        """Refuse an unknown mode."""
        if self.mode not in MODES:
            raise ValueError(
                f"GridWorld: mode={self.mode!r} is none of those there are; "
                + did_you_mean(str(self.mode), MODES)
            )

    # Sizes, which all levels of a mode share.

    @property
    def is_tabular(self) -> bool:
        """Whether the observation is the number of the state."""
        return MODES[self.mode].is_tabular

    @property
    def max_size(self) -> int:
        """G, cells a side of the largest grid; G * G is C."""
        return round(_table(self.mode).walls.shape[1] ** 0.5)

    @property
    def max_objects(self) -> int:
        """The most objects of a level, n."""
        return _table(self.mode).object_type.shape[1]

    @property
    def num_types(self) -> int:
        """The most types of objects of a level, k."""
        return _table(self.mode).reward.shape[1]

    # What gymnax asks for.

    @property
    def num_actions(self) -> int:
        """Up, down, left, right, stay."""
        return NUM_ACTIONS

    @property
    def default_params(self) -> PyTree:
        """An example level, always the same."""
        return _example(self.mode)

    def observation_space(self, params: Level | None = None) -> spaces.Space:
        """The number of the state, or `Places`."""
        num_cells = self.max_size**2
        if self.is_tabular:
            return spaces.Discrete(self.num_states())
        highest = self.num_types * num_cells - 1
        objects = spaces.Box(-1, highest, (self.max_objects,), jnp.int32)
        return spaces.Dict({"agent": spaces.Discrete(num_cells), "objects": objects})

    def reset_env(self, key: Key, params: Level) -> tuple[PyTree, State]:
        """Start of an episode on a level: all objects are there."""
        state = dynamics.reset(key, params, self.is_tabular)
        return self.observe(key, state, None, params), state

    def step_env(
        self, key: Key, state: State, action: Int[Array, ""] | int | float, params: Level
    ) -> tuple[PyTree, State, Float[Array, ""], Bool[Array, ""], dict]:
        """One step: `(obs, state, reward, terminated, info)`."""
        state, reward, terminated = dynamics.step(key, state, action, params, self.is_tabular)
        return self.observe(key, state, action, params), state, reward, terminated, {}

    def observe(
        self, key: Key, state: State, action: Int[Array, ""] | int | float | None, params: Level
    ) -> PyTree:
        """The number of the state, `cell + C * present`, or `Places`."""
        if self.is_tabular:
            return observation.number(params, state)
        return observation.places(params, state, self.max_size)

    # What makes it a family of levels.

    def sample_level(self, key: Key) -> Level:
        """A level of the mode. Nothing says that its objects can be reached."""
        table = _table(self.mode)
        uniform = jax.random.uniform(key, (generator.num_draws(table),))
        level = generator.draw(table, uniform, jnp)
        if self.is_tabular:
            return level
        return replace(level, object_pos=jnp.full_like(level.object_pos, -1))

    def lifetime(self) -> int:
        """Updates for which an agent is trained in this mode, as published."""
        return MODES[self.mode].lifetime

    def unpack(self, obs: PyTree) -> dict[str, Float[Array, "..."]]:
        """Floats: of tabular modes `cell` and `objects`, else `image`; see `observation`."""
        if self.is_tabular:
            return observation.unpack_number(obs, self.max_size**2, self.max_objects)
        return observation.unpack_places(obs, self.max_size, self.num_types)

    @property
    def lowest_return(self) -> float:
        """A bound on returns: the worst object of the mode in each of the most steps."""
        table = _table(self.mode)
        return float(table.max_steps.max() * min(table.reward.min(), 0.0))

    def level_features(self, level: Level) -> dict[str, Array]:
        """Sizes, and what there is to be had."""
        used = jnp.arange(level.object_type.shape[0]) < level.num_objects
        reward = level.reward[level.object_type]
        return {
            "size": level.size,
            "num_walls": level.walls.sum(),
            "num_objects": level.num_objects,
            "num_good": (used & (reward > 0)).sum(),
            "max_reward": jnp.where(used, reward, -jnp.inf).max(initial=-1.0),
            "max_steps": level.max_steps_in_episode,
        }

    def offers(self, capability: Callable) -> bool:
        """`num_states`, `solve` and `expected_return` are of tabular modes alone."""
        return super().offers(capability) and (self.is_tabular or capability not in _TABULAR_ONLY)

    def num_states(self) -> int:
        """How many observations there are, C * 2^n, reachable or not."""
        self.must_offer(LevelEnv.num_states)
        return self.max_size**2 * 2**self.max_objects

    def solve(self, level: Level) -> Solution:
        """The best expected return within the time limit, exactly; unsolvable if it is 0.

        `steps` are those to the nearest object that pays.
        """
        self.must_offer(LevelEnv.solve)
        best = solver.optimal_return(level, self.max_objects)
        length = dynamics.path_length(level)
        solvable = (best > 0) & (length > 0)
        return Solution(solvable, jnp.where(solvable, length, -1), jnp.where(solvable, best, 0.0))

    def expected_return(self, level: Level, log_policy: Float[Array, "S A"]) -> Float[Array, ""]:
        """What a policy earns in an episode on average, exactly; see `solver`."""
        self.must_offer(LevelEnv.expected_return)
        return solver.expected_return(level, log_policy, self.max_objects)

    # Host side.

    def level_image(self, level: Level) -> np.ndarray:
        """Picture of a level, uint8[H, W, 3]."""
        return render.draw(level)

    def render(self, level: Level | State, state: State | Level) -> np.ndarray:
        """Picture of a moment of an episode, uint8[H, W, 3]; also takes `(state, level)`."""
        return render.draw(*level_first(level, state, Level, State))

    def suites(self) -> dict[str, Callable[[], Suite]]:
        """The held-out suites: name to a function that makes one, in an environment of its mode."""
        return suites.suites(GridWorld)


def build(**fields) -> GridWorld:
    """The environment with the given fields."""
    return GridWorld(**fields)


def tiny() -> GridWorld:
    """The smallest mode, for law tests."""
    return GridWorld("debug")


@functools.cache
def _table(mode: str) -> generator.Table:
    return generator.table_of(MODES[mode])


@functools.cache
def _example(mode: str) -> Level:
    # Drawn by numpy, as compiling the generator takes seconds; concrete even when asked for under
    # a trace, as gymnax's own `step` does.
    table = _table(mode)
    uniform = np.random.default_rng(0).uniform(size=generator.num_draws(table))
    level = generator.draw(table, uniform, np)
    if not MODES[mode].is_tabular:
        level = replace(level, object_pos=np.full_like(level.object_pos, -1))
    with jax.ensure_compile_time_eval():
        return jax.tree.map(jnp.asarray, level)
