"""Files of learned rules, plain arrays with a JSON header and no pickle, and `RuleFollower`.

    from rlgen.algos.rules.files import load_rule
    learned = load_rule("runs/groove")  # a run folder, a file, or a rule that ships with rlgen
    targets = learned.rule(learned.params, inputs)

`RuleFollower` is the base class of learners that apply a learned rule.
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
"""Fields that the first files of this format do not contain, with the values that applied."""


NO_POLICY = (
    "this run learned an update rule, not a policy; `rlgen eval RUN --suite SUITE` trains fresh "
    "agents with it"
)
"""Error message of a meta-learning student that is asked for a policy."""


class LearnedRule(NamedTuple):
    """A rule, its parameters, and metadata of its training."""

    rule: Any  # `Rule` or `Drift`, which hold the sizes
    params: PyTree
    meta: dict[str, Any]  # how it was trained; empty for an untrained rule


class RuleFollower(RuleLearner, abstract=True):
    """Base class of learners whose agent is updated by a learned rule.

    The learner's state holds the agent's state in its field `agent`. The fields are declared by the
    subclasses, which are dataclasses.
    """

    agent: Actor
    """Agent that acts and is trained."""
    rule: str
    """Source of the rule, as in `load_rule`."""
    net: RuleNet
    """Sizes of an untrained rule."""
    num_updates: int
    """Updates in the agent's lifetime, needed by a rule with a clock."""

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
            lifetime: Updates in the agent's lifetime; `()` uses the field `num_updates`.
        """
        known = lifetime
        if isinstance(known, tuple):
            known = known_lifetime(self.rule_net.clock, self.num_updates)
        return self.newborn(key, rule, known)

    @abc.abstractmethod
    def newborn(self, key: Key, rule: PyTree, lifetime: int | Int[Array, ""]) -> PyTree:
        """Return a new agent with the given parameters of a rule and a known lifetime."""

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
        """Return the value of the agent's critic, which serves the scores of curricula."""
        return self.agent.value(state.agent, carry, obs, first)

    def pinned_files(self) -> dict[str, bytes]:
        """Return a hash of the rule, by which a resumed run detects that its file has changed."""
        return rule_pinned_file(self.rule, type(self.net))


def save_rule(path: Path | str, rule: RuleNet, params: PyTree, meta: dict[str, Any]) -> None:
    """Write a rule as `.npz`.

    Args:
        path: Path of the file.
        rule: Network of the rule, which holds its sizes.
        params: Parameters of the rule.
        meta: JSON-serialisable metadata, such as the environment and the number of updates.
    """
    Path(path).write_bytes(rule_bytes(rule, params, meta))


def rule_bytes(rule: RuleNet, params: PyTree, meta: Mapping[str, Any]) -> bytes:
    """Return the content of the file that `save_rule` writes; equal rules give equal bytes."""
    header = {
        "format": FORMAT,
        "convention": CONVENTION,
        "kind": _kind_of(type(rule)),
        "rule": dataclasses.asdict(rule),  # pyright: ignore[reportArgumentType]
        "meta": dict(meta),
    }
    arrays = {name: np.asarray(x) for name, x in _named(params).items()}
    # A string array, which NumPy stores and reads without pickle.
    arrays["header"] = np.asarray(json.dumps(header))
    file = io.BytesIO()
    # Members have a fixed date, so the bytes depend on the content alone.
    np.savez_compressed(file, **arrays)  # pyright: ignore[reportArgumentType]
    return file.getvalue()


def rule_files(
    rule: RuleNet, params: PyTree, num_updates: ArrayLike, origin: Mapping[str, Any]
) -> dict[str, bytes]:
    """Return the rules of a run's S seeds as files, by path within the run folder.

    Args:
        rule: Network of the rules, which holds their sizes.
        params: Parameters of the rules, [S, ...].
        num_updates: Updates that each rule has received, [S].
        origin: Metadata of the run; `seed` is that of the first seed.
    """
    found = {}
    for i, updates in enumerate(np.asarray(num_updates)):
        own = jax.tree.map(lambda x, i=i: x[i], params)
        meta = {**origin, "seed": origin["seed"] + i, "meta_updates": int(updates)}
        found[f"rules/seed-{i:03d}.npz"] = rule_bytes(rule, own, meta)
    return found


def rule_pinned_file(source: str, kind: type = Rule) -> dict[str, bytes]:
    """Return a hash of the rule that a run uses, to detect a changed file; {} if untrained."""
    if source == UNTRAINED:
        return {}
    learned = load_rule(source, kind)
    # The rule's sizes and parameters are hashed, not its file, whose metadata affects no run.
    found = hashlib.sha256(repr(learned.rule).encode())
    for path, leaf in jax.tree_util.tree_leaves_with_path(learned.params):
        found.update(jax.tree_util.keystr(path).encode())
        found.update(np.asarray(leaf).tobytes())
    told = {"rule": source, "sha256": found.hexdigest()}
    return {"rule.json": (json.dumps(told, indent=1) + "\n").encode()}


def net_of(source: str, net: Any) -> Any:
    """Return the network of a learner's rule: `net` if it is untrained, else the loaded rule's.

    Raises:
        ValueError: If `net` is changed from its defaults although the rule is not untrained, or the
            rule cannot be loaded or is of another kind than `net`.
    """
    if source == UNTRAINED:
        return net
    # Changed sizes would otherwise be ignored silently.
    if net != type(net)():
        raise ValueError(
            f"net sets the sizes of an untrained rule, but rule={source!r} has its own sizes; "
            "leave the fields of net at their defaults"
        )
    return load_rule(source, type(net)).rule


def load_rule(source: Path | str, kind: type = object) -> LearnedRule:
    """Load a rule.

    Args:
        source: Run folder of meta-training, whose first seed is loaded; a `.npz` file; the name of
            a rule that ships with rlgen; or `untrained`, an untrained rule of default sizes.
        kind: `Rule` or `Drift`, if only that kind is accepted.

    Raises:
        ValueError: If the source does not exist, or its file is damaged, is of another kind, format
            or sign convention, or contains arrays that do not fit the stated sizes.
    """
    learned = _find(source, Rule if kind is object else kind)
    if not isinstance(learned.rule, kind):
        users = {Rule: "the learner lpg", Drift: "the learner lpo"}
        own = type(learned.rule)
        raise ValueError(
            f"{source} is a rule of kind {_kind_of(own)!r}, for {users[own]}; a rule of kind "
            f"{_kind_of(kind)!r} is needed"
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
    # Only a bare name can be that of a shipped rule.
    if path.suffix == ".npz" or len(path.parts) > 1:
        raise ValueError(f"no rule at {source}: no such run or file")
    shipped = shipped_rules()
    if path.name not in shipped:
        known = did_you_mean(path.name, [*shipped, UNTRAINED])
        raise ValueError(
            f"no rule {path.name!r}: neither a run, nor a file, nor a rule that ships with rlgen; "
            f"{known}"
        )
    with resources.as_file(shipped[path.name]) as file:
        return _load(file)


def shipped_rules() -> dict[str, Any]:
    """Return the files of the rules that ship with rlgen, by name."""
    files = resources.files(SHIPPED).iterdir()
    return {f.name.removesuffix(".npz"): f for f in files if f.name.endswith(".npz")}


def _first_seed(run: Path) -> Path:
    # Seeds are zero-padded in the names, so that sorting puts the first seed first.
    found = sorted(run.glob("rules/seed-*.npz"))
    if not found:
        raise ValueError(
            f"{run} contains no rules/seed-*.npz: it is not a run of meta-training, or has no "
            "checkpoint yet"
        )
    return found[0]


def _load(path: Path) -> LearnedRule:
    data, header = _read(path)
    rule = _rule(path, header.get("kind", _kind_of(Rule)), header["rule"])
    # Shapes of the parameters for the stated sizes, without initialising them.
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
        # Damaged bytes and files of other kinds raise any of these.
        *(OSError, EOFError, KeyError, TypeError, ValueError, AttributeError),
        *(zipfile.BadZipFile, zlib.error, NotImplementedError),
    ) as error:
        raise ValueError(damaged) from error
    if form != FORMAT:
        raise ValueError(f"{path} has the format {form!r}; this version of rlgen reads {FORMAT!r}")
    if sign != CONVENTION:
        raise ValueError(
            f"{path} is a rule of the sign convention {sign!r}; rlgen uses {CONVENTION!r}: agents "
            "ascend the policy's target times the log-probability. If the rule's agents descend, "
            "negate the heads' first output and save the rule with save_rule"
        )
    if not complete:
        raise ValueError(damaged)
    return data, header


def _rule(path: Path, kind: object, fields: object) -> Any:
    """Return the network of the kind and sizes that the header states."""
    if kind not in KINDS:
        raise ValueError(
            f"{path} is a rule of kind {kind!r}; this version of rlgen reads {', '.join(KINDS)}"
        )
    made = KINDS[str(kind)]
    known = dataclasses.asdict(made())
    if not isinstance(fields, dict):
        raise ValueError(f"{path} states no sizes of the rule")
    # Fields in the file take precedence over the values for old files.
    fields = {**ADDED, **fields}
    if fields.keys() != known.keys():
        raise ValueError(
            f"{path} states the rule's fields {', '.join(sorted(fields))}; this version of rlgen "
            f"knows {', '.join(sorted(known))}"
        )
    try:
        _check_kinds(fields, get_type_hints(made))
        return made(**fields)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _check_kinds(fields: dict[str, Any], kinds: dict[str, Any]) -> None:
    """Check that each value has its field's type and is one of the field's options."""
    wanted = {bool: "true or false", int: "a whole number", float: "a number"}
    for name, value in fields.items():
        kind = kinds[name]
        options = get_args(kind)
        if options and value not in options:
            raise ValueError(f"{name}={value!r} is unknown; {did_you_mean(str(value), options)}")
        # `type` and not `isinstance`, because bool is a subclass of int.
        fits = type(value) is kind or (kind is float and type(value) is int)
        if kind in wanted and not fits:
            raise ValueError(f"{name} must be {wanted[kind]}, got {value!r}")


def _kind_of(made: type) -> str:
    return next(name for name, known in KINDS.items() if known is made)


def _named(params: PyTree) -> dict[str, Any]:
    leaves = jax.tree_util.tree_leaves_with_path(params)
    return {f"params{jax.tree_util.keystr(path)}": leaf for path, leaf in leaves}
