"""Cave: find the goal among walls, lava and moss, seeing only the 5x5 cells ahead.

The actions are those of MiniGrid: turn left, turn right, forward, and four without effect. If the
agent reaches the goal after t steps, the episode ends with reward `1 - 0.9 t / limit`. Walking into
lava ends the episode with reward 0. Moving into a wall or the border leaves the agent in place and
uses a step. The agent can walk on moss. The time limit truncates the episode and is never part of
`terminated`. At the start of an episode the agent faces the direction that the level sets, or a
random direction if the level sets none. In the levels of the suites moss lies near the goal and
lava far from it, so both are cues to the location of the goal.

Source: Garcin et al., 2024, "DRED: Zero-Shot Transfer in Reinforcement Learning via
Data-Regularised Environment Design"; the grid and the view are those of Chevalier-Boisvert et al.,
2023, "Minigrid & Miniworld". Differs from the environment that Garcin et al. released in that an
episode never changes its level. In their environment, if an episode ended on moss, this moss was
missing in later episodes, and the last tile of one episode was painted on the start of the next
episode.
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
    """Family of caves of a fixed size. Equal instances share compiled functions."""

    views = _VIEWS

    height: int = 13  # number of rows, without the border
    width: int = 13  # number of columns, without the border
    num_objects: int = 59  # maximum number of wall, lava and moss cells; levels draw 0 .. maximum
    max_steps: int = 250  # time limit of generated levels, in env steps
    observation: Literal["packed", "image"] = "packed"  # bit masks or images, with the same content

    optimum_is_bound = True  # the search is exact, and assumes the best start direction
    suite_fields = ()

    def __post_init__(self):
        """Reject sizes that no cave can have, and unknown kinds of observation."""
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
                    + (", which leaves room for start and goal" if field == "num_objects" else "")
                )
        if self.observation not in _VIEWS:
            known = ", ".join(_VIEWS)
            raise ValueError(f"Cave: observation={self.observation!r} is none of {known}")

    # Methods required by gymnax.

    def observation_space(self, params: Level | None = None) -> spaces.Space:
        """Space of the observation that the field `observation` selects."""
        if self.observation == "image":
            image = spaces.Box(0.0, 1.0, (VIEW, VIEW, 3), jnp.float32)
            return spaces.Dict({"image": image, "direction": spaces.Discrete(4)})
        cells = spaces.Box(0, 2 ** (VIEW * VIEW) - 1, (), jnp.uint32)
        goal, direction = (spaces.Box(0, top, (), jnp.int8) for top in (HIDDEN, 3))
        return spaces.Dict(
            {"blocked": cells, "marked": cells, "goal": goal, "direction": direction}
        )

    def reset_env(self, key: Key, params: Level) -> tuple[PyTree, State]:
        """Start an episode on a level; only the direction can be random."""
        x, y = params.start
        # The two lowest bits of a random word are exactly uniform over the four directions.
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
        # A cell that is both blocked and marked is lava.
        burnt = forward & blocked & is_set(params.marked, x, y)
        # The agent does not move onto the goal or onto lava, because the episode ends there.
        state = after(state, action, forward & ~at_goal & ~blocked)
        worth = 1.0 - 0.9 * (state.time / params.max_steps_in_episode)
        reward = jnp.where(at_goal, worth, 0.0).astype(jnp.float32)
        return self.observe(key, state, action, params), state, reward, at_goal | burnt, {}

    # Methods of a level family.

    def example(self, rng: np.random.Generator) -> Level:
        """Return a level drawn on the host, because compiling the generator takes seconds."""
        tiles = np.zeros(self.height * self.width, np.int32)
        start, goal, *cells = rng.permutation(tiles.size)[: 2 + self.num_objects // 2]
        tiles[cells] = rng.integers(WALL, MOSS + 1, len(cells))
        start, goal = (np.array(divmod(cell, self.width)[::-1], np.int32) for cell in (start, goal))
        tiles = tiles.reshape(self.height, self.width)
        return jax.jit(make_level)(tiles, start, goal, self.max_steps)

    def sample_level(self, key: Key) -> Level:
        """Sample a room with at most `num_objects` wall, lava and moss cells.

        The level may be unsolvable.
        """
        return generator.sample_level(
            key, self.height, self.width, self.num_objects, self.max_steps
        )

    def sample_simple_level(self, key: Key) -> Level:
        """Sample an empty room, with start and goal drawn as in `sample_level`."""
        return generator.sample_level(key, self.height, self.width, 0, self.max_steps)

    def mutate_levels(self, key: Key, levels: Level, num_edits: int) -> Level:
        """Rewrite up to `num_edits` random cells in each of the levels `[N, ...]`."""
        keys = jax.random.split(key, levels.start.shape[0])
        return jax.vmap(lambda key, level: generator.edit_cells(key, level, num_edits))(
            keys, levels
        )

    def unpack(self, obs: PyTree) -> dict[str, Float[Array, "..."]]:
        """Convert an observation to `image` [..., 5, 5, 3] and one-hot `direction` [..., 4]."""
        return view.unpack(obs)

    def success(
        self, episode_return: Float[Array, "..."], terminated: Bool[Array, "..."]
    ) -> Bool[Array, "..."]:
        """True if the return is positive; termination alone may be due to lava."""
        return episode_return > 0

    def feature_values(self, level: Level, feature: str, discount: float) -> Float[Array, " Z"]:
        """Optimal value of each position, from the worst direction; 0 if no episode visits it."""
        return solver.values(level, feature, discount)

    def solve(self, level: Level) -> Solution:
        """Length of the shortest solution, and best return that the time limit permits.

        If the start direction is random, the best direction is assumed.
        """
        return solver.solve(level)

    def labelled_states(self, key: Key, level: Level, num: int) -> tuple[State, Bool[Array, "S 7"]]:
        """Sample states uniformly, each with the first actions of its shortest solutions."""
        return flood.labelled_states(key, solver.cave_sets(level), size_of(level), num)

    def codec(self) -> CaveCodec:
        """Codec that converts a level to tiles, goal and start, and back."""
        return CaveCodec(self.height, self.width, self.max_steps)

    def level_hash(self, level: Level) -> UInt32[Array, "2"]:
        """Hash of the cells, start and goal; time limit and start direction are ignored."""
        # Cells are stored by rows and by columns; the rows alone determine the level.
        rows = (interior(lines, level.height) for lines in (level.blocked, level.marked))
        return level_hash((*rows, level.start, level.goal))

    def level_features(self, level: Level) -> dict[str, Array]:
        """Scalars that describe a level; a path length or distance that does not exist is -1."""
        return solver.features(level)

    # Host-side methods, not traceable.

    def level_image(self, level: Level) -> np.ndarray:
        """Picture of a level, uint8[H * tile, W * tile, 3]."""
        return render.level_image(level)

    def render(
        self, level: Level | State, state: State | Level, highlight: bool = True
    ) -> np.ndarray:
        """Picture of a state of an episode; also accepts `(state, level)`, gymnax's order."""
        return render.render(*level_first(level, state, Level, State), highlight)

    def from_text(self, text: str) -> Level:
        """Parse a cave of the environment's size from text; see `text` for the format.

        Raises:
            ValueError: The text is malformed, or does not have the size of the environment.
        """
        return read_text(text, self.height, self.width, self.max_steps)

    def load_levels(self, path: Path | str) -> level_sets.LevelSet:
        """Load levels from an `.npz` file that rlgen wrote, or from a plain file (see `files`).

        Raises:
            ValueError: The file is unreadable, its levels differ in size from the environment, or
                a level is not well-formed. The message names the file and the level.
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
        """Return the fields that each preset sets.

        Every preset gives the environment of Garcin et al., which is also the default.
        """
        return {"parity": {"num_objects": 59}, "strong": {"num_objects": 59}, "fast": {}}

    def suites(self) -> dict:
        """Suites by name, each as a function that builds the suite."""
        return suites.suites(self)

    def ladder(self) -> dict[str, level_sets.DistributionShift]:
        """Suites outside the training distribution; see `rlgen.evaluation.ladder.ladder`."""
        return {
            "few-cues": level_sets.DistributionShift("V2", "with little moss", "few-cues"),
            "large": level_sets.DistributionShift("V2", "of 43 x 43 cells", "large"),
            "unseen": level_sets.DistributionShift(
                "V3", "with fourteen other wall structures", "unseen"
            ),
            "lava": level_sets.DistributionShift(
                "V3", "with other wall structures, much lava and little moss", "lava"
            ),
        }


def build(**fields) -> Cave:
    """Build the environment with the given fields."""
    return Cave(**fields)


def tiny() -> Cave:
    """Return a small instance, for the tests in `tests/laws`."""
    return Cave(height=5, width=5, num_objects=8, max_steps=20)
