"""Run the points of a sweep as `ray` tasks, several at a time, locally or on a cluster."""

import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import _sweep_run as work
from _sweep_run import FAILED, Job, Row


class Machines(NamedTuple):
    """Resources for running points."""

    workers: int  # points at a time
    cores: int  # per point
    gpus: float  # per point
    address: str  # of a cluster; "" starts one on this machine


def import_ray() -> Any:
    """Import and return the package.

    Raises:
        ValueError: If it is not installed.
    """
    try:
        import ray
    except ImportError as error:
        raise ValueError(
            '--ray needs the package ray: pip install "rlgen[ray]"; without --ray the points are '
            "trained in this process, one after another"
        ) from error
    return ray


@contextmanager
def started(machines: Machines) -> Iterator[Any]:
    """Start or connect to ray, and shut it down at the end.

    Enter this context before JAX is initialised: a process that starts others should have no
    threads.

    Raises:
        ValueError: If ray is not installed, or no cluster answers at the address.
    """
    ray = import_ray()
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    where: dict[str, Any] = {"address": machines.address}
    if not machines.address:
        cores = machines.workers * machines.cores
        where = {"address": "local", "num_cpus": cores, "_node_ip_address": "127.0.0.1"}
        where |= {"include_dashboard": False}
        if machines.gpus:
            where |= {"num_gpus": math.ceil(machines.workers * machines.gpus)}
    try:
        ray.init(**where, log_to_driver=False, logging_level="error")
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise ValueError(f"ray cannot be started or reached: {error}") from error
    ray.cloudpickle.register_pickle_by_value(work)  # the workers need rlgen, but not this folder
    try:
        yield ray
    finally:
        ray.cloudpickle.unregister_pickle_by_value(work)
        ray.shutdown()


def run_all(ray: Any, jobs: Sequence[Job], machines: Machines) -> Iterator[tuple[int, Row]]:
    """Yield the index of each job and its row, in order of completion."""
    limits = {"num_cpus": machines.cores, "num_gpus": machines.gpus, "max_retries": 0}
    task = ray.remote(**limits)(work.run_quietly)
    waiting, running = list(enumerate(jobs)), {}
    while waiting or running:
        while waiting and len(running) < machines.workers:
            number, job = waiting.pop(0)
            running[task.remote(job)] = number
        (ended, *_), _ = ray.wait(list(running), num_returns=1)
        yield running.pop(ended), _row(ray, ended)


def _row(ray: Any, ended: Any) -> Row:
    """Return the row of a finished task; if its worker died, the point has failed."""
    try:
        return ray.get(ended)
    except ray.exceptions.RayError as error:
        said = (str(error).strip() or type(error).__name__).splitlines()[0]
        return {"state": FAILED, "error": f"its worker died: {said}", "exit_code": 1}
