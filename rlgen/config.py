"""Hyperparameters as data: every field of a tree of components has a dotted path.

A component is a frozen dataclass whose fields are hyperparameters or other components. A curriculum
is such a tree of components, so it is its own configuration: its hyperparameters have paths such as
`sampler.capacity` and `student.learner.learning_rate`. Values are overridden by
`dataclasses.replace`, so that each component validates its fields again.
"""

import dataclasses
import difflib
import functools
import inspect
import math
import re
from collections.abc import Iterator, Mapping
from typing import (
    Any,
    Literal,
    NamedTuple,
    TypeAlias,
    TypeVar,
    get_args,
    get_origin,
    get_type_hints,
)

import docstring_parser

from rlgen.registry import did_you_mean

Value: TypeAlias = bool | int | float | str | tuple
Component = TypeVar("Component")

PLAIN = (bool, int, float, str)


class Leaf(NamedTuple):
    """One hyperparameter of a tree of components."""

    path: str  # dotted, such as `student.learner.clip`
    value: Value
    kind: Any  # type: bool, int, float, str, a Literal, or a tuple of these
    help: str  # description from the Attributes section of the component's docstring, or ""


def leaves(component: object) -> Iterator[Leaf]:
    """Iterate over the hyperparameters of a tree of components.

    A component's own hyperparameters come before the hyperparameters of its parts. The following
    fields are left out: environments (fields named `env`), fields with the metadata
    `{"config": False}`, empty tuples (which stand for an absent component), and values that are
    neither components nor plain values, such as arrays.

    One component can occur at two paths: in DRED, the sampler and its source of proposals share one
    level set. Such a component is listed only at its shortest path, and an override changes the
    component at both paths.
    """
    for paths in _places(component).values():
        home = _home(paths)
        plain = (entry for entry in _children(paths[home]) if _is_value(entry[1]))
        for name, value, kind, help_text in plain:
            yield Leaf(home + name, value, _plain_kind(kind, value), help_text)


def flatten(component: object) -> dict[str, Value]:
    """Return the values of all hyperparameters by their dotted paths."""
    return {leaf.path: leaf.value for leaf in leaves(component)}


def override(component: Component, values: Mapping[str, Any]) -> Component:
    """Return a copy with new values at some dotted paths; `-` and `_` are equivalent in a path.

    A value is converted to the field's type if the conversion is lossless, for example "5e6" to an
    int or 1 to a float.

    Raises:
        ValueError: unknown path, value of the wrong type, or value that a component rejects.
    """
    known = {leaf.path: leaf for leaf in leaves(component)}
    converted = {}
    for written, value in values.items():
        path = written.replace("-", "_")
        if path not in known:
            raise ValueError(f"unknown field {written!r}; {nearest(path, list(known))}")
        converted[path] = convert(known[path].kind, value, path)
    # If a component has several paths, its new values are set at each path.
    for paths in _places(component).values():
        home = _home(paths)
        own = {path: v for path, v in converted.items() if path.rpartition(".")[0] + "." == home}
        for alias in paths:
            converted |= {alias + path.removeprefix(home): value for path, value in own.items()}
    return _replace(component, converted, {})


def convert(kind: Any, value: object, name: str = "value") -> Any:
    """Convert a value from a command line or from JSON to the type of a field.

    Raises:
        ValueError: no lossless conversion exists; the message states what is allowed.
    """
    if get_origin(kind) is Literal:
        # Compared as text, because an option may be a number while a command line gives strings.
        options = {str(option): option for option in get_args(kind)}
        if str(value) not in options:
            raise ValueError(f"{name}={value!r} is unknown; {did_you_mean(str(value), options)}")
        return options[str(value)]
    if kind is tuple or get_origin(kind) is tuple:
        return _convert_tuple(kind, value, name)
    try:
        return {bool: _to_bool, int: _to_int, float: _to_float, str: _to_str}[kind](value)
    except (TypeError, ValueError, OverflowError) as error:
        wanted = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}
        raise ValueError(f"{name} must be {wanted[kind]}, got {value!r}") from error


def to_json(values: Mapping[str, Value]) -> dict[str, Any]:
    """Convert values to JSON: tuples become lists, infinities and NaN become text.

    `override` converts the lists and the text back.
    """
    return {path: _jsonable(value) for path, value in values.items()}


def nearest(name: str, known: list[str]) -> str:
    """End of an error message for an unknown name.

    The text lists similar names, or all names if none is similar.
    """
    return did_you_mean(name, difflib.get_close_matches(name, known, n=4, cutoff=0.5) or known)


def _places(component: object, prefix: str = "") -> dict[int, dict[str, object]]:
    """Map the `id` of each component to its paths; "" is the root, and other paths end in a dot."""
    # Components are distinguished by identity, not by equality, so that two components that are
    # equal by chance stay independent.
    found: dict[int, dict[str, object]] = {id(component): {prefix: component}}
    parts = [(n, x) for n, x, _, _ in _children(component) if _is_component(x) or _is_group(x)]
    for name, part in parts:
        for key, paths in _places(part, f"{prefix}{name}.").items():
            found.setdefault(key, {}).update(paths)
    return found


def _home(paths: dict[str, object]) -> str:
    """Return a component's shortest path, under which its hyperparameters are listed."""
    # Among paths of equal depth, `min` returns the first one in the order of the fields.
    return min(paths, key=lambda path: path.count("."))


def _children(component: object) -> Iterator[tuple[str, Any, Any, str]]:
    """Yield name, value, annotation and description of each field, or of each item of a tuple."""
    if isinstance(component, tuple):
        yield from ((str(i), child, type(child), "") for i, child in enumerate(component))
        return
    hints, texts = _hints(type(component)), attributes(type(component))
    for field in dataclasses.fields(component):  # pyright: ignore[reportArgumentType]
        value = getattr(component, field.name)
        is_env = field.name == "env" and not isinstance(value, str)
        if field.init and field.metadata.get("config", True) and not is_env:
            yield field.name, value, hints.get(field.name), texts.get(field.name, "")


@functools.cache  # slow, since it parses source, and called for every component of every tree
def attributes(kind: type) -> Mapping[str, str]:
    """Return descriptions of a class's fields, including inherited ones, each on one line.

    A description comes from the Attributes section of the class or of a dataclass that the class
    extends. If no section describes a field, the description is the comment behind the field.
    """
    # Base classes first, so that a subclass's descriptions replace inherited ones.
    inherited = [base for base in kind.__mro__[:0:-1] if dataclasses.is_dataclass(base)]
    comments: dict[str, str] = {}
    sections: dict[str, str] = {}
    for described in (*inherited, kind):
        comment, section = _own_attributes(described)
        comments |= comment
        sections |= section
    return comments | sections


def _own_attributes(kind: type) -> tuple[dict[str, str], dict[str, str]]:
    """Return descriptions of the class's own fields: from comments, and from the docstring."""
    # Only a comment on the line of the field counts: `name: type  # text`. `--help` shows this
    # comment.
    comments = re.findall(r"(?m)^    (\w+): .*?  # (.*)$", _source(kind))
    docstring = docstring_parser.parse(kind.__doc__ or "", docstring_parser.DocstringStyle.GOOGLE)
    section = {
        field.arg_name: " ".join((field.description or "").split())
        for field in docstring.params
        if field.args[0] == "attribute"
    }
    return dict(comments), section


def _source(kind: type) -> str:
    try:
        return inspect.getsource(kind)
    except (OSError, TypeError):  # a class that was created at run time has no source
        return ""


def _hints(kind: type) -> dict[str, Any]:
    try:
        return get_type_hints(kind)
    except (NameError, TypeError):  # without annotations, `_plain_kind` uses the value's type
        return {}


def _is_component(value: object) -> bool:
    if not dataclasses.is_dataclass(value) or isinstance(value, type):
        return False
    frozen = type(value).__dataclass_params__.frozen  # pyright: ignore[reportAttributeAccessIssue]
    return frozen and not hasattr(value, "_flax_dataclass")  # flax structs are data


def _is_group(value: object) -> bool:
    return isinstance(value, tuple) and len(value) > 0 and all(map(_is_component, value))


def _is_value(value: object) -> bool:
    if isinstance(value, tuple):
        return len(value) > 0 and all(isinstance(x, PLAIN) for x in value)
    return isinstance(value, PLAIN)


def _plain_kind(kind: Any, value: Value) -> Any:
    """Return the annotation if `convert` supports it, else the type of the current value."""
    if kind in PLAIN or get_origin(kind) is Literal:
        return kind
    if isinstance(value, tuple):
        return kind if get_args(kind) else tuple[type(value[0]), ...]
    return type(value)


def _replace(component: Any, values: dict[str, Any], done: dict[int, Any]) -> Any:
    """Copy a component with new values.

    `done` maps the `id` of each copied component to its copy, so that shared parts stay shared.
    """
    if id(component) in done:
        return done[id(component)]
    own, below = {}, {}
    for path, value in values.items():
        head, _, rest = path.partition(".")
        if rest:
            below.setdefault(head, {})[rest] = value
        else:
            own[head] = value
    is_tuple = isinstance(component, tuple)
    # The parts are replaced first, because `dataclasses.replace` validates the component together
    # with its new parts.
    for head, part in below.items():
        child = component[int(head)] if is_tuple else getattr(component, head)
        own[head] = _replace(child, part, done)
    if is_tuple:
        new = tuple(own.get(str(i), child) for i, child in enumerate(component))
    else:
        new = dataclasses.replace(component, **own)
    done[id(component)] = new
    return new


def _convert_tuple(kind: Any, value: Any, name: str) -> tuple:
    items = re.split(r"[,\s]+", value.strip("()[], ")) if isinstance(value, str) else value
    if not isinstance(items, list | tuple):
        raise ValueError(f"{name} must be a list of values, got {value!r}")
    kinds = [k for k in get_args(kind) if k is not Ellipsis]
    if get_args(kind)[-1:] != (Ellipsis,) and len(items) != len(kinds):
        raise ValueError(f"{name} must have {len(kinds)} values, got {value!r}")
    # `tuple[int, ...]` has one type for all items; `tuple[int, str]` has a type for each item.
    each = kinds * len(items) if get_args(kind)[-1:] == (Ellipsis,) else kinds
    return tuple(convert(k, item, name) for k, item in zip(each, items, strict=True))


def _to_bool(value: object) -> bool:
    # If `_to_bool` or one of the next three functions raises, `convert` writes the message.
    if isinstance(value, bool):
        return value
    try:
        return {"true": True, "false": False, "1": True, "0": False}[str(value).lower()]
    except KeyError as error:
        raise ValueError from error


def _to_int(value: Any) -> int:
    if isinstance(value, bool):  # a bool is an int in Python, but not a number here
        raise TypeError
    if isinstance(value, int):
        return value
    try:
        # Strings are parsed by `int` first, because floats above 2**53 are not exact.
        return int(value) if isinstance(value, str) else _whole(value)
    except ValueError:
        return _whole(float(value))  # "5e6"


def _whole(value: float) -> int:
    if value != int(value):
        raise ValueError
    return int(value)


def _to_float(value: Any) -> float:
    if isinstance(value, bool):
        raise TypeError
    return float(value)


def _to_str(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _jsonable(value: Value) -> Any:
    if isinstance(value, tuple):
        return [_jsonable(item) for item in value]
    # JSON has no infinities and no NaN; `float` parses the text back.
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value
