"""Speed of stepping and training on this machine: `make benchmark`, or one case by its name.

Every case runs in its own process, so that peak memory and compile times are its own. Rates are
given per CPU-second, which bears company on a shared machine better than wall time; wall time
stands beside it. Ratios are formed between cases of one call.
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
    """1,024 mazes under a uniform random policy."""
    from benchmark_maze import measure_stepping

    result = measure_stepping(observation)
    return {"env steps per CPU-s": result["per_cpu_second"]}


def training(
    recipe: str, preset: str, overrides: dict[str, Any] = NONE, *, seeds: int = 1, devices: int = 1
) -> dict[str, float]:
    """One chunk of updates of a recipe, timed after a first one; compilation apart."""
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
    start = time.perf_counter()
    compiled = program.compile_run(spec, curriculum, length)
    compile_seconds = time.perf_counter() - start
    states = compiled.init()
    timed = []
    for i in range(6):
        before, wall = _cpu_seconds(), time.perf_counter()
        states, _, _ = jax.block_until_ready(compiled.chunk(states, i * num_updates))
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


CASES: dict[str, Callable[[], dict[str, float]]] = {
    "stepping, packed": lambda: stepping("packed"),
    "stepping, image": lambda: stepping("image"),
    "parity DR": lambda: training("dr", "parity"),
    "parity DR, 1 epoch": lambda: training("dr", "parity", {"student.learner.num_epochs": 1}),
    "parity robust PLR, a cycle that does not train": lambda: training(
        "robust-plr", "parity", {"sampler.replay_prob": 0.0}
    ),
    "parity DR, 4 seeds": lambda: training("dr", "parity", seeds=4),
    "parity DR, 2 devices (slots)": lambda: training("dr", "parity", devices=2),
    "parity DR, 2 seeds": lambda: training("dr", "parity", seeds=2),
    "parity DR, 2 seeds on 2 devices": lambda: training("dr", "parity", seeds=2, devices=2),
    "fast DR": lambda: training("dr", "fast"),
    "fast PLR": lambda: training("plr", "fast"),
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the named cases, or all, and print a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("case", nargs="*", help=f"any of: {'; '.join(CASES)}; default: all")
    parser.add_argument("--json", action="store_true", help="measure one case in this process")
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
