"""Build the trainees of a meta-test, and load its suites by name.

A trainee is what trains the agents of a meta-test: the rules of a run, a rule from a file, or an
ordinary learner such as A2C.
"""

import json
from importlib import resources
from pathlib import Path
from typing import Any

import jax
import numpy as np

from rlgen import registry
from rlgen.evaluation.meta.meta_test import Trainee
from rlgen.evaluation.suites import load_suite, suite_names
from rlgen.evaluation.zero_shot import load_states
from rlgen.levels import Suite, take
from rlgen.protocols import Learner, LevelEnv, Student
from rlgen.runs import folder
from rlgen.types import PyTree

RULE_LEARNERS = ("lpg", "lpo")
"""Learners that follow a rule from a file. Each of these learners has a different file format."""


def learns_rule(run: Path | str, allow_imports: bool = False) -> bool:
    """Return whether the run in a folder learned a rule rather than a policy.

    Raises:
        ValueError: The folder is not a run, or its record names modules outside rlgen and
            `allow_imports` is False.
    """
    _, _, curriculum = folder.rebuild(folder.read(Path(run)), allow_imports)
    return curriculum.student.offers(Student.learner_with_rule)


def is_rule(name: Path | str) -> bool:
    """Return whether a name is that of a rule shipped with rlgen or of a `.npz` file.

    If a folder has this name, it is the name of a run and not of a rule.
    """
    return not Path(name).is_dir() and (Path(name).suffix == ".npz" or str(name) in shipped())


def shipped() -> list[str]:
    """Return the names of the rules shipped with rlgen."""
    rules = resources.files("rlgen.algos").joinpath("rules").iterdir()
    return sorted(x.name.removesuffix(".npz") for x in rules if x.name.endswith(".npz"))


def described() -> dict[str, str]:
    """Describe the meta-training and the meta-test score of each shipped rule, by name."""
    return {name: _in_words(meta) for name, meta in cards().items()}


def cards() -> dict[str, dict[str, Any]]:
    """Return the metadata and the rule's sizes from the file of each shipped rule, by name."""
    folder = resources.files("rlgen.algos").joinpath("rules")
    found = {}
    for name in shipped():
        with resources.as_file(folder.joinpath(f"{name}.npz")) as path, np.load(path) as file:
            header = json.loads(str(file["header"]))
        found[name] = header["meta"] | {"sizes": header["rule"]}
    return found


def _in_words(meta: dict[str, Any]) -> str:
    told = f"{meta['recipe']} on {meta['env']}, {meta['meta_updates']:,} meta-updates"
    for test in meta.get("card", {}).get("meta_tests", ())[-1:]:
        value, *bounds = (f"{100 * x:.0f}" for x in test["optimum"])
        interval = f" [{', '.join(bounds)}]" if bounds else ""
        updates = ", ".join(f"{n:,}" for n in test["updates"].values())
        told += f"; {test['suite']} after {updates} updates: IQM {value} %{interval} of the optimum"
    return told


def from_run(
    run: Path | str,
    at: int | None = None,
    untrained: bool = False,
    allow_imports: bool = False,
) -> Trainee:
    """Trainee with the rules of a run, one rule per seed.

    Arguments and errors are those of `zero_shot.load_policies`.
    """
    label, _, curriculum, states, meta, _ = load_states(run, at, untrained, allow_imports)
    num_seeds = jax.tree.leaves(states)[0].shape[0]

    def build(env: LevelEnv) -> tuple[Learner, PyTree]:
        return curriculum.student.learner_with_rule(states, env)

    return Trainee(label, build, num_seeds, meta)


def from_file(name: Path | str) -> Trainee:
    """Trainee with a single rule, given by a `.npz` file or by the name of a shipped rule.

    The rule is read when `Trainee.build` is called. If the rule does not exist, or this version
    cannot read it, `Trainee.build` raises a `ValueError`.
    """

    def build(env: LevelEnv) -> tuple[Learner, PyTree]:
        # `init` reads the rule. The key affects only other parts of the state.
        learner = _follower(env, str(name))
        rule = learner.init(jax.random.key(0)).rule
        return learner, jax.tree.map(lambda x: x[None], rule)

    return Trainee(Path(name).stem, build, 1, {"rule": str(name)})


def _follower(env: LevelEnv, rule: str) -> Any:
    """Return a learner that follows the given rule.

    The learner's lifetime of one update is a placeholder.
    """
    # The file format determines the learner. If no learner can read it, raise the first error.
    refused = []
    for name in RULE_LEARNERS:
        try:
            return registry.load("learners", name).build(env, rule=rule, num_updates=1)
        except ValueError as error:
            refused.append(error)
    raise refused[0]


def from_learner(name: str, num_seeds: int) -> Trainee:
    """Baseline trainee: an ordinary learner, such as A2C, with its defaults for each environment.

    Args:
        name: Name of the learner.
        num_seeds: Number of groups of agents; each group counts as one seed. For a comparison with
            the rules of a run, use the run's number of seeds.
    """
    module = registry.load("learners", name)
    meta = {"learner": name, "baseline": True}
    return Trainee(name, lambda env: (module.build(env), ()), num_seeds, meta)


def suites_of(name: str, num_levels: int = 0) -> list[Suite]:
    """Load one suite, such as `gridworld/unseen`, or all suites of a family, such as `minatar`.

    Args:
        name: Name of a suite as `family/suite`, or name of a family.
        num_levels: Number of levels to take from the start of each suite; 0 for all.

    Raises:
        ValueError: The family or suite is unknown, or `num_levels` is negative.
    """
    if num_levels < 0:
        raise ValueError(f"levels must be at least 0 (all), got {num_levels}")
    family, _, short = name.partition("/")
    if family not in registry.names("envs") and "." not in family:
        known = [*registry.names("envs"), *suite_names()]
        raise ValueError(f"unknown suite {name!r}; {registry.did_you_mean(name, known)}")
    env = registry.load("envs", family).build()
    registry.require(env, LevelEnv.suites, f"suite {name!r}")
    names = [f"{family}/{one}" for one in env.suites()]
    found = [load_suite(env, one) for one in ([name] if short else names)]
    if num_levels:
        first = slice(num_levels)
        found = [suite._replace(levels=take(suite.levels, first)) for suite in found]
    return found
