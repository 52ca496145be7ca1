"""`rlgen fit-generator`: fit a generative model on a set of levels and report on its proposals."""

import json
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from rlgen import config, registry
from rlgen.cli.options import Field, changed, flag, group, option, parse, peek
from rlgen.levels import Suite
from rlgen.protocols import LevelModel
from rlgen.runs import progress
from rlgen.types import Metrics, PyTree

ABOUT = (
    "Fit a generative model on a set of levels: the levels of a file or of the environment's suite "
    "`train`. The model, generator.npz, and a report are written to the folder --out. DRED trains "
    "on levels that such a model proposes. The report shows the reconstruction accuracy, the "
    "fraction of proposed levels that can be solved, and the similarity of the proposed levels to "
    "the data. For comparison, it also shows the similarity of random edits and of random levels "
    "to the data."
)


class Fit(NamedTuple):
    """A fitted model with its data, metrics and duration."""

    env: Any
    env_name: str
    suite: Suite
    model: LevelModel
    fitted: PyTree
    metrics: dict[str, list[float]]  # by epoch
    seconds: float


def fit_generator(args: Sequence[str]) -> int:
    """Run `rlgen fit-generator`: fit, save, report, and return the exit code."""
    # The names are parsed first, because they determine the remaining options.
    named = peek(args, env="cave", model="graph-vae")
    env = registry.make_env(named.env)
    module = registry.load("level-models", named.model)
    base = module.build(env)
    of_env = list(config.leaves(env))
    # `--epochs` sets `num_epochs`; a second option for `num_epochs` could contradict `--epochs`.
    of_model = [leaf for leaf in config.leaves(base) if leaf.path != "num_epochs"]
    fields = [*_fields(base.num_epochs), group("env", of_env), group("model", of_model)]
    given = parse(fields, "rlgen fit-generator", ABOUT, args)
    out = Path(given.out)
    # The options are checked before levels are loaded or generated and before the model is
    # compiled.
    _check(given, out)
    env = config.override(env, changed(given.env_group, of_env))
    # The model is built again, because its codec may depend on the environment's fields.
    values = changed(given.model_group, of_model) | {"num_epochs": given.epochs}
    model = config.override(module.build(env), values)
    suite = _levels(env, given.levels)
    fit = _fit(named.env, suite, model, given.seed)
    _write(fit, out, given)
    return 0


def _write(fit: Fit, out: Path, given: Any) -> None:
    """Write the files of the output folder and print a summary."""
    from rlgen.algos.level_models import files as files
    from rlgen.cli.fit_generator_report import page, report, samples
    from rlgen.evaluation.report.html import write_page

    digest = files.digest_of(np.asarray(fit.suite.levels.hash))
    out.mkdir(parents=True, exist_ok=True)
    # The model is saved before the report is made: an error in a figure must not lose the fit.
    files.save_model(out / files.NAME, fit.model, fit.env_name, fit.fitted, digest)
    found, sets = report(fit, given.num_samples, given.seed)
    found["levels"]["digest"] = digest
    (out / "report.json").write_text(json.dumps(found, indent=1, allow_nan=False) + "\n")
    drawn = samples(fit, sets)
    write_page(out, page(found, drawn), {"samples.png": drawn["light"]} if drawn else {})
    if given.json:
        print(json.dumps(found, allow_nan=False))
        return
    print(found["headline"])
    print(f"The model is in {out / files.NAME}, the report in {out / 'report.html'}")


def _fit(name: str, suite: Suite, model: LevelModel, seed: int) -> Fit:
    """Fit the model; the compiled program is called once per epoch, so that progress is shown."""
    began = time.monotonic()
    levels = suite.levels.level
    state = jax.jit(model.begin)(jax.random.key(seed), levels)
    # The state is donated, so that its buffers are reused.
    train = jax.jit(lambda state, levels: model.train(state, levels, 1), donate_argnums=0)
    told: list[Metrics] = []
    with _bar(model.num_epochs) as show:
        for epoch in range(model.num_epochs):
            state, metrics = train(state, levels)
            told.append(jax.device_get(metrics))
            show(epoch + 1, float(told[-1]["loss"][0]))
    # JAX returns before the computation ends. Without waiting, the reported duration would be too
    # short.
    fitted = jax.block_until_ready(jax.jit(model.finish)(state, levels))
    metrics = {key: [float(one[key][0]) for one in told] for key in told[0]}
    return Fit(suite.env, name, suite, model, fitted, metrics, time.monotonic() - began)


def _levels(env: Any, path: str) -> Suite:
    """Load the levels to fit, from a file or from the environment's suite `train`.

    Raises:
        ValueError: There is neither a file nor a suite, the set is empty, or the levels of the set
            differ in size from those of the environment.
    """
    from rlgen.evaluation.suites import levels_from_file, load_suite

    if path:
        suite = levels_from_file(env, path)
    elif "train" in env.suites():
        suite = load_suite(env, "train")
    else:
        raise ValueError(
            f"{type(env).__name__} has no suite `train`; name a file of levels with --levels"
        )
    if not len(suite.levels):
        raise ValueError(f"{path or suite.name} is empty; a model needs at least one level")
    if suite.env != env:
        raise ValueError(
            f"the levels of {suite.name} belong to {suite.env}, not to the environment given by "
            "the options; set its fields to these values with --env.FIELD VALUE"
        )
    return suite


@contextmanager
def _bar(num_epochs: int) -> Iterator[Any]:
    """Yield a function that shows the number of finished epochs and the loss.

    On a terminal the function updates a bar. Elsewhere it prints lines.
    """
    if not sys.stderr.isatty():
        count = progress.counter("fitting", "epochs")
        yield lambda done, loss: count(done, num_epochs)
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (BarColumn(bar_width=24), TextColumn("{task.percentage:3.0f}%"))
    words = (TextColumn("{task.description}"), TimeRemainingColumn())
    with Progress(*columns, *words, console=Console(stderr=True)) as bar:
        task = bar.add_task("compiling", total=num_epochs)
        yield lambda done, loss: bar.update(
            task, completed=done, description=f"epoch {done} of {num_epochs}, loss {loss:.4f}"
        )


def _check(given: Any, out: Path) -> None:
    for name in ("epochs", "num_samples"):
        if getattr(given, name) < 1:
            flag_name = name.replace("_", "-")
            raise ValueError(f"--{flag_name} must be at least 1, got {getattr(given, name)}")
    if out.is_file():
        raise ValueError(f"--out {out} is a file; name a folder")
    if (out / "generator.npz").exists() and not given.overwrite:
        raise ValueError(f"{out} already has a model; add --overwrite, or choose another --out")


def _fields(num_epochs: int) -> list[Field]:
    return [
        option(str, "cave", "env", "the environment's name or dotted path"),
        option(str, "graph-vae", "model", "level model; see `rlgen list level-models`"),
        option(str, "", "levels", "file with levels; by default the environment's suite `train`"),
        option(str, "runs/generator", "out", "output folder"),
        option(int, num_epochs, "epochs", "number of passes through the levels"),
        option(int, 0, "seed", "random seed of the fit and of the samples"),
        option(int, 1000, "num-samples", "number of proposals, edits and random levels to compare"),
        flag("overwrite", "replace an existing model in the folder"),
        flag("json", "print only the report, as JSON, to standard output"),
    ]
