"""Training loop of all methods: propose levels, train on them, score them, observe the scores.

Levels are played in N parallel *slots*. A slot keeps its levels for one or more updates. This
period is the slot's *tenancy*. After its tenancy the slot is *free*, and the sampler puts new
levels into it.
"""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from rlgen.held_out import rejection, replace_held_out
from rlgen.parallel.seeds import tree_where
from rlgen.protocols import LevelEnv, Sampler, Score, Student, check_numbers
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
    """A training method: a student, a sampler that chooses the levels, and a score of levels.

    Attributes:
        num_slots: N, number of levels that are played in parallel.
        levels_per_slot: R, number of levels that a slot plays in turn within an update. If R is 1,
            a slot plays one level for the whole rollout, as in JaxUED.

    Raises:
        TypeError: the student, the sampler or the score is not a component of that kind.
        ValueError: `num_slots` or `levels_per_slot` below 1, or components that do not fit
            together.
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
                    f"{type(getattr(self, name)).__name__}; make its class extend {base.__name__}"
                )
        # A class of the user may lack the field, because an annotation in a base class declares it
        # without a value.
        if not isinstance(getattr(self.student, "env", None), LevelEnv):
            raise TypeError(
                f"{type(self.student).__name__} has no field env; add the environment of the "
                "slots' levels as a field: env: LevelEnv"
            )
        check_numbers(self, "num_slots", "levels_per_slot", least=1)
        most = self.student.max_levels_per_slot
        if most is not None and self.levels_per_slot > most:
            raise ValueError(
                f"levels_per_slot={self.levels_per_slot}, but this student's slots hold at most "
                f"{most} level{'s' if most > 1 else ''} at a time; set levels_per_slot to {most}"
            )
        # The components are checked at construction, so that a wrong combination gives a message
        # rather than a shape error during compilation.
        self.student.check(self.num_slots)
        self.sampler.check(self.num_slots * self.levels_per_slot, self.score)
        _check_evidence(self)
        _check_blocks(self)
        if self.student.full_lifetime and self.sampler.mean_lifetime is None:
            raise ValueError(
                "this student trains agents for whole lifetimes, but the sampler does not set the "
                "length of a lifetime; wrap the sampler in "
                "rlgen.algos.samplers.lifetimes.Lifetimes"
            )

    def init(self, key: Key) -> TrainState:
        """Initial state of a run; all slots are free and hold placeholder levels."""
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
        """Run one update: propose levels, train on them, score them, observe the scores."""
        return self.update_and_show(ts, keys)[:2]

    def update_and_show(
        self, ts: TrainState, keys: Keys
    ) -> tuple[TrainState, Metrics, UpdateRecord]:
        """Run one update, and also return the record of the levels that were played."""
        # Only the sampler makes decisions that all seeds share.
        key_propose, key_run, key_score, key_observe = jax.random.split(keys.own, 4)
        shared_propose, shared_observe = jax.random.split(keys.shared)
        sampler, slots = self.sampler.propose(
            Keys(key_propose, shared_propose), ts.sampler, ts.slots, ts.free
        )
        # All levels enter training here. A buffer holds only levels that were in a slot before.
        rejected = rejection(self.student.env) if self.sampler.makes_levels else None
        if rejected is not None:
            slots = replace_held_out(self.student.env, rejected, slots, ts.free)
        # A new level in a free slot gets the score's initial memory. A level from the buffer keeps
        # the memory that is stored with it.
        unseen = ts.free[:, None] & (slots.buffer_index < 0)
        memory = _repeat(self.score.initial_state(), unseen.shape)
        slots = slots._replace(score_state=tree_where(unseen, memory, slots.score_state))
        student, outcome, metrics = self.student.run(key_run, ts.student, slots, ts.free)
        score, memory = self.score(key_score, slots, outcome)
        # Only slots whose tenancy has ended are scored; samplers ignore a score of `-inf`.
        score = jnp.where(_is_judged(outcome)[:, None], score, -jnp.inf)
        # The memory is replaced before `observe` is called, because `observe` stores a level's
        # memory together with the level's score.
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
        """Run a chunk of updates as one scan; metrics are stacked, `[num_updates]`.

        Update `t` of a run uses `fold_in(key, t)`, so that the random numbers do not depend on the
        chunk size or on interruptions. A run that continues with chunks of the same size is
        bit-identical to an uninterrupted run. Another size is another compiled program, so the
        results are equal only up to rounding, which grows during training. For several seeds, use
        `jax.vmap(train, in_axes=(0, Keys(0, None), None, None))`.

        Args:
            ts: state after `start` updates.
            keys: keys of the whole run.
            start: number of updates done so far.
            num_updates: number of updates in the chunk.
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
        """Like `train`, and also return `show(record)` of each update, stacked `[num_updates]`."""

        def body(ts: TrainState, t: Array) -> tuple[TrainState, tuple]:
            # The keys are derived from t alone, so that a resumed run uses the same keys as an
            # uninterrupted run.
            keys_now = Keys(*(jax.random.fold_in(key, t) for key in keys))
            ts, metrics, met = self.update_and_show(ts, keys_now)
            return ts, (metrics, show(met))

        ts, (metrics, shown) = jax.lax.scan(body, ts, start + jnp.arange(num_updates))
        return ts, metrics, shown


def fill_new(slots: Slots, free: Bool[Array, " N"], level: PyTree) -> Slots:
    """Put the levels `level` [N, R, ...] into the free slots, as new levels with weight 1."""
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
    """True for slots whose levels are scored: slots whose tenancy has ended.

    If the student is a meta-learner, the slot's agent must also have been trained for its whole
    lifetime.
    """
    if isinstance(outcome.lifetimes, LifetimeResults):
        return outcome.done & outcome.lifetimes.complete
    return outcome.done


def _repeat(tree: PyTree, shape: tuple[int, ...]) -> PyTree:
    """Repeat the data of one level to leading axes `shape`, such as [N, R]."""
    return jax.tree.map(lambda x: jnp.broadcast_to(x, shape + jnp.shape(x)), tree)


def _costs(outcome: Outcome) -> Metrics:
    """Costs of the update as metrics; empty if the student does not count them."""
    if not isinstance(outcome.spent, Spent):
        return {}
    steps = {f"steps_{kind}": num for kind, num in outcome.spent.env_steps.items()}
    return steps | {"gradient_steps": jnp.asarray(outcome.spent.gradient_steps, jnp.float32)}


def _check_evidence(curriculum: Curriculum) -> None:
    """Reject a score or a sampler that reads outcome fields that the student does not fill.

    Raises:
        ValueError: a field is not filled, or is not a field of `Outcome`; the message names it.
    """
    student = curriculum.student
    for reader in (curriculum.score, curriculum.sampler):
        _check_reads(reader)
        missing = sorted(reader.reads - student.gives)
        if missing:
            raise ValueError(
                f"{type(reader).__name__} reads the outcome's {' and '.join(missing)}, but "
                f"{type(student).__name__} fills {', '.join(sorted(student.gives)) or 'nothing'}; "
                "choose another score, sampler or student"
            )


def _check_reads(reader: Score | Sampler) -> None:
    """Reject names that are not fields of `Outcome`.

    Raises:
        ValueError: a name is not a field; the message suggests the nearest field.
    """
    allowed = f"{type(reader).__name__}.reads must be a frozenset of fields of the outcome"
    if not isinstance(reader.reads, frozenset):
        raise ValueError(f"{allowed}, got {reader.reads!r}")
    for name in sorted(reader.reads - set(Outcome._fields)):
        raise ValueError(f"{allowed}, got {name!r}; {did_you_mean(name, Outcome._fields)}")


def _check_blocks(curriculum: Curriculum) -> None:
    """Reject a `num_slots` that `num_blocks` does not divide, or too low a `train_share`.

    Raises:
        ValueError: a number does not fit; the message suggests a valid one.
    """
    num_slots, sampler = curriculum.num_slots, curriculum.sampler
    blocks = sampler.num_blocks
    if num_slots % blocks:
        fits = num_slots + -num_slots % blocks  # the next multiple of `blocks`
        raise ValueError(
            f"num_slots={num_slots} does not divide into the sampler's {blocks} equal blocks; "
            f"choose a multiple of {blocks}, such as {fits}"
        )
    needed = sampler.train_share
    share = curriculum.student.train_share
    # Numbers of slots are compared, because fractions such as 1/3 are inexact.
    if round(share * num_slots) < round(needed * num_slots):
        raise ValueError(
            f"student.train_share={share:.3g} learns from {round(share * num_slots)} of "
            f"{num_slots} slots, but the sampler gives positive weight to "
            f"{round(needed * num_slots)}; set student.train_share to {needed:.3g}"
        )


def _summary(slots: Slots, score: Array) -> Metrics:
    """Mean score of the scored levels, mean weight, and the fraction of slots of each origin."""
    scored = jnp.isfinite(score)
    mean = score.mean(where=scored)  # NaN if no level was scored
    shares = {
        f"levels_{name}": (slots.origin == origin).mean()
        for origin, name in enumerate(("new", "replay", "mutant"))
    }
    return {"score": mean, "weight": slots.weight.mean(), **shares}
