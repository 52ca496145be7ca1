"""Codec of caves for generative models, with three parts: tiles, goal and start."""

from dataclasses import dataclass

import jax.numpy as jnp
from jaxtyping import Array, Int

from rlgen.codec import Cells, Part, Place
from rlgen.envs.cave.level import KINDS, Level, make_level, size_of, to_grid


@dataclass(frozen=True)
class CaveCodec:
    """Conversion between caves of a fixed size and their parts; see `rlgen.codec.LevelCodec`.

    Source: Garcin et al., 2024, "DRED: Zero-Shot Transfer in Reinforcement Learning via
    Data-Regularised Environment Design".
    """

    height: int
    width: int
    max_steps: int  # time limit of the levels that `decode` returns

    @property
    def parts(self) -> tuple[Part, ...]:
        """Tiles, goal and start, where the positions of moss and lava depend on the goal."""
        layout = Cells(
            "layout",
            (self.height, self.width),
            kinds=KINDS,
            free=("empty", "moss"),
            landmarks=("lava", "moss"),
            hub="goal",
        )
        goal = Place("goal", on="layout")
        return layout, goal, Place("start", on="layout", apart_from=("goal",))

    def encode(self, level: Level) -> dict[str, Array]:
        """Return the tile codes `layout`, [H, W], and the cells `goal` and `start`, y * W + x."""
        grid, (_, width) = to_grid(level), size_of(level)
        goal, start = (cell[1] * width + cell[0] for cell in (grid.goal, grid.start))
        return {"layout": grid.tiles, "goal": goal, "start": start}

    def decode(self, values: dict[str, Array]) -> Level:
        """Build the level from its tiles, goal and start.

        The cells of the goal and the start become empty, and the start direction is random.
        """
        start, goal = (self._cell(values[name]) for name in ("start", "goal"))
        return make_level(values["layout"], start, goal, self.max_steps)

    def _cell(self, index: Int[Array, ""]) -> Int[Array, "2"]:
        return jnp.stack([index % self.width, index // self.width])
