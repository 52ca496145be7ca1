"""The shared vocabulary: what flows between students, samplers, scores and environments.

Axes, in the order in which they nest: `P` population, `T` time, `N` slots, `R` levels queued in
each slot.
"""

from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

PyTree: TypeAlias = Any
Key: TypeAlias = jax.Array
Metrics: TypeAlias = dict[str, Array]
Preset: TypeAlias = dict[str, bool | int | float | str]

NEW, REPLAY, MUTANT = 0, 1, 2
"""Where a slot's levels came from; the values of `Slots.origin`."""


class Keys(NamedTuple):
    """Randomness of one update, in two kinds.

    Decisions about which work to do (replay or not) are drawn from `shared`, which all seeds of a
    run have in common, so that under `vmap` over seeds a `lax.cond` stays a branch. Everything
    else comes from `own`.
    """

    own: Key
    shared: Key


class Slots(NamedTuple):
    """What each of N slots is working on: a queue of R levels, met one after the other."""

    level: PyTree  # [N, R, ...]; opaque to all but the environment
    score_state: PyTree  # [N, R, ...]; what the score remembers of each level
    buffer_index: Int[Array, "N R"]  # row in the sampler's buffer, -1 if none
    origin: Int[Array, " N"]  # NEW, REPLAY or MUTANT
    weight: Float[Array, " N"]  # share of the slot's data in the learner's loss
    level_info: PyTree = ()  # [N, R, ...]; what the sampler keeps with each level


class Task(NamedTuple):
    """What a meta-learner's agent is trained on, as a level of `Slots`: [N, R, ...]."""

    level: PyTree  # of the environment
    lifetime: Int[Array, "*B"]  # updates for which an agent is trained on it


class Visit(NamedTuple):
    """A feature of the environment's state, such as the agent's position, around each step."""

    before: Int[Array, "T N"]
    after: Int[Array, "T N"]  # of the true successor, also where the episode ended


class Rollout(NamedTuple):
    """T steps of N slots, time-major; `[P, T, N, ...]` where a population learns."""

    obs: PyTree  # [T, N, ...]
    action: Int[Array, "T N"]
    log_prob: Float[Array, "T N"]
    value: Float[Array, "T N"]
    next_value: Float[Array, "T N"]  # value of the true next observation; 0 where terminated
    first: Bool[Array, "T N"]  # obs is the first of an episode
    terminated: Bool[Array, "T N"]
    truncated: Bool[Array, "T N"]  # ended by the time limit alone
    level_index: Int[Array, "T N"]  # which queued level, 0 .. R-1, the step was played on
    reward: Float[Array, "T N"]  # extrinsic; never overwritten
    bonus: Float[Array, "T N"]  # intrinsic; added to the reward only inside the advantage
    carry: PyTree  # [T/L, N, ...] recurrent state before every L-th step; L = T by default
    last_obs: PyTree = ()  # [1, N, ...] what follows the last step; for who needs it
    visits: PyTree = ()  # {feature: Visit}, of those that the bonus needs

    @property
    def done(self) -> Bool[Array, "*P T N"]:
        """The episode ended with this step, by itself or by the time limit."""
        return self.terminated | self.truncated


class EpisodeStats(NamedTuple):
    """The episodes that ended within a rollout, by queued level."""

    num: Int[Array, "N R"]  # completed episodes
    num_success: Int[Array, "N R"]
    mean_return: Float[Array, "N R"]  # undiscounted, extrinsic; 0 if none
    max_return: Float[Array, "N R"]  # -inf if none
    mean_length: Float[Array, "N R"]  # steps; 0 if none


class LifetimeResults(NamedTuple):
    """What became of N agents of a meta-learner; read only where `Outcome.done`."""

    student_return: Float[Array, " N"]  # undiscounted, of the agent that the rule trained
    antagonist_return: Float[Array, " N"]  # of the one that the antagonist trained; NaN if none was
    complete: Bool[Array, " N"]  # lived from birth to the end of the lifetime; else no evidence

    def as_episodes(self, done: Bool[Array, " N"]) -> EpisodeStats:
        """The lives that ended now (`done`) in the form of episodes, [N, 1]."""
        ended = (done & self.complete)[:, None]
        value = jnp.where(ended, self.student_return[:, None], 0.0)
        return EpisodeStats(
            num=ended.astype(jnp.int32),
            num_success=jnp.zeros_like(ended, jnp.int32),
            mean_return=value,
            max_return=jnp.where(ended, value, -jnp.inf),
            mean_length=jnp.zeros_like(value),
        )


class Spent(NamedTuple):
    """What an update cost, counted where it was spent; of one seed."""

    gradient_steps: Array | float  # of what is evaluated; 0 in an update that trained nothing
    env_steps: dict[str, Array]  # by what they were for: `train`, `scout`, `score`, ...


class Outcome(NamedTuple):
    """What a student hands back: who has finished, the evidence for the score, and the costs."""

    done: Bool[Array, " N"]  # the slot's tenancy is over
    rollout: Rollout | tuple[()] = ()  # [P, T, N] of an on-policy student
    lifetimes: LifetimeResults | tuple[()] = ()  # of a meta-learner's agents
    episodes: EpisodeStats | tuple[()] = ()  # of member 0, or of a meta-learner's agents
    spent: Spent | tuple[()] = ()  # () if it is not counted


class UpdateRecord(NamedTuple):
    """What one update found out about the levels in its slots; what the curriculum log keeps."""

    slots: Slots  # as played, with the memories that the score left
    score: Float[Array, "N R"]
    episodes: EpisodeStats | tuple[()]
    lineage: dict[str, Array]  # [N, R] each; what the sampler knows of the levels' past


class TrainState(NamedTuple):
    """The whole of a run; with the number of updates done, all that a checkpoint holds."""

    student: PyTree
    sampler: PyTree
    slots: Slots
    free: Bool[Array, " N"]


class Solution(NamedTuple):
    """What an exact solver says of one level."""

    solvable: Bool[Array, ""]
    steps: Int[Array, ""]  # fewest env steps to success; -1 if unsolvable
    optimal_return: Float[Array, ""]  # undiscounted; 0 if unsolvable within the time limit
