"""Cost of learning an update rule: a rollout, a meta-step, the antagonist, memory.

A life here is of 250 updates, as in the published setting, and the agents' ages are spread evenly.
The timed chunks are as many meta-steps as a life is long, so that in each of them every agent dies
once, is judged and is replaced: what happens seldom is in the figures at its true share.
"""

import resource
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from rlgen.algos.meta._lives import give_birth, play
from rlgen.curriculum import Curriculum
from rlgen.runs.spec import RunSpec, build
from rlgen.tasks import Task
from rlgen.types import Keys

LIFETIME, AGENTS, WORKERS, STEPS, INNER, WIDTH = 250, 8, 64, 20, 5, 256
MIB = 2**20


def measure_rollout(repeats: int = 100) -> dict[str, float]:
    """20 steps of 8 agents that are tables, with 64 workers each, best of five."""
    student: Any = _method("lpg", AGENTS).student
    key = jax.random.key(0)
    level = jax.vmap(student.env.sample_level)(jax.random.split(key, AGENTS))
    task = Task(level, jnp.full(AGENTS, LIFETIME, jnp.int32))
    folk = jax.jit(lambda: give_birth(student, key, task, jnp.zeros(AGENTS, jnp.int32)))()

    @jax.jit
    def run(keys: jax.Array, running: Any) -> Any:
        return play(student, keys, student.pupil, folk.agents, level, running)

    keys = jax.random.split(key, AGENTS)
    running = jax.block_until_ready(run(keys, folk.running))[1]
    timed = []
    for _ in range(5):
        before = _cpu_seconds()
        for _ in range(repeats):
            _, running = jax.block_until_ready(run(keys, running))
        timed.append((_cpu_seconds() - before) / repeats)
    return {"CPU-ms a rollout": 1000 * min(timed)}


def measure_meta_step(recipe: str, overrides: dict[str, Any] | None = None) -> dict[str, float]:
    """A meta-step, mean over a whole life, best of two such chunks after a first one."""
    method = _method(recipe, AGENTS, overrides or {})
    num = LIFETIME // INNER
    keys = Keys(jax.random.key(1), jax.random.key(2))
    train = jax.jit(partial(method.train, num_updates=num), donate_argnums=0)
    state = jax.jit(method.init)(jax.random.key(0))
    timed, metrics = [], {}
    for i in range(3):
        before = _cpu_seconds()
        state, metrics = jax.block_until_ready(train(state, keys, jnp.int32(i * num)))
        timed.append((_cpu_seconds() - before) / num)
    return {
        "CPU-s a meta-step": min(timed[1:]),
        "CPU-s an agent": min(timed[1:]) / AGENTS,
        "lives ended": float(metrics["lives_ended"].sum()),
        "returns computed": float(metrics["returns_computed"].sum()),
        "env steps of antagonists": float(metrics["steps_antagonist"].sum()),
    }


def measure_memory(overrides: dict[str, Any] | None = None) -> dict[str, float]:
    """Memory that the compiled meta-step asks for, of one agent more: the slope from 8 to 16.

    Everything counts: the agents themselves, their level and workers, and what is kept for the
    backward pass.
    """
    total = {}
    for num in (AGENTS, 2 * AGENTS):
        method = _method("lpg", num, overrides or {})
        keys = Keys(jax.random.key(1), jax.random.key(2))
        state = jax.eval_shape(method.init, jax.random.key(0))
        train = jax.jit(partial(method.train, num_updates=1), donate_argnums=0)
        needs: Any = train.lower(state, keys, jnp.int32(0)).compile().memory_analysis()
        total[num] = needs.temp_size_in_bytes + needs.argument_size_in_bytes
    return {"MiB an agent": (total[2 * AGENTS] - total[AGENTS]) / AGENTS / MIB}


def _method(recipe: str, num_agents: int, overrides: dict[str, Any] | None = None) -> Curriculum:
    """The published sizes on random grid worlds."""
    fields = {
        "num_slots": num_agents,
        "student.num_workers": WORKERS,
        "student.rollout_steps": STEPS,
        "student.num_inner_updates": INNER,
        "student.rule.hidden_size": WIDTH,
    }
    spec = RunSpec(recipe, "gridworld", "strong", overrides=fields | (overrides or {}))
    return build(spec)[1]


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
