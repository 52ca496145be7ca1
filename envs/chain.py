"""Delayed chains: only the first action matters, and its reward arrives at the end of the episode.

An episode has as many steps as the chain is long. The first action chooses one of two branches, of
which one is correct. The last step gives reward +1 on the correct branch and -1 on the other
branch. All actions after the first have no effect.

Source: the delayed chain MDPs of Oh et al., 2020, "Discovering Reinforcement Learning Algorithms",
appendix. In rlgen the correct action is fixed per level, and therefore for the lifetime of an
agent. One of two reproductions by other authors also fixes the correct action. The other
reproduction draws the correct action in each episode and shows it in the first state.
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
"""Fields of each variant, by name; the variants are the chains of Oh et al."""


@no_type_check  # JAX also builds it with fields that are not arrays
@struct.dataclass
class Level:
    """One delayed chain."""

    right: Int[Array, "*batch"]  # correct first action, 0 or 1, which leads to reward +1
    noisy: Bool[Array, "*batch"]  # whether all steps but the last have random reward +1 or -1
    length: Int[Array, "*batch"]  # steps after which the episode terminates
    max_steps_in_episode: Int[Array, "*batch"]  # time limit, equal to the length


@no_type_check
@struct.dataclass
class State:
    """State of an episode."""

    branch: Int[Array, "*batch"]  # the first action; 0 before it is taken
    time: Int[Array, "*batch"]  # steps taken, which is the position on the chain


@dataclass(frozen=True)
class Chain(LevelEnv):
    """Family of delayed chains.

    If `num_distractors` is 0, the observation is one integer that encodes position and branch, so
    agents can be tabular. The methods `num_states` and `expected_return` are available only in this
    case.

    Attributes:
        length: Lengths of the shortest and the longest training chain, in steps. A level draws its
            length uniformly between the two.
        noisy: Whether every step but the last gives reward +1 or -1 at random.
        num_distractors: Number of random bits in the observation, resampled in each step. Two
            other bits come first: one marks the first step, and one is the chosen branch. If the
            number is 0, the observation is an integer.

    Raises:
        ValueError: A length is below 2, the lengths are in the wrong order, or the number of
            distractors is negative.
    """

    length: tuple[int, int] = (5, 30)
    noisy: bool = False
    num_distractors: int = 0

    def __post_init__(self):
        low, high = self.length
        if not 2 <= low <= high:
            raise ValueError(
                f"Chain: length={self.length} must be two lengths of at least 2 steps, the "
                "shortest and the longest chain, such as (5, 30)"
            )
        if self.num_distractors < 0:
            raise ValueError(
                f"Chain: num_distractors={self.num_distractors} must be at least 0, typically 20"
            )

    # Methods required by gymnax.

    @property
    def num_actions(self) -> int:
        """Two, one for each branch."""
        return 2

    @property
    def default_params(self) -> Level:
        """Shortest chain, with action 0 as the correct first action."""
        return self._level(jnp.int32(self.length[0]), jnp.int32(0))

    def observation_space(self, params: Level | None = None) -> spaces.Box | spaces.Discrete:
        """Space of integers, or of bit vectors if there are distractors."""
        if self.num_distractors:
            return spaces.Box(0.0, 1.0, (NUM_RELEVANT + self.num_distractors,), jnp.float32)
        return spaces.Discrete(self.num_states())

    def reset_env(self, key: Key, params: Level) -> tuple[Array, State]:
        """Start an episode; only the distractors are random."""
        state = State(jnp.int32(0), jnp.int32(0))
        return self.observe(key, state, None, params), state

    def step_env(
        self, key: Key, state: State, action: Int[Array, ""] | int | float, params: Level
    ) -> tuple[Array, State, Float[Array, ""], Bool[Array, ""], dict]:
        """One step: `(obs, state, reward, terminated, info)`."""
        key_noise, key_obs = jax.random.split(key)
        branch = jnp.where(state.time == 0, jnp.asarray(action, jnp.int32), state.branch)
        state = State(branch, state.time + 1)
        at_end = state.time >= params.length
        # The noise has mean 0, so the expected return is the expected reward of the last step.
        noise = jnp.where(params.noisy, jax.random.rademacher(key_noise, (), jnp.float32), 0.0)
        outcome = jnp.where(branch == params.right, 1.0, -1.0)
        reward = jnp.where(at_end, outcome, noise)
        return self.observe(key_obs, state, None, params), state, reward, at_end, {}

    def observe(
        self, key: Key, state: State, action: Int[Array, ""] | int | float | None, params: Level
    ) -> Array:
        """Compute the observation: an integer or, with distractors, a vector of bits.

        The integer is `position + (longest + 1) * branch`, where `longest` is the length of the
        longest training chain. The first bit is 1 in the first step, the second bit is the branch,
        and the other bits are the distractors.
        """
        if not self.num_distractors:
            # Clip the position, so that chains beyond the training range stay within `num_states`.
            longest = self.length[1]
            return jnp.minimum(state.time, longest) + (longest + 1) * state.branch
        relevant = jnp.stack([state.time == 0, state.branch == 1])
        random = jax.random.bernoulli(key, shape=(self.num_distractors,))
        return jnp.concatenate([relevant, random]).astype(jnp.float32)

    # Methods of a level family.

    def sample_level(self, key: Key) -> Level:
        """Sample the length and the correct action uniformly."""
        key_length, key_right = jax.random.split(key)
        low, high = self.length
        length = jax.random.randint(key_length, (), low, high + 1, jnp.int32)
        return self._level(length, jax.random.randint(key_right, (), 0, 2, jnp.int32))

    def unpack(self, obs: Array) -> Float[Array, "*B F"]:
        """Convert observations to floats: the bits, or the one-hot encoding of the integer."""
        if self.num_distractors:
            return obs.astype(jnp.float32)
        return jax.nn.one_hot(obs, self.num_states(), dtype=jnp.float32)

    def solve(self, level: Level) -> Solution:
        """Solution that starts with the correct action; its return is the mean over the noise."""
        return Solution(jnp.bool_(True), level.length, jnp.float32(1.0))

    def level_features(self, level: Level) -> dict[str, Array]:
        """Length and correct first action of a level."""
        return {"length": level.length, "right": level.right}

    def lifetime(self) -> int:
        """Number of updates for which an agent is trained.

        The number is that of the grid-world mode `small` and does not come from a paper.
        """
        return 250

    def offers(self, capability: Callable) -> bool:
        """Return whether a capability is available.

        With distractors `num_states` and `expected_return` are not available.
        """
        tabular = capability in (LevelEnv.num_states, LevelEnv.expected_return)
        return super().offers(capability) and not (tabular and self.num_distractors)

    def num_states(self) -> int:
        """Number of possible observations; available only without distractors."""
        self.must_offer(LevelEnv.num_states)
        return 2 * (self.length[1] + 1)

    def expected_return(self, level: Level, log_policy: Float[Array, "S 2"]) -> Float[Array, ""]:
        """Expected return 2 p - 1, where p is the probability of the correct first action.

        The first state has index 0. The noise has mean 0 and does not contribute.
        """
        self.must_offer(LevelEnv.expected_return)
        return 2 * jnp.exp(log_policy[0, level.right]) - 1

    def suites(self) -> dict[str, Callable[[], Suite]]:
        """Suites by name; `seen` has chains of several lengths in the training range.

        All of its levels also occur in training, because the family has few levels.
        """
        return {"seen": partial(_seen_suite, self)}

    def ladder(self) -> dict[str, DistributionShift]:
        """Chains with the opposite setting of `noisy` and, with distractors, longer chains."""
        low, high = self.length[1] + 1, 2 * self.length[1]
        longer = DistributionShift(
            "V2", f"of {low} to {high} steps", fields={"length": (low, high)}
        )
        other = "without random rewards" if self.noisy else "with random rewards"
        return ({"longer": longer} if self.num_distractors else {}) | {
            "other-pay": DistributionShift("V3", other, fields={"noisy": not self.noisy})
        }

    def _level(self, length: Int[Array, "*M"], right: Int[Array, "*M"]) -> Level:
        return Level(right, jnp.full(jnp.shape(length), self.noisy), length, length)


def build(**fields) -> Chain:
    """Build the environment with the given fields."""
    return Chain(**fields)


def tiny() -> Chain:
    """Return a small instance with short chains, for the tests in `tests/laws`."""
    return Chain(length=(2, 6))


def _seen_suite(env: Chain) -> Suite:
    lengths = np.unique(np.linspace(*env.length, SUITE_LENGTHS).round().astype(np.int32))
    length, right = (x.ravel() for x in np.meshgrid(lengths, np.arange(2, dtype=np.int32)))
    names = tuple(f"length-{k:02d}-right-{a}" for k, a in zip(length, right, strict=True))
    level = env._level(jnp.asarray(length), jnp.asarray(right))
    return Suite("chain/seen", env, make_level_set(env, level, names, split="seen"))
