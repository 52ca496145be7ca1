"""Report of `rlgen fit-generator` on a level model: measures, pictures and the HTML page.

The report compares four kinds of levels: the data that the model was fitted to, the model's
proposals, random edits of the data, and random levels. A proposal is a level that the model
generates by interpolating between two levels of the data.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array
from matplotlib.figure import Figure

from rlgen import config, registry
from rlgen.algos.level_models import measures
from rlgen.codec import Cells, Numbers, Part
from rlgen.evaluation.report import html
from rlgen.evaluation.report.figures import THEMES, png_bytes
from rlgen.protocols import LevelEnv
from rlgen.types import Key, PyTree

NUM_EDITS = 5
BATCH = 36
"""Number of proposals sampled at once, equal to DRED's number of slots."""
NUM_PICTURES = 6
DATA, PROPOSALS, EDITS, RANDOM = "data", "proposals", f"{NUM_EDITS} edits", "random"


class Tools(NamedTuple):
    """Functions on batches of levels, compiled once for all kinds of levels."""

    encode: Callable[[PyTree], dict[str, Array]]
    hash: Callable[[PyTree], Array]
    solvable: Callable[[PyTree], Array] | None  # None without a solver


class LevelSample(NamedTuple):
    """Levels of one kind (data, proposals, edits or random), on the host."""

    level: PyTree  # [n, ...]
    values: dict[str, np.ndarray]  # encoded parts of the levels, by the part's name
    # Only for proposals, [n, 2]: indices of the two data levels that a proposal interpolates.
    parents: np.ndarray | None = None


def report(fit: Any, num: int, seed: int) -> tuple[dict[str, Any], dict[str, LevelSample]]:
    """Return all measures as JSON values, and the measured levels."""
    tools = _tools(fit.env)
    # The fit used `key(seed)` itself. Folding in 1 gives different random numbers for the samples.
    sets = _sets(fit, tools, num, jax.random.fold_in(jax.random.key(seed), 1))
    found: dict[str, Any] = {
        "env": fit.env_name,
        "model": type(fit.model).__name__,
        "fields": config.to_json(config.flatten(fit.model)),
        "levels": {"name": fit.suite.name, "num": len(fit.suite.levels)},
        "seconds": round(fit.seconds, 1),
        "metrics": {name: values[-1] for name, values in fit.metrics.items()},
        "loss": fit.metrics["loss"],
        "reconstruction": _reconstruction(fit),
        "sets": {name: _measured(fit, tools, one, sets[DATA]) for name, one in sets.items()},
    }
    found["headline"] = _headline(fit, found)
    return _plain(found), sets


def samples(fit: Any, sets: Mapping[str, LevelSample]) -> dict[str, bytes]:
    """Return PNG figures of data levels and the proposals between them, by colour theme.

    The result is empty if the environment cannot draw images of its levels.
    """
    if not registry.has(fit.env, LevelEnv.level_image):
        return {}
    rows = _pictures(fit, sets)
    return {theme: png_bytes(_figure(rows, theme), dpi=110) for theme in ("light", "dark")}


def page(found: Mapping[str, Any], drawn: html.Pictures) -> html.Page:
    """Content of the report page.

    Args:
        found: Measures from `report`.
        drawn: Figures from `samples`; if empty, the page has no section for figures.
    """
    sets = found["sets"]
    names, others = list(sets), [name for name in sets if name != DATA]
    alike = [
        [what, *(_cell(sets[name].get(what)) for name in names)]
        for what in sets[PROPOSALS]
        if what != "divergence"
    ]
    divergence = [
        [what, *(_cell(sets[name]["divergence"][what]) for name in others)]
        for what in sets[PROPOSALS]["divergence"]
    ]
    right = [[name, _cell(value)] for name, value in found["reconstruction"].items()]
    fields = [[name, str(value)] for name, value in found["fields"].items()]
    tables = (
        ("Properties of the levels", html.Table(["", *names], alike)),
        ("Distance from the data", html.Table(["", *others], divergence, _FAR)),
        ("Reconstruction", html.Table(["part", "accuracy"], right, _RIGHT)),
    )
    sections = [html.Section(title, "table.html", table) for title, table in tables]
    settings = html.Table(["field", "value"], fields)
    sections.append(html.Section("Settings", "settings.html", settings))
    if drawn:
        figure = html.Figure(drawn, "data levels and the proposals between them", _DRAWN)
        sections.insert(0, html.Section("Samples", "figure.html", figure))
    return html.Page(
        "A generative model of levels",
        f"{found['model']} fitted on {found['levels']['num']} levels of {found['env']}",
        found["headline"],
        f"Fitted in {found['seconds']:.0f} s on the levels of {found['levels']['name']}.",
        sections,
    )


_FAR = (
    "Jensen-Shannon divergence, in bits, between each kind of levels and the data. 0 means equal "
    "distributions, 1 disjoint distributions."
)
_RIGHT = "Fraction of each part that is decoded correctly. For numbers, the mean error is shown."
_DRAWN = (
    "The leftmost and the rightmost level of each row are from the data. The levels between them "
    "are proposals, which interpolate between these two levels. The first and the last proposal "
    "are the reconstructions of the two data levels."
)


def _tools(env: Any) -> Tools:
    # Each function is compiled once and then used for all kinds of levels.
    solve = env.solve if registry.has(env, LevelEnv.solve) else None
    return Tools(
        jax.jit(jax.vmap(env.codec().encode)),
        jax.jit(jax.vmap(env.level_hash)),
        jax.jit(jax.vmap(lambda level: solve(level).solvable)) if solve else None,
    )


def _sets(fit: Any, tools: Tools, num: int, key: Key) -> dict[str, LevelSample]:
    """Return levels of every kind, by name.

    Edits of the data are included only if the environment has `mutate_levels`.
    """
    key_propose, key_rows, key_edit, key_random = jax.random.split(key, 4)
    data = fit.suite.levels.level
    propose = jax.jit(fit.model.propose, static_argnums=2)
    batches = []
    # Batches have DRED's size. A batch holds whole sequences of proposals between two levels.
    for one in jax.random.split(key_propose, math.ceil(num / BATCH)):
        batches.append(jax.device_get(propose(one, fit.fitted, BATCH)))
    levels, parents = jax.tree.map(lambda *x: np.concatenate(x)[:num], *batches)

    def sample(level: PyTree, parents: np.ndarray | None = None) -> LevelSample:
        return LevelSample(jax.device_get(level), jax.device_get(tools.encode(level)), parents)

    found = {DATA: sample(data), PROPOSALS: sample(levels, parents)}
    if registry.has(fit.env, LevelEnv.mutate_levels):
        rows = jax.random.randint(key_rows, (num,), 0, len(fit.suite.levels))
        some = jax.tree.map(lambda x: jnp.asarray(x)[rows], data)
        edit = jax.jit(fit.env.mutate_levels, static_argnums=2)
        found[EDITS] = sample(edit(key_edit, some, NUM_EDITS))
    keys = jax.random.split(key_random, num)
    return found | {RANDOM: sample(jax.jit(jax.vmap(fit.env.sample_level))(keys))}


def _measured(fit: Any, tools: Tools, one: LevelSample, data: LevelSample) -> dict[str, Any]:
    """Measures of the levels of one kind."""
    parts = fit.env.codec().parts
    ours, known = (_words(tools.hash(x.level)) for x in (one, data))
    found: dict[str, Any] = {"levels": len(ours), "distinct": len(set(ours)) / len(ours)}
    found["not in the data"] = float(np.mean([word not in set(known) for word in ours]))
    if tools.solvable:
        found["solvable"] = tools.solvable(one.level).mean()
    for cells in (part for part in parts if isinstance(part, Cells)):
        found |= _of_cells(parts, one.values, cells)
    there = measures.histograms(parts, data.values)
    here = measures.histograms(parts, one.values)
    # The data are also compared with themselves, which gives 0. The page omits this column.
    found["divergence"] = {n: measures.divergence(there[n], here[n]) for n in there}
    return found


def _of_cells(
    parts: tuple[Part, ...], values: dict[str, np.ndarray], cells: Cells
) -> dict[str, Any]:
    """Measures of a grid: connectivity, number of cells of each kind, steps from hub to landmarks.

    Landmarks are kinds of cells whose positions depend on a place, the hub (see `codec.Cells`).
    """
    found: dict[str, Any] = {}
    if cells.free:
        found["connected"] = measures.connected(parts, values, cells).mean()
    for i, kind in enumerate(cells.kinds):
        found[f"cells of {kind}"] = (values[cells.name] == i).sum((1, 2)).mean()
    if cells.hub:
        for kind, steps in measures.to_hub(parts, values, cells).items():
            near = steps[np.isfinite(steps)]
            found[f"steps from {cells.hub} to {kind}"] = near.mean() if near.size else None
    return found


def _reconstruction(fit: Any) -> dict[str, float]:
    told = jax.jit(fit.model.reconstruct)(fit.fitted, fit.suite.levels.level)
    return {part.name: float(told[part.name].mean()) for part in fit.env.codec().parts}


def _headline(fit: Any, found: Mapping[str, Any]) -> str:
    """Sentence with the main results."""
    proposals = found["sets"][PROPOSALS]
    # If there is no solver, connected levels are the best available estimate of solvable levels.
    share = proposals.get("solvable", proposals.get("connected"))
    new = f"{proposals['not in the data']:.0%} of the proposals are new"
    solved = "" if share is None else f", {share:.0%} can be solved"
    first = fit.env.codec().parts[0]
    told = found["reconstruction"][first.name]
    words = (
        f"with a mean error of {told:.3f}"
        if isinstance(first, Numbers)
        else f"with {told:.1%} accuracy"
    )
    return f"{new}{solved}; {first.name} is reconstructed {words}"


def _pictures(fit: Any, sets: Mapping[str, LevelSample]) -> list[list[np.ndarray]]:
    """Return rows of pictures, each with two data levels and the proposals between these levels."""
    parents = sets[PROPOSALS].parents
    assert parents is not None
    found = []
    for rows in _runs_of(parents)[:NUM_PICTURES]:
        first, last = (_image(fit, sets[DATA], int(i)) for i in parents[rows[0]])
        found.append([first, *(_image(fit, sets[PROPOSALS], i) for i in rows), last])
    return found


def _figure(rows: list[list[np.ndarray]], theme: str) -> Figure:
    look = THEMES[theme]
    columns = max(len(row) for row in rows)
    size = (1.1 * columns, 1.2 * len(rows) + 0.2)
    figure = Figure(figsize=size, facecolor=look.paper, layout="constrained")
    grid = figure.subplots(len(rows), columns, squeeze=False)
    for ax in grid.flat:
        ax.set_axis_off()
    for line, images in zip(grid, rows, strict=True):
        for ax, image in zip(line, images, strict=False):
            ax.imshow(image, interpolation="none")
    for at in (0, len(rows[0]) - 1):
        grid[0, at].set_title("data", fontsize=7, color=look.ink)
    return figure


def _runs_of(parents: np.ndarray) -> list[list[int]]:
    """Group the indices of consecutive proposals that interpolate the same two data levels."""
    groups: list[list[int]] = []
    for i, pair in enumerate(parents):
        if groups and np.array_equal(parents[groups[-1][0]], pair):
            groups[-1].append(i)
        else:
            groups.append([i])
    return groups


def _image(fit: Any, of: LevelSample, i: int) -> np.ndarray:
    return fit.env.level_image(jax.tree.map(lambda x: jnp.asarray(x[i]), of.level))


def _words(hashes: Any) -> list[int]:
    high, low = np.asarray(hashes).astype(np.uint64).T
    return ((high << np.uint64(32)) | low).tolist()


def _cell(value: Any) -> str:
    if value is None:
        return "none"
    return f"{value:,}" if isinstance(value, int) else f"{value:.3g}"


def _plain(value: Any) -> Any:
    """Convert values to JSON types; numbers that are not finite become None."""
    if isinstance(value, dict):
        return {name: _plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, np.generic | jax.Array):
        value = value.item()
    # JSON has no NaN and no infinity.
    return None if isinstance(value, float) and not math.isfinite(value) else value
