"""`rlgen train`: train a run or resume it; the fields of the chosen components are options."""

import contextlib
import dataclasses
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rlgen import registry
from rlgen.cli.options import (
    Field,
    changed,
    fields_of,
    flag,
    group,
    option,
    parse,
    peek,
    positional,
    wants_help,
)
from rlgen.config import flatten, leaves

ABOUT = (
    "Train a method on an environment. To continue a run, use rlgen train --resume RUN. Options "
    "with a dot are fields of components; their defaults come from the preset."
)
RESUME_ABOUT = "Continue a run from its newest checkpoint, with bit-identical results."
NAMES = ("env", "preset", "learner", "score", "bonus", "rule")
TENSORBOARD = "also write TensorBoard files to the run folder (needs the extra `tensorboard`)"
IMPORTS = "import modules outside rlgen that the run's record names; only if you trust the run"


def train(args: Sequence[str]) -> int:
    """Run `rlgen train`: train or resume; return 0, or the exit code of a run that was stopped."""
    # `--devices` is read first, because JAX needs the number of CPU devices at initialisation.
    named = peek(args, resume="", devices=1)
    _use_cpu_devices(named.devices)
    # The folder of a resumed run determines the recipe, so the arguments name no recipe.
    if named.resume:
        return _guarded(_resume, args)
    if not args or args[0].startswith("-"):
        if wants_help(args):
            parse(_general_options(), "rlgen train", ABOUT, args)
        raise ValueError(
            f"name a recipe first: rlgen train RECIPE; {registry.did_you_mean('', _recipes())}"
        )
    return _guarded(_train, args)


def _train(args: Sequence[str]) -> Path:
    from rlgen.runs import training
    from rlgen.runs.spec import RunSpec, build, paths_set_by_length, with_names

    base = RunSpec(recipe=args[0])
    # The names are parsed first, because they determine the components and therefore the options.
    named = peek(args[1:], **{name: x for name, x in flatten(base).items() if name in NAMES})
    base = with_names(dataclasses.replace(base, **dataclasses.asdict(named)))
    # This curriculum has the preset's values, which become the defaults of the options below. The
    # run is built again from `spec`.
    env, curriculum = build(base)
    of_env = list(leaves(env))
    # The length of a learner's schedules is computed from --steps, so it is not an option.
    set_by_run = {p for p in paths_set_by_length(curriculum) if p.endswith(".learner.num_updates")}
    of_run = [x for x in leaves(curriculum) if x.path not in set_by_run]
    plain = _plain_options(base)
    fields = [*plain, group("env", of_env), *fields_of(of_run)]
    given = parse(fields, f"rlgen train {args[0]}", ABOUT, args[1:])
    values = {
        leaf.path: getattr(given, leaf.path) for leaf in leaves(base) if leaf.path != "recipe"
    }
    spec = dataclasses.replace(
        base,
        **values,
        env_fields=changed(given.env_group, of_env),
        # Only changed values are stored. All other fields get the preset's values.
        overrides=changed(given, of_run),
    )
    out = Path(given.out or f"runs/{spec.recipe}-{spec.env.replace('/', '-')}-{spec.seed}")
    return training.train(spec, out, _options(given))


def _resume(args: Sequence[str]) -> Path:
    from rlgen.runs import training

    given = parse(_resume_fields(), "rlgen train", RESUME_ABOUT, args)
    at = None if given.checkpoint < 0 else given.checkpoint
    devices = given.devices or None
    return training.resume(given.resume, at, devices, given.allow_imports, _options(given))


def _options(given: Any) -> Any:
    from rlgen.evaluation.generalisation.during_training import GapTracking
    from rlgen.runs import progress, training

    return training.Options(progress.choose(), given.tensorboard, (GapTracking(),))


def _guarded(command: Any, args: Sequence[str]) -> int:
    """Run a training command, report an early stop, and print how to evaluate the run."""
    from rlgen.evaluation.meta.trainees import learns_rule
    from rlgen.runs import folder
    from rlgen.runs.training import RunStoppedError

    try:
        path = command(args)
    except RunStoppedError as stopped:
        print(f"rlgen: {stopped}", file=sys.stderr)
        return stopped.exit_code
    except KeyboardInterrupt:
        print("rlgen: aborted; `rlgen train --resume RUN` continues from the last checkpoint")
        sys.stdout.flush()
        os._exit(130)  # a normal exit would wait for the chunk that the device is computing
    record = folder.read(path)
    name, trust = record["spec"]["env"], folder.trust_flag(record)
    run = shlex.quote(str(path))
    if learns_rule(path, allow_imports=True):  # training has already imported the run's modules
        print(f"The run and its rules are in {path}. Train new agents with them:")
        # Rules are tested by new agents, which learn to read the observations of any suite.
        suite = _suites_by_name(registry.make_env(name), "unseen")[0]
        print(f"  rlgen eval {run} --suite {suite}{trust}")
        learner = record["spec"]["learner"]
        recipe = f"dr --learner {learner}" if learner == "lpo" else "lpg-agent"
        print(f"  rlgen train {recipe} --rule {run} --env {name}")
        return 0
    suite = _suite_of_run(folder.rebuild(record, allow_imports=True)[1])
    if not suite:
        print(
            f"The run is in {path}. No suite of {name} has levels that its agents can play. Add a"
        )
        print("suite `test` to the method suites(); see docs/guides/own-components.md.")
        return 0
    print(f"The run is in {path}. Evaluate it:")
    print(f"  rlgen eval {run} --suite {suite} --attempts 100{trust}")
    return 0


def _suite_of_run(env: Any) -> str:
    """Name of the first suite in `_suites_by_name` that agents of an environment can play, or "".

    An environment guarantees that its agents can play the suites `heldout` and `test`, so these are
    not built. Other suites are built, which takes seconds, until one can be played.
    """
    from rlgen.evaluation.suites import load_suite
    from rlgen.observations import misread

    for name in _suites_by_name(env, "heldout"):
        sure = name.rpartition("/")[2] in ("heldout", "test")
        if sure or not misread(env, load_suite(env, name)):
            return name
    return ""


def _suites_by_name(env: Any, wanted: str) -> list[str]:
    """Names of the environment's suites, the likely choices first.

    These are `wanted`, `heldout`, `test` and a suite with the name of the environment's variant.
    The other suites follow in the order of their names.
    """
    family, _, variant = registry.env_name(env).partition("/")
    suites = env.suites()
    likely = dict.fromkeys((wanted, "heldout", "test", variant, *sorted(suites)))
    return [f"{family}/{suite}" for suite in likely if suite in suites]


def _use_cpu_devices(num_devices: int) -> None:
    """Request simulated CPU devices; this must happen before JAX initialises its devices."""
    import jax

    if num_devices > 1:
        with contextlib.suppress(RuntimeError):  # JAX has already started and keeps its devices
            jax.config.update("jax_num_cpu_devices", min(num_devices, os.cpu_count() or 1))


def _recipes() -> list[str]:
    return registry.names("recipes")


def _plain_options(base: Any) -> list[Field]:
    """Define an option for each field of the RunSpec `base`, whose values become the defaults."""
    fields = [
        option(leaf.kind, leaf.value, leaf.path.replace("_", "-"), leaf.help)
        for leaf in leaves(base)
        if leaf.path != "recipe"
    ]
    out = option(str, "", "out", "folder of the run; by default runs/RECIPE-ENV-SEED")
    return [*fields, out, flag("tensorboard", TENSORBOARD)]


def _general_options() -> list[Field]:
    from rlgen.runs.spec import RunSpec

    recipe = positional("recipe", "see `rlgen list recipes`")
    return [recipe, *_plain_options(RunSpec(recipe="RECIPE"))]


def _resume_fields() -> list[Field]:
    return [
        option(str, "", "resume", "folder of the run to continue"),
        option(int, -1, "checkpoint", "update of the checkpoint to load; -1 for the newest"),
        option(
            int,
            0,
            "devices",
            "number of devices; 0 for the number that the run had before; with another number, the "
            "results are equal only up to rounding, which grows during training",
        ),
        flag("allow-imports", IMPORTS),
        flag("tensorboard", TENSORBOARD),
    ]
