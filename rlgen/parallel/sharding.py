"""Devices as an axis: seeds or slots spread over a mesh.

If the seeds divide among the devices, each device runs its own seeds and nothing is exchanged.
Otherwise the slots are split: every device plays its share of the levels, and XLA adds the sums of
gradients that the parameters, which all devices hold whole, need.
"""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Bool

from rlgen.protocols import Learner, Student
from rlgen.types import Key, Keys, Metrics, Outcome, PyTree, Slots, TrainState

SEEDS, SLOTS = "seeds", "slots"


def make_mesh(num_devices: int, seeds: int, num_slots: int) -> Mesh:
    """A mesh of one axis, named by what is split over it: `seeds` if they divide, else `slots`.

    Raises:
        ValueError: fewer devices than asked, or neither seeds nor slots divide among them.
    """
    devices = jax.devices()
    if num_devices > len(devices):
        raise ValueError(
            f"devices={num_devices}, but there are {len(devices)} ({devices[0].platform}); ask for "
            "at most that. (The command line makes one of every CPU core; in Python, call "
            "jax.config.update('jax_num_cpu_devices', N) before anything else)"
        )
    split_seeds = seeds > 1 and seeds % num_devices == 0
    if not split_seeds and num_slots % num_devices:
        raise ValueError(
            f"devices={num_devices} divides neither the {seeds} seeds nor num_slots={num_slots}; "
            f"make one of them a multiple of {num_devices}"
        )
    chosen = np.asarray(devices[:num_devices])
    return Mesh(chosen, (SEEDS if split_seeds else SLOTS,), axis_types=(AxisType.Auto,))


def state_shardings(mesh: Mesh, states: TrainState, student: Student) -> TrainState:
    """Where each leaf `[S, ...]` of the training state lies.

    Args:
        mesh: see `make_mesh`.
        states: arrays or shapes.
        student: whose states these are; says what belongs to its slots.
    """

    def place(tree: PyTree, *axes: str | None) -> PyTree:
        return jax.tree.map(lambda _: NamedSharding(mesh, PartitionSpec(*axes)), tree)

    if mesh.axis_names == (SEEDS,):
        return place(states, SEEDS)
    own = jax.tree.map(
        lambda split, part: place(part, *((None, SLOTS) if split else ())),
        per_slot(student, states.student),
        states.student,
    )
    return TrainState(
        student=own,
        sampler=place(states.sampler),
        slots=place(states.slots, None, SLOTS),
        free=place(states.free, None, SLOTS),
    )


def per_slot(student: Student, state: PyTree) -> PyTree:
    """A tree prefix of a student's state: which parts have an axis of slots in front."""
    return student.per_slot(state)


def keys_shardings(mesh: Mesh) -> Keys:
    """Where the keys of a run lie, `own` being `[S]`."""
    own = PartitionSpec(SEEDS) if mesh.axis_names == (SEEDS,) else PartitionSpec()
    return Keys._make((NamedSharding(mesh, own), NamedSharding(mesh, PartitionSpec())))


def over_seeds(mesh: Mesh, chunk: Callable[..., tuple]) -> Callable[..., tuple]:
    """The same chunk with its seeds split over the devices, each of which runs its own loop.

    Args:
        mesh: with the axis `seeds`.
        chunk: `(states [S], keys, start) -> (states [S], metrics [S, ...], checks [S, ...])`.
    """
    split, whole = PartitionSpec(SEEDS), PartitionSpec()
    return jax.shard_map(
        chunk,
        mesh=mesh,
        in_specs=(split, Keys(split, whole), whole),  # pyright: ignore[reportArgumentType]
        out_specs=split,
        check_vma=False,  # loops start from constants, which the check takes for replicated
    )


def over_slots(mesh: Mesh, student: Student) -> Student:
    """The same student, with its slots split over the devices.

    A student that has loops of its own for each slot says itself how they are split.
    """
    own = student.offers(Student.split_over)
    return student.split_over(mesh) if own else SplitSlots(student, mesh)


@dataclass(frozen=True)
class SplitSlots(Student):
    """A student whose slots are split over a mesh; all else is left to XLA to place.

    Levels are drawn anew in every update, so saying once where the first ones lie is not enough.
    """

    student: Student
    mesh: Mesh

    @property
    def gives(self) -> frozenset[str]:
        """The student's."""
        return self.student.gives

    @property
    def num_steps(self) -> int:
        """The student's."""
        return self.student.num_steps

    @property
    def population(self) -> int:
        """The student's."""
        return self.student.population

    @property
    def train_share(self) -> float:
        """The student's."""
        return self.student.train_share

    @property
    def max_levels_per_slot(self) -> int | None:
        """The student's."""
        return self.student.max_levels_per_slot

    @property
    def full_lifetime(self) -> bool:
        """The student's."""
        return self.student.full_lifetime

    def check(self, num_slots: int) -> None:
        """Refuse what the student refuses."""
        self.student.check(num_slots)

    def per_slot(self, state: PyTree) -> PyTree:
        """The student's."""
        return self.student.per_slot(state)

    def init(self, key: Key, num_slots: int) -> PyTree:
        """State of an untrained student."""
        return self.student.init(key, num_slots)

    def policy(self, states: PyTree) -> tuple[Learner, PyTree]:
        """Who is evaluated."""
        return self.student.policy(states)

    def run(
        self, key: Key, state: PyTree, slots: Slots, fresh: Bool[Array, " N"]
    ) -> tuple[PyTree, Outcome, Metrics]:
        """Play the slots, each device its own."""
        split = NamedSharding(self.mesh, PartitionSpec(SLOTS))
        slots, fresh = jax.lax.with_sharding_constraint((slots, fresh), split)
        state = jax.tree.map(
            lambda own, part: jax.lax.with_sharding_constraint(part, split) if own else part,
            per_slot(self.student, state),
            state,
        )
        return self.student.run(key, state, slots, fresh)
