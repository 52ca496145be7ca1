"""Pure functions that define a run: random keys, initial states and the compiled chunk of updates.

All arrays have a leading axis of seeds, `[S, ...]`, even for a single seed.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from rlgen.curriculum import Curriculum
from rlgen.parallel import sharding
from rlgen.runs.curriculum_log import Kept, keep
from rlgen.runs.spec import Plan, RunSpec
from rlgen.types import Key, Keys, Metrics, PyTree, TrainState, UpdateRecord

OWN_STREAM, SHARED_STREAM = 0, 1


class Program(NamedTuple):
    """Functions of a run after compilation."""

    init: Callable[[], TrainState]  # states before the first update, placed on their devices
    place: Callable[[PyTree], TrainState]  # copies restored arrays to the devices of the run
    # Runs one chunk; see `chunk_function`. Its input states are donated.
    chunk: Callable[[TrainState, Any], tuple[TrainState, Metrics, Metrics, Kept | tuple[()]]]


def run_keys(spec: RunSpec) -> tuple[Key, Keys]:
    """Return keys for the initial states, [S], and for training: `own` [S] and `shared` [].

    The keys of seed i depend only on `seed + i`. The shared key depends only on `branch_seed`. One
    run with four seeds therefore uses the same random numbers as four runs with one seed each. The
    results are equal up to floating-point rounding, because a batched program may add numbers in
    another order. Rounding differences grow during training: after many updates the runs differ.
    """
    # The two base keys are folded from different numbers, because a seed can equal the branch seed.
    own, shared = (jax.random.fold_in(jax.random.key(0), s) for s in (OWN_STREAM, SHARED_STREAM))
    numbers = spec.seed + jnp.arange(spec.seeds)
    # [S, 2]: for each seed one key for the initial states and one for training.
    seeds = jax.vmap(lambda number: jax.random.split(jax.random.fold_in(own, number)))(numbers)
    return seeds[:, 0], Keys(seeds[:, 1], jax.random.fold_in(shared, spec.branch_seed))


def initial_states(spec: RunSpec, curriculum: Curriculum) -> TrainState:
    """Initial states of all seeds, [S, ...]."""
    keys, _ = run_keys(spec)
    if spec.seeds == 1:  # no vmap over a single seed, as in `chunk_function`
        return _add_axis(jax.jit(curriculum.init)(keys[0]))
    return jax.jit(jax.vmap(curriculum.init))(keys)


def abstract_states(spec: RunSpec, curriculum: Curriculum) -> TrainState:
    """Shapes and dtypes of the states, [S, ...], without computing them."""
    keys, _ = run_keys(spec)
    return jax.eval_shape(jax.vmap(curriculum.init), keys)


def compile_run(spec: RunSpec, curriculum: Curriculum, length: Plan) -> Program:
    """Compile the chunk of a run for its devices.

    Raises:
        ValueError: There are not enough devices, or neither the seeds nor the slots can be divided
            among the devices.
    """
    mesh = None
    if spec.devices > 1:
        mesh = sharding.make_mesh(spec.devices, spec.seeds, curriculum.num_slots)
    states = abstract_states(spec, curriculum)
    keys = run_keys(spec)[1]
    where = None if mesh is None else sharding.state_shardings(mesh, states, curriculum.student)
    if mesh is not None:
        keys = jax.device_put(keys, sharding.keys_shardings(mesh))
        states = jax.tree.map(_with_sharding, states, where)
    chunk = jax.jit(
        chunk_function(curriculum, length.chunk, mesh, spec.log_levels),
        donate_argnums=0,  # the new states reuse the memory of the old ones
        out_shardings=None if where is None else (where, None, None, None),
    )
    # Compiling from abstract states allocates no memory for a second copy of the states. The update
    # is int32, as in every later call; a Python integer would be weakly typed.
    compiled = chunk.lower(states, keys, jnp.int32(0)).compile()

    def place(tree: PyTree) -> TrainState:
        # `jnp.array` copies the tree, because the chunk donates its input. Without a copy, a device
        # array on CPU may share memory with the numpy array.
        return jax.device_put(jax.tree.map(jnp.array, tree), where)

    return Program(
        init=lambda: place(initial_states(spec, curriculum)),
        place=place,
        chunk=lambda states, update: compiled(states, keys, jnp.int32(update)),
    )


def chunk_function(
    curriculum: Curriculum, num_updates: int, mesh: Mesh | None = None, log_levels: int = 0
) -> Callable[..., tuple[TrainState, Metrics, Metrics, Kept | tuple[()]]]:
    """Build `(states [S], keys, start) -> (states [S], metrics [S, U], finite [S], kept [S, U])`.

    `finite` maps the path of each parameter to whether all values of the parameter are finite.
    `kept` is the data of each update for the curriculum log. The returned function is not jitted.

    Args:
        curriculum: Curriculum to train with.
        num_updates: Number U of updates in a chunk.
        mesh: Devices among which either the seeds or the slots are divided; None for one device.
        log_levels: Number of slots that the curriculum log keeps.
    """
    if mesh is not None and mesh.axis_names == (sharding.SLOTS,):
        student = sharding.over_slots(mesh, curriculum.student)
        curriculum = dataclasses.replace(curriculum, student=student)

    def show(met: UpdateRecord) -> Kept | tuple[()]:
        return keep(met, log_levels)

    def one(ts: TrainState, keys: Keys, start: Any) -> tuple:
        ts, metrics, kept = curriculum.train_and_show(ts, keys, start, num_updates, show)
        return ts, metrics, _finite(ts.student), kept

    def chunk(states: TrainState, keys: Keys, start: Any) -> tuple:
        if keys.own.shape[0] > 1:
            axes: Any = Keys._make((0, None))  # one own key per seed; one shared key for all seeds
            return jax.vmap(one, in_axes=(0, axes, None))(states, keys, start)
        # A vmap axis of size one would only slow down the matrix products.
        first = jax.tree.map(lambda x: x[0], states)
        return _add_axis(one(first, Keys(keys.own[0], keys.shared), start))

    if mesh is not None and mesh.axis_names == (sharding.SEEDS,):
        return sharding.over_seeds(mesh, chunk)
    return chunk


def _finite(student: PyTree) -> Metrics:
    # The device reduces each leaf to one flag, so that no parameters are copied to the host.
    flat = jax.tree_util.tree_flatten_with_path(student)[0]
    return {
        jax.tree_util.keystr(path, simple=True, separator="."): jnp.isfinite(leaf).all()
        for path, leaf in flat
        if jnp.issubdtype(leaf.dtype, jnp.floating)
    }


def _add_axis(tree: PyTree) -> PyTree:
    return jax.tree.map(lambda x: x[None], tree)


def _with_sharding(leaf: jax.ShapeDtypeStruct, where: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where)
