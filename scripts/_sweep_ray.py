"""Run the points of a sweep in parallel with the package `ray`, on one machine or on a cluster."""

import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import _sweep_run as work
from _sweep_run import FAILED, Job, Row


class Machines(NamedTuple):
    """Resources for running points."""

    workers: int  # number of points that run at the same time
    cores: int  # CPU cores per point
    gpus: float  # GPUs per point
    address: str  # address of a cluster; "" starts ray on this machine


def import_ray() -> Any:
    """Import and return the package `ray`.

    Raises:
        ValueError: If the package is not installed.
    """
    try:
        import ray
    except ImportError as error:
        raise ValueError(
            '--ray needs the package ray; install it with pip install "rlgen[ray]", or leave out '
            "--ray to train the points one after another"
        ) from error
    return ray


@contextmanager
def started(machines: Machines) -> Iterator[Any]:
    """Start ray or connect to a cluster, and shut ray down at the end.

    Enter this context before JAX is initialised. JAX starts threads, but a process that starts
    other processes should have no threads.

    Raises:
        ValueError: If ray is not installed, or if no cluster answers at the address.
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
    # The worker processes need an installed rlgen, but not the scripts in this folder.
    ray.cloudpickle.register_pickle_by_value(work)
    try:
        yield ray
    finally:
        ray.cloudpickle.unregister_pickle_by_value(work)
        ray.shutdown()


def run_all(ray: Any, jobs: Sequence[Job], machines: Machines) -> Iterator[tuple[int, Row]]:
    """Yield the index and the row of results of each job, in order of completion."""
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
    """Return the row of a finished job, or a row that reports a failure if its process died."""
    try:
        return ray.get(ended)
    except ray.exceptions.RayError as error:
        said = (str(error).strip() or type(error).__name__).splitlines()[0]
        return {"state": FAILED, "error": f"the worker process died: {said}", "exit_code": 1}
