"""Command-line parsing with tyro from typed fields, with one-line error messages.

If a converter raises a `ValueError`, tyro prints a box of several lines. rlgen's converters
therefore raise an exception that tyro does not catch. Unknown options are returned by tyro and
reported by rlgen. tyro itself reports only options without a value.
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

    identifier: str  # name of the attribute in the parsed options
    type: Any  # type annotation for tyro
    default: Any
    flags: Mapping[str, bool]  # for each spelling, such as `--seed`, whether a value follows


def parse(fields: Sequence[Field], prog: str, about: str, args: Sequence[str]) -> Any:
    """Parse the options of one command into a dataclass; `--help` prints the help and exits.

    Raises:
        ValueError: An option is unknown or a value is invalid. The message has one line.
    """
    options, unknown = _read(fields, args, prog=prog, description=about)
    if unknown:
        raise ValueError(_unknown(unknown[0], list(_flags(fields))))
    return options


def peek(args: Sequence[str], **defaults: Value) -> Any:
    """Parse only the options that determine which other options exist.

    Args:
        args: Command line; options that are not in `defaults` are ignored.
        **defaults: Default values by option name; they must not be tuples.

    Raises:
        ValueError: The value of one of these options is invalid.
    """
    fields = [option(type(value), value, name, "") for name, value in defaults.items()]
    # Here `--help` and unknown options are ignored; `parse` handles them once options are known.
    return _read(fields, args, add_help=False)[0]


def wants_help(args: Sequence[str]) -> bool:
    """Return whether the arguments request help."""
    return "-h" in args or "--help" in args


def option(kind: Any, default: Any, name: str, about: str, *aliases: str) -> Field:
    """Define an option with a value, which `rlgen.config.convert` converts to the type `kind`."""
    spec = tyro.constructors.PrimitiveConstructorSpec(
        nargs=1,  # a tuple is a single argument, whose values are separated by commas
        metavar=_metavar(kind),
        instance_from_str=lambda texts: _converted(kind, texts[0], name),
        # Any default is accepted; `convert` checks only the values that users give.
        is_instance=lambda value: True,
        str_from_instance=lambda value: [_text(value)],
    )
    settings = tyro.conf.arg(name=name, help=about, aliases=aliases or None)
    flags = dict.fromkeys((f"--{name}", *aliases), True)
    return Field(_identifier(name), Annotated[Any, spec, settings], default, flags)


def flag(name: str, about: str) -> Field:
    """Define a switch that is off by default."""
    # tyro would otherwise also define the flag `--no-NAME`.
    kind = Annotated[bool, tyro.conf.FlagCreatePairsOff, tyro.conf.arg(name=name, help=about)]
    return Field(_identifier(name), kind, False, {f"--{name}": False})


def positional(name: str, about: str, default: Any = dataclasses.MISSING) -> Field:
    """Define a positional argument; an argument without a default is required."""
    settings = tyro.conf.arg(metavar=name.upper(), help=about)
    return Field(name, Annotated[tyro.conf.Positional[str], settings], default, {})


def positional_runs(about: str) -> Field:
    """Define a list of positional arguments: folders of runs."""
    settings = tyro.conf.arg(metavar="RUN", help=about)
    kind = Annotated[tyro.conf.Positional[list[str]], settings]
    return Field("runs", kind, dataclasses.field(default_factory=list), {})


def group(name: str, leaves: Sequence[Leaf]) -> Field:
    """Define a nested group of options, one per hyperparameter below `name`."""
    fields = fields_of(leaves)
    kind = _options_class(name, fields)
    written = name.replace("_", "-")
    # `[2:]` removes the dashes of the inner option.
    flags = {f"--{written}.{inner[2:]}": takes for inner, takes in _flags(fields).items()}
    settings = tyro.conf.arg(name=written)
    default = dataclasses.field(default=kind())
    return Field(_group_identifier(name), Annotated[kind, settings], default, flags)


def fields_of(leaves: Sequence[Leaf]) -> list[Field]:
    """Define options for hyperparameters: first single options, then a group for each component."""
    own, below = [], {}
    for leaf in leaves:
        head, _, rest = leaf.path.partition(".")
        if rest:
            below.setdefault(head, []).append(leaf._replace(path=rest))
        else:
            own.append(option(leaf.kind, leaf.value, head.replace("_", "-"), leaf.help))
    return [*own, *(group(head, parts) for head, parts in below.items())]


def changed(options: Any, leaves: Sequence[Leaf]) -> dict[str, Any]:
    """Return the option values that differ from the hyperparameters' values, by path."""
    found = {}
    for leaf in leaves:
        *heads, last = leaf.path.split(".")
        at = options
        for head in heads:
            at = getattr(at, _group_identifier(head))
        value = getattr(at, _identifier(last))
        # The types are compared as well, because 1, 1.0 and True are equal.
        if value != leaf.value or type(value) is not type(leaf.value):
            found[leaf.path] = value
    return found


class _RefusedError(Exception):
    """Raised for an invalid value; tyro would catch a `ValueError` and print it as a box."""


def _converted(kind: Any, text: str, name: str) -> Any:
    try:
        return convert(kind, text, name)
    except ValueError as error:
        raise _RefusedError(str(error)) from error


def _read(fields: Sequence[Field], args: Sequence[str], **settings: Any) -> tuple[Any, list[str]]:
    """Parse the known options, and return their values and the remaining arguments."""
    kind = _options_class("Options", fields)
    shown = io.StringIO()
    try:
        # tyro prints an error before it exits. The printed text is captured, so that a shorter
        # message can replace it.
        with contextlib.redirect_stderr(shown):
            return tyro.cli(kind, args=list(args), return_unknown_args=True, **settings)
    except _RefusedError as refused:
        raise ValueError(str(refused)) from refused
    except SystemExit as stop:
        if stop.code:  # an error; 0 means that help was printed
            _check_values(args, _flags(fields))
        sys.stderr.write(shown.getvalue())
        raise


def _check_values(args: Sequence[str], flags: Mapping[str, bool]) -> None:
    """Raise an error if an option that needs a value is last, or is followed by another option."""
    for arg, after in itertools.pairwise([*args, "--"]):
        # An option has a letter after the dashes; `-1` is a value.
        is_option = after == "--" or (after.startswith("-") and after.lstrip("-")[:1].isalpha())
        if is_option and flags.get(arg.replace("_", "-")):
            raise ValueError(f"option '{arg}' needs a value")


def _options_class(name: str, fields: Sequence[Field]) -> type:
    """Create the dataclass that tyro fills."""
    parts = [(field.identifier, field.type, field.default) for field in fields]
    return dataclasses.make_dataclass(_identifier(name), parts, frozen=True)


def _flags(fields: Sequence[Field]) -> dict[str, bool]:
    return {written: takes for field in fields for written, takes in field.flags.items()}


def _identifier(name: str) -> str:
    name = name.replace("-", "_")
    return name if name.isidentifier() else f"item_{name}"


def _group_identifier(name: str) -> str:
    return f"{_identifier(name)}_group"  # `--env` and the group of `--env.num-walls` must differ


def _unknown(given: str, flags: list[str]) -> str:
    name = given.partition("=")[0]
    if not name.startswith("-"):
        return f"unexpected argument {given!r}"
    if name == "--sampler":
        return (
            "unknown option '--sampler'; the recipe determines the sampler, so choose another "
            "recipe, or write your own"
        )
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
