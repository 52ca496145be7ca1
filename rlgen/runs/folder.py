"""The folder of a run: its record in `config.json`, and where its other files lie.

A folder holds arrays and JSON alone and nothing in it is unpickled or imported, so that a run from
a stranger is safe to open: a record that names modules from outside rlgen is refused unless the
caller allows it.
"""

import dataclasses
import hashlib
import json
import os
import platform
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import jax

from rlgen import __version__, config
from rlgen.curriculum import Curriculum
from rlgen.runs.spec import RunSpec, build, plan

FORMAT = "rlgen-run-2"
OLD_FORMATS = {"rlgen-run-1": "0.1"}
"""Formats that this version cannot read, and the versions that wrote them."""
NAMES = ("recipe", "env", "learner", "score", "bonus")


def create(path: Path, spec: RunSpec, env: Any, curriculum: Curriculum) -> dict[str, Any]:
    """Make a run's folder and write down everything that was resolved.

    Raises:
        ValueError: the folder is there already and not empty.
    """
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        resume = f", continue it with `rlgen train --resume {path}`" if is_run(path) else ""
        raise ValueError(f"{path} exists and is left as it is; choose another --out{resume}")
    record = describe(spec, env, curriculum)
    try:
        path.mkdir(parents=True, exist_ok=True)
        write_atomically(path / "config.json", json.dumps(record, indent=1) + "\n")
    except OSError as error:
        raise ValueError(f"cannot make the run folder {path}: {error.strerror}") from error
    return record


def describe(spec: RunSpec, env: Any, curriculum: Curriculum) -> dict[str, Any]:
    """The record of a run: its spec, every resolved field, versions and device."""
    length = plan(spec, curriculum)
    device = jax.devices()[0]
    return {
        "format": FORMAT,
        "spec": config.flatten(spec),
        "plan": length._asdict(),
        "env": config.to_json(config.flatten(env)),
        "fields": config.to_json(config.flatten(curriculum)),
        "versions": versions(),
        "device": f"{spec.devices} x {device.device_kind} ({device.platform})",
    }


def rebuild(record: dict[str, Any], allow_imports: bool = False) -> tuple[RunSpec, Any, Curriculum]:
    """The spec, environment and curriculum of a record, from the record's own values alone.

    Raises:
        ValueError: it names modules from outside rlgen, which may run any code when imported, and
            `allow_imports` is not set; or its fields are unknown to this version.
    """
    saved = config.override(RunSpec(recipe=""), record["spec"])
    foreign = [getattr(saved, name) for name in NAMES if "." in getattr(saved, name)]
    if foreign and not allow_imports:
        raise ValueError(
            f"the run's config.json names code from outside rlgen: {', '.join(foreign)}; "
            "if you trust it, add --allow-imports"
        )
    exact = dataclasses.replace(
        saved, preset="", env_fields=record["env"], overrides=record["fields"]
    )
    env, curriculum = build(exact)
    return saved, env, curriculum


def trust_flag(record: Mapping[str, Any]) -> str:
    """What a command about the run needs behind it: ` --allow-imports` for names from outside."""
    foreign = any("." in str(record["spec"].get(name, "")) for name in NAMES)
    return " --allow-imports" if foreign else ""


def read(path: Path) -> dict[str, Any]:
    """The record of a run folder.

    Raises:
        ValueError: not a run folder, one of an older rlgen, or its config.json is damaged.
    """
    if not is_run(path):
        raise ValueError(f"{path} is not a run folder: it has no config.json")
    record = _parsed(path / "config.json")
    if record.get("format") in OLD_FORMATS:
        raise ValueError(_old_run(path, OLD_FORMATS[record["format"]]))
    parts = ("spec", "plan", "env", "fields", "versions")
    if record.get("format") != FORMAT or not all(isinstance(record.get(x), dict) for x in parts):
        raise ValueError(
            f"{path / 'config.json'} is damaged or not of the format {FORMAT}; left as it is"
        )
    return record


def _parsed(path: Path) -> dict[str, Any]:
    """The object of a JSON file; {} if it holds none."""
    try:
        record = json.loads(path.read_text())
    except ValueError:
        return {}
    return record if isinstance(record, dict) else {}


def _old_run(path: Path, version: str) -> str:
    rules = sorted(path.glob("rules/seed-*.npz"))
    also = f". Its learned rule can be used as it is: {rules[0]}" if rules else ""
    return (
        f"{path} is a run of rlgen {version}, whose fields and states have other names than those "
        f"of rlgen {__version__}; it is left as it is. Use rlgen {version} for it, or train it "
        f"again{also}"
    )


def is_run(path: Path) -> bool:
    """Whether a folder looks like a run."""
    return (path / "config.json").is_file()


def fingerprint(record: Mapping[str, Any]) -> str:
    """A hash of all that decides what a run computes; not of devices, versions, paths or logs."""
    beside = ("devices", "keep_checkpoints", "checkpoint_every", "log_levels", "gap_every")
    spec = {name: value for name, value in record["spec"].items() if name not in beside}
    decides = [spec, record["plan"], record["env"], record["fields"]]
    return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()[:16]


def versions() -> dict[str, str]:
    """Versions of what a run depends on."""
    names = ("jax", "jaxlib", "flax", "optax", "numpy", "gymnax", "orbax-checkpoint")
    found = {name: metadata.version(name) for name in names}
    return {"rlgen": __version__, **found, "python": platform.python_version()}


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a file so that a kill at any moment leaves the old or the new content."""
    part = path.with_name(f".{path.name}.part")
    with open(part, "w" if isinstance(content, str) else "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
