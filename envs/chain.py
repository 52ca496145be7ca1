"""Delayed chains: only the first of many actions matters, and what it was worth shows at the end.

An episode has as many steps as the chain is long. The first action chooses one of two branches; the
last step pays +1 on the right one and -1 on the other. All other actions change nothing.

Source: the delayed chain MDPs of Oh et al., 2020, "Discovering Reinforcement Learning Algorithms",
appendix. Which action is right is fixed for a level, and so for the life of an agent, as in one of
two published reproductions; the other draws it for each episode and shows it in the first state.
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

from rlgen.levels import DistributionShift, Suite, make_level_set
from rlgen.protocols import LevelEnv
from rlgen.types import Key, Solution

__all__ = ["VARIANTS", "Chain", "Level", "State", "build", "tiny"]

NUM_RELEVANT = 2
SUITE_LENGTHS = 8
VARIANTS: dict[str, dict] = {
    "short": {},
    "long": {"length": (5, 50)},
    "noisy-short": {"noisy": True},
    "noisy-long": {"length": (5, 50), "noisy": True},
    "distractor": {"num_distractors": 20},
}
"""Fields of the published chains."""


@no_type_check  # JAX also builds it of what is not an array
@struct.dataclass
class Level:
    """One chain."""

    right: Int[Array, "*batch"]  # the first action that leads to +1: 0 or 1
    noisy: Bool[Array, "*batch"]  # whether every step but the last pays +1 or -1 at random
    max_steps_in_episode: Int[Array, "*batch"]  # its length


@no_type_check
@struct.dataclass
class State:
    """A moment of an episode."""

    branch: Int[Array, "*batch"]  # the first action; 0 before it
    time: Int[Array, "*batch"]  # steps taken, the position on the chain


@dataclass(frozen=True)
class Chain(LevelEnv):
    """Delayed chains.

    Without distractors the observation is one integer, position and branch, so that agents can be
    tables; `num_states` and `expected_return` exist only then.

    Attributes:
        length: shortest and longest chain of training levels, in steps; drawn uniformly.
        noisy: whether every step but the last pays +1 or -1 at random.
        num_distractors: random bits in the observation, drawn anew each step, behind two that tell
            whether this is the first step and which branch was chosen; 0 for the integer.

    Raises:
        ValueError: lengths below 2 or in the wrong order, or less than no distractors.
    """

    length: tuple[int, int] = (5, 30)
    noisy: bool = False
    num_distractors: int = 0

    def __post_init__(self):
        low, high = self.length
        if not 2 <= low <= high:
            raise ValueError(
                f"Chain: length={self.length} must be the shortest and the longest chain, at least "
                "2 steps, such as (5, 30)"
            )
        if self.num_distractors < 0:
            raise ValueError(
                f"Chain: num_distractors={self.num_distractors} must be at least 0; 20 are usual"
            )

    # What gymnax asks for.

    @property
    def num_actions(self) -> int:
        """Two branches."""
        return 2

    @property
    def default_params(self) -> Level:
        """The shortest chain, with the first action right."""
        return self._level(jnp.int32(self.length[0]), jnp.int32(0))

    def observation_space(self, params: Level | None = None) -> spaces.Box | spaces.Discrete:
        """Integers, or bits with distractors."""
        if self.num_distractors:
            return spaces.Box(0.0, 1.0, (NUM_RELEVANT + self.num_distractors,), jnp.float32)
        return spaces.Discrete(self.num_states())

    def reset_env(self, key: Key, params: Level) -> tuple[Array, State]:
        """Start of an episode, the same each time but for distractors."""
        state = State(jnp.int32(0), jnp.int32(0))
        return self.observe(key, state, None, params), state

    def step_env(
        self, key: Key, state: State, action: Int[Array, ""] | int | float, params: Level
    ) -> tuple[Array, State, Float[Array, ""], Bool[Array, ""], dict]:
        """One step: `(obs, state, reward, terminated, info)`."""
        key_noise, key_obs = jax.random.split(key)
        branch = jnp.where(state.time == 0, jnp.asarray(action, jnp.int32), state.branch)
        state = State(branch, state.time + 1)
        at_end = state.time >= params.max_steps_in_episode
        noise = jnp.where(params.noisy, jax.random.rademacher(key_noise, (), jnp.float32), 0.0)
        outcome = jnp.where(branch == params.right, 1.0, -1.0)
        reward = jnp.where(at_end, outcome, noise)
        return self.observe(key_obs, state, None, params), state, reward, at_end, {}

    def observe(
        self, key: Key, state: State, action: Int[Array, ""] | int | float | None, params: Level
    ) -> Array:
        """`position + (longest + 1) * branch`, or bits: first step, branch, distractors."""
        if not self.num_distractors:
            longest = self.length[1]
            return jnp.minimum(state.time, longest) + (longest + 1) * state.branch
        relevant = jnp.stack([state.time == 0, state.branch == 1])
        random = jax.random.bernoulli(key, shape=(self.num_distractors,))
        return jnp.concatenate([relevant, random]).astype(jnp.float32)

    # What makes it a family of levels.

    def sample_level(self, key: Key) -> Level:
        """Length and right action, uniformly."""
        key_length, key_right = jax.random.split(key)
        low, high = self.length
        length = jax.random.randint(key_length, (), low, high + 1, jnp.int32)
        return self._level(length, jax.random.randint(key_right, (), 0, 2, jnp.int32))

    def unpack(self, obs: Array) -> Float[Array, "*B F"]:
        """The bits, or the integer's unit vector, as floats."""
        if self.num_distractors:
            return obs.astype(jnp.float32)
        return jax.nn.one_hot(obs, self.num_states(), dtype=jnp.float32)

    def solve(self, level: Level) -> Solution:
        """The right action first; the return is an expectation where there is noise."""
        return Solution(jnp.bool_(True), level.max_steps_in_episode, jnp.float32(1.0))

    def level_features(self, level: Level) -> dict[str, Array]:
        """Length and right action."""
        return {"length": level.max_steps_in_episode, "right": level.right}

    def lifetime(self) -> int:
        """Updates of an agent: as on small grid worlds; no published figure was at hand."""
        return 250

    def offers(self, capability: Callable) -> bool:
        """`num_states` and `expected_return` only without distractors: those are not enumerated."""
        tabular = capability in (LevelEnv.num_states, LevelEnv.expected_return)
        return super().offers(capability) and not (tabular and self.num_distractors)

    def num_states(self) -> int:
        """Values that the observation can have, without distractors."""
        self.must_offer(LevelEnv.num_states)
        return 2 * (self.length[1] + 1)

    def expected_return(self, level: Level, log_policy: Float[Array, "S 2"]) -> Float[Array, ""]:
        """Twice the probability of the right action in the first state, less 1.

        The first state is state 0, and the noise has mean 0.
        """
        self.must_offer(LevelEnv.expected_return)
        return 2 * jnp.exp(log_policy[0, level.right]) - 1

    def suites(self) -> dict[str, Callable[[], Suite]]:
        """`test`: chains of several lengths between the shortest and the longest."""
        return {"test": partial(_test_suite, self)}

    def ladder(self) -> dict[str, DistributionShift]:
        """Longer chains, if no table has to know them, and those that pay in the other way."""
        low, high = self.length[1] + 1, 2 * self.length[1]
        longer = DistributionShift(
            "V2", f"of {low} to {high} steps", fields={"length": (low, high)}
        )
        other = "that pay for sure" if self.noisy else "that pay at random"
        return ({"longer": longer} if self.num_distractors else {}) | {
            "other-pay": DistributionShift("V3", other, fields={"noisy": not self.noisy})
        }

    def _level(self, length: Int[Array, "*M"], right: Int[Array, "*M"]) -> Level:
        return Level(right, jnp.full(jnp.shape(length), self.noisy), length)


def build(**fields) -> Chain:
    """The environment with the given fields."""
    return Chain(**fields)


def tiny() -> Chain:
    """Short chains, for tests of laws."""
    return Chain(length=(2, 6))


def _test_suite(env: Chain) -> Suite:
    lengths = np.unique(np.linspace(*env.length, SUITE_LENGTHS).round().astype(np.int32))
    length, right = (x.ravel() for x in np.meshgrid(lengths, np.arange(2, dtype=np.int32)))
    names = tuple(f"length-{k:02d}-right-{a}" for k, a in zip(length, right, strict=True))
    levels = make_level_set(env, env._level(jnp.asarray(length), jnp.asarray(right)), names)
    return Suite("chain/test", env, levels)
