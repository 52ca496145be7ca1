"""On-policy student: one policy, or a population of policies, that learns from rollouts."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from rlgen import registry
from rlgen.parallel.seeds import any_over_seeds, tree_where
from rlgen.protocols import FEATURES, Bonus, Learner, LevelEnv, Score, Student, check_numbers
from rlgen.returns import episode_progress, episodes
from rlgen.rollout import Record, RolloutCarry, continue_rollout, reset_slots, rollout
from rlgen.types import NEW, EpisodeStats, Key, Metrics, Outcome, PyTree, Rollout, Slots, Spent

OF_EPISODES: Mapping[str, str] = MappingProxyType(
    {
        "episode_return": "num_episodes",
        "episode_length": "num_episodes",
        "unfinished_return": "num_unfinished",
    }
)
"""Metrics that are means over episodes, with the metrics that count these episodes."""


class OnPolicyState(NamedTuple):
    """State of an `OnPolicy` student; every leaf is `[P, ...]`."""

    learner: PyTree
    bonus: PyTree
    # The remaining fields are `()` if slots get new levels in every update.
    running: RolloutCarry | tuple[()] = ()  # [P, N, ...]; state of the slots
    progress: tuple[Array, Array] | tuple[()] = ()  # [P, N]; return and steps of current episodes
    age: PyTree = ()  # Int [P, N]; number of updates for which a slot has kept its levels


@dataclass(frozen=True)
class OnPolicy(Student):
    """Student that in every update plays a rollout, adds the bonus and learns from the rollout.

    A slot keeps its levels for `updates_per_level` updates. If this number is above 1, episodes
    continue from one update to the next, so that short rollouts contain the ends of long episodes.
    The episode statistics cover complete episodes, including episodes that began in earlier
    updates. The score gets only the rollout of the last update, whose first step is marked as the
    first of an episode. A score based on returns therefore sees only the part of an episode that
    lies in this rollout.

    A slot of weight 0 is played and scored, but the learner is not trained on its data. If all
    slots have weight 0, the bonus and the learner's update are skipped entirely, because an
    optimiser step on a zero gradient would still change the parameters.

    Attributes:
        num_steps: T, env steps per slot and update.
        population: P, number of learners; each plays the levels of all slots (in PAIRED, the
            protagonist and the antagonist).
        train_share: maximum fraction of the slots with positive weight. The learner's update
            computes on this fraction of the slots only. For example, a parallel curriculum trains
            on one of its blocks of slots.
        bonus: intrinsic reward; `()` for none.
        updates_per_level: number of updates for which a slot keeps its levels. If this number is
            above 1, episodes continue from one update to the next.

    Raises:
        ValueError: a field is out of range.
    """

    env: LevelEnv
    learner: Learner
    num_steps: int = 256
    population: int = 1
    train_share: float = 1.0
    bonus: Bonus | tuple[()] = ()
    updates_per_level: int = 1

    def __post_init__(self):
        check_numbers(self, "num_steps", "population", "updates_per_level", least=1)
        for feature in self._record.features:
            registry.require_all(
                self.env, FEATURES[feature], f"the bonus {type(self.bonus).__name__}"
            )
        if not 0 < self.train_share <= 1:
            raise ValueError(f"train_share must lie in (0, 1], got {self.train_share}")

    def check(self, num_slots: int) -> None:
        """Reject sizes that the learner does not support, before anything is compiled."""
        self.learner.check(self.num_steps, self.num_trained(num_slots))

    @property
    def gives(self) -> frozenset[str]:
        """The rollouts of all learners and the episode statistics of member 0."""
        return frozenset({"rollout", "episodes"})

    def discounting(self) -> dict[str, Any]:
        """Settings of the learner's advantage estimate that level scores use as well."""
        return self.learner.discounting()

    def pinned_files(self) -> dict[str, bytes]:
        """The learner's files; see `Learner.pinned_files`."""
        return self.learner.pinned_files()

    @property
    def averaged_over(self) -> Mapping[str, str]:
        """Metrics of episodes and their counts; see `Student.averaged_over`.

        The solve rate is a mean over episodes only if slots keep their levels for several updates.
        Otherwise it is a mean over slots.
        """
        told = dict(OF_EPISODES)
        if self.updates_per_level > 1:
            told["solve_rate"] = "num_episodes"
        if self.population > 1:
            told |= {f"antagonist_{name}": f"antagonist_{num}" for name, num in told.items()}
        return told

    def warnings(self, metrics: Mapping[str, Any]) -> list[str]:
        """Warnings of the student's bonus; none without a bonus."""
        return [] if isinstance(self.bonus, tuple) else self.bonus.warnings(metrics)

    def start_warnings(self, longest: int) -> list[str]:
        """Warning if the longest episodes do not fit into a slot's tenancy."""
        tenancy = self.num_steps * self.updates_per_level
        if longest <= tenancy:
            return []
        times = -(-longest // tenancy)  # rounded up
        return [
            f"warning: episodes can last {longest:,} steps, but a slot gets a new level after "
            f"{tenancy:,} steps, so longer episodes are cut off. episode_return and "
            "episode_length are means over ended episodes and therefore favour short episodes. To "
            f"avoid this, use --student.updates-per-level {times * self.updates_per_level} or "
            f"--student.num-steps {times * self.num_steps}"
        ]

    def spanning(self, num_updates: int) -> "OnPolicy":
        """Return this student with a learner whose schedules span `num_updates` updates."""
        return replace(self, learner=self.learner.spanning(num_updates))

    def with_bonus(self, bonus: Bonus) -> "OnPolicy":
        """Return this student with an exploration bonus."""
        return replace(self, bonus=bonus)

    def num_trained(self, num_slots: int) -> int:
        """Number of slots on which the update computes; at least 1."""
        return max(round(self.train_share * num_slots), 1)

    def init(self, key: Key, num_slots: int) -> OnPolicyState:
        """Initial states of the learners and, if the student has a bonus, of their bonuses."""
        key_learner, key_bonus = jax.random.split(key)
        learner = jax.vmap(self.learner.init)(jax.random.split(key_learner, self.population))
        bonus = ()
        if not isinstance(self.bonus, tuple):
            keys_bonus = jax.random.split(key_bonus, self.population)
            bonus = jax.vmap(self.bonus.init, in_axes=(0, None))(keys_bonus, num_slots)
        if self.updates_per_level == 1:
            return OnPolicyState(learner, bonus)
        # Placeholders, which are never played, because all slots get new levels in the first
        # update.
        blank = self.env.sample_level(jax.random.key(0))
        level = jax.tree.map(lambda x: jnp.broadcast_to(x, (num_slots, 1, *jnp.shape(x))), blank)
        running = reset_slots(jax.random.key(0), self.env, self.learner, level)
        zero = jnp.zeros(num_slots)
        going = (running, (zero, zero), jnp.zeros(num_slots, jnp.int32))
        going = jax.tree.map(lambda x: jnp.stack([x] * self.population), going)
        return OnPolicyState(learner, bonus, *going)

    def policy(self, states: OnPolicyState) -> tuple[Learner, PyTree]:
        """Return the learner and the states [S, ...] of member 0, for S seeds."""
        return self.learner, jax.tree.map(lambda x: x[:, 0], states.learner)

    def run(
        self, key: Key, state: OnPolicyState, slots: Slots, fresh: Bool[Array, " N"]
    ) -> tuple[OnPolicyState, Outcome, Metrics]:
        """Play all slots for T steps and learn from the slots with positive weight."""

        def member(key: Key, state: OnPolicyState) -> tuple:
            return self._run_one(key, state, slots, fresh)

        keys = jax.random.split(key, self.population)
        if self.population == 1:  # a vmap axis of size 1 would only slow down the matrix products
            one = jax.tree.map(lambda x: x[0], (keys, state))
            played = jax.tree.map(lambda x: x[None], member(*one))
        else:
            played = jax.vmap(member)(keys, state)
        state, rollouts, stats, every = played
        # Each value is [P]; member 0 of the population is the agent that is evaluated.
        metrics = {name: value[0] for name, value in every.items()}
        gradient_steps = metrics.pop("gradient_steps")
        if self.population > 1:
            told = {"solve_rate", *OF_EPISODES, *OF_EPISODES.values()}
            metrics |= {f"antagonist_{n}": every[n][1] for n in sorted(told) if n in every}
        done = jnp.ones_like(fresh)
        if self.updates_per_level > 1:
            done = state.age[0] >= self.updates_per_level  # the same for all learners
            # Scores require that the first step of a rollout is the first of an episode.
            rollouts = rollouts._replace(first=rollouts.first.at[:, 0].set(True))
        outcome = Outcome(
            done=done,
            rollout=rollouts,
            episodes=jax.tree.map(lambda x: x[0], stats),
            spent=Spent(gradient_steps, self._env_steps(slots)),
        )
        return state, outcome, metrics

    def _run_one(
        self, key: Key, state: OnPolicyState, slots: Slots, fresh: Bool[Array, " N"]
    ) -> tuple[OnPolicyState, Rollout, EpisodeStats, Metrics]:
        key_rollout, key_bonus, key_update = jax.random.split(key, 3)
        before = state.progress
        played, state = self._play(key_rollout, state, slots.level, fresh)
        solved = successes(self.env, played, before)
        stats = episodes(played, slots.buffer_index.shape[1], solved, before)
        metrics = self._episode_metrics(played, stats, solved)
        metrics |= self._unfinished(played, state)
        new, played, told = self._learn((key_bonus, key_update), state, played, slots.weight)
        return new, played, stats, metrics | told

    @property
    def _record(self) -> Record:
        """Data that the bonus needs from a rollout."""
        if isinstance(self.bonus, tuple):
            return Record()
        return Record(features=self.bonus.features, last_obs=self.bonus.pairs)

    def _play(
        self, key: Key, state: OnPolicyState, level: PyTree, fresh: Bool[Array, " N"]
    ) -> tuple[Rollout, OnPolicyState]:
        """Play T steps.

        If slots keep their levels over several updates, slots that are not `fresh` continue the
        episodes of the previous update.
        """
        if self.updates_per_level == 1:
            played, _ = rollout(
                key, self.env, self.learner, state.learner, level, self.num_steps, self._record
            )
            return played, state
        key_begin, key_roll = jax.random.split(key)

        def start() -> RolloutCarry:
            new = reset_slots(key_begin, self.env, self.learner, level)
            return tree_where(fresh, new, state.running)

        # `lax.cond`, because most updates continue with the same levels and need no initial states.
        running = jax.lax.cond(any_over_seeds(fresh.any()), start, lambda: state.running)
        player = (self.learner, state.learner)
        played, running = continue_rollout(
            key_roll, self.env, player, level, running, self.num_steps, self._record
        )
        # Only the totals after the last step are kept. `episode_progress` ignores them where the
        # next rollout begins with a new episode.
        progress = jax.tree.map(lambda x: x[-1], episode_progress(played, state.progress))
        age = jnp.where(fresh, 0, state.age) + 1
        return played, state._replace(running=running, progress=progress, age=age)

    def _learn(
        self,
        keys: tuple[Key, Key],
        state: OnPolicyState,
        played: Rollout,
        weight: Float[Array, " N"],
    ) -> tuple[OnPolicyState, Rollout, Metrics]:
        """Train learner and bonus, and return the state, the rollout with its bonus, and metrics.

        If all slots have weight 0, the state does not change, `gradient_steps` is 0 and all other
        metrics are NaN.
        """
        trains = (weight > 0).any()
        old = (state.learner, state.bonus, played.bonus)

        def learn() -> tuple[tuple, Metrics]:
            key_bonus, key_update = keys
            # The bonus is applied to all slots, not only to those that are trained on, to keep the
            # episodic memories up to date.
            bonus_state, bonus, told = self._judge(key_bonus, state.bonus, played, weight)
            seen = self._as_learned(played._replace(bonus=bonus))
            num_trained = self.num_trained(weight.size)
            part, share = seen, weight
            if num_trained < weight.size:
                # Slots with positive weight come first; a stable sort keeps their order.
                chosen = jnp.argsort(weight <= 0, stable=True)[:num_trained]
                part = jax.tree.map(lambda x: x[:, chosen], seen)
                share = weight[chosen]
            learner, metrics = self.learner.update(key_update, state.learner, part, share)
            # Floats, so that the metrics of a skipped update can be NaN.
            metrics = told | {"gradient_steps": 1.0} | metrics
            metrics = {name: jnp.asarray(m, jnp.float32) for name, m in metrics.items()}
            return (learner, bonus_state, bonus), metrics

        def skip() -> tuple[tuple, Metrics]:
            metrics = jax.eval_shape(learn)[1]  # gives the names without computing
            return old, {name: jnp.full(m.shape, jnp.nan) for name, m in metrics.items()}

        # The update is skipped only if no seed trains. If only some seeds train, `tree_where` below
        # selects the result of each seed.
        new, metrics = jax.lax.cond(any_over_seeds(trains), learn, skip)
        # The number of gradient steps is known for a skipped update, so it is 0 and not NaN.
        metrics = {name: jnp.where(trains, m, jnp.nan) for name, m in metrics.items()}
        metrics["gradient_steps"] = jnp.where(trains, metrics["gradient_steps"], 0.0)
        learner, bonus_state, bonus = tree_where(trains, new, old)
        state = state._replace(learner=learner, bonus=bonus_state)
        return state, played._replace(bonus=bonus), metrics

    def _judge(
        self, key: Key, state: PyTree, played: Rollout, weight: Float[Array, " N"]
    ) -> tuple[PyTree, Float[Array, "T N"], Metrics]:
        if isinstance(self.bonus, tuple):
            return state, played.bonus, {}
        return self.bonus.apply(key, state, played, weight)

    def _as_learned(self, played: Rollout) -> Rollout:
        """Drop the data that was recorded only for the bonus."""
        played = played._replace(visits=())
        if "last_obs" in self.learner.reads:
            return played
        return played._replace(last_obs=())

    def _episode_metrics(
        self, played: Rollout, stats: EpisodeStats, solved: Bool[Array, "T N"]
    ) -> Metrics:
        num = stats.num.sum()
        mean = {"episode_return": stats.mean_return, "episode_length": stats.mean_length}
        # The means of the levels, weighted by their numbers of episodes, give the overall mean. If
        # no episode ended, 0 / 0 gives NaN.
        total = {name: jnp.where(stats.num > 0, x * stats.num, 0.0) for name, x in mean.items()}
        metrics = {name: x.sum() / num for name, x in total.items()} | {"num_episodes": num}
        if not registry.has(self.env, LevelEnv.success):
            return metrics
        if self.updates_per_level > 1:
            metrics["solve_rate"] = stats.num_success.sum() / num
        else:
            # The fraction of slots whose first episode was solved by the end of the rollout. A mean
            # over completed episodes would be biased, because failed episodes are long and often
            # unfinished.
            on_first = jnp.cumsum(played.first, axis=0) == 1
            metrics["solve_rate"] = (solved & on_first).any(0).mean()
        return metrics

    def _unfinished(self, played: Rollout, state: OnPolicyState) -> Metrics:
        """Number of the episodes that are cut off, and the mean of their returns so far.

        An episode is cut off if it has not ended after the last step of its slot's tenancy. The
        mean is NaN if no episode is cut off.

        Args:
            played: [T, N].
            state: state after the rollout.
        """
        cut = ~played.done[-1]
        if self.updates_per_level > 1:
            cut &= state.age >= self.updates_per_level
            assert state.progress, "`init` fills it if slots keep their levels"
            so_far, _ = state.progress
        else:
            # The steps after the last end of an episode. A sum over a mask is cheaper than the
            # scan of `episode_progress`.
            later_ends = jnp.cumsum(played.done[::-1], axis=0)[::-1]
            so_far = jnp.where(later_ends == 0, played.reward, 0.0).sum(0)
        return {"unfinished_return": so_far.mean(where=cut), "num_unfinished": cut.sum()}

    def _env_steps(self, slots: Slots) -> dict[str, Array]:
        """Env steps by purpose: to `train`, to `scout` new levels or to `score` known levels."""
        trained, new = slots.weight > 0, slots.origin == NEW
        num = {"train": trained, "scout": ~trained & new, "score": ~trained & ~new}
        steps = {kind: used.sum() * self.num_steps for kind, used in num.items()}
        if self.population > 1:
            # The other members of the population play the same slots, at additional cost.
            others = (self.population - 1) * slots.weight.size * self.num_steps
            steps["antagonist"] = jnp.full_like(steps["train"], others)
        return steps


def successes(
    env: LevelEnv,
    played: Rollout,
    before: tuple[Float[Array, " N"], Float[Array, " N"]] | tuple[()] = (),
) -> Bool[Array, "T N"]:
    """True where a step ends an episode that was solved, as defined by the environment.

    Args:
        env: environment.
        played: [T, N].
        before: see `rlgen.returns.episode_progress`.
    """
    total, _ = episode_progress(played, before)
    return played.done & env.success(total, played.terminated)


def student_and_score(env: LevelEnv, learner: str, score: str) -> tuple[OnPolicy, Score]:
    """Build a student and a score from the names of a learner and a score.

    The score uses the learner's discounting.
    """
    built = registry.make("learners", learner, env)
    return OnPolicy(env, built), registry.make("scores", score, env, built)
