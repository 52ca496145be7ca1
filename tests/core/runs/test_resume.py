"""Runs that are killed, receive a stop signal, or fill the disk, in separate processes."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from rlgen.runs import checkpoint, folder, metrics, program, training
from tests.paths import TESTS

HERE = TESTS
UPDATES, CHUNK = 60, 2
TRAIN = ["train", "standins.trial", "--env", "standins.arm", "--steps", str(UPDATES * 16)]
TRAIN += ["--chunk", str(CHUNK), "--seeds", "2", "--student.learner.width", "400", "--out"]
RESUME = ["train", "--allow-imports", "--resume"]

KILL_IN_SAVE = """
import os, signal, sys
from rlgen.cli import main as cli
from rlgen.runs import checkpoint
number = iter(range(99))
def dies(original):
    def call(*args):
        if next(number) == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*args)
    return call
setattr(checkpoint, sys.argv[1], dies(getattr(checkpoint, sys.argv[1])))
cli.main(sys.argv[2:])
"""

SMALL_FILES = """
import resource, sys
from rlgen.cli import main as cli
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), resource.RLIM_INFINITY))
sys.exit(cli.main(sys.argv[2:]))
"""


def start(*args: str, program: str = "") -> subprocess.Popen:
    path = os.pathsep.join([str(HERE), str(HERE.parent), os.environ.get("PYTHONPATH", "")])
    how = ["-c", program] if program else ["-m", "rlgen"]
    return subprocess.Popen(
        [sys.executable, *how, *args],
        env={**os.environ, "PYTHONPATH": path},
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def num_lines(run: Path) -> int:
    path = run / "metrics.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def wait_for(process: subprocess.Popen, run: Path, update: int) -> None:
    while num_lines(run) < update and process.poll() is None:
        time.sleep(0.002)


def content(run: Path) -> tuple[list, list]:
    """Return the final arrays and the metrics, without those that depend on the clock."""
    record = folder.read(run)
    spec, _, curriculum = folder.rebuild(record, allow_imports=True)
    like = program.abstract_states(spec, curriculum)
    states, counters = training.restore(run, record, like, UPDATES)
    clock = ("wall_seconds", "compile_seconds", "steps_per_second")
    lines = metrics.read(run / "metrics.jsonl")
    lines = [{k: v for k, v in line.items() if k not in clock} for line in lines]
    flat = [jax.random.key_data(x) if "key" in str(x.dtype) else x for x in jax.tree.leaves(states)]
    assert counters.update == UPDATES
    return flat, lines


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Content of an uninterrupted run."""
    sys.path.insert(0, str(HERE))
    run = tmp_path_factory.mktemp("runs") / "whole"
    process = start(*TRAIN, str(run))
    out, err = process.communicate()
    assert process.returncode == 0, err
    assert f"The run is in {run}" in out
    yield content(run)
    sys.path.remove(str(HERE))


def assert_same(run: Path, whole: tuple[list, list]) -> None:
    arrays, lines = content(run)
    assert lines == whole[1]
    for x, y in zip(arrays, whole[0], strict=True):
        np.testing.assert_array_equal(x, y)


def finish(run: Path) -> None:
    process = start(*RESUME, str(run))
    _, err = process.communicate()
    assert process.returncode == 0, err


@pytest.mark.thorough
def test_killed_at_random_moments_it_ends_bit_for_bit_the_same(tmp_path, whole):
    run, rng = tmp_path / "run", random.Random(0)
    process = start(*TRAIN, str(run))
    for update in (3, 40):
        wait_for(process, run, update)
        time.sleep(rng.uniform(0, 0.1))
        process.kill()
        process.communicate()
        assert process.returncode == -signal.SIGKILL
        assert num_lines(run) - checkpoint.updates(run)[-1] <= CHUNK  # updates that are lost
        process = start(*RESUME, str(run))
    _, err = process.communicate()
    assert process.returncode == 0, err
    assert_same(run, whole)


@pytest.mark.thorough
@pytest.mark.parametrize("where", ["_flush", "_layout"])
def test_killed_in_a_save_it_loses_one_chunk(tmp_path, whole, where):
    run = tmp_path / "run"
    process = start(where, *TRAIN, str(run), program=KILL_IN_SAVE)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert num_lines(run) - (checkpoint.updates(run) or [0])[-1] <= CHUNK
    if where == "_layout":
        finish(run)
        assert_same(run, whole)


@pytest.mark.thorough
def test_a_stop_signal_leaves_a_run_that_goes_on(tmp_path, whole):
    run = tmp_path / "run"
    commands = {signal.SIGTERM: [*TRAIN, str(run)], signal.SIGINT: [*RESUME, str(run)]}
    for number, command in commands.items():
        process = start(*command)
        wait_for(process, run, num_lines(run) + 2 if number == signal.SIGTERM else 40)
        process.send_signal(number)
        out, err = process.communicate()
        assert process.returncode == 128 + number, err
        assert f"Continue with: rlgen train --resume {run}" in err
        assert "Traceback" not in err + out
        assert checkpoint.updates(run)[-1] == num_lines(run) < UPDATES
    finish(run)
    assert_same(run, whole)


def test_files_that_cannot_grow_stop_the_run_with_one_line(tmp_path):
    """The operating system rejects the write, in orbax's threads or in ours."""
    run = tmp_path / "run"
    process = start("4096", *TRAIN, str(run), program=SMALL_FILES)
    _, err = process.communicate()
    assert process.returncode == 1, err
    assert "Traceback" not in err
    assert f"rlgen: cannot write to {run}: " in err.splitlines()[-1]
