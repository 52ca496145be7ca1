"""Maze: find the goal in a grid of walls, observing only the 5x5 cells ahead.

There are seven actions, as in MiniGrid: turn left, turn right, go forward, and four that do
nothing. If the agent walks into the goal, the episode ends with reward `1 - 0.9 t / limit`, where t
is the number of steps taken and `limit` is the time limit. A move into a wall or the border uses up
a step but does not move the agent. The time limit truncates an episode; it never sets `terminated`.

Sources: Chevalier-Boisvert et al., 2023, "Minigrid & Miniworld"; Dennis et al., 2020, "Emergent
Complexity and Zero-shot Transfer via Unsupervised Environment Design". Differs from both in two
points. A level is an argument of the environment's functions, the gymnax `params`. The observation
is packed into 6 bytes, which `unpack` expands.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from gymnax.environments import spaces
from jaxtyping import Array, Bool, Float, Int, UInt32

from rlgen import levels as level_sets
from rlgen.envs.grid import bitboard, draw, flood
from rlgen.envs.grid.bitboard import (
    FORWARD,
    HIDDEN,
    VIEW,
    GridEnv,
    Level,
    State,
    after,
    cell_ahead,
    interior,
    is_wall,
    make_level,
    size_of,
    to_grid,
)
from rlgen.envs.maze import codec, generator, suites
from rlgen.envs.maze.codec import MazeCodec, check_levels
from rlgen.envs.maze.editor import MazeEditor
from rlgen.protocols import level_hash
from rlgen.types import Key, PyTree, Solution

_VIEWS = {
    "packed": bitboard.packed_view,
    "image": bitboard.image_view,
    "flat": bitboard.flat_view,
}
_MUTATIONS = {"flip": generator.flip_edits, "cells": generator.cell_edits}


@dataclass(frozen=True)
class Maze(GridEnv):
    """Family of mazes of a fixed size. Equal instances share compiled functions."""

    views = _VIEWS

    height: int = 13  # height of the maze, in cells
    width: int = 13  # width of the maze, in cells
    num_walls: int = 25  # number of wall cells drawn, with replacement; 0 gives empty rooms
    sample_num_walls: bool = False  # if True, draw a number of walls in 0 .. num_walls
    max_steps: int = 250  # time limit of sampled levels
    penalize_time: bool = True  # reward of the goal at step t: 1 - 0.9 t / limit, or 1 if False
    observation: Literal["packed", "image", "flat"] = "packed"  # format of the observation
    mutation: Literal["flip", "cells"] = "flip"  # edits: flip of minimax, cells of first ACCEL code
    view_size: int = VIEW  # side of the view, in cells; only 5 is implemented

    optimum_is_bound = True  # the search is exact
    suite_fields = ()

    def __post_init__(self):
        """Reject invalid sizes and names."""
        for field, low, high in self._bounds():
            value = getattr(self, field)
            if not low <= value <= high:
                raise ValueError(
                    f"Maze: {field}={value} is not in {low} .. {high}"
                    + (
                        ", the range that leaves free cells for agent and goal"
                        if field == "num_walls"
                        else ""
                    )
                )
        if self.view_size != VIEW:
            raise ValueError(f"Maze: view_size={self.view_size}; only {VIEW} is implemented")
        for field, known in (("observation", _VIEWS), ("mutation", _MUTATIONS)):
            if getattr(self, field) not in known:
                raise ValueError(
                    f"Maze: {field}={getattr(self, field)!r} is none of {', '.join(known)}"
                )

    def _bounds(self) -> tuple[tuple[str, int, int], ...]:
        return (
            ("height", 1, 4096),
            ("width", 1 if self.height > 1 else 2, 4096),
            ("num_walls", 0, max(self.height * self.width - 2, 0)),
            ("max_steps", 1, 10**6),
        )

    # Interface of gymnax.

    def observation_space(self, params: Level | None = None) -> spaces.Space:
        """Space of the kind of observation chosen by the field `observation`."""
        if self.observation == "flat":
            return spaces.Box(0.0, 1.0, (3 * VIEW * VIEW + 4,), jnp.float32)
        if self.observation == "image":
            image = spaces.Box(0.0, 1.0, (VIEW, VIEW, 3), jnp.float32)
            return spaces.Dict({"image": image, "direction": spaces.Discrete(4)})
        walls = spaces.Box(0, 2 ** (VIEW * VIEW) - 1, (), jnp.uint32)
        goal, direction = (spaces.Box(0, top, (), jnp.int8) for top in (HIDDEN, 3))
        return spaces.Dict({"walls": walls, "goal": goal, "direction": direction})

    def reset_env(self, key: Key, params: Level) -> tuple[PyTree, State]:
        """Start an episode on a level, without randomness."""
        x, y = params.start
        state = State(x, y, params.direction, jnp.zeros_like(x))
        return self.observe(key, state, None, params), state

    def step_env(
        self, key: Key, state: State, action: Int[Array, ""] | float, params: Level
    ) -> tuple[PyTree, State, Float[Array, ""], Bool[Array, ""], dict]:
        """One step: `(obs, state, reward, terminated, info)`."""
        x, y = cell_ahead(state)
        forward = action == FORWARD
        terminated = forward & (x == params.goal[0]) & (y == params.goal[1])
        # The agent stays in front of the goal in the final state.
        moves = forward & ~terminated & ~is_wall(params, x, y)
        state = after(state, action, moves)
        worth = (
            1.0 - 0.9 * (state.time / params.max_steps_in_episode) if self.penalize_time else 1.0
        )
        reward = jnp.where(terminated, worth, 0.0).astype(jnp.float32)
        return self.observe(key, state, action, params), state, reward, terminated, {}

    # Interface of a family of levels.

    def example(self, rng: np.random.Generator) -> Level:
        """Sample a level on the host, because compiling the generator takes seconds."""
        walls = np.zeros(self.height * self.width, bool)
        walls[rng.integers(0, walls.size, self.num_walls)] = True
        start, goal = rng.choice(np.flatnonzero(~walls), 2, replace=False)
        start, goal = (np.array(divmod(cell, self.width)[::-1], np.int32) for cell in (start, goal))
        walls = walls.reshape(self.height, self.width)
        return jax.jit(make_level)(walls, start, 0, goal, self.max_steps)

    def sample_level(self, key: Key) -> Level:
        """Sample a maze of random walls.

        About 1 in 250 mazes with 25 walls and about 1 in 6 mazes with 60 walls are unsolvable.
        """
        return generator.sample_level(
            key, self.height, self.width, self.num_walls, self.sample_num_walls, self.max_steps
        )

    def sample_simple_level(self, key: Key) -> Level:
        """Sample an empty room; agent, direction and goal are sampled as in `sample_level`."""
        return generator.sample_level(key, self.height, self.width, 0, False, self.max_steps)

    def editor(self) -> MazeEditor:
        """Return the environment in which a teacher builds mazes of this size."""
        return MazeEditor(self.height, self.width, self.max_steps)

    def mutate_levels(self, key: Key, levels: Level, num_edits: int) -> Level:
        """Return levels `[N, ...]`, each changed by `num_edits` edits of the kind `mutation`."""
        keys = jax.random.split(key, levels.walls.shape[0])
        edit = _MUTATIONS[self.mutation]
        return jax.vmap(lambda key, level: edit(key, level, num_edits))(keys, levels)

    def unpack(self, obs: PyTree) -> dict[str, Float[Array, "..."]]:
        """Expand any kind of `obs` to `image` [..., 5, 5, 3] and one-hot `direction` [..., 4]."""
        return bitboard.unpack(obs)

    def success(
        self, episode_return: Float[Array, "..."], terminated: Bool[Array, "..."]
    ) -> Bool[Array, "..."]:
        """Return whether the episode was solved, that is, whether it ended at the goal."""
        return terminated

    def feature_values(self, level: Level, feature: str, discount: float) -> Float[Array, " Z"]:
        """Lowest optimal value per cell; see `LevelEnv.feature_values`.

        Unreachable cells have value 0.
        """
        return flood.values(level, feature, discount)

    def solve(self, level: Level) -> Solution:
        """Compute the optimal solution, by an exact search.

        The result holds the length of the shortest solution and the return of this solution within
        the time limit.
        """
        return flood.solve(level, self.penalize_time)

    def labelled_states(self, key: Key, level: Level, num: int) -> tuple[State, Bool[Array, "S 7"]]:
        """Draw states uniformly, each with the actions that begin a shortest path to the goal."""
        return flood.labelled_states(key, flood.maze_sets(level), size_of(level), num)

    def level_hash(self, level: Level) -> UInt32[Array, "2"]:
        """Hash of all parts of a level except the time limit."""
        rows = interior(level.walls, level.height)
        return level_hash((rows, level.start, level.direction, level.goal))

    def level_features(self, level: Level) -> dict[str, Array]:
        """Scalars that describe a level; lengths are -1 if the goal cannot be reached."""
        solution = self.solve(level)
        return {
            "num_walls": to_grid(level).walls.sum(),
            "path_length": flood.path_length(level),
            "optimal_steps": solution.steps,
            "solvable": solution.solvable,
            "distance": jnp.abs(level.start - level.goal).sum(),
        }

    def codec(self) -> MazeCodec:
        """Return the codec that converts levels to parts and back, for generative models."""
        return MazeCodec(self.height, self.width, self.max_steps)

    # Host side.

    def level_image(self, level: Level) -> np.ndarray:
        """Picture of a level, uint8[H * tile, W * tile, 3]."""
        return draw.level_image(level)

    def render(
        self, level: Level | State, state: State | Level, highlight: bool = True
    ) -> np.ndarray:
        """Picture of a state of an episode.

        The first two arguments may also have gymnax's order, `(state, level)`.
        """
        return draw.render(*draw.level_first(level, state, Level, State), highlight)

    def from_text(self, text: str) -> Level:
        """Parse a maze from text; `rlgen.envs.maze.codec` describes the format.

        Raises:
            ValueError: The text is malformed or larger than the environment; the message names the
                line.
        """
        return codec.from_text(text, self.height, self.width, self.max_steps)

    def load_levels(self, path: Path | str) -> level_sets.LevelSet:
        """Load levels from an `.npz` file of rlgen, or a text file (see `rlgen.envs.maze.codec`).

        Raises:
            ValueError: The file is unreadable or has a malformed level; the message names the file
                and, for text, the line.
        """
        path = Path(path)
        if path.suffix == ".npz":
            levels = level_sets.load_levels(path, self.default_params)
            _naming(path, check_levels, levels.level, levels.names)
            return levels
        return _naming(path, self._read_text, path)

    def _read_text(self, path: Path) -> level_sets.LevelSet:
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(f"cannot be read: {error}") from error
        mazes = codec.read_mazes(text, self.height, self.width, self.max_steps)
        names = tuple(maze.name or f"{path.stem}-{i:04d}" for i, maze in enumerate(mazes))
        stacked = jax.tree.map(lambda *x: jnp.stack(x), *(maze.level for maze in mazes))
        return level_sets.make_level_set(self, stacked, names)

    def presets(self) -> dict[str, dict[str, int]]:
        """Fields of each preset.

        `parity` has JaxUED's default number of walls, and `strong` has the number of walls of the
        best published results. `fast` has as many walls as `parity`.
        """
        return {"parity": {"num_walls": 25}, "strong": {"num_walls": 60}, "fast": {"num_walls": 25}}

    def suites(self) -> dict:
        """Return functions that build the held-out suites, by name."""
        return suites.suites(self)

    def ladder(self) -> dict[str, level_sets.DistributionShift]:
        """Mazes outside the training distribution; see `rlgen.evaluation.ladder.ladder`."""
        cells, walls = self.height * self.width, self.num_walls
        many = round(0.36 * cells)
        dense = level_sets.DistributionShift("V2", f"with {many} walls", fields={"num_walls": many})
        # Both sides grow by half. The number of walls and the time limit grow with the area, so the
        # density of walls stays equal.
        height, width = (3 * side // 2 + (side == 1) for side in (self.height, self.width))
        growth = height * width / cells
        size = {"height": height, "width": width}
        size |= {"num_walls": round(growth * walls), "max_steps": round(growth * self.max_steps)}
        about = f"of {height} x {width} cells, with the same density of walls"
        return ({"dense": dense} if walls < many else {}) | {
            "large": level_sets.DistributionShift("V2", about, fields=size),
            "named": level_sets.DistributionShift("V3", "with the eight named layouts", "heldout"),
            "four-rooms": level_sets.DistributionShift("V3", "of four rooms", "four-rooms"),
            "crossing": level_sets.DistributionShift("V3", "with walls to cross", "crossing"),
            "perfect": level_sets.DistributionShift(
                "V3", "that are perfect mazes, 13 x 13", "perfect-13"
            ),
        }


def build(**fields) -> Maze:
    """The environment with the given fields."""
    return Maze(**fields)


def tiny() -> Maze:
    """Return the smallest instance that is still a maze, for the tests in `tests/laws`."""
    return Maze(height=5, width=5, num_walls=4, max_steps=20)


def _naming(path: Path, function, *arguments):
    try:
        return function(*arguments)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
