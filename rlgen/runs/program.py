"""A run as pure functions: its keys, its first state, and the compiled chunk of updates.

Everything here has a leading axis of seeds, `[S, ...]`, also for one seed.
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
    """What is compiled for a run."""

    init: Callable[[], TrainState]  # states before the first update, placed on their devices
    place: Callable[[PyTree], TrainState]  # puts restored arrays where the chunk wants them
    chunk: Callable[[TrainState, Any], tuple[TrainState, Metrics, Metrics, Kept | tuple[()]]]
    # donates the states; see `chunk_function`


def run_keys(spec: RunSpec) -> tuple[Key, Keys]:
    """Keys for the first states `[S]`, and for training: `own [S]`, `shared []`.

    Seed i depends on `seed + i` alone and the shared key on `branch_seed` alone, so that one run of
    four seeds is four runs of one.
    """
    own, shared = (jax.random.fold_in(jax.random.key(0), s) for s in (OWN_STREAM, SHARED_STREAM))
    numbers = spec.seed + jnp.arange(spec.seeds)
    seeds = jax.vmap(lambda number: jax.random.split(jax.random.fold_in(own, number)))(numbers)
    return seeds[:, 0], Keys(seeds[:, 1], jax.random.fold_in(shared, spec.branch_seed))


def initial_states(spec: RunSpec, curriculum: Curriculum) -> TrainState:
    """States before the first update, [S, ...]."""
    keys, _ = run_keys(spec)
    if spec.seeds == 1:
        return _add_axis(jax.jit(curriculum.init)(keys[0]))
    return jax.jit(jax.vmap(curriculum.init))(keys)


def abstract_states(spec: RunSpec, curriculum: Curriculum) -> TrainState:
    """Shapes and dtypes of the states, [S, ...]."""
    keys, _ = run_keys(spec)
    return jax.eval_shape(jax.vmap(curriculum.init), keys)


def compile_run(spec: RunSpec, curriculum: Curriculum, length: Plan) -> Program:
    """Compile the chunk of a run, for its devices.

    Raises:
        ValueError: the devices are not there, or neither seeds nor slots divide among them.
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
        donate_argnums=0,
        out_shardings=None if where is None else (where, None, None, None),
    )
    compiled = chunk.lower(states, keys, jnp.int32(0)).compile()

    def place(tree: PyTree) -> TrainState:
        # The chunk donates its input: it must own fresh buffers, never a view of host memory.
        return jax.device_put(jax.tree.map(jnp.array, tree), where)

    return Program(
        init=lambda: place(initial_states(spec, curriculum)),
        place=place,
        chunk=lambda states, update: compiled(states, keys, jnp.int32(update)),
    )


def chunk_function(
    curriculum: Curriculum, num_updates: int, mesh: Mesh | None = None, log_levels: int = 0
) -> Callable[..., tuple[TrainState, Metrics, Metrics, Kept | tuple[()]]]:
    """`(states [S], keys, start) -> (states [S], metrics [S, U], finite [S], kept [S, U])`.

    `finite` says of every parameter whether it is still a number, by its path; `kept` is what the
    curriculum log holds of each update. Not jitted.
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
            axes: Any = Keys._make((0, None))  # every seed has its own key, all share the other
            return jax.vmap(one, in_axes=(0, axes, None))(states, keys, start)
        # A vmap axis of one would only slow the matrix products down.
        first = jax.tree.map(lambda x: x[0], states)
        return _add_axis(one(first, Keys(keys.own[0], keys.shared), start))

    if mesh is not None and mesh.axis_names == (sharding.SEEDS,):
        return sharding.over_seeds(mesh, chunk)
    return chunk


def _finite(student: PyTree) -> Metrics:
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
