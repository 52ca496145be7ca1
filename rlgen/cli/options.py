"""Command lines made of typed fields by tyro, and one line for whatever is wrong with them.

tyro draws a `ValueError` as a box of several lines. Values are therefore converted by functions of
ours, which raise an exception that tyro passes on, and unknown options are returned by tyro. What
it still reports itself is an option without its value.
"""

import contextlib
import dataclasses
import io
import itertools
import sys
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, NamedTuple, get_args, get_origin

import tyro

from rlgen.config import Leaf, Value, convert, nearest


class Field(NamedTuple):
    """One option, positional argument or group of options of a command."""

    identifier: str  # its attribute in the parsed options
    type: Any  # as tyro reads it
    default: Any
    flags: Mapping[str, bool]  # every way to write it: whether a value follows


def parse(fields: Sequence[Field], prog: str, about: str, args: Sequence[str]) -> Any:
    """The options of one command as a dataclass; `--help` prints and exits.

    Raises:
        ValueError: an unknown option or a wrong value, in one line.
    """
    options, unknown = _read(fields, args, prog=prog, description=about)
    if unknown:
        raise ValueError(_unknown(unknown[0], list(_flags(fields))))
    return options


def peek(args: Sequence[str], **defaults: Value) -> Any:
    """The options that decide which others there are, before the rest can be understood.

    Args:
        args: a command line; what is not named in `defaults` is ignored.
        defaults: by the option's name; not tuples.

    Raises:
        ValueError: a wrong value of one of them.
    """
    fields = [option(type(value), value, name, "") for name, value in defaults.items()]
    return _read(fields, args, add_help=False)[0]


def wants_help(args: Sequence[str]) -> bool:
    """Whether help is asked for."""
    return "-h" in args or "--help" in args


def option(kind: Any, default: Any, name: str, about: str, *aliases: str) -> Field:
    """One option with a value, which is converted like a config value."""
    spec = tyro.constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar=_metavar(kind),
        instance_from_str=lambda texts: _converted(kind, texts[0], name),
        is_instance=lambda value: True,
        str_from_instance=lambda value: [_text(value)],
    )
    settings = tyro.conf.arg(name=name, help=about, aliases=aliases or None)
    flags = dict.fromkeys((f"--{name}", *aliases), True)
    return Field(_identifier(name), Annotated[Any, spec, settings], default, flags)


def flag(name: str, about: str) -> Field:
    """A switch that is off unless given."""
    kind = Annotated[bool, tyro.conf.FlagCreatePairsOff, tyro.conf.arg(name=name, help=about)]
    return Field(_identifier(name), kind, False, {f"--{name}": False})


def positional(name: str, about: str, default: Any = dataclasses.MISSING) -> Field:
    """One argument without an option's name; required, where it has no default."""
    settings = tyro.conf.arg(metavar=name.upper(), help=about)
    return Field(name, Annotated[tyro.conf.Positional[str], settings], default, {})


def positional_runs(about: str) -> Field:
    """The folders of runs that a command is given, without an option's name."""
    settings = tyro.conf.arg(metavar="RUN", help=about)
    kind = Annotated[tyro.conf.Positional[list[str]], settings]
    return Field("runs", kind, dataclasses.field(default_factory=list), {})


def group(name: str, leaves: Sequence[Leaf]) -> Field:
    """A nested group of options, one for every hyperparameter below one name."""
    fields = fields_of(leaves)
    kind = _options_class(name, fields)
    written = name.replace("_", "-")
    flags = {f"--{written}.{inner[2:]}": takes for inner, takes in _flags(fields).items()}
    settings = tyro.conf.arg(name=written)
    default = dataclasses.field(default=kind())
    return Field(_group_identifier(name), Annotated[kind, settings], default, flags)


def fields_of(leaves: Sequence[Leaf]) -> list[Field]:
    """An option for every hyperparameter: a component's own, then a group for each of its parts."""
    own, below = [], {}
    for leaf in leaves:
        head, _, rest = leaf.path.partition(".")
        if rest:
            below.setdefault(head, []).append(leaf._replace(path=rest))
        else:
            own.append(option(leaf.kind, leaf.value, head.replace("_", "-"), leaf.help))
    return [*own, *(group(head, parts) for head, parts in below.items())]


def changed(options: Any, leaves: Sequence[Leaf]) -> dict[str, Any]:
    """The values below a group of options that are not the hyperparameters' own."""
    found = {}
    for leaf in leaves:
        *heads, last = leaf.path.split(".")
        at = options
        for head in heads:
            at = getattr(at, _group_identifier(head))
        value = getattr(at, _identifier(last))
        if value != leaf.value or type(value) is not type(leaf.value):
            found[leaf.path] = value
    return found


class _RefusedError(Exception):
    """A value that cannot be converted. Not a `ValueError`, which tyro would catch and draw."""


def _converted(kind: Any, text: str, name: str) -> Any:
    try:
        return convert(kind, text, name)
    except ValueError as error:
        raise _RefusedError(str(error)) from error


def _read(fields: Sequence[Field], args: Sequence[str], **settings: Any) -> tuple[Any, list[str]]:
    """The options, and the arguments that are none of them."""
    kind = _options_class("Options", fields)
    shown = io.StringIO()
    try:
        with contextlib.redirect_stderr(shown):
            return tyro.cli(kind, args=list(args), return_unknown_args=True, **settings)
    except _RefusedError as refused:
        raise ValueError(str(refused)) from refused
    except SystemExit as stop:
        if stop.code:
            _check_values(args, _flags(fields))
        sys.stderr.write(shown.getvalue())
        raise


def _check_values(args: Sequence[str], flags: Mapping[str, bool]) -> None:
    """Reject an option that ends the line, or that another option follows, instead of its value."""
    for arg, after in itertools.pairwise([*args, "--"]):
        is_option = after == "--" or (after.startswith("-") and after.lstrip("-")[:1].isalpha())
        if is_option and flags.get(arg.replace("_", "-")):
            raise ValueError(f"Missing value for argument '{arg}'")


def _options_class(name: str, fields: Sequence[Field]) -> type:
    """The dataclass that tyro fills."""
    parts = [(field.identifier, field.type, field.default) for field in fields]
    return dataclasses.make_dataclass(_identifier(name), parts, frozen=True)


def _flags(fields: Sequence[Field]) -> dict[str, bool]:
    return {written: takes for field in fields for written, takes in field.flags.items()}


def _identifier(name: str) -> str:
    name = name.replace("-", "_")
    return name if name.isidentifier() else f"item_{name}"


def _group_identifier(name: str) -> str:
    return f"{_identifier(name)}_group"  # `--env` and `--env.num-walls` are different fields


def _unknown(given: str, flags: list[str]) -> str:
    name = given.partition("=")[0]
    if not name.startswith("-"):
        return f"unexpected argument {given!r}"
    if name == "--sampler":
        return "unknown option '--sampler'; a recipe names its sampler: write a recipe for yours"
    return f"unknown option {name!r}; {nearest(name.replace('_', '-'), flags)}"


def _metavar(kind: Any) -> str:
    if get_origin(kind) is Literal:
        return "{" + ",".join(str(option) for option in get_args(kind)) + "}"
    names = {int: "INT", float: "FLOAT", bool: "{true,false}", str: "NAME"}
    return names.get(kind, "A,B,…")


def _text(value: Any) -> str:
    if isinstance(value, tuple):
        return ",".join(map(_text, value))
    return str(value).lower() if isinstance(value, bool) else str(value)
