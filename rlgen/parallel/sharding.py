"""Distribution of seeds or slots over devices.

If the number of seeds is a multiple of the number of devices, each device runs its own seeds
without communication. Otherwise the slots are split: each device plays the levels of a part of the
slots, and all devices hold the same parameters. XLA inserts the sums of gradients over devices. The
random numbers do not depend on the devices. The results are equal up to rounding, and rounding
differences grow during training.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Bool

from rlgen.protocols import Learner, LevelEnv, Student
from rlgen.types import Key, Keys, Metrics, Outcome, PyTree, Slots, TrainState

SEEDS, SLOTS = "seeds", "slots"


def make_mesh(num_devices: int, seeds: int, num_slots: int) -> Mesh:
    """Make a mesh with one axis: `seeds` if each device gets equally many seeds, else `slots`.

    Raises:
        ValueError: there are too few devices, or the number of devices divides neither the number
            of seeds nor the number of slots.
    """
    devices = jax.devices()
    if num_devices > len(devices):
        raise ValueError(
            f"devices={num_devices}, but there are {len(devices)} ({devices[0].platform}); request "
            "at most this number. (The command line turns each CPU core into a device. In Python, "
            "call jax.config.update('jax_num_cpu_devices', N) before anything else.)"
        )
    # A split of the seeds is preferred, because it needs no communication.
    split_seeds = seeds > 1 and seeds % num_devices == 0
    if not split_seeds and num_slots % num_devices:
        raise ValueError(
            f"devices={num_devices} divides neither the {seeds} seeds nor num_slots={num_slots}; "
            f"make one of them a multiple of {num_devices}"
        )
    chosen = np.asarray(devices[:num_devices])
    return Mesh(chosen, (SEEDS if split_seeds else SLOTS,), axis_types=(AxisType.Auto,))


def state_shardings(mesh: Mesh, states: TrainState, student: Student) -> TrainState:
    """Sharding of each leaf `[S, ...]` of the training state.

    Args:
        mesh: see `make_mesh`.
        states: training state of S seeds, as arrays or shapes.
        student: student of the run; it determines which leaves have an axis of slots.
    """

    def place(tree: PyTree, *axes: str | None) -> PyTree:
        return jax.tree.map(lambda _: NamedSharding(mesh, PartitionSpec(*axes)), tree)

    if mesh.axis_names == (SEEDS,):
        return place(states, SEEDS)
    # Axis 0 has the seeds, and axis 1 has the slots.
    own = jax.tree.map(
        lambda split, part: place(part, *((None, SLOTS) if split else ())),
        per_slot(student, states.student),
        states.student,
    )
    # Any slot may read or replace any row of the sampler's buffer, so every device holds a copy of
    # the sampler's state.
    return TrainState(
        student=own,
        sampler=place(states.sampler),
        slots=place(states.slots, None, SLOTS),
        free=place(states.free, None, SLOTS),
    )


def per_slot(student: Student, state: PyTree) -> PyTree:
    """Tree prefix of a student's state, True for parts whose leading axis runs over the slots."""
    return student.per_slot(state)


def keys_shardings(mesh: Mesh) -> Keys:
    """Shardings of the keys of a run; `own` is `[S]`."""
    # `shared` has no axis of seeds, so all devices make the same decisions.
    own = PartitionSpec(SEEDS) if mesh.axis_names == (SEEDS,) else PartitionSpec()
    return Keys._make((NamedSharding(mesh, own), NamedSharding(mesh, PartitionSpec())))


def over_seeds(mesh: Mesh, chunk: Callable[..., tuple]) -> Callable[..., tuple]:
    """Split the seeds of a chunk of updates over the devices; each device runs its own loop.

    Args:
        mesh: mesh with the axis `seeds`.
        chunk: `(states [S], keys, start) -> (states [S], metrics [S, ...], checks [S, ...])`.
    """
    split, whole = PartitionSpec(SEEDS), PartitionSpec()
    return jax.shard_map(
        chunk,
        mesh=mesh,
        in_specs=(split, Keys(split, whole), whole),  # pyright: ignore[reportArgumentType]
        out_specs=split,
        check_vma=False,  # the check treats the constants at the start of loops as replicated
    )


def over_slots(mesh: Mesh, student: Student) -> Student:
    """Return the student with its slots split over the devices.

    A student that has a separate loop for each slot offers `Student.split_over`. In this case the
    student splits the slots itself.
    """
    own = student.offers(Student.split_over)
    return student.split_over(mesh) if own else SplitSlots(student, mesh)


@dataclass(frozen=True)
class SplitSlots(Student):
    """Student whose slots are split over a mesh; XLA places all other arrays.

    The sharding constraint is applied in every update, because levels are resampled and new levels
    do not inherit the placement of the initial levels.
    """

    student: Student
    mesh: Mesh

    @property
    def env(self) -> LevelEnv:
        """The student's environment."""
        return self.student.env

    @property
    def gives(self) -> frozenset[str]:
        """Fields of `Outcome` that the student fills."""
        return self.student.gives

    @property
    def num_steps(self) -> int:
        """The student's env steps per slot and update."""
        return self.student.num_steps

    @property
    def population(self) -> int:
        """The student's number of learners."""
        return self.student.population

    @property
    def train_share(self) -> float:
        """Fraction of the slots that the student can learn from."""
        return self.student.train_share

    @property
    def max_levels_per_slot(self) -> int | None:
        """The student's maximum number of levels per slot."""
        return self.student.max_levels_per_slot

    @property
    def full_lifetime(self) -> bool:
        """True if the student trains agents for whole lifetimes."""
        return self.student.full_lifetime

    @property
    def averaged_over(self) -> Mapping[str, str]:
        """The student's metrics that are means over a count, with the names of the counts."""
        return self.student.averaged_over

    def check(self, num_slots: int) -> None:
        """Reject slot counts that the student does not support."""
        self.student.check(num_slots)

    def per_slot(self, state: PyTree) -> PyTree:
        """True for the parts of the state with an axis of slots; see `Student.per_slot`."""
        return self.student.per_slot(state)

    def init(self, key: Key, num_slots: int) -> PyTree:
        """Initial state of the student."""
        return self.student.init(key, num_slots)

    def policy(self, states: PyTree) -> tuple[Learner, PyTree]:
        """The student's learner and its states; see `Student.policy`."""
        return self.student.policy(states)

    def run(
        self, key: Key, state: PyTree, slots: Slots, fresh: Bool[Array, " N"]
    ) -> tuple[PyTree, Outcome, Metrics]:
        """Play the slots and learn from them; each device plays its own slots."""
        split = NamedSharding(self.mesh, PartitionSpec(SLOTS))
        slots, fresh = jax.lax.with_sharding_constraint((slots, fresh), split)
        state = jax.tree.map(
            lambda own, part: jax.lax.with_sharding_constraint(part, split) if own else part,
            per_slot(self.student, state),
            state,
        )
        return self.student.run(key, state, slots, fresh)
