"""Lookup of components by name. A component is named after its file and needs no registration.

`algos/samplers/plr.py` is the sampler `plr`, and `algos/learners/ppo_lstm.py` is the learner
`ppo-lstm`. The source of a component is a module or a package that defines two functions.
`build(...)` returns the component, and `tiny(...)` returns its smallest instance for the tests in
`tests/laws`. A component may lie one folder deeper (`algos/recipes/ued/plr.py`); the folder is not
part of the name. Components outside rlgen are named by their dotted path, `my_package.my_module`.
"""

import ast
import difflib
import functools
import importlib
import importlib.util
import inspect
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

KINDS = {
    "envs": "rlgen.envs",
    "learners": "rlgen.algos.learners",
    "samplers": "rlgen.algos.samplers",
    "scores": "rlgen.algos.scores",
    "bonuses": "rlgen.algos.bonuses",
    "level-models": "rlgen.algos.level_models",
    "recipes": "rlgen.algos.recipes",
}

_SINGULAR = {"bonuses": "bonus"}

_BASES = {
    "envs": "LevelEnv",
    "learners": "Learner",
    "samplers": "Sampler",
    "scores": "Score",
    "bonuses": "Bonus",
    "level-models": "LevelModel",
}
"""Base classes in `rlgen.protocols`, by name only, because importing that module takes seconds."""


def names(kind: str) -> list[str]:
    """Return the sorted names of all components of a kind that ship with rlgen.

    Raises:
        ValueError: unknown kind.
    """
    return sorted(modules(kind))


@functools.cache  # scanning folders is slow, and files do not change while a program runs
def modules(kind: str) -> dict[str, str]:
    """Map the names of a kind's components to dotted paths; no component is imported.

    Raises:
        ValueError: the kind is unknown, or two components have the same name.
    """
    package = importlib.import_module(KINDS[_known(kind, KINDS, "kind of component")])
    found: dict[str, str] = {}
    for name, module in _components(Path(package.__path__[0]), package.__name__):
        if name in found:
            raise ValueError(f"two {kind} are called {name!r}: {found[name]} and {module}")
        found[name] = module
    return found


def name_of(kind: str, module: str) -> str:
    """Return the name of the component to which a module belongs.

    For a module outside rlgen, the result is the module's dotted path.
    """
    for name, known in modules(kind).items():
        if module == known or module.startswith(f"{known}."):
            return name
    return module


def load(kind: str, name: str) -> ModuleType:
    """Import the module of a component, by its name or by a dotted path outside rlgen.

    Raises:
        ValueError: the name is unknown, the module defines no `build(...)`, or the module extends a
            final class. For an unknown name, the message suggests the nearest known name.
    """
    # The names of rlgen's components contain no dot.
    if "." in name:
        try:
            module = importlib.import_module(name)
        except ModuleNotFoundError as error:
            raise ValueError(f"cannot import {name!r} as one of the {kind}: {error}") from error
        except TypeError as error:  # raised by `Component.__init_subclass__`
            if " is final: " not in str(error):
                raise
            raise ValueError(f"{name}: {error}") from error
        if "build" not in vars(module):
            raise ValueError(f"{name} defines no build(...), which must return one of the {kind}")
        return module
    known = _known(name, names(kind), _SINGULAR.get(kind, kind.removesuffix("s")))
    return importlib.import_module(modules(kind)[known])


def make(kind: str, name: str, /, *args: Any, **fields: Any) -> Any:
    """Build a component from its name or dotted path.

    Args:
        kind: kind of component, a key of `KINDS`.
        name: name or dotted path.
        *args: arguments that every `build` of this kind takes, such as the environment.
        **fields: further arguments of `build`.

    Raises:
        ValueError: the name is unknown, or the module builds no component of that kind.
    """
    build = load(kind, name).build
    # The arguments are bound before the call, so that a TypeError inside `build` is not reported as
    # a wrong call.
    try:
        inspect.signature(build).bind(*args, **fields)
    except TypeError as error:
        told = f"{name} is not one of the {kind}: its build(...) takes other arguments: {error}"
        raise ValueError(told) from error
    try:
        component = build(*args, **fields)
    except TypeError as error:
        if "instantiate abstract class" not in str(error):
            raise
        raise ValueError(f"{name}: {error}") from error
    base = _BASES[kind]
    if base not in (kin.__name__ for kin in type(component).__mro__):
        raise ValueError(
            f"{name} is not one of the {kind}: its build returns a {type(component).__name__}, "
            f"which is not a {base}; make the class extend rlgen.protocols.{base}"
        )
    return component


def make_env(name: str) -> Any:
    """Build an environment by name: `gridworld`, or `gridworld/dense` for one of its variants.

    A module declares the arguments of `build` for each variant: `VARIANTS = {"dense": {...}}`.

    Raises:
        ValueError: unknown family or variant.
    """
    family, slash, variant = name.partition("/")
    module = load("envs", family)
    if not slash:
        return make("envs", family)
    known = variants(module)
    if variant not in known:
        if not known:
            raise ValueError(f"unknown environment {name!r}: {family} has no variants")
        near = did_you_mean(variant, known)
        raise ValueError(f"unknown variant {variant!r} of the environment {family}; {near}")
    return make("envs", family, **known[variant])


def env_name(env: Any) -> str:
    """Return the name from which `make_env` builds an equal environment, such as `gridworld/dense`.

    If no name gives this environment, the result is the name of its family or, outside rlgen, the
    dotted path of its module.
    """
    family = name_of("envs", type(env).__module__)
    if family not in modules("envs"):
        return family
    module = load("envs", family)
    known = {} if make("envs", family) == env else variants(module)
    found = [name for name, fields in known.items() if make("envs", family, **fields) == env]
    return f"{family}/{found[0]}" if found else family


def missing_extra(name: str) -> str:
    """Return the missing additional package of an environment, or "" if no package is missing.

    A module declares the package as `EXTRA = "craftax"`.
    """
    package = getattr(load("envs", name.partition("/")[0]), "EXTRA", "")
    return package if package and importlib.util.find_spec(package) is None else ""


def require_extra(name: str) -> None:
    """Reject an environment whose additional package is not installed.

    Raises:
        ValueError: the package is not installed; the message names it.
    """
    package, family = missing_extra(name), name.partition("/")[0]
    if package:
        raise ValueError(
            f'the environment {family} needs the package {package}: pip install "rlgen[{family}]"'
        )


def make_bonus(name: str, env: Any) -> Any:
    """Build a raw bonus for an environment: `rnd`, or `counts/event` for one of its variants.

    Raises:
        ValueError: unknown bonus or variant, or a bonus that the environment does not support.
    """
    family, slash, variant = name.partition("/")
    module = load("bonuses", family)
    known = variants(module)
    if slash and variant not in known:
        told = did_you_mean(variant, known) if known else "it has no variants."
        raise ValueError(f"unknown variant {variant!r} of the bonus {family}; {told}")
    return make("bonuses", family, env, **known[variant] if slash else {})


def variants(module: ModuleType) -> dict[str, dict[str, Any]]:
    """Variants that the module of an environment or a bonus declares; {} if it declares none."""
    return getattr(module, "VARIANTS", {})


def has(component: Any, capability: Callable) -> bool:
    """Return whether a component offers a capability, an optional method such as `LevelEnv.solve`.

    Raises:
        TypeError: the argument is not a component.
    """
    return _component(component).offers(capability)


def require(env: Any, capability: Callable, needed_by: str) -> None:
    """Reject an environment that lacks a capability, before anything is compiled.

    Args:
        env: environment.
        capability: method of the base class, such as `LevelEnv.solve`.
        needed_by: subject of the error message, such as "accel".

    Raises:
        MissingCapability: the environment does not offer the capability.
        TypeError: the argument is not a component.
    """
    if not has(env, capability):
        # `_able` is slow, since it builds every environment, but it runs only for the message.
        able = ", ".join(_able(capability)) or "none that ships with rlgen"
        raise env.missing(
            capability,
            f"{needed_by} needs an environment with {described(capability)} "
            f"{type(env).__name__} has no {capability.__name__}. Environments that have it: "
            f"{able}. Choose one of them, or add the method.",
        )


def require_all(env: Any, capabilities: Iterable[Callable], needed_by: str) -> None:
    """Reject an environment that lacks any of several capabilities; see `require`."""
    for capability in capabilities:
        require(env, capability, needed_by)


def described(capability: Callable) -> str:
    """Signature of a capability and the first line of its docstring, for error messages."""
    arguments = [name for name in inspect.signature(capability).parameters if name != "self"]
    about = inspect.cleandoc(capability.__doc__ or "").partition("\n")[0]
    return f"{capability.__name__}({', '.join(arguments)}) ({about.rstrip('.')});"


def _able(capability: Callable) -> list[str]:
    """Names of the environments in rlgen that offer a capability."""
    return [name for name in names("envs") if has(load("envs", name).build(), capability)]


def _component(component: Any) -> Any:
    # `isinstance` would need rlgen.protocols, which takes seconds to import.
    if hasattr(component, "offers"):
        return component
    raise TypeError(
        f"{type(component).__name__} is not a component of rlgen: extend LevelEnv, Sampler or "
        "another class of rlgen.protocols, or convert a gymnax environment with discrete actions "
        "with rlgen.gymnax.from_gymnax"
    )


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """End of an error message for an unknown name: the nearest known name, and all names."""
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return f"{hint}Known: {', '.join(known)}."


def _known(name: str, known: Iterable[str], what: str) -> str:
    if name in known:
        return name
    raise ValueError(f"unknown {what} {name!r}; {did_you_mean(name, known)}")


def _components(folder: Path, package: str, depth: int = 1) -> Iterator[tuple[str, str]]:
    """Yield name and dotted path of each component in a folder and `depth` folders below it."""
    for path in sorted(folder.iterdir()):
        module = f"{package}.{path.stem}"
        inside = path / "__init__.py"
        # A package that defines `build` is one component; the modules inside it are not searched.
        if path.suffix == ".py" and _defines_build(path):
            yield path.stem.replace("_", "-"), module
        elif inside.is_file() and _defines_build(inside):
            yield path.name.replace("_", "-"), module
        elif inside.is_file() and depth:
            yield from _components(path, module, depth - 1)


def _defines_build(path: Path) -> bool:
    """Return whether a source file defines `build`; an `__init__.py` may import it instead."""
    source = path.read_text()
    if path.name != "__init__.py":
        # For a module, a text search is enough and avoids parsing the file.
        return re.search(r"(?m)^def build\b", source) is not None
    if "build" not in source:
        return False
    nodes = ast.parse(source).body
    imported = {a.asname or a.name for n in nodes if isinstance(n, ast.ImportFrom) for a in n.names}
    return "build" in imported or any(
        isinstance(n, ast.FunctionDef) and n.name == "build" for n in nodes
    )
