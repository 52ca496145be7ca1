"""What a run is, before it runs: names, sizes, seeds and overrides; and the components they give.

The order of precedence, later wins: the environment's and the recipe's defaults, the preset's
values, the user's values. What comes out is written down leaf by leaf in the run folder, so that a
run is rebuilt from its own record even after a preset has changed.
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
"""Of each seed, where neither the user nor the recipe says how many."""
OF_RECIPE = -1
"""For steps: leave it to the recipe."""

RULE = "student.learner.rule"


@dataclass(frozen=True)
class RunSpec:
    """A run as a user asks for it.

    Attributes:
        recipe: the method: a name of `rlgen list recipes`, or a dotted path of your own module.
        env: the environment's name or dotted path.
        preset: fast, strong or parity, where the recipe has it; "" for the recipe's own defaults.
        learner: the learner's name; "" for the recipe's own.
        score: the name of what judges levels; "" for the recipe's own.
        bonus: exploration bonuses, by name: `rnd`, or combined, `e3b*rnd`; "" for none.
        rule: of learners that follow a learned rule: a run of meta-training, a .npz file or the
            name of a rule that ships with rlgen; "" for what the recipe says.
        steps: env steps of each seed, rounded up to whole chunks; -1 for what the recipe's module
            says of the preset, `STEPS`, or else 5 million.
        seed: the first seed.
        seeds: S, number of seeds trained side by side: seed, seed + 1, ...
        devices: number of devices that share the work.
        branch_seed: the seed of decisions that all seeds have in common.
        chunk: updates of one compiled program, between which progress, metrics and checkpoints
            happen; 0 for about a fiftieth of the run, at most 100.
        checkpoint_every: chunks between two checkpoints.
        keep_checkpoints: how many of the newest checkpoints stay.
        log_levels: slots of each update whose levels the curriculum log keeps; 0 for no log.
        gap_every: of runs over a finite training set, chunks between two measurements of the
            generalisation gap; 0 for about twenty a run, fewer in short ones, and -1 for none.
        env_fields: the environment's fields that differ from its preset.
        overrides: the curriculum's fields that differ from the preset, by dotted path.

    Raises:
        ValueError: a number outside its range.
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
        if self.seed + self.seeds > 2**31:
            raise ValueError(f"seed must be below 2**31, got {self.seed}")


class Plan(NamedTuple):
    """The length of a run in updates."""

    num_updates: int  # a multiple of `chunk`
    chunk: int
    steps_per_update: int  # env steps of one seed, by all of its students; a teacher's apart


def build(spec: RunSpec) -> tuple[Any, Curriculum]:
    """The environment and the curriculum of a run, every value in place.

    Raises:
        ValueError: an unknown name, field or preset, or a value that a component refuses.
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
    env = config.override(env, {**env_presets.get(spec.preset, {}), **spec.env_fields})
    curriculum = recipe.build(env, **_chosen(spec, recipe))
    if spec.bonus:
        curriculum = _with_bonus(curriculum, spec, env)
    known_paths = config.flatten(curriculum)
    # A preset also holds values of learners that were not chosen, such as the size of a memory.
    values = {p: v for p, v in presets.get(spec.preset, {}).items() if p in known_paths}
    overrides = _with_rule(spec, known_paths)
    of_student = {p.removeprefix("student."): v for p, v in values.items() if p[:8] == "student."}
    before = config.override(curriculum.student, of_student).discounting()
    curriculum = config.override(curriculum, {**values, **overrides})
    curriculum = _spanning(curriculum, plan(spec, curriculum).num_updates)
    shared = _for_score(curriculum, before, known_paths)
    return env, config.override(curriculum, {**shared, **overrides})


def _with_bonus(curriculum: Curriculum, spec: RunSpec, env: LevelEnv) -> Curriculum:
    """The curriculum whose student is paid a bonus.

    Raises:
        ValueError: the expression cannot be read, or the recipe's student takes no bonus.
    """
    student = curriculum.student
    if not student.offers(Student.with_bonus):
        raise ValueError(
            f"--bonus {spec.bonus}: the recipe {spec.recipe} learns a rule from whole lives of "
            "agents, and pays no bonus; leave it out, or train an agent by the rule (lpg-agent)"
        )
    shaped = Shaped(parse(spec.bonus, env))
    return dataclasses.replace(curriculum, student=student.with_bonus(shaped))


def _chosen(spec: RunSpec, recipe: Any) -> dict[str, str]:
    """Learner and score, where they are given."""
    names = {"learner": spec.learner, "score": spec.score}
    given = {kind: name for kind, name in names.items() if name}
    known = inspect.signature(recipe.build).parameters
    for kind, name in given.items():
        if kind not in known:
            raise ValueError(
                f"--{kind} {name}: the recipe {spec.recipe} has no choice of a {kind}; leave it out"
            )
    return given


def plan(spec: RunSpec, curriculum: Curriculum) -> Plan:
    """How many updates the asked steps are, rounded up to whole chunks."""
    student = curriculum.student
    per_update = curriculum.num_slots * student.num_steps
    per_update *= student.population
    if student.full_lifetime:
        assert curriculum.sampler.mean_lifetime is not None, "the curriculum checks it"
        per_update = round(per_update * curriculum.sampler.mean_lifetime)
    asked = math.ceil(steps_of(spec) / per_update)
    longest = min(spec.chunk or max(min(asked // 50, 100), 1), asked)
    num_chunks = math.ceil(asked / longest)
    chunk = spec.chunk or math.ceil(asked / num_chunks)  # the shortest that needs no more chunks
    chunk = min(chunk, asked)
    return Plan(chunk * math.ceil(asked / chunk), chunk, per_update)


def steps_of(spec: RunSpec) -> int:
    """Env steps of each seed: as asked for, or the recipe's own for the preset.

    Raises:
        ValueError: the recipe is unknown.
    """
    if spec.steps != OF_RECIPE:
        return spec.steps
    own = getattr(registry.load("recipes", spec.recipe), "STEPS", {})
    return own.get(spec.preset, DEFAULT_STEPS)


def with_names(spec: RunSpec) -> RunSpec:
    """The same run with all said that the recipe says by default: learner, score and steps.

    Raises:
        ValueError: the recipe is unknown.
    """
    parameters = inspect.signature(registry.load("recipes", spec.recipe).build).parameters
    own = {kind: parameters[kind].default for kind in ("learner", "score") if kind in parameters}
    names = {k: n for k, n in own.items() if isinstance(n, str) and not getattr(spec, k)}
    return dataclasses.replace(spec, steps=steps_of(spec), **names)


def _with_rule(spec: RunSpec, known: Collection[str]) -> dict[str, Any]:
    """The overrides, and among them the rule that a learner is to follow.

    Raises:
        ValueError: the learner follows no rule, or two are given.
    """
    if not spec.rule:
        return spec.overrides
    if RULE not in known:
        raise ValueError(
            f"--rule {spec.rule}: the learner of {spec.recipe} does not follow a learned rule; use "
            "the recipe lpg-agent"
        )
    given = {path.replace("-", "_"): value for path, value in spec.overrides.items()}
    if given.get(RULE, spec.rule) != spec.rule:
        raise ValueError(f"give either --rule {spec.rule} or --{RULE} {given[RULE]}, not both")
    return {**spec.overrides, RULE: spec.rule}


def _for_score(
    curriculum: Curriculum, before: Mapping[str, Any], known: Collection[str]
) -> dict[str, Any]:
    """Where the learner's discounting is another than `before`, the same for the score's."""
    now = curriculum.student.discounting()
    changed = {f"score.{name}": x for name, x in now.items() if x != before.get(name)}
    return {path: x for path, x in changed.items() if path in known}


def paths_set_by_length(curriculum: Curriculum) -> set[str]:
    """Dotted paths of the hyperparameters that follow from the length of a run."""
    short, long = (config.flatten(_spanning(curriculum, length)) for length in (1, 10**6))
    return {path for path, value in short.items() if value != long[path]}


def _spanning(curriculum: Curriculum, num_updates: int) -> Curriculum:
    """Schedules span the run.

    Those of students are counted in updates that are learned from, of which some samplers have
    fewer.
    """
    sampler = curriculum.sampler
    share = sampler.trained_updates(curriculum.num_slots * curriculum.levels_per_slot)
    return dataclasses.replace(
        curriculum,
        student=curriculum.student.spanning(max(round(num_updates * share), 1)),
        sampler=sampler.spanning(num_updates),
    )
