"""Components by name. The file name is the registration: a new component touches no other file.

`algos/samplers/plr.py` is the sampler `plr`; `ppo_lstm.py` is `ppo-lstm`. Anything from outside is
named by its dotted path, `my_package.my_module`. A module offers `build(...)`, which returns the
component, and `tiny(...)`, its smallest instance, which the law tests pick up.
"""

import difflib
import importlib
import importlib.util
import pkgutil
from collections.abc import Iterable
from types import ModuleType
from typing import Any

KINDS = {
    "envs": "rlgen.envs",
    "learners": "rlgen.algos.learners",
    "samplers": "rlgen.algos.samplers",
    "scores": "rlgen.algos.scores",
    "bonuses": "rlgen.algos.bonuses",
    "level-models": "rlgen.algos.generative",
    "recipes": "rlgen.algos.recipes",
}

_SINGULAR = {"bonuses": "bonus"}

ABILITIES = {
    "unpack": "unpack(obs) -> pytree of float arrays: the observation as the network sees it",
    "success": "success(episode_return, terminated) -> bool: whether an episode was solved",
    "sample_simple_level": "sample_simple_level(key) -> level: one of the simplest kind",
    "mutate_levels": "mutate_levels(key, levels[N], num_edits) -> levels[N]",
    "editor": "editor() -> environment whose episodes build levels (`rlgen.protocols.Editor`)",
    "solve": "solve(level) -> Solution: exact solvability, fewest steps, optimal return",
    "labelled_states": "labelled_states(key, level, num) -> (state[num], bool[num, A]): states "
    "drawn evenly, each with the actions that lead to success by the fewest steps, if any does",
    "num_states": "num_states() -> int: how many values its observation, one integer, can have",
    "expected_return": "expected_return(level, log_policy[S, A]) -> float: undiscounted, exact",
    "lifetime": "lifetime() -> int: updates that an agent is trained for in meta-learning",
    "position": "position(state, level) -> int below num_positions(): where the agent is",
    "num_positions": "num_positions() -> int: how many values position can have",
    "event": "event(state, level) -> int below num_events(): what happened with the last step",
    "num_events": "num_events() -> int: how many values event can have; 0 is nothing",
    "feature_values": "feature_values(level, feature, discount) -> float[Z]: the least optimal "
    "value of the states that look alike under position or event; 0 where there is none",
    "level_hash": "level_hash(level) -> uint32[2]: equal for equal levels",
    "level_features": "level_features(level) -> dict of scalars that describe a level",
    "render": "render(level, state) -> uint8[H, W, 3]",
    "level_image": "level_image(level) -> uint8[H, W, 3]",
    "suites": "suites() -> {name: function that makes a Suite}",
    "for_evaluation": "for_evaluation() -> environment that scores what is trained without reward",
    "ladder": "ladder() -> {name: `rlgen.levels.Shift`}: levels beyond those it is trained on",
    "codec": "codec() -> `rlgen.codec.LevelCodec`: the parts that make up its levels",
    "presets": "presets() -> {preset: {field: value}}",
    "load_levels": "load_levels(path) -> LevelSet of a .npz or text file",
}
"""The optional methods of an environment, with their signatures."""


def names(kind: str) -> list[str]:
    """All names of a kind that ship with rlgen, sorted.

    Raises:
        ValueError: the kind is unknown.
    """
    package = importlib.import_module(KINDS[_known(kind, KINDS, "kind of component")])
    found = (m.name for m in pkgutil.iter_modules(package.__path__) if not m.name.startswith("_"))
    return sorted(name.replace("_", "-") for name in found)


def load(kind: str, name: str) -> ModuleType:
    """The module of one component, by its name or by a dotted path from outside rlgen.

    Raises:
        ValueError: the name is unknown; the message suggests the nearest known one.
    """
    if "." in name:
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError as error:
            raise ValueError(f"cannot import {name!r} as one of the {kind}: {error}") from error
    known = _known(name, names(kind), _SINGULAR.get(kind, kind.removesuffix("s")))
    return importlib.import_module(f"{KINDS[kind]}.{known.replace('-', '_')}")


def make_env(name: str) -> Any:
    """An environment by name: `gridworld`, or `gridworld/dense` for one of its variants.

    A module's variants are fields of its `build`, by name: `VARIANTS = {"dense": {...}}`.

    Raises:
        ValueError: the family or the variant is unknown.
    """
    family, slash, variant = name.partition("/")
    module = load("envs", family)
    if not slash:
        return module.build()
    known = variants(module)
    if variant not in known:
        if not known:
            raise ValueError(f"unknown environment {name!r}: {family} has no variants")
        near = suggestion(variant, known)
        raise ValueError(f"unknown variant {variant!r} of the environment {family}; {near}")
    return module.build(**known[variant])


def missing_extra(name: str) -> str:
    """The package that an environment's family needs beside rlgen and that is not installed; or "".

    A module names it: `EXTRA = "craftax"`.
    """
    package = getattr(load("envs", name.partition("/")[0]), "EXTRA", "")
    return package if package and importlib.util.find_spec(package) is None else ""


def require_extra(name: str) -> None:
    """Refuse an environment whose package is not installed, before anything is made.

    Raises:
        ValueError: with what to install.
    """
    package, family = missing_extra(name), name.partition("/")[0]
    if package:
        raise ValueError(
            f'the environment {family} needs the package {package}: pip install "rlgen[{family}]"'
        )


def make_bonus(name: str, env: Any) -> Any:
    """A raw bonus for an environment by name: `rnd`, or `counts/event` for one of its variants.

    Raises:
        ValueError: the bonus or the variant is unknown, or the environment cannot have it.
    """
    family, slash, variant = name.partition("/")
    module = load("bonuses", family)
    known = variants(module)
    if slash and variant not in known:
        told = suggestion(variant, known) if known else "it has none."
        raise ValueError(f"unknown variant {variant!r} of the bonus {family}; {told}")
    return module.build(env, **known[variant] if slash else {})


def variants(module: ModuleType) -> dict[str, dict[str, Any]]:
    """The variants of an environment's or a bonus's module; {} if it has none."""
    return getattr(module, "VARIANTS", {})


def has(env: object, ability: str) -> bool:
    """Whether an environment offers an optional ability."""
    assert ability in ABILITIES, ability
    return callable(getattr(env, ability, None))


def require(env: object, ability: str, needed_by: str) -> None:
    """Refuse, before anything is compiled, an environment that lacks an ability.

    Raises:
        ValueError: the environment has no such method.
    """
    if not has(env, ability):
        able = ", ".join(_able(ability)) or "none of those that ship"
        raise ValueError(
            f"{needed_by} needs an environment with {ABILITIES[ability]}; "
            f"{type(env).__name__} has no {ability}. Those that have it: {able}. Choose one of "
            "them, or add the method."
        )


def _able(ability: str) -> list[str]:
    """The environments that ship with rlgen and have an ability."""
    return [name for name in names("envs") if has(load("envs", name).build(), ability)]


def suggestion(name: str, known: Iterable[str]) -> str:
    """The tail of an error message for an unknown name: the nearest known one, and all."""
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return f"{hint}Known: {', '.join(known)}."


def _known(name: str, known: Iterable[str], what: str) -> str:
    if name in known:
        return name
    raise ValueError(f"unknown {what} {name!r}; {suggestion(name, known)}")
