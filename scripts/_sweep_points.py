"""Points of a sweep: combinations of option values, checked by building the run of each point."""

import functools
import itertools
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from rlgen import config
from rlgen.runs import folder
from rlgen.runs.spec import RunSpec, build, with_names

Values = dict[str, str]  # options of `rlgen train`, and `recipe`, as text

OPTIONS = {leaf.path: leaf.kind for leaf in config.leaves(RunSpec(recipe=""))}
NAMES = (
    "recipe",
    "env",
    "preset",
    "learner",
    "score",
    "bonus",
    "rule",
)  # decide which fields exist
LONGEST = 80  # largest number of characters in the name of a point's folder


class Point(NamedTuple):
    """One configuration of a sweep; its seeds are trained in parallel."""

    name: str  # name of the point's run folder
    values: Values  # values of the options that vary over the sweep
    spec: RunSpec
    env: Any
    curriculum: Any
    fingerprint: str  # hash of everything that determines the run's results


def read_grid(texts: Sequence[str]) -> dict[str, list[str]]:
    """Parse texts such as `name=1,2`; if a text contains `;`, its values are separated by `;`.

    Raises:
        ValueError: If a text has another form or no value, or if an option or a value is repeated.
    """
    grid: dict[str, list[str]] = {}
    for text in texts:
        written, equals, rest = text.partition("=")
        name = _plain(written)
        if not equals or not name:
            raise ValueError(
                f"--grid {text}: write it as --grid sampler.priority.temperature=0.1,0.3"
            )
        values = [value.strip() for value in rest.split(";" if ";" in rest else ",")]
        if name in grid:
            raise ValueError(f"--grid {name} is given twice; list all its values in one --grid")
        if len(set(values)) < len(values):
            raise ValueError(f"--grid {text}: a value occurs twice")
        grid[name] = values
    return grid


def read_list(path: Path | str) -> list[Values]:
    """Read points from a JSON file: a list such as `[{"sampler.priority.temperature": 0.1}, ...]`.

    Raises:
        ValueError: If the file does not exist, or if its content is not such a list.
    """
    try:
        found = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"--list {path} cannot be read as JSON: {error}") from error
    wanted = 'a list of objects such as [{"sampler.priority.temperature": 0.1}]'
    if not isinstance(found, list) or not found:
        raise ValueError(f"--list {path} must be {wanted}")
    points = []
    for number, entry in enumerate(found, 1):
        if not isinstance(entry, dict) or not entry:
            raise ValueError(f"--list {path}: entry {number} is {entry!r}; it must be {wanted}")
        points.append({_plain(name): _text(value) for name, value in entry.items()})
    return points


def expand(
    common: Mapping[str, str], grid: Mapping[str, Sequence[str]], listed: Sequence[Values]
) -> list[Values]:
    """Return the varied options of each point: each entry of `listed` with each point of `grid`.

    Raises:
        ValueError: If no option varies, or if an option is given in two places.
    """
    if not grid and not listed:
        raise ValueError(
            "no option varies; give --grid NAME=VALUE,VALUE or --list FILE.json, or use "
            "`rlgen train` for a single configuration"
        )
    in_list = {name for values in listed for name in values}
    places = {"the options": set(common), "--grid": set(grid), "--list": in_list}
    for (one, names), (other, others) in itertools.combinations(places.items(), 2):
        if names & others:
            twice = sorted(names & others)[0]
            raise ValueError(f"{twice} is given by {one} and by {other}; give it once")
    corners = [dict(zip(grid, each, strict=True)) for each in itertools.product(*grid.values())]
    return [{**one, **corner} for one in listed or [{}] for corner in corners]


def make_points(common: Mapping[str, str], varied: Sequence[Values]) -> list[Point]:
    """Build the configuration of every point; nothing is trained or compiled.

    Raises:
        ValueError: If an option is unknown, a value is invalid, or two points are identical. The
            message names the point.
    """
    points: list[Point] = []
    width = len(str(len(varied)))
    for number, values in enumerate(varied, 1):
        label = describe(values)
        try:
            spec = spec_of({**common, **values})
            env, curriculum = build(spec)
            hashed = folder.fingerprint(folder.describe(spec, env, curriculum))
        except ValueError as error:
            raise ValueError(f"point {number} ({label}): {error}") from error
        name = f"{number:0{width}d}-{_slug(label)}"[:LONGEST].rstrip("-.")
        points.append(Point(name, values, spec, env, curriculum, hashed))
    first: dict[str, Point] = {}
    for point in points:
        if point.fingerprint in first:
            raise ValueError(
                f"the points {first[point.fingerprint].name} and {point.name} are the same run; "
                "remove one of them"
            )
        first[point.fingerprint] = point
    return points


def spec_of(values: Mapping[str, str]) -> RunSpec:
    """Return the run specification that `rlgen train` would build from the same options.

    Args:
        values: `recipe` and options of `rlgen train`; leading dashes are optional.

    Raises:
        ValueError: If there is no recipe, an option is unknown, or a value has the wrong type.
    """
    given = {_plain(name): value for name, value in values.items()}
    if not given.get("recipe"):
        raise ValueError("name a recipe: sweep.py RECIPE, or --grid recipe=plr,dr")
    own = {n: config.convert(OPTIONS[n], v, n) for n, v in given.items() if n in OPTIONS}
    of_env, of_run = _fields(tuple((name, own[name]) for name in NAMES if name in own))
    known = {f"env.{path}": leaf for path, leaf in of_env.items()} | of_run
    env_fields, overrides = {}, {}
    for name in given.keys() - own.keys():
        if name not in known:
            options = [_dashed(one) for one in (*OPTIONS, *known)]
            raise ValueError(
                f"unknown option --{_dashed(name)}; {config.nearest(_dashed(name), options)}"
            )
        leaf = known[name]
        value = config.convert(leaf.kind, given[name], name)
        if value != leaf.value:  # `rlgen train` also records only values that differ from defaults
            (env_fields if name.startswith("env.") else overrides)[leaf.path] = value
    return with_names(replace(RunSpec(**own), env_fields=env_fields, overrides=overrides))


def describe(values: Mapping[str, str]) -> str:
    """Describe values in one line, with the short names of the options."""
    return ", ".join(f"{end} {values[name]}" for name, end in short_names(values).items())


def short_names(names: Mapping[str, Any]) -> dict[str, str]:
    """Return for each dotted path its shortest end that is not the end of another path."""
    short = {}
    for name in names:
        parts = name.split(".")
        ends = (".".join(parts[-k:]) for k in range(1, len(parts) + 1))
        others = [other for other in names if other != name]
        alone = (e for e in ends if not any(f".{other}".endswith(f".{e}") for other in others))
        short[name] = _dashed(next(alone, name))
    return short


@functools.lru_cache(maxsize=64)
def _fields(
    names: tuple[tuple[str, Any], ...],
) -> tuple[dict[str, config.Leaf], dict[str, config.Leaf]]:
    """Return the fields of environment and curriculum, by path, with the values of the preset."""
    env, curriculum = build(with_names(RunSpec(**dict(names))))
    of_run = [x for x in config.leaves(curriculum) if not x.path.endswith(".learner.num_updates")]
    return {x.path: x for x in config.leaves(env)}, {x.path: x for x in of_run}


def _plain(name: str) -> str:
    return name.strip().removeprefix("--").replace("-", "_")


def _dashed(name: str) -> str:
    return name.replace("_", "-")


def _text(value: object) -> str:
    """Format a JSON value as on the command line."""
    if isinstance(value, list):
        return ",".join(map(_text, value))
    return str(value).lower() if isinstance(value, bool) else str(value)


def _slug(text: str) -> str:
    """Convert a text to a folder name."""
    return re.sub(r"[^\w.+-]+", "-", text.replace(", ", "_")).strip("-")
