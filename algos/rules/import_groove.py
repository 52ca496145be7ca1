"""Rules of LPG's kind that were trained elsewhere, from arrays and a description of them.

The description is a JSON object:

- `shapes`: the shape of each array by its name; if the arrays are one flat vector, in its order;
- `layout`: `flax-gru` or `flax-lstm`, a network as flax's modules name its parts (below); left out,
  it follows from the names;
- `inputs`: what the core is fed, in order, see `INPUTS`; by default the first five without the
  discount;
- `convention`: `ascent` if agents ascend π̂ log π, `descent` if they descend it, as in the code
  released with GROOVE.

A layout has a perceptron `MLP_0` (`Dense_0`, `Dense_1`) that embeds predictions, a cell somewhere
with flax's gates (`ir`, `iz`, ... or `ii`, `if`, ...), and the heads `Dense_0` (π̂) and `Dense_1`
(the logits of ŷ). Whatever is not known is refused by its name, not guessed.
"""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rlgen.algos.rules.files import LearnedRule
from rlgen.algos.rules.networks import Rule
from rlgen.registry import did_you_mean

Arrays = dict[str, np.ndarray]

INPUTS = ("reward", "done", "discount", "action_prob", "prediction", "next_prediction")
"""In rlgen's order."""

RAW_CLOCK = ("relative_step", "log_lifetime", "step", "lifetime")
CONVENTIONS = ("ascent", "descent")

GATES = {
    "flax-gru": (("ir", "iz", "in"), ("hr", "hz", "hn")),
    "flax-lstm": (("ii", "if", "ig", "io"), ("hi", "hf", "hg", "ho")),
}
"""Of the inputs and of the state, in the order of rlgen's cells."""


class Description(NamedTuple):
    """What is said of the arrays."""

    shapes: dict[str, tuple[int, ...]]
    layout: str
    inputs: tuple[str, ...]
    convention: str


def import_rule(arrays: Path | str, description: Path | str) -> LearnedRule:
    """A rule of rlgen's with the same targets as the described one.

    Args:
        arrays: `.npz` with one array a name, or `.npy` with all of them as one vector.
        description: `.json`, see above.

    Raises:
        ValueError: a file that cannot be read, an unknown layout, input or convention, names that
            the layout does not have or shapes that contradict each other.
    """
    told = _describe(Path(description))
    parts = _Parts(_named(Path(arrays), told))
    layout = told.layout or _layout_of(parts.left)
    rule, params = _convert(parts, layout, told)
    if parts.left:
        raise ValueError(
            f"{arrays}: {layout} has no place for {', '.join(sorted(parts.left))}; a rule with "
            "other parts would not be the same rule without them"
        )
    _check_fit(rule, params)
    params = jax.tree.map(jnp.asarray, params)
    meta = {"imported": Path(arrays).name, "layout": layout, "convention": told.convention}
    return LearnedRule(rule, params, meta)


def _check_fit(rule: Rule, params: Any) -> None:
    """Refuse parts that do not fit each other."""
    needed = jax.eval_shape(rule.init, jax.random.key(0))
    for (path, x), like in zip(
        jax.tree_util.tree_leaves_with_path(params), jax.tree.leaves(needed), strict=True
    ):
        if x.shape != like.shape:
            part = jax.tree_util.keystr(path, simple=True, separator="/")
            raise ValueError(
                f"the parts do not fit each other: {part} is {x.shape}, and a rule with "
                f"{rule.num_predictions} predictions and {rule.hidden_size} units needs "
                f"{like.shape}"
            )


class _Parts:
    """Arrays by name, each taken once."""

    def __init__(self, arrays: Arrays):
        self.left = {name.removeprefix("params/"): x for name, x in arrays.items()}

    def take(self, name: str) -> np.ndarray:
        if name not in self.left:
            known = ", ".join(sorted(self.left)) or "none"
            raise ValueError(f"the layout needs an array {name}; those that are left are {known}")
        return self.left.pop(name)

    def dense(self, name: str) -> dict[str, np.ndarray]:
        return {kind: self.take(f"{name}/{kind}") for kind in ("kernel", "bias")}


def _convert(parts: _Parts, layout: str, told: Description) -> tuple[Rule, Any]:
    cell = next((m[1] for m in (_CELL.fullmatch(name) for name in parts.left) if m), "")
    of_inputs, of_state = GATES[layout]
    recurrent = np.concatenate([parts.take(f"{cell}/{g}/kernel") for g in of_state], axis=-1)
    inputs = np.concatenate([parts.take(f"{cell}/{g}/kernel") for g in of_inputs], axis=-1)
    with_bias = of_inputs if layout == "flax-gru" else of_state
    bias = np.concatenate([parts.take(f"{cell}/{g}/bias") for g in with_bias])
    core = {"inputs": _reordered(inputs, told.inputs), "recurrent": recurrent, "bias": bias}
    if layout == "flax-gru":
        core["recurrent_bias"] = parts.take(f"{cell}/hn/bias")
    hidden, out = parts.dense("MLP_0/Dense_0"), parts.dense("MLP_0/Dense_1")
    policy, prediction = parts.dense("Dense_0"), parts.dense("Dense_1")
    sign = -1.0 if told.convention == "descent" else 1.0
    policy = {kind: sign * x for kind, x in policy.items()}
    heads = {kind: np.concatenate([policy[kind], prediction[kind]], axis=-1) for kind in policy}
    rule = Rule(
        core="gru" if layout == "flax-gru" else "lstm",
        hidden_size=recurrent.shape[0],
        num_predictions=hidden["kernel"].shape[0],
        embedding_size=hidden["kernel"].shape[1],
        discount_input="discount" in told.inputs,
    )
    return rule, {"embed_hidden": hidden, "embed_out": out, "core": core, "heads": heads}


_CELL = re.compile(r"(.*)/(?:ir|ii)/kernel")


def _reordered(kernel: np.ndarray, inputs: Sequence[str]) -> np.ndarray:
    """Rows of the inputs' kernel in rlgen's order."""
    if kernel.shape[0] != len(inputs):
        raise ValueError(
            f"the cell has {kernel.shape[0]} inputs, and the description says {len(inputs)}: "
            f"{', '.join(inputs)}; state them as `inputs`"
        )
    return kernel[[inputs.index(name) for name in INPUTS if name in inputs]]


def _layout_of(arrays: Mapping[str, np.ndarray]) -> str:
    """By the names of the gates."""
    for layout, (of_inputs, _) in GATES.items():
        if all(any(name.endswith(f"/{g}/kernel") for name in arrays) for g in of_inputs):
            return layout
    raise ValueError(
        f"unknown layout of {', '.join(sorted(arrays)) or 'no arrays'}; known are the gates of "
        + " and ".join(f"{layout} ({', '.join(g)})" for layout, (g, _) in GATES.items())
    )


def _describe(path: Path) -> Description:
    try:
        told = json.loads(path.read_text())
        shapes = {str(name): tuple(map(int, shape)) for name, shape in told["shapes"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path} is no description of arrays: needed is a JSON object with `shapes`, the shape "
            "of each array by its name"
        ) from error
    layout = str(told.get("layout", ""))
    if layout and layout not in GATES:
        raise ValueError(f"{path}: unknown layout {layout!r}; {did_you_mean(layout, GATES)}")
    default = [name for name in INPUTS if name != "discount"]
    inputs = tuple(map(str, told.get("inputs", default)))
    _check_inputs(path, inputs)
    convention = str(told.get("convention", ""))
    if convention not in CONVENTIONS:
        raise ValueError(
            f"{path}: convention must be 'ascent' or 'descent', whichever agents do with "
            f"π̂ log π, got {convention!r}"
        )
    return Description(shapes, layout, inputs, convention)


def _check_inputs(path: Path, inputs: Sequence[str]) -> None:
    raw = [name for name in inputs if name in RAW_CLOCK]
    if raw:
        raise ValueError(
            f"{path}: the inputs {', '.join(raw)} are raw counts of updates; rlgen's rules see n/N "
            "and a scaled log N, and no weights turn one into the other"
        )
    unknown = [name for name in inputs if name not in INPUTS]
    needed = [name for name in INPUTS if name != "discount" and name not in inputs]
    if unknown or needed or len(set(inputs)) < len(inputs):
        wrong = f"unknown {', '.join(unknown)}" if unknown else f"got {', '.join(inputs)}"
        raise ValueError(f"{path}: inputs must be {', '.join(INPUTS)}, each once; {wrong}")


def _named(path: Path, told: Description) -> Arrays:
    """The arrays, each of the described shape."""
    try:
        loaded = np.load(path, allow_pickle=False)
        found = loaded if isinstance(loaded, np.ndarray) else {n: loaded[n] for n in loaded.files}
    except (OSError, ValueError, EOFError) as error:
        raise ValueError(f"{path} holds no arrays of numpy, .npz or .npy") from error
    if isinstance(found, np.ndarray):
        found = _split(path, found, told.shapes)
    if found.keys() != told.shapes.keys():
        odd = sorted(found.keys() ^ told.shapes.keys())
        raise ValueError(f"{path} and its description differ in the arrays {', '.join(odd)}")
    for name, x in found.items():
        if x.shape != told.shapes[name]:
            raise ValueError(f"{path}: {name} is {x.shape}, described as {told.shapes[name]}")
        if x.dtype.kind != "f" or not np.isfinite(x).all():
            raise ValueError(f"{path}: {name} holds what is no finite number")
    return {name: np.asarray(x, np.float32) for name, x in found.items()}


def _split(path: Path, vector: np.ndarray, shapes: Mapping[str, tuple[int, ...]]) -> Arrays:
    sizes = [int(np.prod(shape)) for shape in shapes.values()]
    if vector.ndim != 1 or vector.size != sum(sizes):
        raise ValueError(
            f"{path} is an array {vector.shape}; the shapes that are described add up to a vector "
            f"of {sum(sizes):,}"
        )
    pieces = np.split(vector, np.cumsum(sizes)[:-1])
    return {name: x.reshape(shape) for (name, shape), x in zip(shapes.items(), pieces, strict=True)}
