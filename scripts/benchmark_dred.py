"""Cost of DRED on caves: a cycle of two updates, the proposals, and fitting the generative model.

A cycle consists of an update that replays levels and trains the agent, and an update that evaluates
the same number of proposals. Sizes are those of the code of Garcin et al., 2024: 36 actors, 256
steps, five epochs, an LSTM of 256 units, and a buffer of 4,000 levels.
"""

import dataclasses
import resource
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from rlgen.runs.spec import RunSpec, build
from rlgen.types import Keys

CYCLE = 2 * 36 * 256
"""Env steps of a cycle."""


def measure_cycle(recipe: str) -> dict[str, float]:
    """Measure a cycle after all levels of the set have been played, best of five."""
    # One epoch of fitting is enough, because the cost of a cycle does not depend on the fit.
    curriculum = _method(recipe, num_epochs=1)
    num_warm = -(-len(curriculum.sampler.level_set) // curriculum.num_slots)
    warm = num_warm + num_warm % 2
    keys = Keys(jax.random.key(1), jax.random.key(2))
    train = jax.jit(curriculum.train, static_argnums=3, donate_argnums=0)
    state = jax.jit(curriculum.init)(jax.random.key(0))
    state, _ = jax.block_until_ready(train(state, keys, jnp.int32(0), warm))

    def cycle(i: int) -> None:
        nonlocal state
        state, _ = jax.block_until_ready(train(state, keys, jnp.int32(warm + 2 * i), 2))

    cpu, wall = _best(cycle, 6)
    return {
        "CPU-s a cycle": cpu,
        "wall s a cycle": wall,
        "env steps per CPU-s": CYCLE / cpu,
        "env steps per wall s": CYCLE / wall,
    }


def measure_proposals(repeats: int = 20) -> dict[str, float]:
    """Measure 36 proposals (interpolation of latents, decoding and hashing), best of five."""
    curriculum = _method("dred", num_epochs=1)
    source, env = curriculum.sampler.source, curriculum.sampler.env
    state = jax.jit(source.init)(jax.random.key(0))

    @jax.jit
    def propose(key: jax.Array) -> Any:
        level, _ = source.model.propose(key, state.fitted, curriculum.num_slots)
        return level, jax.vmap(env.level_hash)(level)

    def some(i: int) -> None:
        for j in range(repeats):
            jax.block_until_ready(propose(jax.random.fold_in(jax.random.key(i), j)))

    cpu, wall = _best(some, 6)
    return {"CPU-ms for 36": 1000 * cpu / repeats, "wall ms for 36": 1000 * wall / repeats}


def measure_fit() -> dict[str, float]:
    """Measure the fit of the graph VAE to the 512 levels of `cave/train`, including compilation."""
    curriculum = _method("dred")
    source = curriculum.sampler.source
    start, wall = _cpu_seconds(), time.perf_counter()
    jax.block_until_ready(jax.jit(source.init)(jax.random.key(0)))
    return {"CPU-s": _cpu_seconds() - start, "wall s": time.perf_counter() - wall}


def _method(recipe: str, num_epochs: int = 0) -> Any:
    spec = RunSpec(recipe=recipe, env="cave", preset="parity", steps=10**9)
    if num_epochs and recipe == "dred":
        spec = dataclasses.replace(spec, overrides={"sampler.source.model.num_epochs": num_epochs})
    return build(spec)[1]


def _best(run: Callable[[int], None], times: int) -> tuple[float, float]:
    """Return the smallest CPU and wall seconds of several calls, excluding the first call."""
    timed = []
    for i in range(times):
        before, wall = _cpu_seconds(), time.perf_counter()
        run(i)
        timed.append((_cpu_seconds() - before, time.perf_counter() - wall))
    cpu, wall = zip(*timed[1:], strict=True)
    return min(cpu), min(wall)


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
