"""Import of LPG rules trained with other code, from arrays and a description of them.

The description is a JSON object:

- `shapes`: shape of each array by name; if the arrays are one flat vector, in the vector's order;
- `layout`: `flax-gru` or `flax-lstm`, which name the network's parts as flax's modules do (below);
  if missing, it is inferred from the names;
- `inputs`: inputs of the core in order, see `INPUTS`; by default all of them except the discount;
- `convention`: `ascent` if agents ascend π̂ log π, `descent` if they descend it, as in the code
  released with GROOVE.

A layout has a perceptron `MLP_0` (`Dense_0`, `Dense_1`) that embeds predictions, a cell of any name
with flax's gates (`ir`, `iz`, ... or `ii`, `if`, ...), and the heads `Dense_0` (π̂) and `Dense_1`
(the logits of ŷ). Unknown names are rejected with an error that lists them.
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
"""Inputs of a rule's core, in rlgen's order."""

RAW_CLOCK = ("relative_step", "log_lifetime", "step", "lifetime")
CONVENTIONS = ("ascent", "descent")

GATES = {
    "flax-gru": (("ir", "iz", "in"), ("hr", "hz", "hn")),
    "flax-lstm": (("ii", "if", "ig", "io"), ("hi", "hf", "hg", "ho")),
}
"""Gates on the inputs and on the recurrent state, in the order of rlgen's cells."""


class Description(NamedTuple):
    """Description of the arrays, as in the module's docstring."""

    shapes: dict[str, tuple[int, ...]]
    layout: str
    inputs: tuple[str, ...]
    convention: str


def import_rule(arrays: Path | str, description: Path | str) -> LearnedRule:
    """Return a rule of rlgen that computes the same targets as the described one.

    Args:
        arrays: `.npz` file with one array per name, or `.npy` file with all of them as one vector.
        description: `.json` file, described above.

    Raises:
        ValueError: If a file cannot be read, the layout, an input or the convention is unknown,
            array names do not belong to the layout, or shapes are inconsistent.
    """
    told = _describe(Path(description))
    parts = _Parts(_named(Path(arrays), told))
    layout = told.layout or _layout_of(parts.left)
    rule, params = _convert(parts, layout, told)
    if parts.left:
        raise ValueError(
            f"{arrays}: the layout {layout} has no arrays {', '.join(sorted(parts.left))}; "
            "dropping them would change the rule"
        )
    _check_fit(rule, params)
    params = jax.tree.map(jnp.asarray, params)
    meta = {"imported": Path(arrays).name, "layout": layout, "convention": told.convention}
    return LearnedRule(rule, params, meta)


def _check_fit(rule: Rule, params: Any) -> None:
    """Check that the shapes of all parts agree with the rule's sizes."""
    needed = jax.eval_shape(rule.init, jax.random.key(0))
    # Compared by shape alone: flattening orders both trees by the same keys.
    for (path, x), like in zip(
        jax.tree_util.tree_leaves_with_path(params), jax.tree.leaves(needed), strict=True
    ):
        if x.shape != like.shape:
            part = jax.tree_util.keystr(path, simple=True, separator="/")
            raise ValueError(
                f"the arrays are inconsistent: {part} is {x.shape}, but a rule with "
                f"{rule.num_predictions} predictions and {rule.hidden_size} units needs "
                f"{like.shape}"
            )


class _Parts:
    """Arrays by name, each of which can be taken once."""

    def __init__(self, arrays: Arrays):
        # flax saves variables below the collection `params`.
        self.left = {name.removeprefix("params/"): x for name, x in arrays.items()}

    def take(self, name: str) -> np.ndarray:
        if name not in self.left:
            known = ", ".join(sorted(self.left)) or "none"
            raise ValueError(f"the layout needs an array {name}; the remaining arrays are {known}")
        return self.left.pop(name)

    def dense(self, name: str) -> dict[str, np.ndarray]:
        return {kind: self.take(f"{name}/{kind}") for kind in ("kernel", "bias")}


def _convert(parts: _Parts, layout: str, told: Description) -> tuple[Rule, Any]:
    cell = next((m[1] for m in (_CELL.fullmatch(name) for name in parts.left) if m), "")
    of_inputs, of_state = GATES[layout]
    # [H, gates H] and [inputs, gates H]: one matrix for all gates, where flax has one per gate.
    recurrent = np.concatenate([parts.take(f"{cell}/{g}/kernel") for g in of_state], axis=-1)
    inputs = np.concatenate([parts.take(f"{cell}/{g}/kernel") for g in of_inputs], axis=-1)
    # flax's GRU has its biases in the input gates, plus one in `hn`; its LSTM in the state's gates.
    with_bias = of_inputs if layout == "flax-gru" else of_state
    bias = np.concatenate([parts.take(f"{cell}/{g}/bias") for g in with_bias])
    core = {"inputs": _reordered(inputs, told.inputs), "recurrent": recurrent, "bias": bias}
    if layout == "flax-gru":
        core["recurrent_bias"] = parts.take(f"{cell}/hn/bias")
    hidden, out = parts.dense("MLP_0/Dense_0"), parts.dense("MLP_0/Dense_1")
    policy, prediction = parts.dense("Dense_0"), parts.dense("Dense_1")
    # rlgen's agents ascend, so the head of π̂ of a rule for descent is negated, bias included.
    sign = -1.0 if told.convention == "descent" else 1.0
    policy = {kind: sign * x for kind, x in policy.items()}
    # rlgen has one head: column 0 is π̂, the others are the logits of ŷ.
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
    """Reorder the rows of the input kernel to rlgen's order of inputs."""
    if kernel.shape[0] != len(inputs):
        raise ValueError(
            f"the cell has {kernel.shape[0]} inputs, but the description lists {len(inputs)}: "
            f"{', '.join(inputs)}; correct `inputs`"
        )
    # A permutation of inputs only permutes the rows of their weights, so the function is kept.
    return kernel[[inputs.index(name) for name in INPUTS if name in inputs]]


def _layout_of(arrays: Mapping[str, np.ndarray]) -> str:
    """Infer the layout from the names of the gates."""
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
            f"{path} is not a description of arrays: a JSON object with `shapes`, the shape of "
            "each array by name, is needed"
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
            f"{path}: convention must be 'ascent' or 'descent', the direction in which agents "
            f"follow the gradient of π̂ log π, got {convention!r}"
        )
    return Description(shapes, layout, inputs, convention)


def _check_inputs(path: Path, inputs: Sequence[str]) -> None:
    raw = [name for name in inputs if name in RAW_CLOCK]
    if raw:
        raise ValueError(
            f"{path}: the inputs {', '.join(raw)} are raw counts of updates; rlgen's rules have "
            "the inputs n/N and a scaled log N, into which no weights can convert them"
        )
    unknown = [name for name in inputs if name not in INPUTS]
    needed = [name for name in INPUTS if name != "discount" and name not in inputs]
    if unknown or needed or len(set(inputs)) < len(inputs):
        wrong = f"unknown {', '.join(unknown)}" if unknown else f"got {', '.join(inputs)}"
        raise ValueError(f"{path}: inputs must be {', '.join(INPUTS)}, each once; {wrong}")


def _named(path: Path, told: Description) -> Arrays:
    """Load the arrays and check their names, shapes and values against the description."""
    try:
        loaded = np.load(path, allow_pickle=False)
        found = loaded if isinstance(loaded, np.ndarray) else {n: loaded[n] for n in loaded.files}
    except (OSError, ValueError, EOFError) as error:
        raise ValueError(f"{path} is not a NumPy file, .npz or .npy") from error
    # A `.npy` file holds one flat vector without names.
    if isinstance(found, np.ndarray):
        found = _split(path, found, told.shapes)
    if found.keys() != told.shapes.keys():
        odd = sorted(found.keys() ^ told.shapes.keys())
        raise ValueError(f"{path} and its description differ in the arrays {', '.join(odd)}")
    for name, x in found.items():
        if x.shape != told.shapes[name]:
            raise ValueError(f"{path}: {name} is {x.shape}, described as {told.shapes[name]}")
        if x.dtype.kind != "f" or not np.isfinite(x).all():
            raise ValueError(f"{path}: {name} contains values that are not finite numbers")
    return {name: np.asarray(x, np.float32) for name, x in found.items()}


def _split(path: Path, vector: np.ndarray, shapes: Mapping[str, tuple[int, ...]]) -> Arrays:
    sizes = [int(np.prod(shape)) for shape in shapes.values()]
    if vector.ndim != 1 or vector.size != sum(sizes):
        raise ValueError(
            f"{path} is an array of shape {vector.shape}; the described shapes add up to a vector "
            f"of {sum(sizes):,} numbers"
        )
    pieces = np.split(vector, np.cumsum(sizes)[:-1])
    return {name: x.reshape(shape) for (name, shape), x in zip(shapes.items(), pieces, strict=True)}
