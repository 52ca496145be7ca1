"""Editor of a physical system: an episode sets the parameters of a level one after the other.

A sampler whose teacher learns to build levels uses the editor, as in Dennis et al., 2020,
"Emergent Complexity and Zero-shot Transfer via Unsupervised Environment Design". As in that paper,
the teacher also observes noise, so that one policy can build many different levels.
"""

from dataclasses import dataclass
from typing import no_type_check

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from gymnax.environments import spaces
from jaxtyping import Array, Bool, Float, Int

from rlgen.envs.classic_control.parameters import ParameterFamily
from rlgen.protocols import Editor
from rlgen.types import Key, PyTree


@no_type_check  # JAX also builds it with fields that are not arrays
@struct.dataclass
class EditorLevel:
    """Initial conditions of an editing episode."""

    noise: Float[Array, "*batch Z"]  # uniform in [0, 1)
    max_steps_in_episode: Int[Array, "*batch"]  # number of parameters; each takes one step


@no_type_check
@struct.dataclass
class EditorState:
    """State of an editing episode: a partly built level."""

    choice: Int[Array, "*batch D"]  # grid index per parameter; -1 if not yet chosen
    time: Int[Array, "*batch"]  # steps taken


@dataclass(frozen=True)
class PhysicsEditor(Editor):
    """Editor in which step i sets parameter i to one of `num_choices` values.

    These values lie on a logarithmic grid that covers the training range of the parameter, both
    ends included. Parameters that are not set yet have their nominal value: gymnax's value, clipped
    to the training range. Episodes never terminate before the time limit, and all rewards are 0.

    Attributes:
        env: Family whose levels are built.
        num_choices: Number of grid values per parameter, at least 2.
        num_noise: Length of the noise vector in the observation, at least 1.
    """

    env: ParameterFamily
    num_choices: int = 11
    num_noise: int = 16

    def __post_init__(self):
        """Reject an editor with fewer than two choices or without noise."""
        for name, least in (("num_choices", 2), ("num_noise", 1)):
            if getattr(self, name) < least:
                raise ValueError(
                    f"PhysicsEditor: {name}={getattr(self, name)} must be at least {least}"
                )

    @property
    def name(self) -> str:
        """Class name of the family, followed by `Editor`."""
        return f"{type(self.env).__name__}Editor"

    @property
    def num_actions(self) -> int:
        """One action per grid value."""
        return self.num_choices

    @property
    def horizon(self) -> int:
        """Number of steps of an episode, one per parameter."""
        return len(self.env.ranges().names)

    @property
    def default_params(self) -> EditorLevel:
        """Example level, whose noise is all zero."""
        return EditorLevel(jnp.zeros(self.num_noise), jnp.int32(self.horizon))

    def observation_space(self, params: EditorLevel | None = None) -> spaces.Dict:
        """Space of the observations that `observe` computes; all entries lie in 0 .. 1."""
        shapes = {"built": (self.horizon, 2), "time": (self.horizon,), "noise": (self.num_noise,)}
        return spaces.Dict({n: spaces.Box(0.0, 1.0, s, jnp.float32) for n, s in shapes.items()})

    def sample_level(self, key: Key) -> EditorLevel:
        """Sample the noise of an editing episode."""
        noise = jax.random.uniform(key, (self.num_noise,))
        return EditorLevel(noise, jnp.int32(self.horizon))

    def reset_env(self, key: Key, params: EditorLevel) -> tuple[PyTree, EditorState]:
        """Start an episode; nothing is random, because the level contains the noise."""
        state = EditorState(jnp.full(self.horizon, -1, jnp.int32), jnp.int32(0))
        return self.observe(key, state, None, params), state

    def step_env(
        self,
        key: Key,
        state: EditorState,
        action: Int[Array, ""] | int | float,
        params: EditorLevel,
    ) -> tuple[PyTree, EditorState, Float[Array, ""], Bool[Array, ""], dict]:
        """Set the next parameter: `(obs, state, reward, terminated, info)`."""
        here = jnp.arange(self.horizon) == state.time
        choice = jnp.where(here, jnp.asarray(action, jnp.int32), state.choice)
        state = EditorState(choice, state.time + 1)
        obs = self.observe(key, state, action, params)
        return obs, state, jnp.float32(0), jnp.bool_(False), {}

    def observe(
        self,
        key: Key,
        state: EditorState,
        action: Int[Array, ""] | int | float | None,
        params: EditorLevel,
    ) -> dict[str, Float[Array, "..."]]:
        """Compute the teacher's observation.

        `built` [D, 2] contains two numbers per parameter. The first is the position, 0 .. 1, of the
        parameter in its logarithmic range. The second is 1 if the parameter was set, and 0 if not.
        `time` [D] is the one-hot index of the next parameter and is all 0 at the end of the
        episode. `noise` [Z] is the noise of the level.
        """
        ranges = self.env.ranges()
        nominal = ranges.places(ranges.nominal).clip(0, 1).astype(np.float32)
        is_set = state.choice >= 0
        place = jnp.where(is_set, state.choice / (self.num_choices - 1), nominal)
        return {
            "built": jnp.stack([place, is_set], -1).astype(jnp.float32),
            "time": jax.nn.one_hot(state.time, self.horizon, dtype=jnp.float32),
            "noise": params.noise,
        }

    def level_of(self, state: EditorState) -> PyTree:
        """Build the level of a state; parameters not yet chosen have their nominal value."""
        ranges = self.env.ranges()
        # -1 (not chosen) is clipped to entry 0, which the `where` below discards.
        chosen = jnp.take_along_axis(self.grid(), state.choice.clip(0)[:, None], 1)[:, 0]
        return self.env.make_level(jnp.where(state.choice >= 0, chosen, ranges.nominal))

    def grid(self) -> Float[Array, "D K"]:
        """Values that each parameter can be set to, in ascending order."""
        ranges = self.env.ranges()
        place = np.linspace(0.0, 1.0, self.num_choices)[:, None].repeat(self.horizon, 1)
        values = ranges.values(place).astype(np.float32)
        # Rounding to float32 may move a value out of its range by one unit in the last place.
        return jnp.asarray(values.clip(ranges.low[None], ranges.high[None]).T)
