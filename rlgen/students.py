"""Students made of one policy (or a population of them) that learns on-policy."""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from rlgen.branching import any_seed, where
from rlgen.protocols import Bonus, Learner, LevelEnv
from rlgen.returns import episode_progress, episodes
from rlgen.rollout import rollout
from rlgen.types import NEW, Episodes, Key, Metrics, Outcome, PyTree, Rollout, Slots


class OnPolicyState(NamedTuple):
    """`[P, ...]` on every leaf."""

    learner: PyTree
    bonus: PyTree


@dataclass(frozen=True)
class OnPolicy:
    """Roll out, add the bonus, learn; every slot is free again after each update.

    A slot of weight 0 is played and scored but not learned from. If no slot has weight, the
    learner's update is skipped altogether: an optimiser step on a zero gradient would still move
    the parameters.

    Attributes:
        num_steps: T, env steps in each slot and update.
        population: P, learners that each play all slots' levels (PAIRED's students: the protagonist
            and the antagonist).
        train_share: share of the slots that can have weight at once; the update computes with that
            many alone. A parallel curriculum trains on one block of its slots.
        bonus: intrinsic reward, or `()`.

    Raises:
        ValueError: a field outside its range.
    """

    env: LevelEnv
    learner: Learner
    num_steps: int = 256
    population: int = 1
    train_share: float = 1.0
    bonus: Bonus | tuple[()] = ()

    def __post_init__(self):
        if self.num_steps < 1:
            raise ValueError(f"num_steps must be at least 1, got {self.num_steps}")
        if self.population < 1:
            raise ValueError(f"population must be at least 1, got {self.population}")
        if not 0 < self.train_share <= 1:
            raise ValueError(f"train_share must lie in (0, 1], got {self.train_share}")

    def check(self, num_slots: int) -> None:
        """Refuse sizes that the learner cannot take, before anything is compiled."""
        check = getattr(self.learner, "check", None)
        if check is not None:
            check(self.num_steps, self.num_trained(num_slots))

    def num_trained(self, num_slots: int) -> int:
        """How many slots the update computes with."""
        return max(round(self.train_share * num_slots), 1)

    def init(self, key: Key, num_slots: int) -> OnPolicyState:
        """Untrained learners."""
        del num_slots
        key_learner, key_bonus = jax.random.split(key)
        learner = jax.vmap(self.learner.init)(jax.random.split(key_learner, self.population))
        if isinstance(self.bonus, tuple):
            return OnPolicyState(learner, ())
        bonus = jax.vmap(self.bonus.init)(jax.random.split(key_bonus, self.population))
        return OnPolicyState(learner, bonus)

    def policy(self, states: OnPolicyState) -> tuple[Learner, PyTree]:
        """Who is evaluated: the learner and the states [S, ...] of its first member, of S seeds."""
        return self.learner, jax.tree.map(lambda x: x[:, 0], states.learner)

    def run(
        self, key: Key, state: OnPolicyState, slots: Slots, fresh: Bool[Array, " N"]
    ) -> tuple[OnPolicyState, Outcome, Metrics]:
        """Play all slots for T steps and learn from those with weight."""

        def member(key: Key, state: OnPolicyState) -> tuple:
            return self._run_one(key, state, slots)

        keys = jax.random.split(key, self.population)
        if self.population == 1:  # a vmap axis of one would only slow the matrix products down
            one = jax.tree.map(lambda x: x[0], (keys, state))
            played = jax.tree.map(lambda x: x[None], member(*one))
        else:
            played = jax.vmap(member)(keys, state)
        state, rollouts, stats, every = played
        metrics = {name: value[0] for name, value in every.items()} | self._accounts(slots)
        if self.population > 1:
            told = ("episode_return", "episode_length", "solve_rate")
            metrics |= {f"antagonist_{n}": every[n][1] for n in told if n in every}
        outcome = Outcome(
            done=jnp.ones_like(fresh),
            rollout=rollouts,
            episodes=jax.tree.map(lambda x: x[0], stats),
        )
        return state, outcome, metrics

    def _run_one(
        self, key: Key, state: OnPolicyState, slots: Slots
    ) -> tuple[OnPolicyState, Rollout, Episodes, Metrics]:
        key_rollout, key_bonus, key_update = jax.random.split(key, 3)
        played, _ = rollout(
            key_rollout, self.env, self.learner, state.learner, slots.level, self.num_steps
        )
        solved = successes(self.env, played)
        stats = episodes(played, slots.row.shape[1], solved)
        metrics = self._episode_metrics(played, stats, solved)
        bonus_state = state.bonus
        if not isinstance(self.bonus, tuple):
            bonus_state, bonus, bonus_metrics = self.bonus.apply(key_bonus, bonus_state, played)
            played = played._replace(bonus=bonus)
            metrics |= bonus_metrics
        learner, learner_metrics = self._learn(key_update, state.learner, played, slots.weight)
        return OnPolicyState(learner, bonus_state), played, stats, metrics | learner_metrics

    def _learn(
        self, key: Key, state: PyTree, played: Rollout, weight: Float[Array, " N"]
    ) -> tuple[PyTree, Metrics]:
        trains = (weight > 0).any()
        num_trained = self.num_trained(weight.size)

        def learn() -> tuple[PyTree, Metrics]:
            if num_trained == weight.size:
                return self.learner.update(key, state, played, weight)
            # Stable, so that the slots with weight keep their order.
            chosen = jnp.argsort(weight <= 0, stable=True)[:num_trained]
            part = jax.tree.map(lambda x: x[:, chosen], played)
            return self.learner.update(key, state, part, weight[chosen])

        def skip() -> tuple[PyTree, Metrics]:
            metrics = jax.eval_shape(learn)[1]
            return state, {name: jnp.full(m.shape, jnp.nan) for name, m in metrics.items()}

        new, metrics = jax.lax.cond(any_seed(trains), learn, skip)
        metrics = {name: jnp.where(trains, m, jnp.nan) for name, m in metrics.items()}
        return where(trains, new, state), metrics

    def _episode_metrics(
        self, played: Rollout, stats: Episodes, solved: Bool[Array, "T N"]
    ) -> Metrics:
        num = jnp.maximum(stats.num.sum(), 1)
        mean = {"episode_return": stats.mean_return, "episode_length": stats.mean_length}
        metrics = {name: (x * stats.num).sum() / num for name, x in mean.items()}
        metrics["num_episodes"] = stats.num.sum()
        if hasattr(self.env, "success"):
            # Of each slot's first episode, solved or not by the rollout's end: over all completed
            # episodes, those that fail would hardly count, as they are long and often cut off.
            on_first = jnp.cumsum(played.first, axis=0) == 1
            metrics["solve_rate"] = (solved & on_first).any(0).mean()
        return metrics

    def _accounts(self, slots: Slots) -> Metrics:
        """Env steps by what they were for: learning, looking at new levels, judging known ones."""
        trained, new = slots.weight > 0, slots.origin == NEW
        num = {"train": trained, "scout": ~trained & new, "score": ~trained & ~new}
        steps = {f"steps_{kind}": used.sum() * self.num_steps for kind, used in num.items()}
        if self.population > 1:
            others = (self.population - 1) * slots.weight.size * self.num_steps
            steps["steps_antagonist"] = jnp.full_like(steps["steps_train"], others)
        return steps


def successes(env: LevelEnv, played: Rollout) -> Bool[Array, "T N"]:
    """Whether the episode that ends with each step was solved, by the environment's own notion.

    An environment without `success` has solved an episode if it ended with a positive return.
    """
    total, _ = episode_progress(played)
    own = getattr(env, "success", None)
    return played.done & (own(total, played.terminated) if own else total > 0)
