"""Cave: find the goal among walls, lava and moss, seeing only the 5x5 cells ahead.

Turn left, turn right, go forward; four further actions do nothing, as in MiniGrid. Walking into the
goal ends the episode with reward `1 - 0.9 t / limit` after t steps; walking into lava ends it with
reward 0. Walls and the border stop the agent and cost the step; moss is walked on. The time limit
truncates: it is never part of `terminated`. Episodes start facing one of the four directions at
random, unless the level says which. In levels made with care moss grows near the goal and lava
flows far from it, so that both tell the way.

Source: Garcin et al., 2024, "DRED: Zero-Shot Transfer in Reinforcement Learning via
Data-Regularised Environment Design"; its grid and view are those of Chevalier-Boisvert et al.,
2023, "Minigrid & Miniworld". Differs from the released environment in that an episode leaves no
trace in its level: there, moss was erased where an episode ended on it, and the last tile of one
episode was painted on the start of the next.
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
from rlgen.envs.cave import files, generator, render, solver, suites, view
from rlgen.envs.cave.check import check_levels
from rlgen.envs.cave.codec import CaveCodec
from rlgen.envs.cave.level import MOSS, WALL, Level, make_level, size_of
from rlgen.envs.cave.text import from_text as read_text
from rlgen.envs.grid import flood
from rlgen.envs.grid.bitboard import (
    FORWARD,
    HIDDEN,
    VIEW,
    GridEnv,
    State,
    after,
    cell_ahead,
    interior,
    is_set,
)
from rlgen.envs.grid.draw import level_first
from rlgen.protocols import level_hash
from rlgen.types import Key, PyTree, Solution

_VIEWS = {"packed": view.packed_view, "image": view.image_view}


@dataclass(frozen=True)
class Cave(GridEnv):
    """The family of caves of one size. Equal instances share compilations."""

    views = _VIEWS

    height: int = 13
    width: int = 13
    num_objects: int = 59  # the most walls, lava and moss of a random level, drawn from 0 upwards
    max_steps: int = 250  # time limit of the levels made here
    observation: Literal["packed", "image"] = "packed"

    def __post_init__(self):
        """Refuse sizes and names that make no cave."""
        for field, low, high in (
            ("height", 1, 4096),
            ("width", 1 if self.height > 1 else 2, 4096),
            ("num_objects", 0, max(self.height * self.width - 2, 0)),
            ("max_steps", 1, 10**6),
        ):
            value = getattr(self, field)
            if not low <= value <= high:
                raise ValueError(
                    f"Cave: {field}={value} is not in {low} .. {high}"
                    + (", so that start and goal find room" if field == "num_objects" else "")
                )
        if self.observation not in _VIEWS:
            known = ", ".join(_VIEWS)
            raise ValueError(f"Cave: observation={self.observation!r} is none of {known}")

    # What gymnax asks for.

    def observation_space(self, params: Level | None = None) -> spaces.Space:
        """Of the observation that the field `observation` chose."""
        if self.observation == "image":
            image = spaces.Box(0.0, 1.0, (VIEW, VIEW, 3), jnp.float32)
            return spaces.Dict({"image": image, "direction": spaces.Discrete(4)})
        cells = spaces.Box(0, 2 ** (VIEW * VIEW) - 1, (), jnp.uint32)
        goal, direction = (spaces.Box(0, top, (), jnp.int8) for top in (HIDDEN, 3))
        return spaces.Dict(
            {"blocked": cells, "marked": cells, "goal": goal, "direction": direction}
        )

    def reset_env(self, key: Key, params: Level) -> tuple[PyTree, State]:
        """Start of an episode on a level; at most the direction is random."""
        x, y = params.start
        turned = (jax.random.bits(key, (), jnp.uint32) & 3).astype(jnp.int32)
        direction = jnp.where(params.direction < 0, turned, params.direction)
        state = State(x, y, direction, jnp.zeros_like(x))
        return self.observe(key, state, None, params), state

    def step_env(
        self, key: Key, state: State, action: Int[Array, ""] | float, params: Level
    ) -> tuple[PyTree, State, Float[Array, ""], Bool[Array, ""], dict]:
        """One step: `(obs, state, reward, terminated, info)`."""
        x, y = cell_ahead(state)
        forward = action == FORWARD
        blocked = is_set(params.blocked, x, y)
        at_goal = forward & (x == params.goal[0]) & (y == params.goal[1])
        burnt = forward & blocked & is_set(params.marked, x, y)
        state = after(state, action, forward & ~at_goal & ~blocked)
        worth = 1.0 - 0.9 * (state.time / params.max_steps_in_episode)
        reward = jnp.where(at_goal, worth, 0.0).astype(jnp.float32)
        return self.observe(key, state, action, params), state, reward, at_goal | burnt, {}

    # What makes it a family of levels.

    def example(self, rng: np.random.Generator) -> Level:
        """A level drawn on the host, as compiling the generator takes seconds."""
        tiles = np.zeros(self.height * self.width, np.int32)
        start, goal, *cells = rng.permutation(tiles.size)[: 2 + self.num_objects // 2]
        tiles[cells] = rng.integers(WALL, MOSS + 1, len(cells))
        start, goal = (np.array(divmod(cell, self.width)[::-1], np.int32) for cell in (start, goal))
        tiles = tiles.reshape(self.height, self.width)
        return jax.jit(make_level)(tiles, start, goal, self.max_steps)

    def sample_level(self, key: Key) -> Level:
        """A room with up to `num_objects` random walls, lava and moss; it may have no solution."""
        return generator.sample_level(
            key, self.height, self.width, self.num_objects, self.max_steps
        )

    def sample_simple_level(self, key: Key) -> Level:
        """An empty room; start and goal as in `sample_level`."""
        return generator.sample_level(key, self.height, self.width, 0, self.max_steps)

    def mutate_levels(self, key: Key, levels: Level, num_edits: int) -> Level:
        """Levels `[N, ...]`, each with up to `num_edits` cells rewritten at random."""
        keys = jax.random.split(key, levels.start.shape[0])
        return jax.vmap(lambda key, level: generator.edit_cells(key, level, num_edits))(
            keys, levels
        )

    def unpack(self, obs: PyTree) -> dict[str, Float[Array, "..."]]:
        """Any observation as `image` [..., 5, 5, 3] and one-hot `direction` [..., 4]."""
        return view.unpack(obs)

    def success(
        self, episode_return: Float[Array, "..."], terminated: Bool[Array, "..."]
    ) -> Bool[Array, "..."]:
        """An episode is solved when it paid: lava ends it, too."""
        return episode_return > 0

    def feature_values(self, level: Level, feature: str, discount: float) -> Float[Array, " Z"]:
        """The least value of each position, 0 where an episode never is; see the registry."""
        return solver.values(level, feature, discount)

    def solve(self, level: Level) -> Solution:
        """Fewest steps and best return within the time limit, from the luckiest direction."""
        return solver.solve(level)

    def labelled_states(self, key: Key, level: Level, num: int) -> tuple[State, Bool[Array, "S 7"]]:
        """States drawn evenly, each with the actions that lead to the goal by the fewest steps."""
        return flood.labelled_states(key, solver.cave_sets(level), size_of(level), num)

    def codec(self) -> CaveCodec:
        """The parts of a level: tiles, goal and start."""
        return CaveCodec(self.height, self.width, self.max_steps)

    def level_hash(self, level: Level) -> UInt32[Array, "2"]:
        """Equal for equal caves, whatever their time limits and start directions."""
        rows = (interior(lines, level.height) for lines in (level.blocked, level.marked))
        return level_hash((*rows, level.start, level.goal))

    def level_features(self, level: Level) -> dict[str, Array]:
        """Scalars that describe a level; lengths are -1 where there is nothing to measure."""
        return solver.features(level)

    # Host side.

    def level_image(self, level: Level) -> np.ndarray:
        """Picture of a level, uint8[H * tile, W * tile, 3]."""
        return render.level_image(level)

    def render(
        self, level: Level | State, state: State | Level, highlight: bool = True
    ) -> np.ndarray:
        """Picture of a moment of an episode; also takes `(state, level)`, gymnax's order."""
        return render.render(*level_first(level, state, Level, State), highlight)

    def from_text(self, text: str) -> Level:
        """The cave of a text of the environment's size; see `text`.

        Raises:
            ValueError: malformed or of another size.
        """
        return read_text(text, self.height, self.width, self.max_steps)

    def load_levels(self, path: Path | str) -> level_sets.LevelSet:
        """Levels of an `.npz` of rlgen, or of a plain one (see `files`).

        Raises:
            ValueError: unreadable, of another size than the environment's, or with a level that is
                not well-formed; names file and level.
        """
        arrays = files.arrays_of(path)
        if "header" in arrays:
            levels = level_sets.load_levels(path, self.default_params)
            check_levels(levels.level, f"{path}: ")
            return levels
        plain = files.read_plain(path, arrays)
        files.check_size(path, plain.tiles.shape[1:], self.height, self.width)
        stacked = files.stack(plain, self.max_steps)
        return level_sets.make_level_set(self, stacked, plain.names, plain.split)

    def presets(self) -> dict[str, dict[str, int]]:
        """Fields of each preset: all three play the published game."""
        return {"parity": {"num_objects": 59}, "strong": {"num_objects": 59}, "fast": {}}

    def suites(self) -> dict:
        """The suites: name to a function that makes one."""
        return suites.suites(self)

    def ladder(self) -> dict[str, level_sets.DistributionShift]:
        """What lies beyond the caves of its training set; see `rlgen.evaluation.ladder.ladder`."""
        return {
            "few-cues": level_sets.DistributionShift("V2", "with little moss", "few-cues"),
            "large": level_sets.DistributionShift("V2", "of 43 x 43 cells", "large"),
            "unseen": level_sets.DistributionShift("V3", "of fourteen other structures", "unseen"),
            "lava": level_sets.DistributionShift(
                "V3", "of other structures, with much lava and little moss", "lava"
            ),
        }


def build(**fields) -> Cave:
    """The environment with the given fields."""
    return Cave(**fields)


def tiny() -> Cave:
    """The smallest instance that is still a cave, for law tests."""
    return Cave(height=5, width=5, num_objects=8, max_steps=20)
