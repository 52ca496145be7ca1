"""Probe environments: a few steps each, the right answer known, so that a learner cannot hide.

One environment asks all questions; which one is a matter of the level. So a single compiled program
trains one learner on each of them side by side.

Source: the idea goes back to Jones, 2021, "Debugging reinforcement learning systems"; memory and
time limits are added here.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, no_type_check

import jax
import jax.numpy as jnp
from flax import struct
from gymnax.environments import spaces
from jaxtyping import Array, Bool, Float, Int

from rlgen.protocols import Learner, LevelEnv
from rlgen.rollout import rollout
from rlgen.types import Key, PyTree, Rollout

ONE, CUE, ACTION, MATCH = 0, 1, 2, 3
"""What is paid: 1; the cue's sign; 1 for action 0, else -1; 1 if the action is the cue, else -1."""

_ENDLESS = 1_000_000


@no_type_check  # JAX also builds it of what is not an array
@struct.dataclass
class ProbeLevel:
    """One question and one cue."""

    max_steps_in_episode: Int[Array, ""]  # time limit, steps
    num_steps: Int[Array, ""]  # the episode terminates with this step
    cue: Int[Array, ""]  # 0 or 1
    cue_steps: Int[Array, ""]  # the cue is seen in this many first steps
    time_seen: Bool[Array, ""]  # whether the observation tells the first step from the others
    paid_last: Bool[Array, ""]  # paid at step num_steps alone, or at every step
    paid_for: Int[Array, ""]  # ONE, CUE, ACTION or MATCH


@no_type_check
@struct.dataclass
class ProbeState:
    """Where an episode is."""

    time: Int[Array, ""]  # steps done


class _Question(NamedTuple):
    num_steps: int = 1
    time_limit: int = _ENDLESS
    cue_steps: int = 0
    time_seen: bool = False
    paid_last: bool = False
    paid_for: int = ONE


_QUESTIONS = {
    "constant": _Question(),
    "value-from-obs": _Question(cue_steps=1, paid_for=CUE),
    "discount": _Question(num_steps=2, time_seen=True, paid_last=True),
    "policy": _Question(paid_for=ACTION),
    "policy-from-obs": _Question(cue_steps=1, paid_for=MATCH),
    "memory": _Question(num_steps=4, cue_steps=1, time_seen=True, paid_last=True, paid_for=MATCH),
    "time-limit": _Question(num_steps=_ENDLESS, time_limit=3),
}

PROBES = tuple(_QUESTIONS)
"""All questions; `memory` can be answered by recurrent learners alone."""


@dataclass(frozen=True)
class Probe(LevelEnv, abstract=True):
    """One question, with a random cue as its level.

    - `constant`: one step, reward 1: does the value move at all?
    - `value-from-obs`: one step, the reward is the sign that is seen: does the value see?
    - `discount`: two steps, reward 1 at the second: is the first worth the discount?
    - `policy`: one step, action 0 pays 1 and action 1 costs 1: does the policy move?
    - `policy-from-obs`: one step, the action that is shown pays: does the policy see?
    - `memory`: the action shown at the first of four steps pays at the last.
    - `time-limit`: reward 1 for ever, cut off after three steps: does the cut bootstrap?

    Attributes:
        question: one of `PROBES`.

    Raises:
        ValueError: unknown question.
    """

    question: str = "constant"

    def __post_init__(self):
        if self.question not in PROBES:
            raise ValueError(f"unknown question {self.question!r}; choose from {', '.join(PROBES)}")

    @property
    def num_actions(self) -> int:
        """Two."""
        return 2

    @property
    def default_params(self) -> ProbeLevel:
        """The level with cue 0."""
        return _level(_QUESTIONS[self.question], jnp.int32(0))

    def sample_level(self, key: Key) -> ProbeLevel:
        """A level with either cue."""
        return _level(_QUESTIONS[self.question], jax.random.randint(key, (), 0, 2))

    def reset_env(self, key: Key, params: ProbeLevel) -> tuple[Float[Array, "4"], ProbeState]:
        """Start of an episode."""
        state = ProbeState(jnp.int32(0))
        return self.observe(key, state, None, params), state

    def step_env(
        self, key: Key, state: ProbeState, action: Int[Array, ""] | int, params: ProbeLevel
    ) -> tuple[Float[Array, "4"], ProbeState, Float[Array, ""], Bool[Array, ""], dict]:
        """One step."""
        pays = jnp.stack([1, 2 * params.cue - 1, 1 - 2 * action, 2 * (action == params.cue) - 1])
        last = state.time == params.num_steps - 1
        reward = jnp.where(last | ~params.paid_last, pays[params.paid_for], 0)
        state = ProbeState(state.time + 1)
        obs = self.observe(key, state, action, params)
        return obs, state, reward.astype(jnp.float32), state.time >= params.num_steps, {}

    def observe(
        self, key: Key, state: ProbeState, action: Array | int | None, params: ProbeLevel
    ) -> Float[Array, "4"]:
        """The cue as one-hot while it is seen, whether this is the first step, and a 1."""
        del key, action
        cue = jax.nn.one_hot(params.cue, 2) * (state.time < params.cue_steps)
        start = params.time_seen & (state.time == 0)
        return jnp.concatenate([cue, jnp.stack([start.astype(jnp.float32), 1.0])])

    def action_space(self, params: ProbeLevel) -> spaces.Discrete:
        """Two actions."""
        return spaces.Discrete(2)

    def observation_space(self, params: ProbeLevel) -> spaces.Box:
        """Four numbers from 0 to 1."""
        return spaces.Box(0.0, 1.0, (4,))


def _level(question: _Question, cue: Int[Array, ""]) -> ProbeLevel:
    return ProbeLevel(
        max_steps_in_episode=jnp.int32(question.time_limit),
        num_steps=jnp.int32(question.num_steps),
        cue=cue,
        cue_steps=jnp.int32(question.cue_steps),
        time_seen=jnp.bool_(question.time_seen),
        paid_last=jnp.bool_(question.paid_last),
        paid_for=jnp.int32(question.paid_for),
    )


class Answer(NamedTuple):
    """What a trained learner says to one question, and what is right."""

    value: Float[Array, "cue S"]  # at each step; the mean over steps at `time-limit`
    right_value: Float[Array, "cue S"]
    reward: float  # mean reward where the question pays; 1 is right, 0 is chance
    asks_action: bool  # whether the action matters

    @property
    def solved(self) -> bool:
        """The values are right to 0.15, and so are 95 % of the actions where they matter.

        Where actions matter, only the value of the step that pays is asked.
        """
        near = bool(jnp.abs(self.value - self.right_value).max() < 0.15)
        return near and (not self.asks_action or self.reward > 0.9)


def solve_probes(
    build: Callable[[Probe], Learner],
    probes: tuple[str, ...] = PROBES,
    num_updates: int = 150,
    seed: int = 0,
) -> dict[str, Answer]:
    """Train a fresh learner on each question and look at its answers.

    Each update plays 12 steps in 32 slots. All questions are trained in one program, in seconds.

    Args:
        build: makes the learner; give it a learning rate near 0.01, a discount well below 1 (0.6)
            and `gae_lambda` 1, on which the right answer at a time limit that does not bootstrap
            depends. The learner's `discount` and `bootstrap_truncation` are read.
        probes: the questions.
        num_updates: rollouts learned from.
        seed: of everything.
    """
    learner = build(Probe())
    sample = [Probe(question).sample_level for question in probes]
    key_init, key_train = jax.random.split(jax.random.key(seed))

    def one(key: Key, state: PyTree, level: ProbeLevel) -> tuple[PyTree, Rollout]:
        key_play, key_learn = jax.random.split(key)
        played, _ = rollout(key_play, Probe(), learner, state, level, 12)
        return learner.update(key_learn, state, played, jnp.ones(32))[0], played

    def update(state: PyTree, key: Key) -> tuple[PyTree, tuple]:
        key_level, key_one = jax.random.split(key)
        each = [jax.vmap(new)(jax.random.split(key_level, 32)) for new in sample]
        level = jax.tree.map(lambda *x: jnp.stack(x)[:, :, None], *each)
        state, played = jax.vmap(one)(jax.random.split(key_one, len(probes)), state, level)
        return state, (played, level.cue[..., 0])

    def train(key: Key) -> tuple:
        state = jax.vmap(learner.init)(jax.random.split(key_init, len(probes)))
        last = jax.lax.scan(update, state, jax.random.split(key, num_updates))[1]
        return jax.tree.map(lambda x: x[-1], last)

    last = jax.jit(train)(key_train)
    answers = {}
    for i, question in enumerate(probes):
        played, cue = jax.tree.map(lambda x, i=i: x[i], last)
        answers[question] = _answer(learner, _QUESTIONS[question], played, cue)
    return answers


def _answer(learner: Learner, question: _Question, played: Rollout, cue: Array) -> Answer:
    own = learner.discounting()
    discount = own.get("discount", 1.0)
    limited = question.time_limit < question.num_steps
    length = min(question.num_steps, question.time_limit)
    value = jnp.stack([played.value[:length, cue == c].mean(1) for c in (0, 1)])  # [cue, step]
    left = length - jnp.arange(length)  # steps to the end, this one included
    every = (1 - discount**left) / (1 - discount)
    right = discount ** (left - 1.0) if question.paid_last else every
    right = jnp.stack([-right, right]) if question.paid_for == CUE else jnp.stack([right, right])
    if limited and own.get("bootstrap_truncation", True):
        right = jnp.full_like(right, 1 / (1 - discount))
    if limited:  # nothing tells a feed-forward learner the steps apart
        value, right = value.mean(1, keepdims=True), right.mean(1, keepdims=True)
    asks_action = question.paid_for in (ACTION, MATCH)
    if asks_action:
        value, right = value[:, -1:], right[:, -1:]
    return Answer(value, right, float(played.reward[length - 1].mean()), asks_action)
