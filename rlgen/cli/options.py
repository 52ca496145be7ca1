"""Command lines out of typed fields, and one line for whatever is wrong with them."""

import contextlib
import dataclasses
import io
import re
from collections.abc import Iterable, Sequence
from typing import Annotated, Any, Literal, NamedTuple, TypeVar, get_args, get_origin

import tyro

from rlgen.config import Leaf, convert, nearest

Options = TypeVar("Options")
Field = tuple[str, Any, Any]


class Tree(NamedTuple):
    """Options generated from hyperparameters, as a nested dataclass."""

    kind: type
    flags: list[str]


def parse(kind: type[Options], prog: str, about: str, args: Sequence[str]) -> Options:
    """The options of one command; `--help` prints and exits.

    Raises:
        ValueError: an unknown option or a wrong value, in one line.
    """
    shown = io.StringIO()
    try:
        with contextlib.redirect_stderr(shown):
            options, unknown = tyro.cli(
                kind, prog=prog, description=about, args=list(args), return_unknown_args=True
            )
    except SystemExit as stop:
        if not stop.code:
            raise
        raise ValueError(_one_line(shown.getvalue())) from None
    if unknown:
        raise ValueError(_unknown(unknown[0], _flags(kind)))
    return options


def option(kind: Any, default: Any, name: str, about: str, *aliases: str) -> Any:
    """A dataclass field `(name, type, default)` of one option, converted like a config value."""
    spec = tyro.constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar=_metavar(kind),
        instance_from_str=lambda texts: convert(kind, texts[0], name),
        is_instance=lambda value: True,
        str_from_instance=lambda value: [_text(value)],
    )
    settings = tyro.conf.arg(name=name, help=about, aliases=aliases or None)
    return (_identifier(name), Annotated[Any, spec, settings], default)


def flag(name: str, about: str) -> Field:
    """A switch that is off unless given."""
    kind = Annotated[bool, tyro.conf.FlagCreatePairsOff, tyro.conf.arg(name=name, help=about)]
    return (_identifier(name), kind, False)


def positional_runs(about: str) -> Field:
    """The folders of runs that a command is given, without an option's name."""
    settings = tyro.conf.arg(metavar="RUN", help=about)
    kind = Annotated[tyro.conf.Positional[list[str]], settings]
    return ("runs", kind, dataclasses.field(default_factory=list))


def make_options(name: str, fields: Iterable[Field]) -> type:
    """A dataclass of options."""
    return dataclasses.make_dataclass(name, list(fields), frozen=True)


def group(name: str, leaves: Sequence[Leaf]) -> Field:
    """A nested group of options, one for every hyperparameter below one name."""
    own, below = [], {}
    for leaf in leaves:
        head, _, rest = leaf.path.partition(".")
        if rest:
            below.setdefault(head, []).append(leaf._replace(path=rest))
        else:
            own.append(option(leaf.kind, leaf.value, head.replace("_", "-"), leaf.help))
    nested = [group(head, parts) for head, parts in below.items()]
    kind = make_options(_identifier(name), [*own, *nested])
    settings = tyro.conf.arg(name=name.replace("_", "-"))
    return (_group_identifier(name), Annotated[kind, settings], dataclasses.field(default=kind()))


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


def peek(args: Sequence[str], name: str, default: str) -> str:
    """The value of one option, before the rest can be understood."""
    for i, arg in enumerate(args):
        if arg == f"--{name}" and i + 1 < len(args):
            default = args[i + 1]
        elif arg.startswith(f"--{name}="):
            default = arg.partition("=")[2]
    return default


def wants_help(args: Sequence[str]) -> bool:
    """Whether help is asked for."""
    return any(arg in ("-h", "--help") for arg in args)


def _identifier(name: str) -> str:
    name = name.replace("-", "_")
    return name if name.isidentifier() else f"item_{name}"


def _group_identifier(name: str) -> str:
    return f"{_identifier(name)}_group"  # `--env` and `--env.num-walls` are different fields


def _flags(kind: Any, prefix: str = "") -> list[str]:
    found = []
    for field in dataclasses.fields(kind):
        inner, *extras = get_args(field.type) or (field.type,)
        written = [extra.name for extra in extras if getattr(extra, "name", None)]
        name = prefix + (written[0] if written else field.name.replace("_", "-"))
        if dataclasses.is_dataclass(inner):
            found += _flags(inner, f"{name}.")
        else:
            found.append(f"--{name}")
    return found


def _unknown(given: str, flags: list[str]) -> str:
    name = given.partition("=")[0]
    if not name.startswith("-"):
        return f"unexpected argument {given!r}"
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


def _one_line(box: str) -> str:
    """What a framed message says below its title and above the next rule, on one line."""
    lines = [re.sub(r"^[\s│|]+|[\s│|]+$", "", line) for line in box.splitlines()]
    body = []
    for line in lines[1:]:
        if not re.fullmatch(r"[─╭╮╰╯+-]*", line):
            body.append(line)
        elif body:
            break
    text = re.sub(r"^Error parsing \S+: ", "", " ".join(body))
    return text or "these options make no sense together; see --help"
