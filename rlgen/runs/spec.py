"""Specification of a run (names, sizes, seeds, overrides), and the components built from it.

Values are resolved in order of increasing precedence: defaults of the environment and the recipe,
values of the preset, values of the user. Every resolved value is recorded in the run folder. A run
can therefore be rebuilt from its record even if a preset has changed in the meantime.
"""

import dataclasses
import inspect
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, NamedTuple

from rlgen import config, registry
from rlgen.bonuses import Shaped, parse
from rlgen.curriculum import Curriculum
from rlgen.protocols import LevelEnv, Student, check_numbers

NO_FIELDS: Any = MappingProxyType({})

DEFAULT_STEPS = 5_000_000
"""Env steps per seed, unless the user or the recipe sets another number."""
OF_RECIPE = -1
"""Value of `steps` that selects the recipe's default."""

RULE = "student.learner.rule"


@dataclass(frozen=True)
class RunSpec:
    """Specification of a run, as given by the user.

    Attributes:
        recipe: Method: a name from `rlgen list recipes`, or the dotted path of your own module.
        env: Name or dotted path of the environment.
        preset: Name of a preset of the recipe, usually fast, strong or parity; "" for the recipe's
            defaults.
        learner: Name of the learner; "" for the recipe's default.
        score: Name of the score that rates levels; "" for the recipe's default.
        bonus: Exploration bonus, such as `rnd`, or a combination of bonuses, such as `e3b*rnd`; ""
            for no bonus.
        rule: Learned rule, for learners that follow a rule: the folder of a meta-training run, a
            .npz file, or the name of a rule shipped with rlgen; "" for the recipe's default.
        steps: Env steps per seed, rounded up to whole chunks. -1 selects the recipe's default for
            the preset (`STEPS` in the recipe's module), or 5 million if the recipe has no default.
        seed: First seed.
        seeds: Number S of seeds trained in parallel: seed, seed + 1, ...
        devices: Number of devices that share the work.
        branch_seed: Seed of the random decisions that all seeds share.
        chunk: Number of updates in a chunk, which is compiled to one program. Progress, metrics and
            checkpoints are written after each chunk. 0 selects about a fiftieth of the run, at most
            100.
        checkpoint_every: Number of chunks between two checkpoints.
        keep_checkpoints: Number of newest checkpoints to keep.
        log_levels: Number of slots per update whose levels are written to the curriculum log; 0 for
            no log.
        gap_every: Number of chunks between two measurements of the generalisation gap, in runs with
            a finite training set. 0 measures about twenty times per run (less often in short runs),
            -1 never.
        env_fields: Fields of the environment that differ from the preset.
        overrides: Fields of the curriculum that differ from the preset, by dotted path.

    Raises:
        ValueError: A number is outside its range.
    """

    recipe: str
    env: str = "maze"
    preset: str = "fast"
    learner: str = ""
    score: str = ""
    bonus: str = ""
    rule: str = ""
    steps: int = OF_RECIPE
    seed: int = 0
    seeds: int = 1
    devices: int = 1
    branch_seed: int = 0
    chunk: int = 0
    checkpoint_every: int = 1
    keep_checkpoints: int = 2
    log_levels: int = 8
    gap_every: int = 0
    env_fields: dict[str, Any] = field(default_factory=dict, metadata={"config": False})
    overrides: dict[str, Any] = field(default_factory=dict, metadata={"config": False})

    def __post_init__(self):
        check_numbers(self, "seeds", "devices", "checkpoint_every", "keep_checkpoints", least=1)
        check_numbers(self, "seed", "branch_seed", "chunk", "log_levels", least=0)
        if self.steps < 1 and self.steps != OF_RECIPE:
            raise ValueError(f"steps must be at least 1, got {self.steps}")
        if self.gap_every < -1:
            raise ValueError(f"gap_every must be -1 or more, got {self.gap_every}")
        # Seeds become int32 arrays in `run_keys`.
        if self.seed + self.seeds > 2**31:
            raise ValueError(f"seed must be below 2**31, got {self.seed}")


class Plan(NamedTuple):
    """Length of a run in updates."""

    num_updates: int  # multiple of `chunk`
    chunk: int
    steps_per_update: int  # env steps of one seed, summed over its learners, without teacher steps


def build(spec: RunSpec) -> tuple[Any, Curriculum]:
    """Build the environment and the curriculum of a run, with all values resolved.

    Raises:
        ValueError: A name, field or preset is unknown, or a component rejects a value.
    """
    recipe = registry.load("recipes", spec.recipe)
    presets = getattr(recipe, "PRESETS", {})
    registry.require_extra(spec.env)
    env = registry.make_env(spec.env)
    env_presets = env.presets()
    known = {*presets, *env_presets}
    if spec.preset and known and spec.preset not in known:
        raise ValueError(
            f"unknown preset {spec.preset!r}; {registry.did_you_mean(spec.preset, known)}"
        )
    # The user's values come last and override the preset's.
    env = config.override(env, {**env_presets.get(spec.preset, {}), **spec.env_fields})
    curriculum = recipe.build(env, **_chosen(spec, recipe))
    if spec.bonus:
        curriculum = _with_bonus(curriculum, spec, env)
    known_paths = config.flatten(curriculum)
    # A preset also has values for learners that were not chosen, such as the size of a memory.
    # These values are dropped.
    values = {p: v for p, v in presets.get(spec.preset, {}).items() if p in known_paths}
    overrides = _with_rule(spec, known_paths)
    of_student = {p.removeprefix("student."): v for p, v in values.items() if p[:8] == "student."}
    # Discounting of the student before the user's overrides, needed by `_for_score`.
    before = config.override(curriculum.student, of_student).discounting()
    curriculum = config.override(curriculum, {**values, **overrides})
    curriculum = _spanning(curriculum, plan(spec, curriculum).num_updates)
    shared = _for_score(curriculum, before, known_paths)
    # The overrides are applied again: they take precedence over schedules and shared discounting.
    return env, config.override(curriculum, {**shared, **overrides})


def _with_bonus(curriculum: Curriculum, spec: RunSpec, env: LevelEnv) -> Curriculum:
    """Return a copy of the curriculum whose student adds the exploration bonus to its reward.

    Raises:
        ValueError: The expression cannot be parsed, or the recipe's student supports no bonus.
    """
    student = curriculum.student
    if not student.offers(Student.with_bonus):
        raise ValueError(
            f"--bonus {spec.bonus}: the recipe {spec.recipe} learns a rule from whole lifetimes of "
            "agents and does not support bonuses; omit --bonus, or train an agent with the rule "
            "(recipe lpg-agent)"
        )
    shaped = Shaped(parse(spec.bonus, env))
    return dataclasses.replace(curriculum, student=student.with_bonus(shaped))


def _chosen(spec: RunSpec, recipe: Any) -> dict[str, str]:
    """Arguments for the recipe's `build`: learner and score, if they are given."""
    names = {"learner": spec.learner, "score": spec.score}
    given = {kind: name for kind, name in names.items() if name}
    known = inspect.signature(recipe.build).parameters
    for kind, name in given.items():
        if kind not in known:
            raise ValueError(
                f"--{kind} {name}: in the recipe {spec.recipe} the {kind} cannot be chosen; omit "
                f"--{kind}"
            )
    return given


def plan(spec: RunSpec, curriculum: Curriculum) -> Plan:
    """Compute the length of a run in updates, rounded up to whole chunks."""
    student = curriculum.student
    per_update = curriculum.num_slots * student.num_steps
    per_update *= student.population
    if student.full_lifetime:  # each update trains an agent for its whole lifetime
        assert curriculum.sampler.mean_lifetime is not None, "the curriculum checks it"
        per_update = round(per_update * curriculum.sampler.mean_lifetime)
    asked = math.ceil(steps_of(spec) / per_update)
    longest = min(spec.chunk or max(min(asked // 50, 100), 1), asked)
    num_chunks = math.ceil(asked / longest)
    # Use the shortest chunk that gives `num_chunks` chunks, so that rounding up adds few updates.
    chunk = spec.chunk or math.ceil(asked / num_chunks)
    # A chunk given by the user may be longer than the whole run.
    chunk = min(chunk, asked)
    return Plan(chunk * math.ceil(asked / chunk), chunk, per_update)


def steps_of(spec: RunSpec) -> int:
    """Return the env steps per seed: `spec.steps` if set, otherwise the recipe's default.

    Raises:
        ValueError: The recipe is unknown.
    """
    if spec.steps != OF_RECIPE:
        return spec.steps
    own = getattr(registry.load("recipes", spec.recipe), "STEPS", {})
    return own.get(spec.preset, DEFAULT_STEPS)


def with_names(spec: RunSpec) -> RunSpec:
    """Fill in the recipe's defaults for the learner, the score and the number of steps.

    Raises:
        ValueError: The recipe is unknown.
    """
    parameters = inspect.signature(registry.load("recipes", spec.recipe).build).parameters
    own = {kind: parameters[kind].default for kind in ("learner", "score") if kind in parameters}
    # A default that is not a string does not name a component; `Parameter.empty` is such a default.
    names = {k: n for k, n in own.items() if isinstance(n, str) and not getattr(spec, k)}
    return dataclasses.replace(spec, steps=steps_of(spec), **names)


def _with_rule(spec: RunSpec, known: Collection[str]) -> dict[str, Any]:
    """Return the spec's overrides, and an override for the learned rule if `spec.rule` is set.

    Raises:
        ValueError: The learner does not follow a learned rule, or two different rules are given.
    """
    if not spec.rule:
        return spec.overrides
    if RULE not in known:
        raise ValueError(
            f"--rule {spec.rule}: the learner of {spec.recipe} does not follow a learned rule; use "
            "the recipe lpg-agent"
        )
    # Overrides may be spelt with hyphens, as on the command line.
    given = {path.replace("-", "_"): value for path, value in spec.overrides.items()}
    if given.get(RULE, spec.rule) != spec.rule:
        raise ValueError(f"give either --rule {spec.rule} or --{RULE} {given[RULE]}, not both")
    return {**spec.overrides, RULE: spec.rule}


def _for_score(
    curriculum: Curriculum, before: Mapping[str, Any], known: Collection[str]
) -> dict[str, Any]:
    """Overrides that copy changes of the learner's discounting to the score.

    Args:
        curriculum: Curriculum after the user's overrides.
        before: Discounting of the student before the user's overrides.
        known: Paths of the curriculum's fields. A changed parameter is dropped if the score has no
            field for it.
    """
    now = curriculum.student.discounting()
    changed = {f"score.{name}": x for name, x in now.items() if x != before.get(name)}
    return {path: x for path, x in changed.items() if path in known}


def paths_set_by_length(curriculum: Curriculum) -> set[str]:
    """Dotted paths of the hyperparameters that depend on the length of a run."""
    # A hyperparameter depends on the length if its value differs between very short and long runs.
    short, long = (config.flatten(_spanning(curriculum, length)) for length in (1, 10**6))
    return {path for path, value in short.items() if value != long[path]}


def _spanning(curriculum: Curriculum, num_updates: int) -> Curriculum:
    """Fit all schedules to the length of the run.

    A student's schedules count only the updates in which the student is trained. With some
    samplers, the student is not trained in every update.
    """
    sampler = curriculum.sampler
    share = sampler.trained_updates(curriculum.num_slots * curriculum.levels_per_slot)
    return dataclasses.replace(
        curriculum,
        student=curriculum.student.spanning(max(round(num_updates * share), 1)),
        sampler=sampler.spanning(num_updates),
    )
