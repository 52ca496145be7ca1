"""Load suites by name, such as `maze/heldout`, or from files with levels."""

from pathlib import Path

import jax

from rlgen import registry
from rlgen.levels import Suite, load_levels, make_level_set
from rlgen.protocols import LevelEnv


def suite_names() -> list[str]:
    """Sorted names, as `family/suite`, of all suites shipped with rlgen."""
    found = []
    for family in registry.names("envs"):
        env = registry.load("envs", family).build()  # suites are methods of an environment
        found += [f"{family}/{suite}" for suite in _suites(env)]
    return sorted(found)


def load_suite(env: LevelEnv, name: str) -> Suite:
    """Load a suite by name, with the observations and rewards of `env`.

    Args:
        env: Environment that the agent was trained in. If the suite's levels have a different
            size, the suite gets a copy of `env` with the size of these levels.
        name: Name of the suite, such as `maze/heldout`, or `heldout` for short.

    Raises:
        ValueError: The suite is unknown or belongs to another family, or the environment has no
            suites.
    """
    registry.require(env, LevelEnv.suites, f"suite {name!r}")
    family, known = family_of(env), _suites(env)
    asked, _, short = name.rpartition("/")
    if asked and asked != family:
        raise ValueError(
            f"suite {name!r} belongs to a different family than the environment, {family}; "
            + registry.did_you_mean(name, [f"{family}/{one}" for one in known])
        )
    if short not in known:
        raise ValueError(
            f"unknown suite {name!r}; "
            + registry.did_you_mean(f"{family}/{short}", [f"{family}/{one}" for one in known])
        )
    return known[short]()


def levels_from_file(env: LevelEnv, path: Path | str) -> Suite:
    """Load the levels in a file as a suite named after the file.

    If the environment has a solver, hashes and optima are recomputed, because the values in the
    file may be wrong and the optimal return depends on the environment's rewards.

    Raises:
        ValueError: The file does not exist or does not contain levels of this family.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"cannot read levels: there is no file {path}")
    if registry.has(env, LevelEnv.load_levels):
        levels = env.load_levels(path)
    else:
        levels = load_levels(path, env.sample_level(jax.random.key(0)))
    if registry.has(env, LevelEnv.solve):
        levels = make_level_set(env, levels.level, levels.names, levels.split, levels.version)
    return Suite(path.stem, env, levels)


def family_of(env: LevelEnv) -> str:
    """Registered name of an environment's family, or its dotted path if it is outside rlgen."""
    return registry.name_of("envs", type(env).__module__)


def _suites(env: LevelEnv) -> dict:
    return env.suites()
