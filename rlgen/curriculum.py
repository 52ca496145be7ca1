"""The one outer loop: levels flow in, evidence flows out."""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from rlgen.parallel.seeds import tree_where
from rlgen.protocols import Sampler, Score, Student, check_numbers
from rlgen.registry import did_you_mean
from rlgen.types import (
    NEW,
    Key,
    Keys,
    LifetimeResults,
    Metrics,
    Outcome,
    PyTree,
    Slots,
    Spent,
    TrainState,
    UpdateRecord,
)


@dataclass(frozen=True)
class Curriculum:
    """A method: who learns, which levels it meets, how a level is judged.

    Attributes:
        num_slots: N, levels in play at a time.
        levels_per_slot: R, levels that a slot plays one after the other within an update. 1
            replays one level for the whole rollout, as published curricula do.

    Raises:
        ValueError: no slot or an empty queue.
    """

    student: Student
    sampler: Sampler
    score: Score
    num_slots: int = 32
    levels_per_slot: int = 1

    def __post_init__(self):
        for name, base in (("student", Student), ("sampler", Sampler), ("score", Score)):
            if not isinstance(getattr(self, name), base):
                raise TypeError(
                    f"{name} must be a {base.__name__} of rlgen.protocols, got "
                    f"{type(getattr(self, name)).__name__}; let its class subclass {base.__name__}"
                )
        check_numbers(self, "num_slots", "levels_per_slot", least=1)
        most = self.student.max_levels_per_slot
        if most is not None and self.levels_per_slot > most:
            raise ValueError(
                f"levels_per_slot={self.levels_per_slot}, but this student's slots hold at most "
                f"{most} level{'s' if most > 1 else ''} at a time; set levels_per_slot to {most}"
            )
        self.student.check(self.num_slots)
        self.sampler.check(self.num_slots * self.levels_per_slot, self.score)
        _check_evidence(self)
        _check_blocks(self)
        if self.student.full_lifetime and self.sampler.mean_lifetime is None:
            raise ValueError(
                "this student lives whole lives of agents, and the sampler does not say how long "
                "they are: wrap it in rlgen.algos.samplers.lifetimes.Lifetimes"
            )

    def init(self, key: Key) -> TrainState:
        """A run before its first update; the slots are all free and hold blank levels."""
        key_student, key_sampler = jax.random.split(key)
        shape = (self.num_slots, self.levels_per_slot)
        slots = Slots(
            level=_repeat(self.sampler.example_level(), shape),
            score_state=_repeat(self.score.initial_state(), shape),
            buffer_index=jnp.full(shape, -1, jnp.int32),
            origin=jnp.full(self.num_slots, NEW, jnp.int32),
            weight=jnp.ones(self.num_slots),
            level_info=_repeat(self.sampler.level_info(), shape),
        )
        student = self.student.init(key_student, self.num_slots)
        sampler = self.sampler.init(key_sampler, self.score.initial_state())
        return TrainState(student, sampler, slots, jnp.ones(self.num_slots, bool))

    def update(self, ts: TrainState, keys: Keys) -> tuple[TrainState, Metrics]:
        """Propose levels, play and learn, score, observe."""
        return self.update_and_show(ts, keys)[:2]

    def update_and_show(
        self, ts: TrainState, keys: Keys
    ) -> tuple[TrainState, Metrics, UpdateRecord]:
        """The same, and what was found out about the levels that were met."""
        key_propose, key_run, key_score, key_observe = jax.random.split(keys.own, 4)
        shared_propose, shared_observe = jax.random.split(keys.shared)
        sampler, slots = self.sampler.propose(
            Keys(key_propose, shared_propose), ts.sampler, ts.slots, ts.free
        )
        unseen = ts.free[:, None] & (slots.buffer_index < 0)
        memory = _repeat(self.score.initial_state(), unseen.shape)
        slots = slots._replace(score_state=tree_where(unseen, memory, slots.score_state))
        student, outcome, metrics = self.student.run(key_run, ts.student, slots, ts.free)
        score, memory = self.score(key_score, slots, outcome)
        score = jnp.where(_is_judged(outcome)[:, None], score, -jnp.inf)
        slots = slots._replace(score_state=memory)
        sampler = self.sampler.observe(
            Keys(key_observe, shared_observe), sampler, slots, score, outcome
        )
        metrics = metrics | _costs(outcome) | self.sampler.metrics(sampler)
        metrics |= _summary(slots, score)
        past = self.sampler.lineage(sampler, slots)
        met = UpdateRecord(slots, score, outcome.episodes, past)
        return TrainState(student, sampler, slots, free=outcome.done), metrics, met

    def train(
        self, ts: TrainState, keys: Keys, start: Int[Array, ""], num_updates: int
    ) -> tuple[TrainState, Metrics]:
        """A chunk of updates as one scan, metrics stacked `[num_updates]`.

        Update `t` of a run uses `fold_in(key, t)`, so a run cut into other chunks, or resumed, is
        the same run. For several seeds: `jax.vmap(train, in_axes=(0, Keys(0, None), None, None))`.
        """
        return self.train_and_show(ts, keys, start, num_updates, lambda met: ())[:2]

    def train_and_show(
        self,
        ts: TrainState,
        keys: Keys,
        start: Int[Array, ""],
        num_updates: int,
        show: Callable[[UpdateRecord], PyTree],
    ) -> tuple[TrainState, Metrics, PyTree]:
        """The same, and what `show` keeps of each update, stacked `[num_updates]`."""

        def body(ts: TrainState, t: Array) -> tuple[TrainState, tuple]:
            keys_now = Keys(*(jax.random.fold_in(key, t) for key in keys))
            ts, metrics, met = self.update_and_show(ts, keys_now)
            return ts, (metrics, show(met))

        ts, (metrics, shown) = jax.lax.scan(body, ts, start + jnp.arange(num_updates))
        return ts, metrics, shown


def fill_new(slots: Slots, free: Bool[Array, " N"], level: PyTree) -> Slots:
    """The slots with levels [N, R, ...] without a past in the free ones, to be trained on."""
    new = Slots(
        level=level,
        score_state=slots.score_state,
        buffer_index=jnp.full_like(slots.buffer_index, -1),
        origin=jnp.full_like(slots.origin, NEW),
        weight=jnp.ones_like(slots.weight),
        level_info=slots.level_info,
    )
    return tree_where(free, new, slots)


def _is_judged(outcome: Outcome) -> Bool[Array, " N"]:
    """Slots whose tenancy is over, and where the evidence is of a whole life if it is of lives."""
    if isinstance(outcome.lifetimes, LifetimeResults):
        return outcome.done & outcome.lifetimes.complete
    return outcome.done


def _repeat(tree: PyTree, shape: tuple[int, ...]) -> PyTree:
    return jax.tree.map(lambda x: jnp.broadcast_to(x, shape + jnp.shape(x)), tree)


def _costs(outcome: Outcome) -> Metrics:
    """What the update cost, as metrics for the accounts; nothing if the student does not count."""
    if not isinstance(outcome.spent, Spent):
        return {}
    steps = {f"steps_{kind}": num for kind, num in outcome.spent.env_steps.items()}
    return steps | {"gradient_steps": jnp.asarray(outcome.spent.gradient_steps, jnp.float32)}


def _check_evidence(curriculum: Curriculum) -> None:
    """Refuse a score or a sampler that reads what the student does not report.

    Raises:
        ValueError: with what is missing, or what no outcome has.
    """
    student = curriculum.student
    for reader in (curriculum.score, curriculum.sampler):
        _check_reads(reader)
        missing = sorted(reader.reads - student.gives)
        if missing:
            raise ValueError(
                f"{type(reader).__name__} reads the outcome's {' and '.join(missing)}, and "
                f"{type(student).__name__} gives {', '.join(sorted(student.gives)) or 'nothing'}; "
                "choose another score or sampler, or a student that gives it"
            )


def _check_reads(reader: Score | Sampler) -> None:
    """Refuse evidence that no outcome has.

    Raises:
        ValueError: with the nearest field.
    """
    allowed = f"{type(reader).__name__}.reads must be a frozenset of fields of the outcome"
    if not isinstance(reader.reads, frozenset):
        raise ValueError(f"{allowed}, got {reader.reads!r}")
    for name in sorted(reader.reads - set(Outcome._fields)):
        raise ValueError(f"{allowed}, got {name!r}; {did_you_mean(name, Outcome._fields)}")


def _check_blocks(curriculum: Curriculum) -> None:
    """Refuse slots that do not divide into the sampler's blocks, or that would not be learned from.

    Raises:
        ValueError: with the numbers that fit.
    """
    num_slots, sampler = curriculum.num_slots, curriculum.sampler
    blocks = sampler.num_blocks
    if num_slots % blocks:
        fits = num_slots + -num_slots % blocks
        raise ValueError(
            f"num_slots={num_slots} does not divide into the sampler's {blocks} equal blocks; "
            f"choose a multiple of {blocks}, such as {fits}"
        )
    needed = sampler.train_share
    share = curriculum.student.train_share
    if round(share * num_slots) < round(needed * num_slots):
        raise ValueError(
            f"student.train_share={share:.3g} learns from {round(share * num_slots)} of "
            f"{num_slots} slots, and the sampler gives weight to {round(needed * num_slots)}; "
            f"set it to {needed:.3g}"
        )


def _summary(slots: Slots, score: Array) -> Metrics:
    scored = jnp.isfinite(score)
    mean = jnp.where(scored, score, 0.0).sum() / jnp.maximum(scored.sum(), 1)
    shares = {
        f"levels_{name}": (slots.origin == origin).mean()
        for origin, name in enumerate(("new", "replay", "mutant"))
    }
    return {"score": mean, "weight": slots.weight.mean(), **shares}
