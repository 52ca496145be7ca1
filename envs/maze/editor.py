"""The maze editor: an environment whose episodes build mazes, one edit per step.

An action is the index of a cell, in row order. Step 0 places the goal in this cell, step 1 sets the
agent's direction to `action mod 4`, and step 2 places the agent in the cell. Every later step adds
or removes a wall in the cell of its action, unless this cell holds the goal or the agent. The
teacher observes the maze under construction and some random numbers, which are called the noise.

Source: Dennis et al., 2020, "Emergent Complexity and Zero-shot Transfer via Unsupervised
Environment Design"; the order of the steps is that of Coward et al., 2024, "JaxUED". Differs from
both in three points. The noise is actually random. The teacher observes the agent's direction and
whether the agent has been placed. Observations are packed, and the network expands them.
"""

from dataclasses import dataclass, field
from typing import NamedTuple, no_type_check

import jax
import jax.numpy as jnp
from flax import struct
from gymnax.environments import spaces
from jaxtyping import Array, Bool, Float, Int, UInt32

from rlgen.envs.grid.bitboard import MARGIN, Level, border, cell_bits, interior, num_words
from rlgen.protocols import Editor
from rlgen.types import Key

NUM_NOISE = 16
"""Number of random numbers that the teacher observes; they are resampled for every maze."""
FIRST_WALL = 3
"""First step at which an action adds or removes a wall."""


@no_type_check  # JAX also builds this class with axes or None in place of arrays
@struct.dataclass
class Noise:
    """Level of the editor itself: the noise and the number of steps of an episode."""

    noise: Float[Array, "*batch 16"]  # uniform on [0, 1)
    max_steps_in_episode: Int[Array, "*batch"]


@no_type_check
@struct.dataclass
class EditorState:
    """A maze under construction, valid at any time: goal and agent are never in the same cell."""

    walls: UInt32[Array, "*batch lines words"]  # in the format of a maze's `Level.walls`
    goal: Int[Array, "*batch"]  # cell in row order
    agent: Int[Array, "*batch"]  # cell in row order, never the cell of the goal
    direction: Int[Array, "*batch"]
    time: Int[Array, "*batch"]  # steps taken


class PackedEditorObs(NamedTuple):
    """The packed maze under construction, with an extra code for what is not placed yet."""

    walls: UInt32[Array, "*batch H words"]  # bit `x + MARGIN` of row y
    goal: Int[Array, "*batch"]  # cell, or height * width if not placed yet
    agent: Int[Array, "*batch"]  # cell, or height * width if not placed yet
    direction: Int[Array, "*batch"]  # 0 .. 3, or 4 if not chosen yet
    time: Int[Array, "*batch"]
    noise: Float[Array, "*batch 16"]


@dataclass(frozen=True)
class MazeEditor(Editor):
    """Environment in which a teacher builds mazes of a fixed size; see `rlgen.protocols.Editor`.

    Attributes:
        height: Height of the mazes, in cells.
        width: Width of the mazes, in cells.
        max_steps: Time limit of the mazes, in steps.
        horizon: Number of steps of an episode. All steps but the first three add or remove a wall.

    Raises:
        ValueError: `horizon` is too small to place goal and agent.
    """

    height: int = field(metadata={"config": False})  # set by the maze
    width: int = field(metadata={"config": False})
    max_steps: int = field(metadata={"config": False})
    horizon: int = 50

    def __post_init__(self):
        if self.horizon < FIRST_WALL:
            raise ValueError(
                f"MazeEditor: horizon={self.horizon} is below {FIRST_WALL}, the number of "
                "steps that set the goal, the direction and the agent; use a larger horizon"
            )

    @property
    def num_actions(self) -> int:
        """Number of actions: one per cell."""
        return self.height * self.width

    def observation_space(self, params: Noise | None = None) -> spaces.Dict:
        """Space of the packed observation."""
        rows = (self.height, num_words(self.height, self.width))
        highest = {"goal": self.num_actions, "agent": self.num_actions, "direction": 4}
        highest["time"] = self.horizon
        return spaces.Dict(
            {
                "walls": spaces.Box(0, 2**32 - 1, rows, jnp.uint32),
                "noise": spaces.Box(0.0, 1.0, (NUM_NOISE,), jnp.float32),
                **{name: spaces.Box(0, top, (), jnp.int32) for name, top in highest.items()},
            }
        )

    def sample_level(self, key: Key) -> Noise:
        """Sample new noise."""
        return Noise(jax.random.uniform(key, (NUM_NOISE,)), jnp.int32(self.horizon))

    def reset_env(self, key: Key, params: Noise) -> tuple[PackedEditorObs, EditorState]:
        """Start with an empty room."""
        zero = jnp.int32(0)
        # Goal and agent have different cells from the start, though neither is observed yet.
        state = EditorState(border(self.height, self.width), zero, jnp.int32(1), zero, zero)
        return self.observe(key, state, None, params), state

    def step_env(
        self, key: Key, state: EditorState, action: Int[Array, ""] | float, params: Noise
    ) -> tuple[PackedEditorObs, EditorState, Float[Array, ""], Bool[Array, ""], dict]:
        """Make one edit and return `(obs, state, 0, False, {})`.

        The edit is random only if it would put agent and goal into the same cell.
        """
        cell = jnp.asarray(action, jnp.int32) % self.num_actions
        goal = jnp.where(state.time == 0, cell, state.goal)
        agent = jnp.where(state.time == 2, cell, state.agent)
        skip = jax.random.randint(key, (), 1, self.num_actions)
        # `skip` is never 0, so the agent moves to another cell, uniformly.
        agent = jnp.where(agent == goal, (goal + skip) % self.num_actions, agent)
        flips = (state.time >= FIRST_WALL) & (cell != goal) & (cell != agent)
        bits = cell_bits(self._point(cell), self.height, self.width)
        state = EditorState(
            walls=jnp.where(flips, state.walls ^ bits, state.walls),
            goal=goal,
            agent=agent,
            direction=jnp.where(state.time == 1, cell & 3, state.direction),
            time=state.time + 1,
        )
        obs = self.observe(key, state, action, params)
        return obs, state, jnp.float32(0), jnp.bool_(False), {}

    def observe(
        self, key: Key, state: EditorState, action: Int[Array, ""] | float | None, params: Noise
    ) -> PackedEditorObs:
        """The teacher's packed observation: everything placed so far, the step and the noise."""
        nowhere = self.num_actions
        return PackedEditorObs(
            walls=interior(state.walls, self.height),
            goal=jnp.where(state.time > 0, state.goal, nowhere),
            agent=jnp.where(state.time > 2, state.agent, nowhere),
            direction=jnp.where(state.time > 1, state.direction, 4),
            time=state.time,
            noise=params.noise,
        )

    def unpack(self, obs: PackedEditorObs) -> dict[str, Float[Array, "..."]]:
        """Expand an observation to network inputs, with any leading axes.

        Returns:
            `image` [..., H, W, 3], planes of walls, goal and agent; one-hot `direction` [..., 4]
            and `time` [..., horizon + 1]; `noise` [..., 16], centred at 0. Planes and vectors of
            objects that are not placed yet are all zeros.
        """
        lead, size = obs.time.shape, (self.height, self.width)
        column = jnp.arange(MARGIN, MARGIN + self.width)
        shift = (column % 32).astype(jnp.uint32).reshape((1,) * (len(lead) + 1) + (-1,))
        walls = ((obs.walls[..., column // 32] >> shift) & 1).astype(jnp.float32)
        # For codes past the last class (objects not placed yet), `one_hot` gives zeros.
        objects = (
            jax.nn.one_hot(cell, self.num_actions).reshape(*lead, *size)
            for cell in (obs.goal, obs.agent)
        )
        return {
            "image": jnp.stack([walls, *objects], axis=-1),
            "direction": jax.nn.one_hot(obs.direction, 4),
            "time": jax.nn.one_hot(obs.time, self.horizon + 1),
            "noise": obs.noise - 0.5,
        }

    def level_of(self, state: EditorState) -> Level:
        """Return the maze built so far."""
        start, goal = self._point(state.agent), self._point(state.goal)
        limit = jnp.int32(self.max_steps)
        return Level(state.walls, start, state.direction, goal, limit, self.height)

    def _point(self, cell: Int[Array, ""]) -> Int[Array, "2"]:
        """x, y of a cell in row order."""
        return jnp.stack([cell % self.width, cell // self.width])
