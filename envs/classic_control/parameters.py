"""Families of physical systems: checks of the parameter ranges, and sampling and editing of levels.

All ranges are logarithmic, so equal factors are equal distances. The *place* of a value is its
position in its range: 0 at the low end and 1 at the high end.

Sources: Packer et al., 2018, "Assessing Generalization in Deep Reinforcement Learning", introduced
training ranges for physical systems, with held-out ranges outside the training ranges. Edits follow
Parker-Holder et al., 2022, "Evolving Curricula with Regret-Based Environment Design".
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
"""Largest change of a parameter by one edit, as a fraction of the logarithmic range."""
NEARBY = 0.01
"""Largest distance of a sample from the centre in `sample_near`.

The distance is a fraction of the parameter's logarithmic range.
"""


class Ranges(NamedTuple):
    """Training ranges of the D parameters of a family."""

    names: tuple[str, ...]
    low: Float[np.ndarray, " D"]
    high: Float[np.ndarray, " D"]
    nominal: Float[np.ndarray, " D"]  # gymnax's value, clipped to the range

    def values(self, place: Float[np.ndarray, "*M D"]) -> Float[np.ndarray, "*M D"]:
        """Return the values at the given places in the logarithmic ranges.

        Places 0 and 1 are the ends of a range; places outside 0 .. 1 are valid. The values are
        computed on the host, in float64.
        """
        low, high = self.low.astype(float), self.high.astype(float)
        return low * (high / low) ** place

    def places(self, values: Float[np.ndarray, " D"]) -> Float[np.ndarray, " D"]:
        """Return the places of values, the inverse of `values`; 0 if a range is a single number."""
        low, high = self.low.astype(float), self.high.astype(float)
        wide = high > low
        return np.log(values / low) / np.where(wide, np.log(high / low), 1.0) * wide


class ParameterFamily(LevelEnv, abstract=True):
    """Family whose levels consist of D positive numbers and a time limit.

    Subclasses are frozen dataclasses with one field `(low, high)` per parameter: the range of the
    parameter in training levels.

    Attributes:
        max_steps: Time limit of generated levels, in env steps.
    """

    max_steps: int

    nominal: ClassVar[Mapping[str, float]]
    """Value of each parameter in gymnax, in the order of the level's fields."""
    level_type: ClassVar[type]
    """Class of the levels, whose fields are the parameters and `max_steps_in_episode`."""

    def __post_init__(self):
        """Reject invalid ranges and time limits.

        Raises:
            ValueError: A field is invalid; the message states its name, its value and valid values.
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
        """Parameters and their ranges, in the order of the level's fields."""
        low, high = np.array([getattr(self, name) for name in self.nominal], np.float32).T
        centre = np.clip(np.array(list(self.nominal.values()), np.float32), low, high)
        return Ranges(tuple(self.nominal), low, high, centre)

    def make_level(self, values: Float[Array, "*M D"] | Float[np.ndarray, "*M D"]) -> PyTree:
        """Build a level, or levels [M], from parameters in the order of `ranges`."""
        steps = jnp.full(values.shape[:-1], self.max_steps, jnp.int32)
        columns = (jnp.asarray(values[..., i], jnp.float32) for i in range(values.shape[-1]))
        return self.level_type(*columns, max_steps_in_episode=steps)

    @property
    def default_params(self) -> PyTree:
        """Gymnax's own system, which may lie outside the ranges; the time limit is `max_steps`."""
        return self.make_level(np.array(list(self.nominal.values()), np.float32))

    def sample_level(self, key: Key) -> PyTree:
        """Sample each parameter independently, log-uniformly from its range."""
        return self.make_level(sample(key, self.ranges()))

    def sample_simple_level(self, key: Key) -> PyTree:
        """Sample a negligible perturbation of gymnax's own system; see `sample_near`."""
        return self.make_level(sample_near(key, self.ranges()))

    def mutate_levels(self, key: Key, levels: PyTree, num_edits: int) -> PyTree:
        """Edit each of the levels [N] `num_edits` times; an edit changes one parameter slightly."""
        return mutate(key, levels, self.ranges(), num_edits)

    def level_features(self, level: PyTree) -> dict[str, Array]:
        """Parameters of a level, by name."""
        return {name: getattr(level, name) for name in self.nominal}

    def load_levels(self, path: Path | str) -> LevelSet:
        """Load levels from an `.npz` file written by rlgen.

        Raises:
            ValueError: The file is unreadable, its levels belong to another family, or a parameter
                is not a positive number.
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
    """Sample parameters log-uniformly from their ranges, [D]."""
    place = jax.random.uniform(key, ranges.low.shape)
    # Rounding in exp and log may move a value out of its range by one unit in the last place.
    return jnp.clip(ranges.low * jnp.exp(place * _span(ranges)), ranges.low, ranges.high)


def sample_near(
    key: Key, ranges: Ranges, centre: Float[np.ndarray, " D"] | None = None
) -> Float[Array, " D"]:
    """Sample parameters within `NEARBY` of a centre, by default the nominal values.

    If the centre is near an end of the range, it is moved inwards, so that no sample lies outside.
    """
    centre = ranges.nominal if centre is None else centre
    margin = np.exp(NEARBY * _span(ranges))
    centre = centre.clip(ranges.low * margin, ranges.high / margin)
    offset = jax.random.uniform(key, centre.shape, minval=-NEARBY, maxval=NEARBY)
    return jnp.clip(centre * jnp.exp(offset * _span(ranges)), ranges.low, ranges.high)


def mutate(key: Key, levels: PyTree, ranges: Ranges, num_edits: int) -> PyTree:
    """Edit each of the levels [N] `num_edits` times.

    An edit moves one parameter by up to a fraction `EDIT` of its logarithmic range. The parameter
    and the distance are drawn uniformly, and the result is clipped to the range. All parameters
    that no edit selects stay bit-identical.
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

    # The edits are sequential, because a later edit may change the same parameter again. Parameters
    # that no edit selects pass through `where` unchanged.
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
