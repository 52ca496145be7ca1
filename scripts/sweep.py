"""Train a method at every point of a grid or a list, and summarise all points in one table.

    python scripts/sweep.py plr --env maze --steps 1e6 --seeds 4 \
        --grid sampler.priority.temperature=0.1,0.3 --grid student.learner.learning-rate=1e-4,3e-4 \
        --out runs/sweep

A point is one combination of option values. Options are those of `rlgen train`. Each point has an
ordinary run folder in --out. Points are sorted by their score on a suite of levels, which --suite
names. By default, the suite consists of validation levels, which are new levels of the training
distribution. If you repeat the command, it resumes interrupted points, skips finished points and
retries failed points. With --ray, points run in parallel, on this machine or on a cluster.
"""

import argparse
import fcntl
import functools
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import _sweep_ray
import _sweep_table as tables
from _sweep_points import Point, Values, describe, expand, make_points, read_grid, read_list
from _sweep_run import CUT, FAILED, VALIDATION, WAITING, Job, Row, find_suite, run_point

from rlgen import config
from rlgen.protocols import Student
from rlgen.runs import folder
from rlgen.runs.progress import choose

Run = Callable[[Sequence[Job]], Iterator[tuple[int, Row]]]

INTERRUPTED = 130  # exit code with which shells report Ctrl-C


class Sweep(NamedTuple):
    """A sweep whose options have been checked."""

    out: Path
    points: list[Point]
    facts: dict[str, Any]  # settings of the evaluation


def main(arguments: Sequence[str] | None = None) -> int:
    """Check every point, train the points that are not finished, and write the table.

    Returns:
        Exit code: 0 if no point failed, 1 if a point failed, 2 if the input is invalid (nothing is
        trained in this case), and 130 or 143 if a signal stopped the sweep.
    """
    given, rest = _parser().parse_known_args(arguments)
    try:
        _check(given)
        machines = _sweep_ray.Machines(given.workers, given.cores, given.gpus, given.address)
        with _sweep_ray.started(machines) if given.ray else nullcontext() as ray:
            sweep = _prepare(given, rest)
            with _alone(sweep.out):
                by_ray = functools.partial(_side_by_side, ray, machines)
                return _go(sweep, by_ray if given.ray else _in_turn)
    except ValueError as error:
        print(f"sweep.py: {error}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    about = "Train a method at every point of a grid or a list, and make a table of all points."
    more = "All other options are passed to `rlgen train` for every point."
    parser = argparse.ArgumentParser(
        prog="sweep.py", description=about, epilog=more, allow_abbrev=False
    )
    add = parser.add_argument
    add("recipe", nargs="?", default="", help="recipe; to vary it, use --grid recipe=plr,dr")
    add("--grid", action="append", default=[], metavar="NAME=A,B", help="option; may be repeated")
    add("--list", default="", metavar="FILE.json", help="list of points as {option: value}")
    add(
        "--suite",
        default=VALIDATION,
        help="levels on which points are scored: 'validation', the name of a suite, or '' for no "
        "evaluation (default: %(default)s)",
    )
    add("--levels", type=int, default=100, help="validation levels (default: %(default)s)")
    add(
        "--attempts",
        type=int,
        default=10,
        help="episodes per level and seed (default: %(default)s)",
    )
    add("--eval-seed", type=int, default=0, help="seed of the evaluation (default: %(default)s)")
    add("--out", help="folder of the sweep (required)")
    add("--ray", action="store_true", help='run in parallel; needs pip install "rlgen[ray]"')
    add("--workers", type=int, default=2, help="with --ray: simultaneous points (default: 2)")
    add("--cores", type=int, default=1, help="with --ray: CPU cores per point (default: 1)")
    add("--gpus", type=float, default=0, help="with --ray: GPUs per point (default: 0)")
    add("--address", default="", help="with --ray: address of a cluster (default: this machine)")
    return parser


def _check(given: Any) -> None:
    """Check the options that can be checked before points are built."""
    if not given.out:
        raise ValueError("no folder is given; name one with --out, such as --out runs/sweep")
    least_of = {"attempts": 1, "levels": 1, "eval_seed": 0, "workers": 1, "cores": 1}
    for name, least in least_of.items():
        if getattr(given, name) < least:
            raise ValueError(f"--{name.replace('_', '-')} must be at least {least}")


def _prepare(given: Any, rest: Sequence[str]) -> Sweep:
    recipe = {"recipe": given.recipe} if given.recipe else {}
    common = {**recipe, **_options(rest)}
    listed = read_list(given.list) if given.list else []
    varied = expand(common, read_grid(given.grid), listed)
    _choose_devices({**common, **varied[0]}, by_ray=given.ray)
    points = make_points(common, varied)
    split = _check_suite(points, given.suite, given.levels)
    facts = {"suite": given.suite, "split": split, "levels": given.levels}
    facts |= {"attempts": given.attempts, "evaluation_seed": given.eval_seed, "options": common}
    points = _in_folder(Path(given.out), points, common)
    return Sweep(Path(given.out), points, facts)


def _options(rest: Sequence[str]) -> Values:
    """Parse `--name value` and `--name=value` into a dictionary."""
    options, left = {}, list(rest)
    while left:
        written, equals, value = left.pop(0).partition("=")
        if not written.startswith("--"):
            raise ValueError(f"unexpected argument {written!r}; write options as --name value")
        if not equals and (not left or left[0].startswith("--")):
            raise ValueError(f"option {written} has no value")
        name = written.removeprefix("--").replace("-", "_")
        if name in options:
            raise ValueError(f"option {written} is given twice")
        options[name] = value if equals else left.pop(0)
    return options


def _choose_devices(values: Values, by_ray: bool) -> None:
    """Set up simulated CPU devices, as in `rlgen train`.

    With ray, this process uses the CPU, because it only distributes the work.
    """
    import jax
    from jax.extend.backend import clear_backends

    if by_ray:
        jax.config.update("jax_platforms", "cpu")
    devices = values.get("devices", "1")
    if devices.isdecimal() and int(devices) > 1:
        clear_backends()  # the import of gymnax has started JAX; nothing has been computed yet
        jax.config.update("jax_num_cpu_devices", min(int(devices), os.cpu_count() or 1))


def _check_suite(points: Sequence[Point], name: str, num_levels: int) -> str:
    """Check that all points can be scored on the same levels, and return the suite's split.

    If there is no suite, the split is "".

    Raises:
        ValueError: If a point cannot play the suite, or if the levels differ between points.
    """
    from rlgen.evaluation.load_runs import check_playable

    split, seen, levels = "", set(), {}
    for point in points if name else ():
        if point.curriculum.student.offers(Student.learner_with_rule):
            raise ValueError(
                f"point {point.name}: {point.spec.recipe} learns an update rule, which cannot play "
                "a suite; use --suite '' here, and evaluate the rules with `rlgen eval`"
            )
        key = (point.spec.env, tuple(sorted(config.flatten(point.env).items())))
        if key not in seen:
            suite = find_suite(point.env, name, num_levels)
            check_playable({f"point {point.name}": point.env}, suite)
            split = suite.levels.split
            levels[suite.levels.hash.tobytes()] = point.name
        seen.add(key)
    if len(levels) > 1:
        one, other, *_ = levels.values()
        raise ValueError(
            f"the points {one} and {other} train on different levels, so their {name} levels "
            "differ; name a suite that both can play (see `rlgen list suites`)"
        )
    return split


def _in_folder(out: Path, points: list[Point], common: Values) -> list[Point]:
    """Return the points; if the folder already contains the sweep, rename them as in the folder.

    The name of a point contains its position in the sweep. If the points are now in another order,
    their new names therefore differ from the names in the folder.

    Raises:
        ValueError: If the folder contains another sweep, or a point's folder contains another run.
    """
    before = tables.read(out)
    if before is not None:
        was = {row["fingerprint"]: row for row in before["points"]}
        if was.keys() != {point.fingerprint for point in points}:
            change = _change(before, points, common)
            raise ValueError(
                f"{out} contains another sweep with {len(was)} points: {change}. Use the same grid "
                "and options as before, or choose another --out"
            )
        points = [point._replace(name=was[point.fingerprint]["name"]) for point in points]
    for point in points:
        path = out / point.name
        if folder.is_run(path) and folder.fingerprint(folder.read(path)) != point.fingerprint:
            raise ValueError(
                f"{path} is a run with other options or from another version of rlgen; choose "
                "another --out"
            )
    return points


def _change(before: dict[str, Any], points: list[Point], common: Values) -> str:
    """Describe how the sweep in the folder differs from this sweep, in common options or points."""
    old = before["options"]
    for name in sorted(old.keys() | common.keys()):
        was, now = old.get(name, "not given"), common.get(name, "not given")
        if was != now:
            return f"its {name} was {was}, but is {now} now"
    known = {row["fingerprint"] for row in before["points"]}
    now = {point.fingerprint for point in points}
    gone = sorted(row["name"] for row in before["points"] if row["fingerprint"] not in now)
    new = [describe(point.values) for point in points if point.fingerprint not in known]
    told = [f"its point {name} is not requested now" for name in gone[:1]]
    return ", and ".join(told + [f"it does not have the point {label!r}" for label in new[:1]])


@contextmanager
def _alone(out: Path) -> Iterator[None]:
    """Lock the folder, so that no two sweeps train the same runs.

    If the process is killed, the operating system releases the lock.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        file = open(out / ".lock", "w")  # noqa: SIM115 (held until the sweep ends)
    except OSError as error:
        raise ValueError(f"cannot create the folder {out}: {error.strerror}") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ValueError(f"another sweep is running in {out}; wait for it to end") from error
        yield


def _go(sweep: Sweep, run: Run) -> int:
    """Run the points, and write the table after each one."""
    rows = [_row(point) for point in sweep.points]
    tables.write(sweep.out, rows, sweep.facts)
    jobs = [_job(sweep, point) for point in sweep.points]
    code = 0
    try:
        for number, found in run(jobs):
            rows[number] |= found
            tables.write(sweep.out, rows, sweep.facts)
            code = rows[number]["exit_code"] if found["state"] == CUT else code
    except KeyboardInterrupt:
        print("sweep.py: abandoned", file=sys.stderr)
        code = INTERRUPTED
    for row, job in zip(rows, jobs, strict=True):
        if row["state"] == WAITING and folder.is_run(job.path):
            row["state"] = CUT
    tables.write(sweep.out, rows, sweep.facts)
    tables.show_table(sweep.out, rows, sweep.facts)
    print(f"The table is in {sweep.out / 'sweep.md'}, and in sweep.csv and sweep.json next to it")
    return code or int(any(row["state"] == FAILED for row in rows))


def _in_turn(jobs: Sequence[Job]) -> Iterator[tuple[int, Row]]:
    """Run one point after another; yield the index and the row of each, until a run is stopped."""
    import jax

    for number, job in enumerate(jobs):
        print(f"point {number + 1} of {len(jobs)}: {job.path.name}", file=sys.stderr, flush=True)
        row = run_point(job, choose())
        yield number, row
        if row["state"] == CUT:
            return
        jax.clear_caches()  # without this, the compiled programs of all points stay in memory


def _side_by_side(
    ray: Any, machines: _sweep_ray.Machines, jobs: Sequence[Job]
) -> Iterator[tuple[int, Row]]:
    """Run points in parallel with ray; yield the index and the row of each when it is done."""
    print(f"{len(jobs)} points, {machines.workers} at a time", file=sys.stderr, flush=True)
    for done, (number, row) in enumerate(_sweep_ray.run_all(ray, jobs, machines), 1):
        said = f"{done} of {len(jobs)}: {jobs[number].path.name} {row['state']}"
        print(said, file=sys.stderr, flush=True)
        yield number, row


def _row(point: Point) -> Row:
    same = {"name": point.name, "values": point.values, "fingerprint": point.fingerprint}
    return {**same, "state": WAITING, "error": "", "exit_code": 0}


def _job(sweep: Sweep, point: Point) -> Job:
    facts = sweep.facts
    path = sweep.out / point.name
    what = (facts["suite"], facts["levels"], facts["attempts"], facts["evaluation_seed"])
    return Job(point.spec, path, *what)


if __name__ == "__main__":
    os.environ.setdefault("MPLBACKEND", "Agg")
    sys.exit(main())
