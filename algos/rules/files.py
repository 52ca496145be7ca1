"""Files of learned rules, and `RuleFollower`, the base class of learners that apply a rule.

    from rlgen.algos.rules.files import load_rule
    learned = load_rule("runs/groove")  # a run folder, a file, or a rule that ships with rlgen
    targets = learned.rule(learned.params, inputs)

A file contains plain arrays and a JSON header. It is read without pickle.
"""

import abc
import dataclasses
import hashlib
import io
import json
import zipfile
import zlib
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple, get_args, get_type_hints

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Int

from rlgen.algos.rules.networks import Drift, Rule, known_lifetime
from rlgen.algos.rules.networks import RuleInputs as RuleInputs
from rlgen.protocols import Actor, RuleLearner, RuleNet
from rlgen.registry import did_you_mean
from rlgen.types import Key, PyTree

FORMAT = "rlgen-rule-1"
CONVENTION = "ascent"  # agents ascend π̂ log π
UNTRAINED = "untrained"
SHIPPED = "rlgen.algos.rules"
KINDS: dict[str, type] = {"update-rule": Rule, "drift": Drift}
ADDED = {"clock": False}
"""Fields that are missing in the oldest files of this format, and the values that then apply."""


NO_POLICY = (
    "this run learned an update rule, not a policy; `rlgen eval RUN --suite SUITE` trains fresh "
    "agents with it"
)
"""Error message for code that requests the policy of a meta-learning student."""


class LearnedRule(NamedTuple):
    """A rule, its parameters, and metadata of its training."""

    rule: Any  # a `Rule` or a `Drift`, which contains the sizes
    params: PyTree
    meta: dict[str, Any]  # metadata of the training; empty for an untrained rule


class RuleFollower(RuleLearner, abstract=True):
    """Base class of learners whose agent is updated by a learned rule.

    The state of a learner has a field `agent` with the agent's state. Subclasses are dataclasses
    that declare the fields below.
    """

    agent: Actor
    """Agent that acts and is trained."""
    rule: str
    """Source of the rule, as in `load_rule`."""
    net: RuleNet
    """Sizes of an untrained rule."""
    num_updates: int
    """Number of updates in the agent's lifetime; a rule with a clock has the lifetime as input."""

    @property
    def rule_net(self) -> Any:
        """The rule's network, without parameters."""
        return net_of(self.rule, self.net)

    def init_with(
        self, key: Key, rule: PyTree, lifetime: Int[Array, ""] | tuple[()] = ()
    ) -> PyTree:
        """Return a new agent with the given parameters of a rule.

        Args:
            key: Random key.
            rule: Parameters of the rule.
            lifetime: Number of updates in the agent's lifetime; `()` uses the field `num_updates`.
        """
        known = lifetime
        if isinstance(known, tuple):
            known = known_lifetime(self.rule_net.clock, self.num_updates)
        return self.newborn(key, rule, known)

    @abc.abstractmethod
    def newborn(self, key: Key, rule: PyTree, lifetime: int | Int[Array, ""]) -> PyTree:
        """Return a new agent with the given rule parameters and a known lifetime."""

    def initial_carry(self, num_slots: int) -> PyTree:
        """Return the agent's initial recurrent state."""
        return self.agent.initial_carry(num_slots)

    def act(
        self, key: Key, state: PyTree, carry: PyTree, obs: PyTree, first: Bool[Array, " N"]
    ) -> tuple[PyTree, Int[Array, " N"], Float[Array, " N"], Float[Array, " N"]]:
        """Sample an action of the agent."""
        return self.agent.act(key, state.agent, carry, obs, first)

    def value(
        self, state: PyTree, carry: PyTree, obs: PyTree, first: Bool[Array, " N"]
    ) -> Float[Array, " N"]:
        """Return the critic's value of each observation; scores of levels use these values."""
        return self.agent.value(state.agent, carry, obs, first)

    def pinned_files(self) -> dict[str, bytes]:
        """Return a file with a hash of the rule, by which a resumed run detects a changed rule."""
        return rule_pinned_file(self.rule, type(self.net))


def save_rule(path: Path | str, rule: RuleNet, params: PyTree, meta: dict[str, Any]) -> None:
    """Write a rule as `.npz`.

    Args:
        path: Path of the file.
        rule: Network of the rule, which contains the sizes.
        params: Parameters of the rule.
        meta: JSON-serialisable metadata, such as the environment and the number of updates.
    """
    Path(path).write_bytes(rule_bytes(rule, params, meta))


def rule_bytes(rule: RuleNet, params: PyTree, meta: Mapping[str, Any]) -> bytes:
    """Return the content of the file that `save_rule` writes; equal arguments give equal bytes."""
    header = {
        "format": FORMAT,
        "convention": CONVENTION,
        "kind": _kind_of(type(rule)),
        "rule": dataclasses.asdict(rule),  # pyright: ignore[reportArgumentType]
        "meta": dict(meta),
    }
    arrays = {name: np.asarray(x) for name, x in _named(params).items()}
    # The header is a string array, which NumPy stores and reads without pickle.
    arrays["header"] = np.asarray(json.dumps(header))
    file = io.BytesIO()
    # NumPy gives the members of the archive a fixed date, so the bytes depend on the content alone.
    np.savez_compressed(file, **arrays)  # pyright: ignore[reportArgumentType]
    return file.getvalue()


def rule_files(
    rule: RuleNet, params: PyTree, num_updates: ArrayLike, origin: Mapping[str, Any]
) -> dict[str, bytes]:
    """Return the rules of a run's S seeds as a dict from paths in the run folder to file contents.

    Args:
        rule: Network of the rules, which contains the sizes.
        params: Parameters of the rules, [S, ...].
        num_updates: Number of updates of each rule, [S].
        origin: Metadata of the run; its entry `seed` is the first of the seeds.
    """
    found = {}
    for i, updates in enumerate(np.asarray(num_updates)):
        own = jax.tree.map(lambda x, i=i: x[i], params)
        meta = {**origin, "seed": origin["seed"] + i, "meta_updates": int(updates)}
        found[f"rules/seed-{i:03d}.npz"] = rule_bytes(rule, own, meta)
    return found


def rule_pinned_file(source: str, kind: type = Rule) -> dict[str, bytes]:
    """Return a file with a hash of the rule that a run uses; {} if the rule is untrained."""
    if source == UNTRAINED:
        return {}
    learned = load_rule(source, kind)
    # The hash is that of the rule's sizes and parameters. The file also contains metadata, which
    # does not affect a run.
    found = hashlib.sha256(repr(learned.rule).encode())
    for path, leaf in jax.tree_util.tree_leaves_with_path(learned.params):
        found.update(jax.tree_util.keystr(path).encode())
        found.update(np.asarray(leaf).tobytes())
    told = {"rule": source, "sha256": found.hexdigest()}
    return {"rule.json": (json.dumps(told, indent=1) + "\n").encode()}


def net_of(source: str, net: Any) -> Any:
    """Return the network of a learner's rule.

    If the source is `untrained`, the network is `net`. Otherwise it is the network of the loaded
    rule.

    Raises:
        ValueError: If the source is not `untrained` and `net` differs from its defaults, if the
            rule cannot be loaded, or if the loaded rule is not of the kind of `net`.
    """
    if source == UNTRAINED:
        return net
    # Without this check, sizes set by the user would be ignored silently.
    if net != type(net)():
        raise ValueError(
            f"the fields of net are the sizes of an untrained rule, but rule={source!r} has its "
            "own sizes; leave the fields of net at their defaults"
        )
    return load_rule(source, type(net)).rule


def load_rule(source: Path | str, kind: type = object) -> LearnedRule:
    """Load a rule.

    Args:
        source: Run folder of meta-training (the rule of the first seed is loaded), a `.npz` file,
            the name of a rule that ships with rlgen, or `untrained` for an untrained rule of
            default sizes.
        kind: `Rule` or `Drift` to accept only that kind, or `object` to accept both.

    Raises:
        ValueError: If the source does not exist; if the file is damaged; if the kind, the format or
            the sign convention is not supported; or if the arrays do not fit the stated sizes.
    """
    learned = _find(source, Rule if kind is object else kind)
    if not isinstance(learned.rule, kind):
        users = {Rule: "the learner lpg", Drift: "the learner lpo"}
        own = type(learned.rule)
        raise ValueError(
            f"{source} is of kind {_kind_of(own)!r}, which {users[own]} uses; a rule of kind "
            f"{_kind_of(kind)!r} is needed here"
        )
    return learned


def _find(source: Path | str, kind: type) -> LearnedRule:
    if str(source) == UNTRAINED:
        return LearnedRule(kind(), kind().init(jax.random.key(0)), {})
    path = Path(source)
    if path.is_dir():
        return _load(_first_seed(path))
    if path.is_file():
        return _load(path)
    # The name of a rule that ships with rlgen has no folder and no suffix.
    if path.suffix == ".npz" or len(path.parts) > 1:
        raise ValueError(f"no rule at {source}: no such run or file")
    shipped = shipped_rules()
    if path.name not in shipped:
        known = did_you_mean(path.name, [*shipped, UNTRAINED])
        raise ValueError(
            f"no rule {path.name!r}: there is no such run or file, and no rule of this name ships "
            f"with rlgen; {known}"
        )
    with resources.as_file(shipped[path.name]) as file:
        return _load(file)


def shipped_rules() -> dict[str, Any]:
    """Return the rules that ship with rlgen as a dict from names to files."""
    files = resources.files(SHIPPED).iterdir()
    return {f.name.removesuffix(".npz"): f for f in files if f.name.endswith(".npz")}


def _first_seed(run: Path) -> Path:
    # Seed numbers in the names are zero-padded, so the first seed is the first after sorting.
    found = sorted(run.glob("rules/seed-*.npz"))
    if not found:
        raise ValueError(
            f"{run} contains no rules/seed-*.npz: either it is not a run of meta-training, or the "
            "run has no checkpoint yet"
        )
    return found[0]


def _load(path: Path) -> LearnedRule:
    data, header = _read(path)
    rule = _rule(path, header.get("kind", _kind_of(Rule)), header["rule"])
    # These are the shapes for the sizes in the header; no parameter is initialised.
    like = jax.eval_shape(rule.init, jax.random.key(0))
    params = []
    for name, leaf in _named(like).items():
        found = data[name].shape if name in data else "nothing"
        if found != leaf.shape:
            raise ValueError(f"{path}: {name} should have shape {leaf.shape}, found {found}")
        if data[name].dtype.kind != "f" or not np.isfinite(data[name]).all():
            raise ValueError(f"{path}: {name} contains values that are not finite numbers")
        params.append(jnp.asarray(data[name], leaf.dtype))
    tree = jax.tree.unflatten(jax.tree.structure(like), params)
    return LearnedRule(rule, tree, header["meta"])


def _read(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    damaged = f"{path} is not a rule file of rlgen, or it is damaged"
    try:
        with np.load(path, allow_pickle=False) as file:
            data = {name: file[name] for name in file.files}
        header = json.loads(str(data["header"]))
        form, sign = header["format"], header.get("convention")
        complete = isinstance(header["meta"], dict) and "rule" in header
    except (
        # A damaged file, or a file of another kind, may raise any of these errors.
        *(OSError, EOFError, KeyError, TypeError, ValueError, AttributeError),
        *(zipfile.BadZipFile, zlib.error, NotImplementedError),
    ) as error:
        raise ValueError(damaged) from error
    if form != FORMAT:
        raise ValueError(f"{path} has the format {form!r}; this version of rlgen reads {FORMAT!r}")
    if sign != CONVENTION:
        raise ValueError(
            f"{path} has the sign convention {sign!r}; rlgen uses {CONVENTION!r}, in which agents "
            "maximise the policy's target times the log-probability. If the rule was trained with "
            "agents that minimise it, negate the first output of the heads and save the rule with "
            "save_rule"
        )
    if not complete:
        raise ValueError(damaged)
    return data, header


def _rule(path: Path, kind: object, fields: object) -> Any:
    """Return a network of the kind and the sizes given in the header."""
    if kind not in KINDS:
        raise ValueError(
            f"{path} is a rule of unknown kind {kind!r}; this version of rlgen reads the kinds "
            f"{', '.join(KINDS)}"
        )
    made = KINDS[str(kind)]
    known = dataclasses.asdict(made())
    if not isinstance(fields, dict):
        raise ValueError(f"{path} does not contain the sizes of the rule")
    # The values in `ADDED` apply only if the file lacks the field.
    fields = {**ADDED, **fields}
    if fields.keys() != known.keys():
        raise ValueError(
            f"{path} gives the rule the fields {', '.join(sorted(fields))}; this version of rlgen "
            f"needs the fields {', '.join(sorted(known))}"
        )
    try:
        _check_kinds(fields, get_type_hints(made))
        return made(**fields)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _check_kinds(fields: dict[str, Any], kinds: dict[str, Any]) -> None:
    """Check that each value has the type of its field and is one of the field's options, if any."""
    wanted = {bool: "true or false", int: "a whole number", float: "a number"}
    for name, value in fields.items():
        kind = kinds[name]
        options = get_args(kind)
        if options and value not in options:
            raise ValueError(f"{name}={value!r} is unknown; {did_you_mean(str(value), options)}")
        # `isinstance` would accept a bool for an int, because bool is a subclass of int.
        fits = type(value) is kind or (kind is float and type(value) is int)
        if kind in wanted and not fits:
            raise ValueError(f"{name} must be {wanted[kind]}, got {value!r}")


def _kind_of(made: type) -> str:
    return next(name for name, known in KINDS.items() if known is made)


def _named(params: PyTree) -> dict[str, Any]:
    leaves = jax.tree_util.tree_leaves_with_path(params)
    return {f"params{jax.tree_util.keystr(path)}": leaf for path, leaf in leaves}
