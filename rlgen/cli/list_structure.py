"""`rlgen list envs --shared-structure`: measure how much structure the levels of a family share."""

import json
import sys
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from rlgen import registry
from rlgen.cli.options import flag, option, parse, positional
from rlgen.protocols import LevelEnv

ABOUT = (
    "Measure two numbers for each feature of a state, such as the position. The dispersion D "
    "measures how much structure levels share: D is 0 if a feature is equally valuable in all "
    "levels, and 1 if its value differs between levels as much as possible. The coverage κ is the "
    "time limit of an episode divided by the number of feature values in a level, such as the "
    "number of positions. Global bonuses need a small D. Episodic bonuses need a κ of 1 or more."
)


def show_structures(args: Sequence[str]) -> int:
    """Measure environments, print one line per environment and feature, return the exit code."""
    fields = [
        positional("kind", "must be envs", default="envs"),
        flag("shared-structure", "measure environments instead of listing names"),
        option(str, "", "envs", "names, such as rooms/n6,corridors; by default all"),
        option(int, 200, "levels", "number of sampled levels of each family"),
        option(int, 0, "seed", "random seed of the levels"),
        flag("json", "print only JSON"),
    ]
    given = parse(fields, "rlgen list", ABOUT, args)
    if given.kind != "envs":
        raise ValueError(
            f"--shared-structure measures environments, not {given.kind}; use rlgen list envs"
        )
    if given.levels < 1:
        raise ValueError(f"levels must be at least 1, got {given.levels}")
    chosen = [name for name in given.envs.split(",") if name] or _able()
    envs = {name: registry.make_env(name) for name in chosen}
    # All environments are checked before the first is measured.
    for env in envs.values():
        registry.require(env, LevelEnv.feature_values, "--shared-structure")
    rows = _measure(envs, given)
    if given.json:
        print(json.dumps([{"env": name, **row._asdict()} for name, row in rows]))
        return 0
    Console().print(_table(rows))
    return 0


def _able() -> list[str]:
    names = registry.names("envs")
    return [
        name
        for name in names
        if registry.has(registry.load("envs", name).build(), LevelEnv.feature_values)
    ]


def _measure(envs: dict[str, Any], given: Any) -> list[tuple[str, Any]]:
    from rlgen.evaluation.generalisation.shared_structure import structures

    rows = []
    for name, env in envs.items():
        print(f"measuring {given.levels} levels of {name} ...", file=sys.stderr, flush=True)
        rows += [(name, row) for row in structures(env, given.levels, given.seed)]
    return rows


def _table(rows: list[tuple[str, Any]]) -> Table:
    table = Table(title="Shared structure", caption="D: dispersion of values; κ: coverage")
    for column in ("environment", "feature"):
        table.add_column(column)
    for column in ("D", "variance", "κ"):
        table.add_column(column, justify="right")
    for name, row in rows:
        numbers = (f"{row.dispersion:.2f}", f"{row.variance:.3f}", f"{row.coverage:.2f}")
        table.add_row(name, row.feature, *numbers)
    return table
