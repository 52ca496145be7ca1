"""Data types passed between students, samplers, scores and environments.

A *slot* is one of N copies of the environment that run in parallel. The axes of arrays are, from
the outermost to the innermost: `P` population, `T` time, `N` slots, `R` levels in the queue of a
slot. Member 0 of the population is the agent that is evaluated.
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
"""Origins of a slot's levels; the values of `Slots.origin`."""


class Keys(NamedTuple):
    """The two random keys of one update.

    Decisions about which work to do (such as whether to replay) are drawn from `shared`, which is
    the same for all seeds of a run. Under `vmap` over seeds, a `lax.cond` on such a decision
    therefore executes only one branch. All other randomness comes from `own`.
    """

    own: Key  # [S] under `vmap` over seeds
    shared: Key  # without a seed axis


class Slots(NamedTuple):
    """State of N parallel slots, each with a queue of R levels that it plays in turn.

    A slot keeps its levels for one or more updates. This period is the slot's *tenancy*. After its
    tenancy the slot is free for new levels.
    """

    level: PyTree  # [N, R, ...]; opaque to every component except the environment
    score_state: PyTree  # [N, R, ...]; the score's memory of each level
    buffer_index: Int[Array, "N R"]  # level's row in the sampler's buffer, -1 if it has none
    origin: Int[Array, " N"]  # NEW, REPLAY or MUTANT
    weight: Float[Array, " N"]  # weight of the slot's data in the loss; 0: no training on the data
    level_info: PyTree = ()  # [N, R, ...]; data that the sampler stores with each level


class Task(NamedTuple):
    """A level, and the lifetime for which a meta-learner trains an agent on this level.

    If the student is a meta-learner, `Slots.level` holds tasks [N, R, ...] instead of levels.
    """

    level: PyTree  # a level of the environment
    lifetime: Int[Array, "*B"]  # number of updates for which an agent is trained on the level


class Visit(NamedTuple):
    """Value of a state feature, such as the agent's position, before and after each step."""

    before: Int[Array, "T N"]
    after: Int[Array, "T N"]  # in the true successor state, even where the episode ended


class Rollout(NamedTuple):
    """T steps of N slots, time-major; `[P, T, N, ...]` for a population."""

    obs: PyTree  # [T, N, ...]
    action: Int[Array, "T N"]
    log_prob: Float[Array, "T N"]
    value: Float[Array, "T N"]
    next_value: Float[Array, "T N"]  # value of the true next observation; 0 where terminated
    first: Bool[Array, "T N"]  # True if obs is the first of an episode
    terminated: Bool[Array, "T N"]
    truncated: Bool[Array, "T N"]  # True if the time limit was reached without a termination
    level_index: Int[Array, "T N"]  # index of the level played, 0 .. R-1 in the slot's queue
    reward: Float[Array, "T N"]  # extrinsic; never modified
    bonus: Float[Array, "T N"]  # intrinsic; added to the reward only inside the advantage
    carry: PyTree  # [T/L, N, ...] recurrent state before every L-th step; L = T by default
    last_obs: PyTree = ()  # [1, N, ...] observation after the last step; `()` unless requested
    visits: PyTree = ()  # {feature: Visit} for the features that the bonus reads

    @property
    def done(self) -> Bool[Array, "*P T N"]:
        """True where the episode ended with this step, terminated or truncated."""
        return self.terminated | self.truncated


class EpisodeStats(NamedTuple):
    """Statistics of the episodes that ended within a rollout, for each queued level."""

    num: Int[Array, "N R"]  # completed episodes
    num_success: Int[Array, "N R"]  # completed episodes that were solved
    mean_return: Float[Array, "N R"]  # undiscounted, extrinsic; NaN without a completed episode
    max_return: Float[Array, "N R"]  # -inf without a completed episode
    mean_length: Float[Array, "N R"]  # steps; NaN without a completed episode


class LifetimeResults(NamedTuple):
    """Final returns of N agents of a meta-learner; valid only where `Outcome.done` is True.

    Agents with an incomplete lifetime are not scored.
    """

    student_return: Float[Array, " N"]  # undiscounted, of the agent trained by the rule
    antagonist_return: Float[Array, " N"]  # of the antagonist's agent; NaN without an antagonist
    complete: Bool[Array, " N"]  # True if the agent was trained for its whole lifetime

    def as_episodes(self, done: Bool[Array, " N"]) -> EpisodeStats:
        """Return episode statistics [N, 1] of the lifetimes that ended in this update (`done`)."""
        ended = (done & self.complete)[:, None]
        value = jnp.where(ended, self.student_return[:, None], jnp.nan)
        return EpisodeStats(
            num=ended.astype(jnp.int32),
            num_success=jnp.zeros_like(ended, jnp.int32),  # lifetimes are not solved or failed
            mean_return=value,
            max_return=jnp.where(ended, value, -jnp.inf),  # -inf without a completed lifetime
            mean_length=jnp.full_like(value, jnp.nan),  # the number of steps is not recorded
        )


class Spent(NamedTuple):
    """Cost of one update for one seed, counted by the component that incurs the cost."""

    gradient_steps: Array | float  # of the evaluated learner; 0 if it was not trained
    env_steps: dict[str, Array]  # by purpose: `train`, `scout`, `score`, ...


class Outcome(NamedTuple):
    """Result of `Student.run`: finished slots, data for the score, and costs."""

    done: Bool[Array, " N"]  # True if the slot's tenancy has ended, so that it gets new levels
    rollout: Rollout | tuple[()] = ()  # [P, T, N], from on-policy students
    lifetimes: LifetimeResults | tuple[()] = ()  # from meta-learners
    episodes: EpisodeStats | tuple[()] = ()  # of population member 0, or a meta-learner's agents
    spent: Spent | tuple[()] = ()  # `()` if the student does not count its costs


class UpdateRecord(NamedTuple):
    """Per-update record for the curriculum log."""

    slots: Slots  # the slots that were played, with the score's new memory
    score: Float[Array, "N R"]
    episodes: EpisodeStats | tuple[()]
    lineage: dict[str, Array]  # [N, R] each; history of the levels, from `Sampler.lineage`


class TrainState(NamedTuple):
    """Complete state of a run.

    A checkpoint holds this state and the number of updates done.
    """

    student: PyTree
    sampler: PyTree
    slots: Slots
    free: Bool[Array, " N"]  # slots that get new levels in the next update


class Solution(NamedTuple):
    """Result of an exact solver on one level."""

    solvable: Bool[Array, ""]
    steps: Int[Array, ""]  # length of the shortest solution in env steps; -1 if unsolvable
    optimal_return: Float[Array, ""]  # undiscounted; 0 if unsolvable within the time limit
