"""Cost of meta-training an update rule: time of rollouts, meta-steps and generations, and memory.

A lifetime has 250 updates, as in the preset `parity`, and the agents' ages are uniformly
distributed. A timed chunk has as many meta-steps as a lifetime needs, so that every agent is
evaluated and replaced once in a chunk. Work that is rarely done is thus included in the right
proportion.
"""

import resource
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from rlgen.algos.meta.meta_gradient import play, spawn_agents
from rlgen.curriculum import Curriculum
from rlgen.runs.spec import RunSpec, build
from rlgen.types import Keys, Task

LIFETIME, AGENTS, WORKERS, STEPS, INNER, WIDTH = 250, 8, 64, 20, 5, 256
MIB = 2**20


def measure_rollout(repeats: int = 100) -> dict[str, float]:
    """Measure a rollout of 20 steps of 8 tabular agents with 64 workers each, best of five."""
    student: Any = _method("lpg", AGENTS).student
    key = jax.random.key(0)
    level = jax.vmap(student.env.sample_level)(jax.random.split(key, AGENTS))
    task = Task(level, jnp.full(AGENTS, LIFETIME, jnp.int32))
    population = jax.jit(lambda: spawn_agents(student, key, task, jnp.zeros(AGENTS, jnp.int32)))()

    @jax.jit
    def run(keys: jax.Array, running: Any) -> Any:
        return play(student, keys, student.inner_agent, population.agents, level, running)

    keys = jax.random.split(key, AGENTS)
    running = jax.block_until_ready(run(keys, population.running))[1]
    timed = []
    for _ in range(5):
        before = _cpu_seconds()
        for _ in range(repeats):
            _, running = jax.block_until_ready(run(keys, running))
        timed.append((_cpu_seconds() - before) / repeats)
    return {"CPU-ms a rollout": 1000 * min(timed)}


def measure_meta_step(recipe: str, overrides: dict[str, Any] | None = None) -> dict[str, float]:
    """Measure the mean cost of a meta-step over a lifetime, as the best of two chunks.

    An additional first chunk is not counted.
    """
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
        "lives ended": float(metrics["lifetimes_ended"].sum()),
        "returns computed": float(metrics["returns_computed"].sum()),
        "env steps of antagonists": float(metrics["steps_antagonist"].sum()),
    }


def measure_memory(overrides: dict[str, Any] | None = None) -> dict[str, float]:
    """Measure the memory of a compiled meta-step per agent, by comparing 16 agents with 8.

    The memory includes the agent, its level, its workers, and all values stored for the backward
    pass.
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


def measure_evolution(width: int = WIDTH, pairs: int = 4, generations: int = 3) -> dict[str, float]:
    """Measure generations of TA-LPG with log-uniform lifetimes from 10 to 250 updates.

    The rule's recurrent matrix products are also measured alone, with the same shapes as in a
    generation. The time of these products is a lower bound on the cost of a generation.
    """
    fields = {
        "num_slots": pairs,
        "student.pair_batch_size": 1,
        "student.num_workers": WORKERS,
        "student.rollout_steps": STEPS,
        "student.learner.net.hidden_size": width,
    }
    method = build(RunSpec("ta-lpg", "gridworld", "strong", overrides=fields))[1]
    keys = Keys(jax.random.key(1), jax.random.key(2))
    state = jax.jit(method.init)(jax.random.key(0))
    compiled = jax.jit(method.train, static_argnums=3).lower(state, keys, jnp.int32(0), 1).compile()
    used, useful, executed = 0.0, 0.0, 0.0
    for i in range(generations):
        before = _cpu_seconds()
        state, metrics = jax.block_until_ready(compiled(state, keys, jnp.int32(i)))
        used += _cpu_seconds() - before
        useful += float(metrics["steps_train"].sum())
        executed += float((metrics["steps_train"] + metrics["steps_surplus"]).sum())
    floor = _seconds_of_products(width, 2_000) / (2_000 * WORKERS)
    return {
        "useful env steps a CPU-s": useful / used,
        "useful share of those executed": useful / executed,
        "share of the time that the products need": floor * executed / used,
    }


def measure_ask_and_tell(population: int = 512, size: int = 50_000) -> dict[str, float]:
    """Measure a generation of OpenES with `Strategy` and with evosax alone, best of five."""
    import optax
    from evosax.algorithms import Open_ES
    from evosax.core.fitness_shaping import centered_rank_fitness_shaping_fn

    from rlgen.algos.meta.evosax_strategy import Strategy

    like, key = jnp.zeros(size), jax.random.key(0)
    strategy = Strategy()
    alone = Open_ES(
        population,
        like,
        optimizer=optax.adam(0.01, b1=0.99),
        std_schedule=optax.constant_schedule(0.1),
        fitness_shaping_fn=centered_rank_fitness_shaping_fn,
        metrics_fn=lambda *_: {},
    )

    def ours(state: Any) -> Any:
        candidates, state = strategy.ask(key, state, like, population)
        return strategy.tell(key, state, candidates, candidates[:, 0])

    def theirs(state: Any) -> Any:
        candidates, state = alone.ask(key, state, alone.default_params)
        return alone.tell(key, candidates, candidates[:, 0], state, alone.default_params)[0]

    states = {
        "ours": (ours, strategy.init(key, like, population)),
        "evosax": (theirs, alone.init(key, like, alone.default_params)),
    }
    best = {name: _best(jax.jit(step), state) for name, (step, state) in states.items()}
    return {
        **{f"CPU-s, {name}": x for name, x in best.items()},
        "ratio": best["ours"] / best["evosax"],
    }


def _best(step: Any, state: Any, repeats: int = 5) -> float:
    timed = []
    for _ in range(repeats + 1):  # the first compiles
        before = _cpu_seconds()
        state = jax.block_until_ready(step(state))
        timed.append(_cpu_seconds() - before)
    return min(timed[1:])


def _seconds_of_products(width: int, steps: int) -> float:
    """Return the CPU-seconds of `steps` successive recurrent products for one agent's workers."""
    weights = jnp.eye(width, 3 * width)

    @jax.jit
    def run(x: jax.Array) -> jax.Array:
        return jax.lax.fori_loop(0, steps, lambda _, h: (h @ weights)[:, :width], x)

    return _best(run, jnp.ones((WORKERS, width)))


def _method(recipe: str, num_agents: int, overrides: dict[str, Any] | None = None) -> Curriculum:
    """Return the curriculum of a recipe on random grid worlds, with the sizes of this module."""
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
