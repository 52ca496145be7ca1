"""Speed of stepping and training on this machine: `make benchmark`, or single cases by name.

Every case runs in its own process, so that other cases do not affect its peak memory or its compile
time. Rates are given per CPU-second and per second of wall time. On a shared machine, other
processes affect CPU time less than wall time. Compare only cases that were measured in the same
call of this script.
"""

import argparse
import dataclasses
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from types import MappingProxyType
from typing import Any, Literal

MIB = 2**20
NONE: Any = MappingProxyType({})


def stepping(observation: Literal["packed", "image"]) -> dict[str, float]:
    """Measure 1,024 mazes stepped by a uniform random policy."""
    from benchmark_maze import measure_stepping

    result = measure_stepping(observation)
    return {"env steps per CPU-s": result["per_cpu_second"]}


def training(
    recipe: str,
    preset: str,
    overrides: dict[str, Any] = NONE,
    *,
    seeds: int = 1,
    devices: int = 1,
    change: Callable[[Any], Any] = lambda curriculum: curriculum,
) -> dict[str, float]:
    """Measure the fastest of five chunks of updates of a recipe, and time its compilation."""
    import jax

    if devices > 1:
        jax.config.update("jax_num_cpu_devices", devices)
    from rlgen.runs import program
    from rlgen.runs.spec import RunSpec, build, plan

    num_updates = 2 if preset == "parity" else 1
    spec = RunSpec(recipe=recipe, preset=preset, steps=1, seeds=seeds, devices=devices)
    _, curriculum = build(dataclasses.replace(spec, overrides=overrides))
    per_update = plan(spec, curriculum).steps_per_update
    spec = dataclasses.replace(spec, steps=num_updates * per_update, chunk=num_updates)
    spec = dataclasses.replace(spec, overrides=overrides)
    length = plan(spec, curriculum)
    curriculum = change(curriculum)
    start = time.perf_counter()
    compiled = program.compile_run(spec, curriculum, length)
    compile_seconds = time.perf_counter() - start
    states = compiled.init()
    timed = []
    for i in range(6):
        before, wall = _cpu_seconds(), time.perf_counter()
        states, *_ = jax.block_until_ready(compiled.chunk(states, i * num_updates))
        timed.append((_cpu_seconds() - before, time.perf_counter() - wall))
    cpu, wall = (min(column) / num_updates for column in zip(*timed[1:], strict=True))
    steps = per_update * seeds
    return {
        "CPU-s an update": cpu,
        "wall s an update": wall,
        "env steps per CPU-s": steps / cpu,
        "env steps per wall s": steps / wall,
        "compile s": compile_seconds,
        "peak MiB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / MIB,
    }


def buffer_insertion() -> dict[str, float]:
    """Measure the insertion of 32 mazes into a full buffer of 4,000, as a batch and one by one."""
    import jax
    import jax.numpy as jnp

    from rlgen.buffer import Arrivals, Priority, insert, make_buffer
    from rlgen.envs.maze import Maze

    env, capacity, num = Maze(), 4000, 32
    num_batches = capacity // num + 20
    sample = jax.jit(jax.vmap(env.sample_level))

    def arrivals(i: int) -> Arrivals:
        key_level, key_score = jax.random.split(jax.random.key(i))
        level = sample(jax.random.split(key_level, num))
        hashes = jax.vmap(env.level_hash)(level)
        score = jax.random.uniform(key_score, (num,))
        return Arrivals(level, score, score, hashes, jnp.ones(num, bool))

    offered = jax.tree.map(lambda *x: jnp.stack(x), *(arrivals(i) for i in range(num_batches)))
    found = {}
    for name, sequential in (("at once", False), ("one by one", True)):

        def put(buffer: Any, arrivals: Arrivals, sequential: bool = sequential) -> Any:
            free = jnp.zeros(capacity, bool)
            return insert(buffer, arrivals, Priority(), free, sequential=sequential)

        run = jax.jit(put, donate_argnums=0)
        buffer = make_buffer(capacity, env.default_params, jnp.float32(0.0))
        timed = []
        for i in range(num_batches):
            batch = jax.tree.map(lambda x, i=i: x[i], offered)
            jax.block_until_ready(batch)
            start = time.perf_counter()
            buffer = jax.block_until_ready(run(buffer, batch))
            timed.append(time.perf_counter() - start)
        found[f"wall ms, {name}"] = 1000 * min(timed[-20:])
    return found


def learned_rules(what: str, *args: Any) -> dict[str, float]:
    """Call a function of `benchmark_meta` by name."""
    import benchmark_meta

    return getattr(benchmark_meta, f"measure_{what}")(*args)


def bonuses(what: str, env: str) -> dict[str, float]:
    """Call a function of `benchmark_bonuses` by name."""
    import benchmark_bonuses

    return getattr(benchmark_bonuses, f"measure_{what}")(env)


def dred(what: str, *args: Any) -> dict[str, float]:
    """Call a function of `benchmark_dred` by name."""
    import benchmark_dred

    return getattr(benchmark_dred, f"measure_{what}")(*args)


def evaluation(suite: str, seeds: int, attempts: int) -> dict[str, float]:
    """Measure the zero-shot evaluation of untrained agents on a suite of mazes."""
    from benchmark_evaluation import measure_evaluation

    return measure_evaluation(suite, seeds, attempts)


def _published_teacher(curriculum: Any) -> Any:
    """Give PAIRED a teacher as large as JaxUED's: 128 convolution filters and an LSTM of 256."""
    from rlgen.nn.actor_critic import ActorCritic

    network = ActorCritic(core="lstm", hidden_size=256, conv_features=128, vector_features=10)
    sampler = curriculum.sampler
    teacher = dataclasses.replace(sampler.teacher, network=network)
    return dataclasses.replace(curriculum, sampler=dataclasses.replace(sampler, teacher=teacher))


CASES: dict[str, Callable[[], dict[str, float]]] = {
    "stepping, packed": lambda: stepping("packed"),
    "stepping, image": lambda: stepping("image"),
    "parity DR": lambda: training("dr", "parity"),
    "parity DR, 1 epoch": lambda: training("dr", "parity", {"student.learner.num_epochs": 1}),
    "parity robust PLR, a cycle that does not train": lambda: training(
        "robust-plr", "parity", {"sampler.decision.replay_prob": 0.0}
    ),
    "parity DR, 4 seeds": lambda: training("dr", "parity", seeds=4),
    "parity DR, 2 devices (slots)": lambda: training("dr", "parity", devices=2),
    "parity DR, 2 seeds": lambda: training("dr", "parity", seeds=2),
    "parity DR, 2 seeds on 2 devices": lambda: training("dr", "parity", seeds=2, devices=2),
    "parity robust PLR, a cycle that trains": lambda: training(
        "robust-plr", "parity", {"sampler.min_fill": 0.0, "sampler.decision.replay_prob": 1.0}
    ),
    "parity ACCEL, replay and mutants in turn": lambda: training(
        "accel", "parity", {"sampler.min_fill": 0.0, "sampler.decision.replay_prob": 1.0}
    ),
    "parity PLR, 10 seeds": lambda: training("plr", "parity", seeds=10),
    "parity PLR": lambda: training("plr", "parity"),
    "parity PAIRED": lambda: training("paired", "parity"),
    "parity PAIRED, the published teacher's size": lambda: training(
        "paired", "parity", change=_published_teacher
    ),
    "32 levels into a buffer of 4,000": buffer_insertion,
    "20 steps of 8 tabular agents, 64 workers each": lambda: learned_rules("rollout"),
    "LPG meta-step, 8 agents, rule of 256 units": lambda: learned_rules("meta_step", "lpg"),
    "LPG meta-step, 8 agents, rule of 256 units, rematerialised": lambda: learned_rules(
        "meta_step", "lpg", {"student.remat": True}
    ),
    "GROOVE meta-step, an antagonist for every agent": lambda: learned_rules(
        "meta_step", "groove", {"sampler.decision.replay_prob": 0.0}
    ),
    "TA-LPG, complete lifetimes, rule of 256 units": lambda: learned_rules("evolution"),
    "TA-LPG, complete lifetimes, rule of 32 units": lambda: learned_rules("evolution", 32),
    "OpenES ask and tell, 512 x 50,000": lambda: learned_rules("ask_and_tell"),
    "LPG meta-step, memory": lambda: learned_rules("memory"),
    "LPG meta-step, memory, rematerialised": lambda: learned_rules(
        "memory", {"student.remat": True}
    ),
    "DRED, parity, a cycle on caves": lambda: dred("cycle", "dred"),
    "EL-DRED, parity, a cycle on caves": lambda: dred("cycle", "el-dred"),
    "36 proposals of a graph VAE": lambda: dred("proposals"),
    "fitting a graph VAE on 512 caves": lambda: dred("fit"),
    "PPO with and without bonuses, on mazes": lambda: bonuses("overheads", "maze"),
    "stepping rooms": lambda: bonuses("stepping", "rooms"),
    "stepping corridors": lambda: bonuses("stepping", "corridors"),
    "stepping keyroom": lambda: bonuses("stepping", "keyroom"),
    "stepping rho-rooms": lambda: bonuses("stepping", "rho-rooms"),
    "stepping vault": lambda: bonuses("stepping", "vault"),
    "stepping houses": lambda: bonuses("stepping", "houses"),
    "stepping key-corridor": lambda: bonuses("stepping", "key-corridor"),
    "stepping obstructed-maze": lambda: bonuses("stepping", "obstructed-maze"),
    "3 seeds x 100 attempts x 8 mazes": lambda: evaluation("maze/heldout", 3, 100),
    "10 seeds x 10 attempts x 10 mazes of 101 x 101": lambda: evaluation(
        "maze/perfect-101", 10, 10
    ),
    "fast DR": lambda: training("dr", "fast"),
    "fast PLR": lambda: training("plr", "fast"),
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure the named cases, by default all cases, and print a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "case", nargs="*", help=f"cases to measure: {'; '.join(CASES)} (default: all)"
    )
    parser.add_argument(
        "--json",
        action="store_true",
        help="measure only the first named case, in this process, and print JSON",
    )
    options = parser.parse_args(arguments)
    names = options.case or list(CASES)
    if unknown := [name for name in names if name not in CASES]:
        parser.error(f"unknown case {unknown[0]!r}; known: {'; '.join(CASES)}")
    if options.json:
        print(json.dumps(CASES[names[0]]()))
        return
    columns: list[str] = []
    rows = {name: _in_own_process(name) for name in names}
    for row in rows.values():
        columns += [column for column in row if column not in columns]
    print(f"| case | {' | '.join(columns)} |")
    print("|---" * (len(columns) + 1) + "|")
    for name, row in rows.items():
        cells = (f"{row[c]:,.2f}" if c in row and row[c] < 100 else _whole(row, c) for c in columns)
        print(f"| {name} | {' | '.join(cells)} |")


def _in_own_process(name: str) -> dict[str, float]:
    print(f"measuring {name} ...", file=sys.stderr, flush=True)
    command = [sys.executable, __file__, "--json", name]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def _whole(row: dict[str, float], column: str) -> str:
    return f"{row[column]:,.0f}" if column in row else ""


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
