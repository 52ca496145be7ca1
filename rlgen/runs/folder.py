"""Run folders: create, read and rebuild a run from the record in its `config.json`.

A run from an untrusted source is safe to open: a folder contains only arrays and JSON, and nothing
in it is unpickled. A record that names modules outside rlgen is rejected unless the caller allows
imports.
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
from rlgen.held_out import digests
from rlgen.runs.spec import RunSpec, build, plan

FORMAT = "rlgen-run-2"
OLD_FORMATS = {"rlgen-run-1": "0.1"}
"""Formats that this version cannot read, with the versions of rlgen that wrote them."""
NAMES = ("recipe", "env", "learner", "score", "bonus")


def create(path: Path, spec: RunSpec, env: Any, curriculum: Curriculum) -> dict[str, Any]:
    """Create a run folder and write the record with all resolved values.

    Raises:
        ValueError: The folder exists and is not empty, or it cannot be created.
    """
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        resume = f", or continue it with `rlgen train --resume {path}`" if is_run(path) else ""
        raise ValueError(f"{path} exists and was left unchanged; choose another --out{resume}")
    # The record is built before the folder is created, so that an error leaves no folder behind.
    record = describe(spec, env, curriculum)
    try:
        path.mkdir(parents=True, exist_ok=True)
        # `config.json` makes the folder a run (`is_run`), so it must never exist half-written.
        write_atomically(path / "config.json", json.dumps(record, indent=1) + "\n")
    except OSError as error:
        raise ValueError(f"cannot create the run folder {path}: {error.strerror}") from error
    return record


def describe(spec: RunSpec, env: Any, curriculum: Curriculum) -> dict[str, Any]:
    """Build the record of a run: its spec, plan, all resolved fields, versions and device."""
    length = plan(spec, curriculum)
    device = jax.devices()[0]
    return {
        "format": FORMAT,
        "spec": config.flatten(spec),
        "plan": length._asdict(),
        "env": config.to_json(config.flatten(env)),
        "fields": config.to_json(config.flatten(curriculum)),
        "held_out": digests(curriculum.student.env),
        "versions": versions(),
        "device": f"{spec.devices} x {device.device_kind} ({device.platform})",
    }


def rebuild(record: dict[str, Any], allow_imports: bool = False) -> tuple[RunSpec, Any, Curriculum]:
    """Rebuild the spec, environment and curriculum of a run from the values in its record alone.

    Args:
        record: Record of the run, see `read`.
        allow_imports: Whether to import modules outside rlgen that the record names.

    Raises:
        ValueError: The record has fields that this version does not know, or it names modules
            outside rlgen and `allow_imports` is False. Importing such modules can run any code.
    """
    saved = config.override(RunSpec(recipe=""), record["spec"])
    # Names of rlgen's components have no dots; dotted paths are imported.
    foreign = [getattr(saved, name) for name in NAMES if "." in getattr(saved, name)]
    if foreign and not allow_imports:
        raise ValueError(
            f"the run's config.json names code from outside rlgen: {', '.join(foreign)}; "
            "if you trust it, add --allow-imports"
        )
    # The record lists every field. The preset is not applied, because it may have changed since the
    # run started.
    exact = dataclasses.replace(
        saved, preset="", env_fields=record["env"], overrides=record["fields"]
    )
    env, curriculum = build(exact)
    return saved, env, curriculum


def trust_flag(record: Mapping[str, Any]) -> str:
    """Return the suffix ` --allow-imports` for commands on the run, or "" if it is not needed.

    The suffix is needed if the record names modules outside rlgen.
    """
    foreign = any("." in str(record["spec"].get(name, "")) for name in NAMES)
    return " --allow-imports" if foreign else ""


def read(path: Path) -> dict[str, Any]:
    """Read the record of a run folder.

    Raises:
        ValueError: The folder is not a run folder or was written by an older version of rlgen, or
            its `config.json` is damaged.
    """
    if not is_run(path):
        raise ValueError(f"{path} is not a run folder: it has no config.json")
    record = _parsed(path / "config.json")
    if record.get("format") in OLD_FORMATS:
        raise ValueError(_old_run(path, OLD_FORMATS[record["format"]]))
    parts = ("spec", "plan", "env", "fields", "versions")
    if record.get("format") != FORMAT or not all(isinstance(record.get(x), dict) for x in parts):
        raise ValueError(
            f"{path / 'config.json'} is damaged or not in the format {FORMAT}; "
            "it was left unchanged"
        )
    return record


def _parsed(path: Path) -> dict[str, Any]:
    """Parse a JSON file; {} if it does not contain a JSON object."""
    try:
        record = json.loads(path.read_text())
    except ValueError:
        return {}
    return record if isinstance(record, dict) else {}


def _old_run(path: Path, version: str) -> str:
    rules = sorted(path.glob("rules/seed-*.npz"))
    also = f". Its learned rule can still be used: {rules[0]}" if rules else ""
    return (
        f"{path} was written by rlgen {version}, which uses other names for fields and states than "
        f"rlgen {__version__}; the folder was left unchanged. Use rlgen {version} to read it, or "
        f"train the run again{also}"
    )


def is_run(path: Path) -> bool:
    """Return whether a folder contains a `config.json`, as every run folder does."""
    return (path / "config.json").is_file()


def fingerprint(record: Mapping[str, Any]) -> str:
    """Hash of all settings that determine a run's results.

    The hash does not depend on devices, versions, paths, or settings of logs and checkpoints.
    """
    beside = ("devices", "keep_checkpoints", "checkpoint_every", "log_levels", "gap_every")
    spec = {name: value for name, value in record["spec"].items() if name not in beside}
    # The plan is included because schedules and chunks depend on the length of the run.
    decides = [spec, record["plan"], record["env"], record["fields"]]
    return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()[:16]


def versions() -> dict[str, str]:
    """Versions of rlgen, Python and the packages that a run depends on."""
    names = ("jax", "jaxlib", "flax", "optax", "numpy", "gymnax", "orbax-checkpoint")
    found = {name: metadata.version(name) for name in names}
    return {"rlgen": __version__, **found, "python": platform.python_version()}


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a file so that an interruption at any time leaves either the old or the new content."""
    # The file is flushed before the rename; otherwise a power failure could leave it empty.
    part = path.with_name(f".{path.name}.part")
    with open(part, "w" if isinstance(content, str) else "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
