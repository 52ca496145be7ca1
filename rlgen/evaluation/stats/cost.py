"""Training cost of runs, read from their metrics, and pooling of the metrics of several runs.

Env steps and gradient updates are per seed: they are means over the seeds of a run. Seconds are the
wall time, without compilation, of the program that trains all seeds in parallel. Seconds depend on
the device as much as on the method.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

COSTS = {
    "env_steps": "env steps (all but evaluation)",
    "gradient_updates": "gradient updates",
    "wall_seconds": "seconds (without compilation)",
}
"""Measures of training cost: keys in `metrics.jsonl`, with their axis labels."""
KINDS = ("train", "scout", "score", "antagonist", "teacher", "evaluate")
"""Kinds of env steps, named by their purpose, in the order of tables; see `rlgen.runs.metrics`."""


class Cost(NamedTuple):
    """Training cost of one method up to the evaluated checkpoint; NaN where unknown."""

    run: str
    seeds: int  # number of seeds
    update: int  # update of the checkpoint
    env_steps: dict[str, float]  # per seed, by kind; {} if unknown
    gradient_updates: float  # per seed
    wall_seconds: float  # of all seeds together
    compile_seconds: float  # of all seeds together
    devices: tuple[str, ...]

    @property
    def total_steps(self) -> float:
        """Env steps per seed of all kinds except evaluation; NaN if unknown."""
        steps = [x for kind, x in self.env_steps.items() if kind != "evaluate"]
        return float(sum(steps)) if self.env_steps else float("nan")

    def steps_of(self, kind: str) -> float:
        """Env steps of one kind, per seed; NaN if `env_steps` is empty, that is, unknown.

        If `env_steps` has entries, but none for this kind, the result is 0.
        """
        return self.env_steps.get(kind, 0.0 if self.env_steps else float("nan"))


def cost_of(run: str, lines: Sequence[Mapping], update: int, seeds: int, device: str) -> Cost:
    """Read the cost of a run's first `update` updates from its metrics; missing numbers are NaN.

    Args:
        run: Label of the run.
        lines: Lines of the run's `metrics.jsonl`.
        update: Number of updates before the checkpoint.
        seeds: Number of seeds trained in parallel.
        device: Device that the run was trained on.
    """
    # The search starts at the end, because the last line with this update is the valid one.
    line = next((one for one in reversed(lines) if one.get("update") == update), {})
    steps = line.get("env_steps")
    by_kind = {k: float(x) for k, x in steps.items()} if isinstance(steps, Mapping) else {}
    gradients, wall, compiling = (
        _number(line.get(k)) for k in ("gradient_updates", "wall_seconds", "compile_seconds")
    )
    return Cost(run, seeds, update, by_kind, gradients, wall, compiling, (device,))


def pool_costs(run: str, costs: Sequence[Cost]) -> Cost:
    """Pool the costs of a method's runs.

    Env steps and gradient updates are means over all seeds. Seconds are sums over the runs. The
    field `update` is that of the first run.
    """
    if len(costs) == 1:
        return costs[0]._replace(run=run)
    seeds = np.array([one.seeds for one in costs], float)
    share = seeds / seeds.sum()  # weights that turn means per run into a mean over all seeds
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
    """Combine the metrics of a method's runs as if a single run had trained all seeds.

    Only updates that occur in every run are kept. Costs are averaged over the runs. Metrics that
    are lists over seeds are concatenated, and all others are dropped.
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
    """Return a number as a float, or a mapping's sum over all kinds of env steps but `evaluate`.

    For any other input the result is NaN.
    """
    if isinstance(x, Mapping):
        return sum(_number(value) for kind, value in x.items() if kind != "evaluate")
    return _number(x)


def _number(x: object) -> float:
    return float(x) if isinstance(x, int | float) else float("nan")
