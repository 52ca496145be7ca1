"""Editor of a physical system: an episode chooses the parameters of a level one after the other.

For samplers whose teacher learns to make levels: Dennis et al., 2020, "Emergent Complexity and
Zero-shot Transfer via Unsupervised Environment Design", whose teacher also sees noise, so that it
can make many levels of the same kind.
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


@no_type_check  # JAX also builds it of what is not an array
@struct.dataclass
class EditorLevel:
    """What an episode of building starts from."""

    noise: Float[Array, "*batch Z"]  # uniform in [0, 1)
    max_steps_in_episode: Int[Array, "*batch"]  # the editor's horizon


@no_type_check
@struct.dataclass
class EditorState:
    """A level in the making."""

    choice: Int[Array, "*batch D"]  # place on the grid of each parameter; -1 if not chosen yet
    time: Int[Array, "*batch"]  # steps done


@dataclass(frozen=True)
class PhysicsEditor(Editor):
    """Step i sets parameter i to one of `num_choices` values; those not set yet are nominal.

    The values lie on a logarithmic grid over the parameter's range for training, both ends
    included. Episodes end at the time limit alone and pay nothing.
    """

    env: ParameterFamily
    num_choices: int = 11
    num_noise: int = 16

    def __post_init__(self):
        """Refuse an editor that has nothing to choose or no noise."""
        for name, least in (("num_choices", 2), ("num_noise", 1)):
            if getattr(self, name) < least:
                raise ValueError(
                    f"PhysicsEditor: {name}={getattr(self, name)} must be at least {least}"
                )

    @property
    def name(self) -> str:
        """Name of the family, and that it is an editor."""
        return f"{type(self.env).__name__}Editor"

    @property
    def num_actions(self) -> int:
        """One for every value on the grid."""
        return self.num_choices

    @property
    def horizon(self) -> int:
        """Steps of an episode: one a parameter."""
        return len(self.env.ranges().names)

    @property
    def default_params(self) -> EditorLevel:
        """No noise."""
        return EditorLevel(jnp.zeros(self.num_noise), jnp.int32(self.horizon))

    def observation_space(self, params: EditorLevel | None = None) -> spaces.Dict:
        """See `observe`; all numbers are from 0 to 1."""
        shapes = {"built": (self.horizon, 2), "time": (self.horizon,), "noise": (self.num_noise,)}
        return spaces.Dict({n: spaces.Box(0.0, 1.0, s, jnp.float32) for n, s in shapes.items()})

    def sample_level(self, key: Key) -> EditorLevel:
        """New noise."""
        noise = jax.random.uniform(key, (self.num_noise,))
        return EditorLevel(noise, jnp.int32(self.horizon))

    def reset_env(self, key: Key, params: EditorLevel) -> tuple[PyTree, EditorState]:
        """Nothing is chosen; nothing is random but the noise, which the level holds."""
        state = EditorState(jnp.full(self.horizon, -1, jnp.int32), jnp.int32(0))
        return self.observe(key, state, None, params), state

    def step_env(
        self,
        key: Key,
        state: EditorState,
        action: Int[Array, ""] | int | float,
        params: EditorLevel,
    ) -> tuple[PyTree, EditorState, Float[Array, ""], Bool[Array, ""], dict]:
        """Set the parameter whose turn it is: `(obs, state, reward, terminated, info)`."""
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
        """What the teacher sees.

        `built` [D, 2]: place of each parameter in its range, and whether it was chosen. `time` [D]:
        one-hot of the parameter whose turn it is; all 0 at the end. `noise` [Z]: the level's.
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
        """The level that a state has built: chosen values, nominal ones for the rest."""
        ranges = self.env.ranges()
        chosen = jnp.take_along_axis(self.grid(), state.choice.clip(0)[:, None], 1)[:, 0]
        return self.env.make_level(jnp.where(state.choice >= 0, chosen, ranges.nominal))

    def grid(self) -> Float[Array, "D K"]:
        """The values that each parameter can be given, from low to high."""
        ranges = self.env.ranges()
        place = np.linspace(0.0, 1.0, self.num_choices)[:, None].repeat(self.horizon, 1)
        values = ranges.values(place).astype(np.float32)
        return jnp.asarray(values.clip(ranges.low[None], ranges.high[None]).T)
