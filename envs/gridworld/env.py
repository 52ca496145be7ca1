"""Grid worlds: collect objects that give or cost reward, may end the episode and may respawn.

The actions are up, down, left, right and stay. If the agent walks onto an object, it collects the
object and receives the object's reward. The episode then ends with the object's termination
probability. In each later step the collected object respawns with its respawn probability. The time
limit truncates the episode and is never part of `terminated`.

A mode is a distribution of levels. In *tabular* modes the level fixes the cells of its objects, and
the observation is the index of the state. In the other modes, `rand-…`, objects get random cells in
each episode and whenever they respawn. Update rules are meta-learned in these environments.

Sources: Oh et al., 2020, "Discovering Reinforcement Learning Algorithms"; Jackson et al., 2023,
"Discovering General Reinforcement Learning Algorithms with Adversarial Environment Design".
Differs from the code of Jackson et al. in three points. Objects are never placed inside walls, time
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
"""Fields of the environment in each mode."""

_TABULAR_ONLY = (LevelEnv.num_states, LevelEnv.solve, LevelEnv.expected_return)


@dataclass(frozen=True)
class GridWorld(LevelEnv):
    """Grid worlds of one mode. Equal instances share compiled functions.

    Attributes:
        mode: Distribution of levels. Levels are random in `all`, `debug`, `small`, `medium` and
            `large`. They are designed by hand in `dense`, `sparse`, `long`, `longer`, `long-dense`
            and in `handcrafted`, which mixes these five. They are mazes in nine modes, such as
            `labyrinth`, and in `mazes`, which mixes these nine. Objects get random cells in each
            episode in `rand-all`, `rand-dense`, `rand-long`, `rand-small`, `rand-sparse`,
            `rand-very-dense` and `rand-tiny`.
    """

    mode: str = "all"

    suite_fields = ("mode",)

    def __post_init__(self):
        """Reject an unknown mode."""
        if self.mode not in MODES:
            raise ValueError(
                f"GridWorld: mode={self.mode!r} is unknown; " + did_you_mean(str(self.mode), MODES)
            )

    # Sizes shared by all levels of a mode.

    @property
    def is_tabular(self) -> bool:
        """True if the observation is the index of the state."""
        return MODES[self.mode].is_tabular

    @property
    def max_size(self) -> int:
        """G, the number of cells per side of the largest grid; C = G * G."""
        return round(_table(self.mode).walls.shape[1] ** 0.5)

    @property
    def max_objects(self) -> int:
        """n, the largest number of objects in a level."""
        return _table(self.mode).object_type.shape[1]

    @property
    def num_types(self) -> int:
        """k, the largest number of object types in a level."""
        return _table(self.mode).reward.shape[1]

    # Interface of gymnax.

    @property
    def num_actions(self) -> int:
        """Number of actions: up, down, left, right and stay."""
        return NUM_ACTIONS

    @property
    def default_params(self) -> PyTree:
        """A fixed example level."""
        return _example(self.mode)

    def observation_space(self, params: Level | None = None) -> spaces.Space:
        """Space of state indices in tabular modes, and of `Places` in all other modes."""
        num_cells = self.max_size**2
        if self.is_tabular:
            return spaces.Discrete(self.num_states())
        # An object is encoded as type * C + cell, or as -1 if it is absent.
        highest = self.num_types * num_cells - 1
        objects = spaces.Box(-1, highest, (self.max_objects,), jnp.int32)
        return spaces.Dict({"agent": spaces.Discrete(num_cells), "objects": objects})

    def reset_env(self, key: Key, params: Level) -> tuple[PyTree, State]:
        """Start an episode on a level, with all objects present."""
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
        """State index (see `observation.number`) in tabular modes, and `Places` in the others."""
        if self.is_tabular:
            return observation.number(params, state)
        return observation.places(params, state, self.max_size)

    # Interface of a family of levels.

    def sample_level(self, key: Key) -> Level:
        """Sample a level of the mode, whose objects are not guaranteed to be reachable."""
        table = _table(self.mode)
        uniform = jax.random.uniform(key, (generator.num_draws(table),))
        level = generator.draw(table, uniform, jnp)
        if self.is_tabular:
            return level
        # In the other modes each episode draws the cells of the objects. The level sets these cells
        # to -1, because they must not distinguish levels.
        return replace(level, object_pos=jnp.full_like(level.object_pos, -1))

    def lifetime(self) -> int:
        """Number of updates for which an agent is trained in this mode."""
        return MODES[self.mode].lifetime

    def unpack(self, obs: PyTree) -> dict[str, Float[Array, "..."]]:
        """Convert to floats: `cell` and `objects` in tabular modes, `image` in all other modes.

        See `rlgen.envs.gridworld.observation`.
        """
        if self.is_tabular:
            return observation.unpack_number(obs, self.max_size**2, self.max_objects)
        return observation.unpack_places(obs, self.max_size, self.num_types)

    @property
    def lowest_return(self) -> float:
        """Lower bound on returns: the lowest reward in every step of the mode's longest episode."""
        table = _table(self.mode)
        return float(table.max_steps.max() * min(table.reward.min(), 0.0))

    def level_features(self, level: Level) -> dict[str, Array]:
        """Scalars that describe a level: sizes, counts and the largest reward."""
        used = jnp.arange(level.object_type.shape[0]) < level.num_objects
        reward = level.reward[level.object_type]
        return {
            "size": level.size,
            "num_walls": level.walls.sum(),
            "num_objects": level.num_objects,
            "num_good": (used & (reward > 0)).sum(),
            # -inf masks unused objects; `initial` keeps the result finite if there are no objects.
            "max_reward": jnp.where(used, reward, -jnp.inf).max(initial=-1.0),
            "max_steps": level.max_steps_in_episode,
        }

    def offers(self, capability: Callable) -> bool:
        """Only tabular modes offer `num_states`, `solve` and `expected_return`."""
        return super().offers(capability) and (self.is_tabular or capability not in _TABULAR_ONLY)

    def num_states(self) -> int:
        """Number of observations: C * 2^n for C cells and n objects, unreachable ones included."""
        self.must_offer(LevelEnv.num_states)
        return self.max_size**2 * 2**self.max_objects

    def solve(self, level: Level) -> Solution:
        """Compute the exact best expected return within the time limit.

        A level is unsolvable if that return is 0, or if no object with positive reward can be
        reached. `steps` is the number of steps to the nearest object with positive reward.
        """
        self.must_offer(LevelEnv.solve)
        best = solver.optimal_return(level, self.max_objects)
        length = dynamics.path_length(level)
        solvable = (best > 0) & (length > 0)
        return Solution(solvable, jnp.where(solvable, length, -1), jnp.where(solvable, best, 0.0))

    def expected_return(self, level: Level, log_policy: Float[Array, "S A"]) -> Float[Array, ""]:
        """Compute the exact expected return of a policy in one episode; see `solver`."""
        self.must_offer(LevelEnv.expected_return)
        return solver.expected_return(level, log_policy, self.max_objects)

    # Host side.

    def level_image(self, level: Level) -> np.ndarray:
        """Picture of a level, uint8[H, W, 3]."""
        return render.draw(level)

    def render(self, level: Level | State, state: State | Level) -> np.ndarray:
        """Picture of a state of an episode, uint8[H, W, 3]; also accepts `(state, level)`."""
        return render.draw(*level_first(level, state, Level, State))

    def suites(self) -> dict[str, Callable[[], Suite]]:
        """Functions that build the held-out suites, by name; each suite uses its own mode.

        The suite `test` has the mode of this environment.
        """
        return suites.suites(self)


def build(**fields) -> GridWorld:
    """Build the environment with the given fields."""
    return GridWorld(**fields)


def tiny() -> GridWorld:
    """Return the smallest mode, for the tests in `tests/laws`."""
    return GridWorld("debug")


@functools.cache
def _table(mode: str) -> generator.Table:
    return generator.table_of(MODES[mode])


@functools.cache
def _example(mode: str) -> Level:
    # The example is drawn with numpy, because compiling the generator takes seconds. The arrays are
    # concrete even if this function is called under a trace, as it is in gymnax's own `step`.
    table = _table(mode)
    uniform = np.random.default_rng(0).uniform(size=generator.num_draws(table))
    level = generator.draw(table, uniform, np)
    if not MODES[mode].is_tabular:
        level = replace(level, object_pos=np.full_like(level.object_pos, -1))
    with jax.ensure_compile_time_eval():
        return jax.tree.map(jnp.asarray, level)
