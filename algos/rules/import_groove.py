"""Import of LPG rules that were trained with other code, from arrays and their description.

The description is a JSON object with these fields:

- `shapes`: Shape of each array, by name. If the arrays are stored as one flat vector, the entries
  of `shapes` have the order of the arrays in the vector.
- `layout`: `flax-gru` or `flax-lstm`, see below. If missing, the layout is inferred from the names
  of the arrays.
- `inputs`: Inputs of the recurrent core, in order, see `INPUTS`. If missing, these are all of
  `INPUTS` except the discount.
- `convention`: `ascent` if agents maximise π̂ log π, where π̂ is the rule's target for the policy π.
  `descent` if agents minimise π̂ log π, as in the code released with GROOVE (Jackson et al., 2023).

Both layouts name arrays as flax does. The perceptron `MLP_0`, with layers `Dense_0` and `Dense_1`,
embeds predictions. The recurrent cell may have any name, but its gates have the names in flax
(`ir`, `iz`, ... for a GRU and `ii`, `if`, ... for an LSTM). The heads, outside `MLP_0`, are
`Dense_0` for π̂ and `Dense_1` for the logits of ŷ, the target for predictions. If there are other
names, an error lists them.
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
"""Inputs of a rule's recurrent core, in rlgen's order."""

RAW_CLOCK = ("relative_step", "log_lifetime", "step", "lifetime")
CONVENTIONS = ("ascent", "descent")

GATES = {
    "flax-gru": (("ir", "iz", "in"), ("hr", "hz", "hn")),
    "flax-lstm": (("ii", "if", "ig", "io"), ("hi", "hf", "hg", "ho")),
}
"""Names of the gates in flax, for inputs and for the recurrent state, in rlgen's order of gates."""


class Description(NamedTuple):
    """Description of the arrays; the fields are explained in the module docstring."""

    shapes: dict[str, tuple[int, ...]]
    layout: str
    inputs: tuple[str, ...]
    convention: str


def import_rule(arrays: Path | str, description: Path | str) -> LearnedRule:
    """Return a rule of rlgen that computes the same targets as the imported rule.

    Args:
        arrays: `.npz` file with one array per name, or `.npy` file with all arrays as one vector.
        description: `.json` file with the fields in the module docstring.

    Raises:
        ValueError: If a file cannot be read; if the layout, an input or the convention is unknown;
            if array names do not belong to the layout; or if shapes are inconsistent.
    """
    told = _describe(Path(description))
    parts = _Parts(_named(Path(arrays), told))
    layout = told.layout or _layout_of(parts.left)
    rule, params = _convert(parts, layout, told)
    if parts.left:
        raise ValueError(
            f"{arrays}: the layout {layout} has no arrays named {', '.join(sorted(parts.left))}; "
            "an import without these arrays would change the rule"
        )
    _check_fit(rule, params)
    params = jax.tree.map(jnp.asarray, params)
    meta = {"imported": Path(arrays).name, "layout": layout, "convention": told.convention}
    return LearnedRule(rule, params, meta)


def _check_fit(rule: Rule, params: Any) -> None:
    """Check that the shapes of all parameters agree with the rule's sizes."""
    needed = jax.eval_shape(rule.init, jax.random.key(0))
    # Flattening orders both trees by the same keys, so only shapes have to be compared.
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
    """Arrays by name; `take` removes an array, and `left` contains the remaining arrays."""

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
    # [H, gates H] and [inputs, gates H]: rlgen has one matrix for all gates, and flax has one
    # matrix per gate.
    recurrent = np.concatenate([parts.take(f"{cell}/{g}/kernel") for g in of_state], axis=-1)
    inputs = np.concatenate([parts.take(f"{cell}/{g}/kernel") for g in of_inputs], axis=-1)
    # The biases of flax's GRU belong to the input weights, except for an additional bias of `hn`.
    # The biases of flax's LSTM belong to the state weights.
    with_bias = of_inputs if layout == "flax-gru" else of_state
    bias = np.concatenate([parts.take(f"{cell}/{g}/bias") for g in with_bias])
    core = {"inputs": _reordered(inputs, told.inputs), "recurrent": recurrent, "bias": bias}
    if layout == "flax-gru":
        core["recurrent_bias"] = parts.take(f"{cell}/hn/bias")
    hidden, out = parts.dense("MLP_0/Dense_0"), parts.dense("MLP_0/Dense_1")
    policy, prediction = parts.dense("Dense_0"), parts.dense("Dense_1")
    # rlgen's agents maximise π̂ log π. If the rule is for agents that minimise π̂ log π, the head
    # of π̂ is negated, including the bias.
    sign = -1.0 if told.convention == "descent" else 1.0
    policy = {kind: sign * x for kind, x in policy.items()}
    # rlgen has one head: column 0 is π̂, and the other columns are the logits of ŷ.
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
    # A permutation of the inputs permutes the rows of the kernel in the same way, so the reordered
    # kernel computes the same function.
    return kernel[[inputs.index(name) for name in INPUTS if name in inputs]]


def _layout_of(arrays: Mapping[str, np.ndarray]) -> str:
    """Infer the layout from the names of the gates."""
    for layout, (of_inputs, _) in GATES.items():
        if all(any(name.endswith(f"/{g}/kernel") for name in arrays) for g in of_inputs):
            return layout
    raise ValueError(
        f"the arrays {', '.join(sorted(arrays)) or '(none)'} have no known layout; the names must "
        "contain the gates of "
        + " or ".join(f"{layout} ({', '.join(g)})" for layout, (g, _) in GATES.items())
    )


def _describe(path: Path) -> Description:
    try:
        told = json.loads(path.read_text())
        shapes = {str(name): tuple(map(int, shape)) for name, shape in told["shapes"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path} is not a description of arrays; it must be a JSON object with a field "
            "`shapes`, which contains the shape of each array by name"
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
            f"{path}: convention must be 'ascent' (agents maximise π̂ log π) or 'descent' (agents "
            f"minimise it), got {convention!r}"
        )
    return Description(shapes, layout, inputs, convention)


def _check_inputs(path: Path, inputs: Sequence[str]) -> None:
    raw = [name for name in inputs if name in RAW_CLOCK]
    if raw:
        raise ValueError(
            f"{path}: the inputs {', '.join(raw)} are raw counts of updates; rlgen's rules have "
            "the inputs n/N and a scaled log N instead, so a rule with these inputs cannot be "
            "imported"
        )
    unknown = [name for name in inputs if name not in INPUTS]
    needed = [name for name in INPUTS if name != "discount" and name not in inputs]
    if unknown or needed or len(set(inputs)) < len(inputs):
        wrong = f"unknown {', '.join(unknown)}" if unknown else f"got {', '.join(inputs)}"
        raise ValueError(
            f"{path}: inputs must contain each of {', '.join(INPUTS)} once, except that discount "
            f"may be left out; {wrong}"
        )


def _named(path: Path, told: Description) -> Arrays:
    """Load the arrays and check their names, shapes and values against the description."""
    try:
        loaded = np.load(path, allow_pickle=False)
        found = loaded if isinstance(loaded, np.ndarray) else {n: loaded[n] for n in loaded.files}
    except (OSError, ValueError, EOFError) as error:
        raise ValueError(f"{path} is not a NumPy file (.npz or .npy)") from error
    # A `.npy` file holds one flat vector without names.
    if isinstance(found, np.ndarray):
        found = _split(path, found, told.shapes)
    if found.keys() != told.shapes.keys():
        odd = sorted(found.keys() ^ told.shapes.keys())
        raise ValueError(
            f"the arrays {', '.join(odd)} are either in {path} or in its description, but not in "
            "both"
        )
    for name, x in found.items():
        if x.shape != told.shapes[name]:
            raise ValueError(
                f"{path}: {name} has shape {x.shape}, but its description says {told.shapes[name]}"
            )
        if x.dtype.kind != "f" or not np.isfinite(x).all():
            raise ValueError(f"{path}: {name} contains values that are not finite numbers")
    return {name: np.asarray(x, np.float32) for name, x in found.items()}


def _split(path: Path, vector: np.ndarray, shapes: Mapping[str, tuple[int, ...]]) -> Arrays:
    sizes = [int(np.prod(shape)) for shape in shapes.values()]
    if vector.ndim != 1 or vector.size != sum(sizes):
        raise ValueError(
            f"{path} contains an array of shape {vector.shape}, but the shapes in its description "
            f"need a vector of {sum(sizes):,} numbers"
        )
    pieces = np.split(vector, np.cumsum(sizes)[:-1])
    return {name: x.reshape(shape) for (name, shape), x in zip(shapes.items(), pieces, strict=True)}
