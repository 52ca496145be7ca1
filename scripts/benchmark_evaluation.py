"""Speed of zero-shot evaluation: time to play all episodes of a suite."""

import dataclasses
import resource
import time

from rlgen.evaluation.suites import load_suite
from rlgen.evaluation.zero_shot import Policies, evaluate
from rlgen.runs import program
from rlgen.runs.spec import RunSpec, build

MIB = 2**20


def measure_evaluation(suite: str, seeds: int, attempts: int) -> dict[str, float]:
    """Measure the evaluation of untrained policies with the preset `fast`.

    Most episodes of untrained policies last until the time limit. The reported time is that of a
    second evaluation. The time of the first evaluation, which includes compilation, is reported
    separately.
    """
    spec = RunSpec(recipe="plr", preset="fast", seeds=seeds)
    env, curriculum = build(spec)
    states = program.initial_states(dataclasses.replace(spec, devices=1), curriculum)
    learner, policy = curriculum.student.policy(states.student)
    policies = Policies("untrained", env, learner, policy, {})
    found = load_suite(env, suite)
    start = time.perf_counter()
    evaluate(policies, found, attempts, seed=0)
    first = time.perf_counter() - start
    start, before = time.perf_counter(), _cpu_seconds()
    played = evaluate(policies, found, attempts, seed=1)
    wall, cpu = time.perf_counter() - start, _cpu_seconds() - before
    return {
        "wall s": wall,
        "CPU-s": cpu,
        "with compilation, wall s": first,
        "episodes": float(played.episode_return.size),
        "steps played": float(played.length.sum()),
        "peak MiB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / MIB,
    }


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
