"""What training cost, from the metrics of runs, and metrics of several runs of one method as one.

Env steps and gradient updates are of one seed, the mean over a run's seeds. Seconds are of the
running program with all its seeds side by side, compilation apart, and tell of the device as much
as of the method.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

COSTS = {
    "env_steps": "env steps (all but evaluation)",
    "gradient_updates": "gradient updates",
    "wall_seconds": "seconds (compilation apart)",
}
"""What training can be measured by: keys of `metrics.jsonl` and their names on an axis."""
KINDS = ("train", "scout", "score", "antagonist", "teacher", "evaluate")
"""Env steps by what they were for, in the order of tables; see `rlgen.runs.metrics`."""


class Cost(NamedTuple):
    """What one method's training took, up to the checkpoint that was tested; NaN: not known."""

    run: str
    seeds: int
    update: int
    env_steps: dict[str, float]  # of one seed, by kind; {} if not known
    gradient_updates: float  # of one seed
    wall_seconds: float  # of all seeds
    compile_seconds: float
    devices: tuple[str, ...]

    @property
    def total_steps(self) -> float:
        """Env steps of every kind but evaluation; NaN if not known."""
        steps = [x for kind, x in self.env_steps.items() if kind != "evaluate"]
        return float(sum(steps)) if self.env_steps else float("nan")

    def steps_of(self, kind: str) -> float:
        """Env steps of one kind; NaN if no steps are known."""
        return self.env_steps.get(kind, 0.0 if self.env_steps else float("nan"))


def cost_of(run: str, lines: Sequence[Mapping], update: int, seeds: int, device: str) -> Cost:
    """The cost of a run's first `update` updates, from its metrics; NaN where they do not say.

    Args:
        run: its label.
        lines: of `metrics.jsonl`.
        update: of the checkpoint.
        seeds: how many were trained side by side.
        device: that it was trained on.
    """
    line = next((one for one in reversed(lines) if one.get("update") == update), {})
    steps = line.get("env_steps")
    by_kind = {k: float(x) for k, x in steps.items()} if isinstance(steps, Mapping) else {}
    gradients, wall, compiling = (
        _number(line.get(k)) for k in ("gradient_updates", "wall_seconds", "compile_seconds")
    )
    return Cost(run, seeds, update, by_kind, gradients, wall, compiling, (device,))


def pool_costs(run: str, costs: Sequence[Cost]) -> Cost:
    """The cost of a method of several runs: per seed the mean over seeds, seconds their sum."""
    if len(costs) == 1:
        return costs[0]._replace(run=run)
    seeds = np.array([one.seeds for one in costs], float)
    share = seeds / seeds.sum()
    known = all(one.env_steps for one in costs)
    kinds = dict.fromkeys(kind for one in costs for kind in one.env_steps) if known else {}
    steps = {
        kind: float(share @ np.array([one.env_steps.get(kind, 0.0) for one in costs]))
        for kind in kinds
    }
    return Cost(
        run,
        int(seeds.sum()),
        costs[0].update,
        steps,
        float(share @ np.array([one.gradient_updates for one in costs])),
        float(np.sum([one.wall_seconds for one in costs])),
        float(np.sum([one.compile_seconds for one in costs])),
        tuple(dict.fromkeys(device for one in costs for device in one.devices)),
    )


def pool_metrics(every: Sequence[Sequence[Mapping]]) -> list[dict]:
    """The metrics of several runs of one method as those of one run with all their seeds.

    Of updates that all of them have; costs are means over runs, other numbers lists over seeds.
    """
    if len(every) == 1:
        return [dict(line) for line in every[0]]
    by_update = [{line["update"]: line for line in lines if "update" in line} for lines in every]
    common = [u for u in by_update[0] if all(u in lines for lines in by_update)]
    return [_pooled([lines[u] for lines in by_update]) for u in common]


def _pooled(lines: Sequence[Mapping]) -> dict:
    found: dict = {"update": lines[0]["update"]}
    for name in COSTS:
        values = [_total(line.get(name)) for line in lines]
        if np.isfinite(values).all():
            found[name] = float(np.mean(values))
    rest = [name for name in lines[0] if name not in found and name not in COSTS]
    for name in rest:
        values = [x for x in (line.get(name) for line in lines) if isinstance(x, list)]
        if len(values) == len(lines):
            found[name] = [x for some in values for x in some]
    return found


def _total(x: object) -> float:
    """A number, or a mapping's sum without evaluation."""
    if isinstance(x, Mapping):
        return sum(_number(value) for kind, value in x.items() if kind != "evaluate")
    return _number(x)


def _number(x: object) -> float:
    return float(x) if isinstance(x, int | float) else float("nan")
