"""Physical systems as families of levels: ranges of parameters, drawn from, edited, checked.

All ranges are logarithmic: a factor counts alike at either end. A value's *place* is 0 at the low
end of its range and 1 at the high end.

Sources: training ranges and held-out ones beyond them, of these systems, go back to Packer et al.,
2018, "Assessing Generalization in Deep Reinforcement Learning"; edits to Parker-Holder et al.,
2022, "Evolving Curricula with Regret-Based Environment Design".
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from rlgen.levels import LevelSet
from rlgen.levels import load_levels as load_level_set
from rlgen.protocols import LevelEnv
from rlgen.types import Key, PyTree

EDIT = 0.1
"""The farthest that one edit moves a parameter, as a share of its range."""
NEARBY = 0.01
"""How far from their centre the simplest levels lie to either side, as a share of the range."""


class Ranges(NamedTuple):
    """D parameters of a family and from where to where levels for training have them."""

    names: tuple[str, ...]
    low: Float[np.ndarray, " D"]
    high: Float[np.ndarray, " D"]
    nominal: Float[np.ndarray, " D"]  # gymnax's value, or what of the range is nearest to it

    def values(self, place: Float[np.ndarray, "*M D"]) -> Float[np.ndarray, "*M D"]:
        """Values at the given places, which may lie outside of 0 .. 1; on the host, in float64."""
        low, high = self.low.astype(float), self.high.astype(float)
        return low * (high / low) ** place

    def places(self, values: Float[np.ndarray, " D"]) -> Float[np.ndarray, " D"]:
        """The inverse of `values`; 0 where a range is a single number."""
        low, high = self.low.astype(float), self.high.astype(float)
        wide = high > low
        return np.log(values / low) / np.where(wide, np.log(high / low), 1.0) * wide


class ParameterFamily(LevelEnv, abstract=True):
    """A family whose levels are D positive numbers and a time limit.

    A family is a frozen dataclass with a field `(low, high)` for every parameter: its range in
    training levels.

    Attributes:
        max_steps: time limit of the levels made here.
    """

    max_steps: int

    nominal: ClassVar[Mapping[str, float]]
    """Value of each parameter in gymnax, in the order of the level's fields."""
    level_type: ClassVar[type]
    """Made of the parameters and `max_steps_in_episode`."""

    def __post_init__(self):
        """Refuse ranges that are none, and impossible time limits.

        Raises:
            ValueError: names the field, its value and what would do.
        """
        kind = type(self).__name__
        for name in self.nominal:
            value = getattr(self, name)
            if not _is_range(value):
                usual = getattr(type(self), name)
                raise ValueError(
                    f"{kind}: {name}={value!r} must be two positive numbers, the lower one first, "
                    f"such as {name}={usual}"
                )
        if not 1 <= self.max_steps <= 10**6:
            raise ValueError(f"{kind}: max_steps={self.max_steps} is not in 1 .. 1000000")

    def ranges(self) -> Ranges:
        """The parameters, in the order of the level's fields, and their ranges."""
        low, high = np.array([getattr(self, name) for name in self.nominal], np.float32).T
        centre = np.clip(np.array(list(self.nominal.values()), np.float32), low, high)
        return Ranges(tuple(self.nominal), low, high, centre)

    def make_level(self, values: Float[Array, "*M D"] | Float[np.ndarray, "*M D"]) -> PyTree:
        """The level, or levels [M], of parameters in that order; its time limit is `max_steps`."""
        steps = jnp.full(values.shape[:-1], self.max_steps, jnp.int32)
        columns = (jnp.asarray(values[..., i], jnp.float32) for i in range(values.shape[-1]))
        return self.level_type(*columns, max_steps_in_episode=steps)

    @property
    def default_params(self) -> PyTree:
        """Gymnax's own system, whatever the ranges; its time limit is `max_steps`."""
        return self.make_level(np.array(list(self.nominal.values()), np.float32))

    def sample_level(self, key: Key) -> PyTree:
        """Parameters log-uniformly from their ranges, independently."""
        return self.make_level(sample(key, self.ranges()))

    def sample_simple_level(self, key: Key) -> PyTree:
        """Gymnax's own system, but for differences too small to matter."""
        return self.make_level(sample_near(key, self.ranges()))

    def mutate_levels(self, key: Key, levels: PyTree, num_edits: int) -> PyTree:
        """Levels [N], each with `num_edits` small changes of one parameter, inside the ranges."""
        return mutate(key, levels, self.ranges(), num_edits)

    def level_features(self, level: PyTree) -> dict[str, Array]:
        """The parameters."""
        return {name: getattr(level, name) for name in self.nominal}

    def load_levels(self, path: Path | str) -> LevelSet:
        """Levels of an `.npz` of rlgen.

        Raises:
            ValueError: unreadable, of another family, or with a parameter that is not positive.
        """
        levels = load_level_set(path, self.default_params)
        for name, values in vars(levels.level).items():
            good = np.isfinite(values) & (np.asarray(values) > 0)
            if not good.all():
                first = int(np.argmin(good))
                raise ValueError(
                    f"{path}: {name} of level {levels.names[first]!r} is "
                    f"{np.asarray(values)[first]}; it must be a positive number"
                )
        return levels


def sample(key: Key, ranges: Ranges) -> Float[Array, " D"]:
    """Parameters log-uniformly from their ranges."""
    place = jax.random.uniform(key, ranges.low.shape)
    return jnp.clip(ranges.low * jnp.exp(place * _span(ranges)), ranges.low, ranges.high)


def sample_near(
    key: Key, ranges: Ranges, centre: Float[np.ndarray, " D"] | None = None
) -> Float[Array, " D"]:
    """Parameters within `NEARBY` of a centre, by default the nominal values.

    A centre at an end of its range is moved inwards, so that none of its surroundings is outside.
    """
    centre = ranges.nominal if centre is None else centre
    margin = np.exp(NEARBY * _span(ranges))
    centre = centre.clip(ranges.low * margin, ranges.high / margin)
    offset = jax.random.uniform(key, centre.shape, minval=-NEARBY, maxval=NEARBY)
    return jnp.clip(centre * jnp.exp(offset * _span(ranges)), ranges.low, ranges.high)


def mutate(key: Key, levels: PyTree, ranges: Ranges, num_edits: int) -> PyTree:
    """Levels [N], each edited `num_edits` times: one parameter moves by up to `EDIT` of its range.

    Which one and how far are uniform; it never leaves the range. All else stays bit for bit.
    """
    values = jnp.stack([getattr(levels, name) for name in ranges.names], -1)
    keys = jax.random.split(key, values.shape[0])
    edited = jax.vmap(lambda key, one: _edit(key, one, ranges, num_edits))(keys, values)
    return levels.replace(**{name: edited[:, i] for i, name in enumerate(ranges.names)})


def _edit(
    key: Key, values: Float[Array, " D"], ranges: Ranges, num_edits: int
) -> Float[Array, " D"]:
    key_which, key_step = jax.random.split(key)
    which = jax.random.randint(key_which, (num_edits,), 0, len(ranges.names))
    steps = jax.random.uniform(key_step, (num_edits,), minval=-EDIT, maxval=EDIT)

    def one(values: Array, draw: tuple[Array, Array]) -> tuple[Array, None]:
        index, step = draw
        moved = jnp.clip(values * jnp.exp(step * _span(ranges)), ranges.low, ranges.high)
        return jnp.where(jnp.arange(values.size) == index, moved, values), None

    return jax.lax.scan(one, values, (which, steps))[0]


def _span(ranges: Ranges) -> Float[np.ndarray, " D"]:
    return np.log(ranges.high / ranges.low)


def _is_range(value: Any) -> bool:
    if not isinstance(value, tuple) or len(value) != 2:
        return False
    if not all(isinstance(x, float | int) and math.isfinite(x) for x in value):
        return False
    return 0 < value[0] <= value[1]
