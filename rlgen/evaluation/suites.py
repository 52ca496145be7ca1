"""Load suites by name, such as `maze/heldout`, or from files; reject those that a run misreads."""

from pathlib import Path

import jax

from rlgen import config, registry
from rlgen.levels import Suite, load_levels, make_level_set
from rlgen.observations import misread
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


def check_readable(run: str, env: LevelEnv, suite: Suite) -> None:
    """Reject a suite whose observations the agents of a run would misread.

    Args:
        run: Name of the run, for the message.
        env: Environment that the agents were trained in.
        suite: Suite to play.

    Raises:
        ValueError: An observation means something else in the suite's environment. The message
            names the run, the suite, the difference, and the suites that the agents can play.
    """
    why = misread(env, suite)
    if not why:
        return
    unlike = field_differences(env, suite.env)
    fields = f" ({unlike})" if unlike else ""
    known = [f"{family_of(env)}/{name}" for name in playable_suites(env)]
    other = (
        f"suites that it can play: {', '.join(known)}"
        if known
        else "it can play no suite of this family; evaluate it on new levels of the training "
        "distribution with rlgen ladder, or train in the environment of the suite"
    )
    raise ValueError(
        f"{run} was trained in {name_of(env)} and cannot play {suite.name}, which uses "
        f"{name_of(suite.env)}{fields}: {why}; {other}"
    )


def playable_suites(env: LevelEnv) -> list[str]:
    """Return the names of the environment's suites that its agents can play.

    Every suite is built, which can take a minute.
    """
    found = []
    for name, build in env.suites().items():
        try:
            fits = not misread(env, build())
        except ValueError:  # a suite need not exist for all fields of the environment
            continue
        if fits:
            found.append(name)
    return found


def family_of(env: LevelEnv) -> str:
    """Registered name of an environment's family, or its dotted path if it is outside rlgen."""
    return registry.name_of("envs", type(env).__module__)


def name_of(env: LevelEnv) -> str:
    """Name of an environment for messages: family, variant if it is one, and class."""
    return f"{registry.env_name(env)} ({type(env).__name__})"


def field_differences(env: LevelEnv, other: LevelEnv) -> str:
    """Up to three fields whose values differ between two environments of one type, with values."""
    one, two = config.flatten(env), config.flatten(other)
    found = [f"{k} {one.get(k)} and {two.get(k)}" for k in one if one.get(k) != two.get(k)]
    return ", ".join(found[:3])


def _suites(env: LevelEnv) -> dict:
    return env.suites()
