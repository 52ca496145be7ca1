"""Probe environments of a few steps with known answers, which isolate errors in a learner.

A *question* is a small task that tests one capability of a learner, such as discounting. The
correct values and actions are known. In some questions, the observation shows a *cue*, which is 0
or 1. A level contains all parameters of its question, and levels of all questions are played in the
same environment. One compiled program can therefore train a learner on all questions in parallel.

Source: the idea goes back to Jones, 2021, "Debugging reinforcement learning systems"; the questions
about memory and time limits are added here.
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
"""Kinds of reward.

`ONE`: always 1. `CUE`: 1 for cue 1, -1 for cue 0. `ACTION`: 1 for action 0, -1 for action 1.
`MATCH`: 1 if the action equals the cue, -1 otherwise.
"""

_ENDLESS = 1_000_000  # steps; never reached


@no_type_check  # JAX also builds this class with leaves that are not arrays
@struct.dataclass
class ProbeLevel:
    """Parameters of one question, and the cue."""

    max_steps_in_episode: Int[Array, ""]  # time limit in steps
    num_steps: Int[Array, ""]  # number of steps after which the episode terminates
    cue: Int[Array, ""]  # 0 or 1
    cue_steps: Int[Array, ""]  # the cue is shown in the first `cue_steps` steps
    time_seen: Bool[Array, ""]  # True if the observation marks the first step
    paid_last: Bool[Array, ""]  # True: reward at the last step only; False: at every step
    paid_for: Int[Array, ""]  # kind of reward: ONE, CUE, ACTION or MATCH


@no_type_check
@struct.dataclass
class ProbeState:
    """State of an episode."""

    time: Int[Array, ""]  # steps done


class _Question(NamedTuple):
    """Parameters of a question; see `ProbeLevel`."""

    num_steps: int = 1
    time_limit: int = _ENDLESS
    cue_steps: int = 0
    time_seen: bool = False
    paid_last: bool = False
    paid_for: int = ONE


# Each question tests one more capability than the questions before it, so the first unsolved
# question locates the error. The episode lengths 1, 2, 3 and 4 divide the 12 steps of an update in
# `solve_probes`.
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
"""Names of all questions; `memory` can be solved by recurrent learners only."""


@dataclass(frozen=True)
class Probe(LevelEnv, abstract=True):
    """Environment whose levels pose one question and differ in the cue, 0 or 1.

    - `constant`: one step with reward 1. Tests whether the value is learned at all.
    - `value-from-obs`: one step with reward 1 for cue 1 and -1 for cue 0. Tests whether the value
      depends on the observation.
    - `discount`: two steps, with reward 1 at the second step. Tests whether the value of the first
      step is discounted.
    - `policy`: one step with reward 1 for action 0 and -1 for action 1. Tests whether the policy is
      learned at all.
    - `policy-from-obs`: one step with reward 1 if the action equals the cue and -1 otherwise. Tests
      whether the policy depends on the observation.
    - `memory`: four steps. The cue is shown at the first step, and the last step has reward 1 if
      its action equals the cue and -1 otherwise. Tests whether the learner remembers the cue.
    - `time-limit`: reward 1 at every step of an endless episode, truncated after three steps. Tests
      whether the value is bootstrapped at the time limit.

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
        """Number of actions, 2."""
        return 2

    @property
    def default_params(self) -> ProbeLevel:
        """Level with cue 0."""
        return _level(_QUESTIONS[self.question], jnp.int32(0))

    def sample_level(self, key: Key) -> ProbeLevel:
        """Sample a level with a random cue."""
        return _level(_QUESTIONS[self.question], jax.random.randint(key, (), 0, 2))

    def reset_env(self, key: Key, params: ProbeLevel) -> tuple[Float[Array, "4"], ProbeState]:
        """Return the first `(obs, state)` of an episode."""
        state = ProbeState(jnp.int32(0))
        return self.observe(key, state, None, params), state

    def step_env(
        self, key: Key, state: ProbeState, action: Int[Array, ""] | int, params: ProbeLevel
    ) -> tuple[Float[Array, "4"], ProbeState, Float[Array, ""], Bool[Array, ""], dict]:
        """Take one step."""
        # Indexed by `paid_for`: ONE, CUE, ACTION, MATCH.
        pays = jnp.stack([1, 2 * params.cue - 1, 1 - 2 * action, 2 * (action == params.cue) - 1])
        last = state.time == params.num_steps - 1
        reward = jnp.where(last | ~params.paid_last, pays[params.paid_for], 0)
        state = ProbeState(state.time + 1)
        obs = self.observe(key, state, action, params)
        return obs, state, reward.astype(jnp.float32), state.time >= params.num_steps, {}

    def observe(
        self, key: Key, state: ProbeState, action: Array | int | None, params: ProbeLevel
    ) -> Float[Array, "4"]:
        """Return the one-hot cue (0 while it is hidden), the first-step flag and a constant 1."""
        del key, action
        cue = jax.nn.one_hot(params.cue, 2) * (state.time < params.cue_steps)
        start = params.time_seen & (state.time == 0)
        return jnp.concatenate([cue, jnp.stack([start.astype(jnp.float32), 1.0])])

    def action_space(self, params: ProbeLevel) -> spaces.Discrete:
        """Space of two actions."""
        return spaces.Discrete(2)

    def observation_space(self, params: ProbeLevel) -> spaces.Box:
        """Space of four numbers in [0, 1]."""
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
    """Values and mean reward of a trained learner on one question, and the correct values."""

    value: Float[Array, "cue S"]  # at each step; for `time-limit`, mean over steps
    right_value: Float[Array, "cue S"]
    reward: float  # mean reward at the last step; if actions matter, 1 is correct and 0 is chance
    asks_action: bool  # True if the reward depends on the action

    @property
    def solved(self) -> bool:
        """True if the values, and the actions where they matter, are correct.

        Values are correct if each differs from the correct value by less than 0.15. If the reward
        depends on the action, more than 95 % of the actions must be correct as well, and only the
        value at the rewarded step is tested.
        """
        near = bool(jnp.abs(self.value - self.right_value).max() < 0.15)
        # If 95 % of the actions are correct, the mean reward is 0.95 · 1 + 0.05 · (−1) = 0.9.
        return near and (not self.asks_action or self.reward > 0.9)


def solve_probes(
    build: Callable[[Probe], Learner],
    probes: tuple[str, ...] = PROBES,
    num_updates: int = 150,
    seed: int = 0,
) -> dict[str, Answer]:
    """Train a new learner on each question and return its answers.

    Each update plays 12 steps in 32 slots. One program trains on all questions and takes seconds.

    Args:
        build: function that returns the learner. Use a learning rate near 0.01 and a discount well
            below 1, such as 0.6. Set `gae_lambda` to 1, because the correct answer to `time-limit`
            assumes this value. The answers also depend on the learner's `discount` and
            `bootstrap_truncation`.
        probes: names of the questions.
        num_updates: number of updates.
        seed: random seed.

    Returns:
        Answers by question.
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
        # Leading axes [question, slot, 1]; the queue of a slot has one level.
        each = [jax.vmap(new)(jax.random.split(key_level, 32)) for new in sample]
        level = jax.tree.map(lambda *x: jnp.stack(x)[:, :, None], *each)
        state, played = jax.vmap(one)(jax.random.split(key_one, len(probes)), state, level)
        return state, (played, level.cue[..., 0])

    def train(key: Key) -> tuple:
        state = jax.vmap(learner.init)(jax.random.split(key_init, len(probes)))
        last = jax.lax.scan(update, state, jax.random.split(key, num_updates))[1]
        return jax.tree.map(lambda x: x[-1], last)  # rollouts and cues of the last update

    last = jax.jit(train)(key_train)
    answers = {}
    for i, question in enumerate(probes):
        played, cue = jax.tree.map(lambda x, i=i: x[i], last)
        answers[question] = _answer(learner, _QUESTIONS[question], played, cue)
    return answers


def _answer(learner: Learner, question: _Question, played: Rollout, cue: Array) -> Answer:
    """Compare the values and rewards of the last rollout with the correct ones."""
    own = learner.discounting()
    discount = own.get("discount", 1.0)
    limited = question.time_limit < question.num_steps
    length = min(question.num_steps, question.time_limit)
    value = jnp.stack([played.value[:length, cue == c].mean(1) for c in (0, 1)])  # [cue, step]
    left = length - jnp.arange(length)  # number of steps to the end, including the current step
    # Σ_k γ^k over the remaining steps, for a reward of 1 at every step.
    every = (1 - discount**left) / (1 - discount)
    right = discount ** (left - 1.0) if question.paid_last else every
    # The rows are the cues 0 and 1. For rewards of the kind CUE, these give -1 and 1.
    right = jnp.stack([-right, right]) if question.paid_for == CUE else jnp.stack([right, right])
    if limited and own.get("bootstrap_truncation", True):
        right = jnp.full_like(right, 1 / (1 - discount))  # the episode never ends
    if limited:  # a feed-forward learner cannot distinguish the steps
        value, right = value.mean(1, keepdims=True), right.mean(1, keepdims=True)
    asks_action = question.paid_for in (ACTION, MATCH)
    # The values of earlier steps depend on how good the policy already is. At the rewarded step,
    # the observation (or the memory) determines the action, and the value of a good policy is 1.
    if asks_action:
        value, right = value[:, -1:], right[:, -1:]
    return Answer(value, right, float(played.reward[length - 1].mean()), asks_action)
