"""Suites by name, `maze/heldout`, and from files."""

from pathlib import Path

import jax

from rlgen import registry
from rlgen.levels import Suite, load_levels, make_level_set
from rlgen.protocols import LevelEnv


def suite_names() -> list[str]:
    """Every suite that ships with rlgen, as `family/suite`, sorted."""
    found = []
    for family in registry.names("envs"):
        env = registry.load("envs", family).build()
        found += [f"{family}/{suite}" for suite in _suites(env)]
    return sorted(found)


def load_suite(env: LevelEnv, name: str) -> Suite:
    """The suite of a name, to be played as `env` is: its observation, its rewards.

    Args:
        env: the environment that the agent was trained in. Where the suite's levels are of another
            size, the suite's own environment is a copy of that size.
        name: `maze/heldout`, or `heldout` for short.

    Raises:
        ValueError: the suite is unknown or of another family, or the environment has none.
    """
    registry.require(env, LevelEnv.suites, f"suite {name!r}")
    family, known = family_of(env), _suites(env)
    asked, _, short = name.rpartition("/")
    if asked and asked != family:
        raise ValueError(
            f"suite {name!r} is of another family than the environment, {family}; "
            + registry.did_you_mean(name, [f"{family}/{one}" for one in known])
        )
    if short not in known:
        raise ValueError(
            f"unknown suite {name!r}; "
            + registry.did_you_mean(f"{family}/{short}", [f"{family}/{one}" for one in known])
        )
    return known[short]()


def levels_from_file(env: LevelEnv, path: Path | str) -> Suite:
    """A file's levels as a suite that bears the file's name.

    Hashes and optima are computed anew where the environment has a solver: a file may lie about
    them, and they depend on the environment's rewards.

    Raises:
        ValueError: no such file, or not one with levels of this family.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"there is no file {path} to read levels from")
    if registry.has(env, LevelEnv.load_levels):
        levels = env.load_levels(path)
    else:
        levels = load_levels(path, env.sample_level(jax.random.key(0)))
    if registry.has(env, LevelEnv.solve):
        levels = make_level_set(env, levels.level, levels.names, levels.split, levels.version)
    return Suite(path.stem, env, levels)


def family_of(env: LevelEnv) -> str:
    """Name under which an environment's family is registered; a dotted path outside rlgen."""
    return registry.name_of("envs", type(env).__module__)


def _suites(env: LevelEnv) -> dict:
    return env.suites()
