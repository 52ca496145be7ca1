"""`rlgen levels`: draw levels with their features, or the curriculum of a run."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rlgen import config, registry
from rlgen import levels as level_sets
from rlgen.cli.options import Field, changed, flag, group, option, parse, peek
from rlgen.levels import plain_level
from rlgen.protocols import LevelEnv
from rlgen.types import PyTree

ABOUT = (
    "Draw levels: newly sampled levels of an environment, levels of a suite or of a file, or the "
    "levels with the highest scores in a run's replay buffer. This command can also draw the "
    "curriculum of a run: --what history shows the levels that were played over time; --what "
    "calibration shows how well the scores of levels correlate with regret and learnability."
)
_What = Literal["buffer", "history", "calibration"]
NAMES = {"buffer": "levels.png", "history": "history.png", "calibration": "calibration.png"}


class Shown(NamedTuple):
    """Levels to draw, with captions."""

    env: Any
    level: PyTree  # [n, ...] numpy
    captions: list[str]


def levels(args: Sequence[str]) -> int:
    """Run `rlgen levels`: draw to a file, and return the exit code."""
    env = registry.make_env(peek(args, env="maze").env)
    of_env = list(config.leaves(env))
    given = parse([*_fields(), group("env", of_env)], "rlgen levels", ABOUT, args)
    if given.num < 1:
        raise ValueError(f"num must be at least 1, got {given.num}")
    # Only one source can be drawn. If several were given, choosing one silently would hide a
    # mistake.
    sources = [name for name in ("run", "suite", "file") if getattr(given, name)]
    if len(sources) > 1:
        raise ValueError(f"give only one of --{sources[0]} and --{sources[1]}")
    if given.what != "buffer" and not given.run:
        raise ValueError(f"--what {given.what} needs a run; name its folder with --run")
    out = Path(given.out or NAMES[given.what])
    if out.suffix.lower() != ".png":
        raise ValueError(f"--out {out} must end in .png")
    if given.what != "buffer":
        return _curriculum(given, out)
    env = config.override(env, changed(given.env_group, of_env))
    shown = _of_run(given) if given.run else _of_env(given, env)
    # The capability is checked only now, because the environment of a run was not known before.
    registry.require(shown.env, LevelEnv.level_image, "rlgen levels")
    draw(shown, out)
    print(f"{len(shown.captions)} levels in {out}")
    return 0


def draw(shown: Shown, out: Path) -> None:
    """Draw a grid of pictures with captions to a PNG file."""
    from matplotlib.figure import Figure  # slow to import

    num = len(shown.captions)
    columns = math.ceil(math.sqrt(num))
    rows = math.ceil(num / columns)
    figure = Figure(figsize=(2.0 * columns, 2.3 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    for ax in axes.flat:
        ax.set_axis_off()
    for i, (ax, caption) in enumerate(zip(axes.flat, shown.captions, strict=False)):
        ax.imshow(shown.env.level_image(_at(shown.level, i)), interpolation="none")
        ax.set_title(caption, fontsize=6, parse_math=False)
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=150)


def _curriculum(given: Any, out: Path) -> int:
    """Draw a run's curriculum over time, or the calibration of its scores; return the exit code."""
    from rlgen.evaluation.from_runs.curricula import find_examples
    from rlgen.evaluation.generalisation import score_calibration
    from rlgen.evaluation.generalisation.level_facts import find_facts, open_log
    from rlgen.evaluation.report.calibration_figure import calibration_figure
    from rlgen.evaluation.report.curriculum_figure import history
    from rlgen.evaluation.report.figures import png_bytes

    env, log = open_log(Path(given.run), given.allow_imports)
    facts = find_facts(env, log)
    found = score_calibration.calibrate(log, facts)
    if given.what == "history":
        figure = history(log, facts, find_examples(env, log))
    else:
        figure = calibration_figure(found)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_bytes(png_bytes(figure))
    print(f"{given.what} of {log.score.size:,} levels in {out}")
    print(score_calibration.words(found))
    return 0


def _of_env(given: Any, env: Any) -> Shown:
    from rlgen.evaluation.suites import levels_from_file, load_suite

    if not (given.suite or given.file):
        keys = jax.random.split(jax.random.key(given.seed), given.num)
        level = jax.device_get(jax.jit(jax.vmap(env.sample_level))(keys))
        return _with_features(env, level, [f"seed {given.seed}, {i}" for i in range(given.num)])
    suite = load_suite(env, given.suite) if given.suite else levels_from_file(env, given.file)
    num = min(given.num, len(suite.levels))
    level = jax.tree.map(lambda x: np.asarray(x)[:num], suite.levels.level)
    return _with_features(suite.env, level, list(suite.levels.names[:num]))


def _of_run(given: Any) -> Shown:
    """Return the levels in a run's buffer, highest score first.

    If the run has no buffer, return newly sampled levels of its environment.
    """
    from rlgen.runs import folder

    path = Path(given.run)
    _, env, curriculum = folder.rebuild(folder.read(path), given.allow_imports)
    if not (path / "levels.npz").is_file():
        print(f"{path} has no replay buffer; drawing newly sampled levels of its environment")
        return _of_env(given, env)
    # The file of a run's buffer is a level set with additional arrays, such as the scores.
    held = level_sets.load_levels(
        path / "levels.npz", plain_level(curriculum.sampler.example_level())
    )
    with np.load(path / "levels.npz", allow_pickle=False) as file:
        score = file["score"]
    best = np.argsort(-score, kind="stable")[: given.num]
    level = jax.tree.map(lambda x: np.asarray(x)[best], held.level)
    captions = [f"{held.names[i]}\nscore {score[i]:.3g}" for i in best]
    return _with_features(env, level, captions)


def _with_features(env: Any, level: PyTree, captions: list[str]) -> Shown:
    if not registry.has(env, LevelEnv.level_features):
        return Shown(env, level, captions)
    found = jax.device_get(jax.jit(jax.vmap(env.level_features))(level))
    for i, caption in enumerate(captions):
        pairs = [f"{name} {_number(values[i])}" for name, values in found.items()]
        lines = [", ".join(pairs[at : at + 2]) for at in range(0, len(pairs), 2)]
        captions[i] = "\n".join([caption, *lines])
    return Shown(env, level, captions)


def _number(value: Any) -> str:
    if np.asarray(value).dtype == bool:
        return "yes" if value else "no"
    return f"{float(value):.4g}"


def _at(tree: PyTree, i: int) -> PyTree:
    return jax.tree.map(lambda x: jnp.asarray(x[i]), tree)


def _fields() -> list[Field]:
    return [
        option(str, "maze", "env", "the environment's name or dotted path"),
        option(str, "", "run", "folder of a run whose replay buffer or curriculum is drawn"),
        option(str, "", "suite", "suite, such as maze/heldout"),
        option(str, "", "file", "file with levels: .npz, or text if the environment can read it"),
        option(int, 16, "num", "number of levels", "-n"),
        option(int, 0, "seed", "random seed of newly sampled levels"),
        option(_What, "buffer", "what", "with --run: draw the replay buffer, or the curriculum"),
        option(
            str,
            "",
            "out",
            f"output file; by default {', '.join(NAMES.values())}, depending on --what",
        ),
        flag("allow-imports", "import modules outside rlgen that the run's record names"),
    ]
