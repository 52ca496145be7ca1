"""PAIRED: a teacher builds the levels and is rewarded with their scores.

If the score is regret, two students play the levels: the protagonist and the antagonist. The
teacher is then rewarded for levels that the antagonist solves and the protagonist does not solve
yet.

Sources: Dennis et al., 2020, "Emergent Complexity and Zero-shot Transfer via Unsupervised
Environment Design", algorithm 1; Jiang et al., 2021, "Replay-Guided Adversarial Environment
Design", for REPAIRED, in which the teacher builds the new levels of PLR.
"""

from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from rlgen.algos.learners.ppo import PPO
from rlgen.curriculum import fill_new
from rlgen.nn.actor_critic import ActorCritic
from rlgen.nn.cell_actor_critic import CellActorCritic
from rlgen.parallel.seeds import any_over_seeds, tree_where
from rlgen.protocols import Editor, Learner, LevelEnv, Sampler, Score
from rlgen.registry import has, require
from rlgen.rollout import Record, rollout
from rlgen.types import Key, Keys, Metrics, Outcome, PyTree, Rollout, Slots

_TOLD = ("loss", "entropy")
"""Names of the teacher's metrics that are reported; a teacher may lack some of them."""


class PairedState(NamedTuple):
    """The teacher's state and the metrics of the last update."""

    teacher: PyTree
    has_built: Bool[Array, ""]  # True if the teacher has built levels since the last `observe`
    told: Metrics  # the teacher's loss and entropy; NaN if the teacher was not updated
    pay: Float[Array, ""]  # mean reward of the teacher's episodes; NaN if no level was scored
    num_steps: Int[Array, ""]  # number of env steps in the editor


@dataclass(frozen=True)
class Paired(Sampler):
    """A teacher builds each level in one episode of the editor, an environment that edits levels.

    A slot, one of the parallel environments, plays the levels of its queue in turn. When the slot
    is free for new levels, the teacher builds a separate level for each position of the queue. The
    teacher's episode is stored with the slot until the level has been scored. The score then
    becomes the reward of the last step, at which the episode terminates. The teacher trains on all
    episodes whose levels were scored in the update. If a level has no score, its episode has weight
    0. If no level was scored, for example because PLR replayed earlier levels, the teacher is not
    updated.

    Attributes:
        editor: Environment in which the teacher builds levels.
        teacher: Learner that builds the levels; it is moved to `editor` if it was created for
            another environment.

    Raises:
        ValueError: In `check`, if the levels of an update cannot be divided into the teacher's
            minibatches.
    """

    editor: Editor
    teacher: Learner

    def __post_init__(self):
        # The teacher has a copy of the editor. If a field of the editor changes, such as its
        # horizon, the copy must change too.
        object.__setattr__(self, "teacher", self.teacher.in_env(self.editor))

    def check(self, num_levels: int, score: Score) -> None:
        """Check that the teacher can train on the episodes of one update."""
        del score
        self.teacher.check(self.editor.horizon, num_levels)

    def spanning(self, num_updates: int) -> "Paired":
        """Return a copy whose teacher has schedules for `num_updates` updates."""
        return replace(self, teacher=self.teacher.spanning(num_updates))

    def init(self, key: Key, memory: PyTree) -> PairedState:
        """Return the state with an untrained teacher."""
        del memory
        teacher = self.teacher.init(key)
        # The state needs a fixed structure, so the names of the teacher's metrics must be known.
        # These names are found by tracing an update of the teacher, which is not executed. The
        # traced batch is the smallest that fills the teacher's minibatches.
        num = self.teacher.least_slots
        played = jax.tree.map(lambda x: jnp.stack([x] * num, axis=1), self.level_info())
        told = jax.eval_shape(self.teacher.update, key, teacher, played, jnp.ones(num))[1]
        unknown = jnp.float32(jnp.nan)
        return PairedState(
            teacher,
            has_built=jnp.zeros((), bool),
            told={name: unknown for name in _TOLD if name in told},
            pay=unknown,
            num_steps=jnp.zeros((), jnp.int32),
        )

    def example_level(self) -> PyTree:
        """Return the level from which the editor starts."""
        key = jax.random.key(0)
        return self.editor.level_of(self.editor.reset_env(key, self.editor.sample_level(key))[1])

    def level_info(self) -> Rollout:
        """Return zeros in the form of the teacher's episode that builds one level, [T, ...]."""

        def one(key: Key) -> Rollout:
            return self._build(key, self.teacher.init(key), 1)[0]

        shapes = jax.eval_shape(one, jax.random.key(0))
        # Axis 1 is the batch of one level.
        return jax.tree.map(lambda x: jnp.zeros((x.shape[0], *x.shape[2:]), x.dtype), shapes)

    def propose(
        self, keys: Keys, state: PairedState, slots: Slots, free: Bool[Array, " N"]
    ) -> tuple[PairedState, Slots]:
        """Fill the free slots with levels built by the teacher, with weight 1 in the loss."""

        def build() -> Slots:
            shape = slots.buffer_index.shape
            played, level = self._build(keys.own, state.teacher, slots.buffer_index.size)
            # Episodes [T, N * R, ...] -> [N, R, T, ...], levels [N * R, ...] -> [N, R, ...].
            played = jax.tree.map(lambda x: x.swapaxes(0, 1), played)
            played, level = jax.tree.map(lambda x: x.reshape(*shape, *x.shape[1:]), (played, level))
            new = fill_new(slots, free, level)
            return new._replace(level_info=tree_where(free, played, slots.level_info))

        # Building levels is expensive, so this branch is skipped if no slot of any seed is free.
        slots = jax.lax.cond(any_over_seeds(free.any()), build, lambda: slots)
        return state._replace(has_built=state.has_built | free.any()), slots

    def observe(
        self,
        keys: Keys,
        state: PairedState,
        slots: Slots,
        score: Float[Array, "N R"],
        outcome: Outcome,
    ) -> PairedState:
        """Reward the teacher for the levels that were scored, and update the teacher."""
        # A level without a score has the value -inf; `where` keeps this value out of the reward.
        judged = outcome.done[:, None] & jnp.isfinite(score)
        learns, reward = judged.any(), jnp.where(judged, score, 0.0)
        weight = judged.ravel().astype(jnp.float32)
        # Metrics for the case that the teacher is not updated.
        unknown = {name: jnp.full_like(x, jnp.nan) for name, x in state.told.items()}

        def learn() -> tuple[PyTree, Metrics]:
            played = _paid(slots.level_info, reward)
            teacher, told = self.teacher.update(keys.own, state.teacher, played, weight)
            return teacher, {name: told[name] for name in unknown}

        # The branch runs if the teacher of any seed learns. A seed whose teacher does not learn
        # keeps its teacher unchanged.
        new = jax.lax.cond(any_over_seeds(learns), learn, lambda: (state.teacher, unknown))
        teacher, told = tree_where(learns, new, (state.teacher, unknown))
        # `_build` plays one episode per queue position, including the positions of busy slots.
        steps = slots.buffer_index.size * self.editor.horizon
        return PairedState(
            teacher,
            has_built=jnp.zeros_like(state.has_built),
            told=told,
            pay=jnp.where(learns, reward.sum() / jnp.maximum(weight.sum(), 1.0), jnp.nan),
            num_steps=jnp.where(state.has_built, steps, 0).astype(jnp.int32),
        )

    def metrics(self, state: PairedState) -> Metrics:
        """Return loss, entropy, return and number of env steps of the teacher's last update."""
        told = {f"teacher_{name}": x for name, x in state.told.items()}
        return {**told, "teacher_return": state.pay, "steps_teacher": state.num_steps}

    def _build(self, key: Key, teacher: PyTree, num_levels: int) -> tuple[Rollout, PyTree]:
        """Return B episodes of the editor, [T, B, ...], and the levels built in them, [B, ...]."""
        key_noise, key_play = jax.random.split(key)
        # A "level" of the editor is the noise that the teacher observes.
        noise = jax.vmap(self.editor.sample_level)(jax.random.split(key_noise, num_levels))
        # The time limit is raised by one step. Without this extra step, the episode would be reset
        # automatically at its last step, before `level_of` reads the final state.
        noise = replace(noise, max_steps_in_episode=noise.max_steps_in_episode + 1)
        played, states = rollout(
            key_play,
            self.editor,
            self.teacher,
            teacher,
            jax.tree.map(lambda x: x[:, None], noise),
            self.editor.horizon,
            Record(trace=lambda state: state),
        )
        end = jax.tree.map(lambda x: x[-1], states)
        return played, jax.vmap(self.editor.level_of)(end)


def teacher_network(
    editor: Editor, network: Literal["lean", "published"]
) -> ActorCritic | CellActorCritic:
    """Build a network for an editor's observations.

    Args:
        editor: Environment in which the teacher builds levels.
        network: `lean` depends on the observation. If the teacher observes one image whose number
            of cells equals the number of actions, `lean` is a convolution with one output per cell.
            Otherwise `lean` consists of dense layers. `published` is the network of JaxUED: a
            convolution with 128 filters, whose flattened output is the input of an LSTM. It has 16
            million parameters on 13x13 mazes.

    Raises:
        ValueError: If `network` has another value.
    """
    if network not in ("lean", "published"):
        raise ValueError(f"network must be 'lean' or 'published', got {network!r}")
    if network == "published":
        return ActorCritic(core="lstm", conv_features=128, vector_features=10)
    return CellActorCritic() if _shows_cells(editor) else ActorCritic(core="none")


def build(env: LevelEnv, network: Literal["lean", "published"] = "lean", **fields: Any) -> Paired:
    """Build a PPO teacher for the environment's editor; `fields` are passed to `PPO`.

    Raises:
        ValueError: If the environment has no editor.
    """
    editor = _editor_of(env)
    return Paired(editor, PPO(editor, teacher_network(editor, network), **fields))


def tiny(env: LevelEnv) -> Paired:
    """Return the smallest instance, for the tests in `tests/laws`."""
    editor = _editor_of(env)
    network = ActorCritic(core="none", hidden_size=8, head_size=8, conv_features=2)
    return Paired(editor, PPO(editor, network, num_epochs=1))


def _paid(note: Rollout, reward: Float[Array, "N R"]) -> Rollout:
    """Return the teacher's episodes, [T, N * R], with the score as the reward of the last step."""
    # [N, R, T, ...] -> [N * R, T, ...] -> [T, N * R, ...]
    played = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]).swapaxes(0, 1), note)
    last = jnp.arange(played.reward.shape[0])[:, None] == played.reward.shape[0] - 1
    return played._replace(
        reward=jnp.where(last, reward.ravel()[None], 0.0),
        # The episode terminates when the level is complete, so no value is bootstrapped.
        terminated=jnp.broadcast_to(last, played.terminated.shape),
        truncated=jnp.zeros_like(played.truncated),
        next_value=jnp.where(last, 0.0, played.next_value),
    )


def _shows_cells(editor: Editor) -> bool:
    """Return whether the teacher observes one image with as many cells as there are actions."""
    if not has(editor, LevelEnv.unpack):
        return False
    key = jax.random.key(0)

    def first_view(key: Key) -> PyTree:
        obs, _ = editor.reset_env(key, editor.sample_level(key))
        return editor.unpack(obs)

    shapes = [x.shape for x in jax.tree.leaves(jax.eval_shape(first_view, key))]
    images = [shape for shape in shapes if len(shape) == 3]
    return len(images) == 1 and images[0][0] * images[0][1] == editor.num_actions


def _editor_of(env: LevelEnv) -> Editor:
    require(env, LevelEnv.editor, needed_by="PAIRED's teacher")
    return env.editor()
