"""The one outer loop: levels flow in, evidence flows out."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from rlgen.branching import where
from rlgen.protocols import Sampler, Score, Student
from rlgen.types import NEW, Key, Keys, Metrics, PyTree, Slots, TrainState


@dataclass(frozen=True)
class Curriculum:
    """A method: who learns, which levels it meets, how a level is judged.

    Attributes:
        num_slots: N, levels in play at a time.
        num_queued: R, levels that a slot meets one after the other within an update. 1 replays one
            level for the whole rollout, as published curricula do.

    Raises:
        ValueError: no slot or an empty queue.
    """

    student: Student
    sampler: Sampler
    score: Score
    num_slots: int = 32
    num_queued: int = 1

    def __post_init__(self):
        for name in ("num_slots", "num_queued"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        check = getattr(self.student, "check", None)
        if check is not None:
            check(self.num_slots)
        check = getattr(self.sampler, "check", None)
        if check is not None:
            check(self.num_slots * self.num_queued)

    def init(self, key: Key) -> TrainState:
        """A run before its first update; the slots are all free and hold blank levels."""
        key_student, key_sampler = jax.random.split(key)
        shape = (self.num_slots, self.num_queued)
        slots = Slots(
            level=_repeat(self.sampler.blank(), shape),
            memory=_repeat(self.score.memory(), shape),
            row=jnp.full(shape, -1, jnp.int32),
            origin=jnp.full(self.num_slots, NEW, jnp.int32),
            weight=jnp.ones(self.num_slots),
        )
        student, sampler = self.student.init(key_student), self.sampler.init(key_sampler)
        return TrainState(student, sampler, slots, jnp.ones(self.num_slots, bool))

    def update(self, ts: TrainState, keys: Keys) -> tuple[TrainState, Metrics]:
        """Propose levels, play and learn, score, observe."""
        key_propose, key_run, key_score, key_observe = jax.random.split(keys.own, 4)
        shared_propose, shared_observe = jax.random.split(keys.shared)
        sampler, slots = self.sampler.propose(
            Keys(key_propose, shared_propose), ts.sampler, ts.slots, ts.free
        )
        unseen = ts.free[:, None] & (slots.row < 0)
        memory = _repeat(self.score.memory(), unseen.shape)
        slots = slots._replace(memory=where(unseen, memory, slots.memory))
        student, outcome, metrics = self.student.run(key_run, ts.student, slots, ts.free)
        score, memory = self.score(key_score, slots, outcome)
        slots = slots._replace(memory=memory)
        sampler = self.sampler.observe(
            Keys(key_observe, shared_observe), sampler, slots, score, outcome.done
        )
        metrics = metrics | _summary(slots, score)
        return TrainState(student, sampler, slots, free=outcome.done), metrics

    def train(
        self, ts: TrainState, keys: Keys, start: Int[Array, ""], num_updates: int
    ) -> tuple[TrainState, Metrics]:
        """A chunk of updates as one scan, metrics stacked `[num_updates]`.

        Update `t` of a run uses `fold_in(key, t)`, so a run cut into other chunks, or resumed, is
        the same run. For several seeds: `jax.vmap(train, in_axes=(0, Keys(0, None), None, None))`.
        """

        def body(ts: TrainState, t: Array) -> tuple[TrainState, Metrics]:
            return self.update(ts, Keys(*(jax.random.fold_in(key, t) for key in keys)))

        return jax.lax.scan(body, ts, start + jnp.arange(num_updates))


def _repeat(tree: PyTree, shape: tuple[int, ...]) -> PyTree:
    return jax.tree.map(lambda x: jnp.broadcast_to(x, shape + jnp.shape(x)), tree)


def _summary(slots: Slots, score: Array) -> Metrics:
    scored = jnp.isfinite(score)
    mean = jnp.where(scored, score, 0.0).sum() / jnp.maximum(scored.sum(), 1)
    shares = {
        f"levels_{name}": (slots.origin == origin).mean()
        for origin, name in enumerate(("new", "replay", "mutant"))
    }
    return {"score": mean, "weight": slots.weight.mean(), **shares}
