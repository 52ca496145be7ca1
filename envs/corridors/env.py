"""Star of corridors: only one corridor has a reward at its end, which agents find by walking.

Episodes start at a hub from which corridors of equal length lead away. At the hub, action m enters
corridor m. Inside a corridor, the last two actions move forward and back. Actions that do not apply
leave the agent in place. In each level one corridor is rewarded: its end gives reward +1 and ends
the episode. All other corridors are dead ends.

Two fields determine which exploration bonus can help. `sharing` sets how much levels have in
common. With probability `sharing`, a level rewards the first corridor; otherwise the rewarded
corridor is drawn at random. `max_steps` sets how much of the star one episode can cover. With
`length` steps an episode can cover a single corridor. With at least `(2 num_corridors - 1) length`
steps it can cover all corridors.

Source: the thought experiment of Henaff et al., 2023, "A Study of Global and Episodic Bonuses for
Exploration in Contextual MDPs". Differs from that experiment in that there can be many levels and
longer episodes.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import no_type_check

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from gymnax.environments import spaces
from jaxtyping import Array, Bool, Float, Int

from rlgen.envs.checks import check_ranges
from rlgen.envs.corridors import render
from rlgen.envs.grid.draw import level_first
from rlgen.levels import DistributionShift, Suite, make_level_set
from rlgen.protocols import LevelEnv
from rlgen.types import Key, Solution

SUITE_DRAWS, SUITE_SEED = 100, 41_005
MOST_CORRIDORS, MOST_STATES = 24, 2**22
VARIANTS: dict[str, dict] = {
    "singleton": {"sharing": 1.0},
    "varied": {"sharing": 0.0},
    "sweep-singleton": {
        "num_corridors": 4,
        "length": 4,
        "max_steps": 30,
        "sharing": 1.0,
        "show_visited": True,
    },
    "sweep-varied": {
        "num_corridors": 4,
        "length": 4,
        "max_steps": 30,
        "sharing": 0.0,
        "show_visited": True,
    },
}
"""Fields of each variant: `singleton` has one level, and `varied` has one level per corridor.

In the two variants whose name starts with `sweep` one episode can cover all corridors.
"""


@no_type_check  # JAX also builds it with fields that are not arrays
@struct.dataclass
class Level:
    """One star of corridors."""

    rewarded: Int[Array, "*batch"]  # the corridor whose end gives reward; never observed
    max_steps_in_episode: Int[Array, "*batch"]


@no_type_check
@struct.dataclass
class State:
    """State of an episode."""

    corridor: Int[Array, "*batch"]  # index of the current corridor; 0 at the hub
    depth: Int[Array, "*batch"]  # steps from the hub: 0 at the hub, `length` at an end
    visited: Int[Array, "*batch"]  # bit m is 1 if corridor m's end was reached in this episode
    time: Int[Array, "*batch"]  # steps taken


@dataclass(frozen=True)
class Corridors(LevelEnv):
    """Family of stars with a fixed number and length of corridors.

    Attributes:
        num_corridors: Number of corridors that lead away from the hub.
        length: Number of steps from the hub to an end.
        max_steps: Time limit of generated levels, in env steps.
        sharing: Probability that a level rewards the first corridor. Otherwise the level draws the
            rewarded corridor uniformly from all corridors, the first included. If the probability
            is 1, there is a single level.
        show_visited: Whether the observation shows the ends that were reached in this episode. If
            these ends are not shown, a policy needs memory to try one corridor after another.

    Raises:
        ValueError: A field is out of its range, or the observation would have more than 2**22
            values.
    """

    num_corridors: int = 5
    length: int = 15
    max_steps: int = 15
    sharing: float = 1.0
    show_visited: bool = False

    optimum_is_bound = True  # the shortest path is known

    def __post_init__(self):
        check_ranges(
            self,
            ("num_corridors", 2, MOST_CORRIDORS),
            ("length", 1, 10**4),
            ("max_steps", 1, 10**6),
            ("sharing", 0, 1),
        )
        if self.num_states() > MOST_STATES:
            raise ValueError(
                f"Corridors: show_visited with num_corridors={self.num_corridors} makes "
                f"{self.num_states()} observations, more than {MOST_STATES}; use fewer corridors"
            )

    # Methods required by gymnax.

    @property
    def num_actions(self) -> int:
        """One action per corridor, plus forward and back."""
        return self.num_corridors + 2

    @property
    def default_params(self) -> Level:
        """Star whose first corridor is rewarded."""
        return self._level(jnp.int32(0))

    def observation_space(self, params: Level | None = None) -> spaces.Discrete:
        """Integers that encode the position and, with `show_visited`, the set of visited ends."""
        return spaces.Discrete(self.num_states())

    def reset_env(self, key: Key, params: Level) -> tuple[Int[Array, ""], State]:
        """Start an episode at the hub; deterministic."""
        state = State(*[jnp.int32(0)] * 4)
        return self.observe(key, state, None, params), state

    def step_env(
        self, key: Key, state: State, action: Int[Array, ""] | int | float, params: Level
    ) -> tuple[Int[Array, ""], State, Float[Array, ""], Bool[Array, ""], dict]:
        """One step: `(obs, state, reward, terminated, info)`."""
        state = self._after(state, action)
        terminated = (state.depth == self.length) & (state.corridor == params.rewarded)
        obs = self.observe(key, state, action, params)
        return obs, state, terminated.astype(jnp.float32), terminated, {}

    def observe(
        self, key: Key, state: State, action: Int[Array, ""] | int | float | None, params: Level
    ) -> Int[Array, ""]:
        """Position, plus `num_positions * visited` if visited ends are shown."""
        return self._obs(state)

    # Methods of a level family.

    def sample_level(self, key: Key) -> Level:
        """Sample a level, which rewards the first corridor with probability `sharing`.

        Otherwise the rewarded corridor is drawn uniformly.
        """
        key_shared, key_corridor = jax.random.split(key)
        any_corridor = jax.random.randint(key_corridor, (), 0, self.num_corridors, jnp.int32)
        shared = jax.random.bernoulli(key_shared, self.sharing)
        return self._level(jnp.where(shared, 0, any_corridor))

    def unpack(self, obs: Array) -> Float[Array, "*B F"]:
        """One-hot position and, if visited ends are shown, one flag for each end."""
        num = self.num_positions()
        position = jax.nn.one_hot(obs % num, num, dtype=jnp.float32)
        if not self.show_visited:
            return position
        corridor = jnp.arange(self.num_corridors).reshape(*[1] * obs.ndim, -1)
        visited = ((obs // num)[..., None] >> corridor) & 1
        return jnp.concatenate([position, visited.astype(jnp.float32)], -1)

    def success(
        self, episode_return: Float[Array, "..."], terminated: Bool[Array, "..."]
    ) -> Bool[Array, "..."]:
        """True if the episode terminated, which happens only at the rewarded end."""
        return terminated

    def solve(self, level: Level) -> Solution:
        """Solution that walks straight to the rewarded end, if the time limit allows it."""
        solvable = level.max_steps_in_episode >= self.length
        steps = jnp.where(solvable, self.length, -1)
        return Solution(solvable, steps, solvable.astype(jnp.float32))

    def num_states(self) -> int:
        """Number of possible observations."""
        return self.num_positions() * (2**self.num_corridors if self.show_visited else 1)

    def expected_return(self, level: Level, log_policy: Float[Array, "S A"]) -> Float[Array, ""]:
        """Probability of reaching the rewarded end in time.

        It is computed by propagating the probabilities of all states.
        """
        every = self._states()
        # Successor of every state and action, [S, A]; `step` maps over actions for one state.
        step = jax.vmap(self._after, in_axes=(None, 0))
        after = jax.vmap(step, in_axes=(0, None))(every, jnp.arange(self.num_actions))
        won = (after.depth == self.length) & (after.corridor == level.rewarded)
        obs = jax.vmap(jax.vmap(self._obs))(after)
        policy = jnp.exp(log_policy)

        def follow(_: Int[Array, ""], now: tuple[Array, Array]) -> tuple[Array, Array]:
            at, total = now
            flow = at[:, None] * policy  # [S, A]: probability of being in s and taking a
            total += jnp.where(won, flow, 0).sum()
            return jnp.zeros_like(at).at[obs].add(jnp.where(won, 0, flow)), total

        # Observation 0 is the hub with no end visited. In each step, the probability of arriving at
        # the rewarded end is removed from `at` and added to `total`.
        start = jnp.zeros(self.num_states()).at[0].set(1.0), jnp.float32(0)
        return jax.lax.fori_loop(0, level.max_steps_in_episode, follow, start)[1]

    def position(self, state: State, level: Level) -> Int[Array, ""]:
        """Index of the agent's cell; the hub is 0, and each corridor is counted outwards."""
        return self._position(state)

    def num_positions(self) -> int:
        """Number of positions: the hub and all cells of the corridors."""
        return 1 + self.num_corridors * self.length

    def feature_values(self, level: Level, feature: str, discount: float) -> Float[Array, " Z"]:
        """Optimal value of each position if the agent reaches the position as early as possible.

        The time limit is taken into account: a cell of a wrong corridor has value 0 if the
        remaining time does not suffice to go back and reach the rewarded end. To compute values
        without a time limit, set the limit of the level to `4 * length`.

        Raises:
            ValueError: The feature is not `position`.
        """
        if feature != "position":
            raise ValueError(
                f"Corridors: feature={feature!r} does not exist; the only one is 'position'"
            )
        cell = jnp.arange(self.num_positions())
        depth = jnp.where(cell == 0, 0, (cell - 1) % self.length + 1)
        # The formula puts the hub, cell 0, into corridor -1, so its distance is length + 0.
        inside = (cell - 1) // self.length == level.rewarded
        distance = jnp.where(inside, self.length - depth, self.length + depth)
        in_time = depth + distance <= level.max_steps_in_episode
        return jnp.where(in_time, jnp.float32(discount) ** distance, 0.0)

    def level_features(self, level: Level) -> dict[str, Array]:
        """Rewarded corridor, and the number of ends that one episode can reach."""
        limit = level.max_steps_in_episode
        # Reaching k ends takes (2 k - 1) length steps: k - 1 corridors in both directions, and the
        # last corridor in one direction.
        ends = jnp.clip((limit // self.length + 1) // 2, 0, self.num_corridors)
        return {"rewarded": level.rewarded, "ends_in_reach": ends}

    def suites(self) -> dict[str, Callable[[], Suite]]:
        """Suites by name: `all` has one level per corridor, `seen` has 100 sampled levels.

        The levels of both suites also occur in training, because `all` has all levels of the
        family.
        """
        return {"all": partial(_each, self), "seen": partial(_drawn, self)}

    def ladder(self) -> dict[str, DistributionShift]:
        """The suite `all`, or no suite if training draws the rewarded corridor uniformly.

        See `rlgen.evaluation.ladder.ladder`.
        """
        if self.sharing == 0:
            return {}
        return {"unshared": DistributionShift("V2", "that each reward a different corridor", "all")}

    # Host-side methods, not traceable.

    def level_image(self, level: Level) -> np.ndarray:
        """Picture of a level with the agent at the hub, uint8[H, W, 3]."""
        return self.render(level, State(*[jnp.int32(0)] * 4))

    def render(self, level: Level | State, state: State | Level) -> np.ndarray:
        """Picture of a state of an episode; also accepts `(state, level)`, gymnax's order."""
        level, state = level_first(level, state, Level, State)
        visited = [bool(int(state.visited) >> m & 1) for m in range(self.num_corridors)]
        agent = int(state.corridor), int(state.depth)
        return render.star(self.length, int(level.rewarded), visited, agent)

    def _after(self, state: State, action: Int[Array, ""] | int | float) -> State:
        forward, back = self.num_corridors, self.num_corridors + 1
        at_hub = state.depth == 0
        # Actions below num_corridors have an effect only at the hub. Forward and back have an
        # effect only inside a corridor.
        enters = at_hub & (action < forward)
        moved = state.depth + jnp.where(action == forward, 1, 0) - jnp.where(action == back, 1, 0)
        depth = jnp.where(at_hub, jnp.where(enters, 1, 0), jnp.minimum(moved, self.length))
        corridor = jnp.where(enters, jnp.asarray(action, jnp.int32), state.corridor)
        corridor = jnp.where(depth == 0, 0, corridor)  # so that the hub is a single state
        at_end = jnp.where(depth == self.length, jnp.int32(1) << corridor, 0)
        return State(corridor, depth, state.visited | at_end, state.time + 1)

    def _position(self, state: State) -> Int[Array, ""]:
        return jnp.where(state.depth == 0, 0, state.corridor * self.length + state.depth)

    def _obs(self, state: State) -> Int[Array, ""]:
        seen = self.num_positions() * state.visited if self.show_visited else 0
        return self._position(state) + seen

    def _states(self) -> State:
        """Return one state per observation, [S], all at time 0."""
        obs = jnp.arange(self.num_states())
        cell = obs % self.num_positions()
        corridor = jnp.where(cell == 0, 0, (cell - 1) // self.length)
        depth = jnp.where(cell == 0, 0, (cell - 1) % self.length + 1)
        return State(corridor, depth, obs // self.num_positions(), jnp.zeros_like(obs))

    def _level(self, rewarded: Int[Array, "*M"]) -> Level:
        return Level(rewarded, jnp.full(jnp.shape(rewarded), self.max_steps, jnp.int32))


def build(**fields) -> Corridors:
    """Build the environment with the given fields."""
    return Corridors(**fields)


def tiny() -> Corridors:
    """Return a small instance with three short corridors, for the tests in `tests/laws`."""
    return Corridors(num_corridors=3, length=2, max_steps=12, sharing=0.0, show_visited=True)


def _each(env: Corridors) -> Suite:
    levels = env._level(jnp.arange(env.num_corridors))
    names = tuple(f"corridor-{m:02d}" for m in range(env.num_corridors))
    return Suite("corridors/all", env, make_level_set(env, levels, names, split="seen"))


def _drawn(env: Corridors) -> Suite:
    """Build the suite `seen` from raw output of PCG64, which NumPy guarantees not to change."""
    words = np.random.PCG64(SUITE_SEED).random_raw(2 * SUITE_DRAWS).reshape(2, -1)
    shared = (words[0] >> np.uint64(11)) * 2.0**-53 < env.sharing
    other = (words[1] % np.uint64(env.num_corridors)).astype(np.int32)
    levels = env._level(jnp.asarray(np.where(shared, 0, other), jnp.int32))
    names = tuple(f"seen-{i:03d}" for i in range(SUITE_DRAWS))
    return Suite("corridors/seen", env, make_level_set(env, levels, names, split="seen"))
