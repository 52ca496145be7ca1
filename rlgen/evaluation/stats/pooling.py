"""Methods that consist of one or more runs: `plr=runs/a,runs/b` pools the seeds of two runs."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from rlgen import config
from rlgen.evaluation.episodes import Evaluation
from rlgen.evaluation.load_runs import Opened

BESIDE = (
    "seed",
    "seeds",
    "branch_seed",
    "devices",
    "keep_checkpoints",
    "checkpoint_every",
    "log_levels",
    "gap_every",
)
"""Fields of a run's spec that may differ between the runs of one method."""


class Method(NamedTuple):
    """A method: its name and the folders of its runs."""

    name: str
    runs: tuple[Path, ...]


def parse(texts: Sequence[str]) -> list[Method]:
    """Parse the methods on the command line; each is a folder or has the form `name=folder,folder`.

    Raises:
        ValueError: There are fewer than two methods, a name or a folder is empty, or a name or a
            run occurs twice.
    """
    methods = [_parse_one(text) for text in texts]
    if len(methods) < 2:
        raise ValueError(
            "name two runs or more: rlgen compare RUN RUN, or for methods of several runs "
            "rlgen compare plr=RUN,RUN dr=RUN,RUN"
        )
    names = [method.name for method in methods]
    for name in names:
        if names.count(name) > 1:
            both = [",".join(map(str, m.runs)) for m in methods if m.name == name]
            raise ValueError(
                f"{' and '.join(both)} are both called {name!r}; give them different names: "
                f"rlgen compare one={both[0]} other={both[1]}"
            )
    seen: dict[Path, str] = {}
    for run, name in ((run, method.name) for method in methods for run in method.runs):
        if run.resolve() in seen:
            raise ValueError(
                f"{run} is given twice, in {seen[run.resolve()]} and in {name}; give each run once"
            )
        seen[run.resolve()] = name
    return methods


def _parse_one(text: str) -> Method:
    if Path(text).is_dir() or "=" not in text:  # a folder's name may contain "="
        return Method(Path(text).resolve().name if text else "", (_folder(text, text),))
    name, _, rest = text.partition("=")
    if not name.strip():
        raise ValueError(f"{text!r} has no name before the '='; write plr=RUN,RUN")
    parts = [rest] if Path(rest).is_dir() else rest.split(",")  # a folder's name may contain ","
    return Method(name.strip(), tuple(_folder(part, text) for part in parts))


def _folder(part: str, text: str) -> Path:
    if not part.strip():
        raise ValueError(f"{text!r} contains an empty folder name; write RUN, or plr=RUN,RUN")
    return Path(part.strip())


def check_method(name: str, runs: Sequence[Opened]) -> None:
    """Check that runs can be pooled as one method: their settings are equal and their seeds differ.

    Raises:
        ValueError: The runs differ in a setting, in the budget or in the update of the checkpoint,
            or a seed occurs twice. The message names the runs.
    """
    first = runs[0]
    for other in runs[1:]:
        differs = _difference(first, other)
        if differs:
            raise ValueError(
                f"{first.path} and {other.path} cannot be pooled as method {name!r}: {differs}; "
                "compare them as two methods"
            )
    seen: dict[int, Path] = {}
    for seed, path in ((seed, run.path) for run in runs for seed in run.seeds):
        if seed in seen:
            raise ValueError(
                f"{name!r}: seed {seed} is both in {seen[seed]} and in {path} and would count "
                "twice; leave out one of the runs, or train with another --seed"
            )
        seen[seed] = path


def _difference(one: Opened, other: Opened) -> str:
    """Describe the first difference that prevents the pooling of two runs; "" if nothing does."""
    first, second = _settings(one.record), _settings(other.record)
    for key in dict.fromkeys([*first, *second]):
        if first.get(key) != second.get(key):
            return f"{key} is {first.get(key)!r} and {second.get(key)!r}"
    if one.record["plan"] != other.record["plan"]:
        return f"their plans are {one.record['plan']} and {other.record['plan']}"
    if one.update != other.update:
        return f"they are at update {one.update} and at update {other.update}"
    return ""


def _settings(record: dict[str, Any]) -> dict[str, Any]:
    """Return every setting that must be equal in all runs of a method."""
    spec = {name: value for name, value in record["spec"].items() if name not in BESIDE}
    env = {f"env.{name}": value for name, value in record["env"].items()}
    return spec | env | record["fields"]


def pool(name: str, evaluations: Sequence[Evaluation]) -> Evaluation:
    """Combine the evaluations of a method's runs on one suite into one evaluation of all seeds.

    Raises:
        ValueError: The evaluations differ in their levels or in their number of attempts.
    """
    first = evaluations[0]
    for e in evaluations[1:]:
        same = e.level_names == first.level_names and (e.level_hashes == first.level_hashes).all()
        if not same or e.shape[2] != first.shape[2]:
            raise ValueError(
                f"{name!r}: {e.run} and {first.run} were evaluated on different levels or with "
                f"different numbers of attempts ({e.shape[2]} and {first.shape[2]}); evaluate them "
                "again"
            )
    names = ["episode_return", "length"]
    if not isinstance(first.success, tuple):
        names.append("success")
    joined = {name: np.concatenate([getattr(e, name) for e in evaluations]) for name in names}
    meta = dict(first.meta) if len(evaluations) == 1 else _pooled_meta(evaluations)
    return replace(first, run=name, meta=meta, **joined)


def _pooled_meta(evaluations: Sequence[Evaluation]) -> dict[str, Any]:
    """Pool the meta entries of several runs.

    An entry that is equal in all runs is kept. Any other entry becomes a list over the runs. An
    exception is `look`, the number of times that a run has been evaluated on the suite. The largest
    of these numbers is kept.
    """
    metas = [e.meta for e in evaluations]
    names = dict.fromkeys(name for meta in metas for name in meta)
    found: dict[str, Any] = {}
    for name in names:
        values = [meta.get(name) for meta in metas]
        found[name] = values[0] if all(x == values[0] for x in values) else values
    looks = [meta["look"] for meta in metas if "look" in meta]
    return found | ({"look": max(looks)} if looks else {})


def unlike(methods: Sequence[tuple[str, Sequence[Opened]]]) -> list[str]:
    """Return notes on methods that differ in their budget, number of seeds or environment."""
    told = []
    for name, run in ((name, run) for name, runs in methods for run in runs):
        planned = run.record["plan"]["num_updates"]
        if run.update != planned:
            told.append(f"{name}: {run.path} is at update {run.update} of {planned}.")
    seeds = {name: sum(run.spec.seeds for run in runs) for name, runs in methods}
    if len(set(seeds.values())) > 1:
        listed = ", ".join(f"{name} {num}" for name, num in seeds.items())
        told.append(f"Numbers of seeds differ: {listed}.")
    steps = {name: runs[0].record["plan"] for name, runs in methods}
    budgets = {n: p["num_updates"] * p["steps_per_update"] for n, p in steps.items()}
    if len(set(budgets.values())) > 1:
        listed = ", ".join(f"{name} {num:,}" for name, num in budgets.items())
        told.append(f"Planned env steps per seed differ: {listed}.")
    (first, (one, *_)), *others = methods
    for name, (other, *_) in others:
        fields, rest = config.flatten(one.env), config.flatten(other.env)
        differ = [f"{k} {fields[k]} and {rest.get(k)}" for k in fields if fields[k] != rest.get(k)]
        if differ:
            told.append(f"Training environments of {first} and {name} differ: {', '.join(differ)}.")
    return told
