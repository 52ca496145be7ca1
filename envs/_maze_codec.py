"""The parts of a maze, for generative models: walls, the goal, the start and its direction."""

from dataclasses import dataclass

import jax.numpy as jnp
from jaxtyping import Array

from rlgen.codec import Cells, Choice, Part, Place
from rlgen.envs._maze_bits import Level, make_level, to_grid

EMPTY, WALL = 0, 1


@dataclass(frozen=True)
class MazeCodec:
    """Mazes of one size and time limit as parts, and back.

    A wall under the start or the goal, which a file may hold, is lost on the way.
    """

    height: int
    width: int
    max_steps: int

    @property
    def parts(self) -> tuple[Part, ...]:
        """What makes up a level, in the order of generation."""
        cells = Cells("layout", (self.height, self.width), ("empty", "wall"), free=("empty",))
        goal = Place("goal", on="layout")
        return cells, goal, Place("start", "layout", apart_from=("goal",)), Choice("direction", 4)

    def encode(self, level: Level) -> dict[str, Array]:
        """The parts of one level, by name."""
        grid = to_grid(level)
        goal, start = (cell[1] * self.width + cell[0] for cell in (grid.goal, grid.start))
        layout = grid.walls.reshape(-1).at[jnp.stack([goal, start])].set(False)
        layout = layout.reshape(grid.walls.shape).astype(jnp.int32)
        return {"layout": layout, "goal": goal, "start": start, "direction": grid.direction}

    def decode(self, values: dict[str, Array]) -> Level:
        """The level of some parts; its time limit is `max_steps`."""
        goal, start = (self._cell(values[name]) for name in ("goal", "start"))
        walls = values["layout"] == WALL
        return make_level(walls, start, values["direction"], goal, self.max_steps)

    def _cell(self, place: Array) -> Array:
        return jnp.stack([place % self.width, place // self.width])
