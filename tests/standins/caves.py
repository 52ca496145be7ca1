"""Caves without an environment: parts, a codec and random levels."""

from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from rlgen.codec import Cells, Part, Place

KINDS = ("empty", "wall", "lava", "moss")
EMPTY, WALL, LAVA, MOSS = range(4)
FREE = (EMPTY, MOSS)


@dataclass(frozen=True)
class Parts:
    """Codec whose levels are dicts of their parts."""

    parts: tuple[Part, ...]

    def encode(self, level: dict[str, Array]) -> dict[str, Array]:
        return level

    def decode(self, values: dict[str, Array]) -> dict[str, Array]:
        return values


def cave_parts(height: int = 13, width: int = 13) -> tuple[Cells, Place, Place]:
    cells = Cells("layout", (height, width), KINDS, ("empty", "moss"), ("lava", "moss"), "goal")
    return cells, Place("goal", "layout"), Place("start", "layout", ("goal",))


def cave_levels(num: int, height: int = 13, width: int = 13, seed: int = 0) -> dict[str, Array]:
    """Random levels that are well-formed but otherwise arbitrary."""
    rng = np.random.default_rng(seed)
    layout = rng.choice(4, (num, height * width), p=[0.5, 0.3, 0.1, 0.1])
    places = np.stack([rng.choice(height * width, 2, replace=False) for _ in range(num)])
    np.put_along_axis(layout, places, EMPTY, 1)
    layout = jnp.asarray(layout.reshape(num, height, width))
    return {"layout": layout, "goal": jnp.asarray(places[:, 0]), "start": jnp.asarray(places[:, 1])}
