"""`rlgen card`: measure the difficulty of an environment's levels without training agents."""

import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rlgen import config, registry
from rlgen.cli.options import Field, changed, flag, group, option, parse, wants_help
from rlgen.protocols import LevelEnv

ABOUT = (
    "Measure the difficulty of an environment: number of distinct levels, episode lengths, returns "
    "of random and of optimal actions, shared structure of the levels, and the bits of inductive "
    "bias that a learner needs to act well on new levels. Writes card.json, card.png and "
    "card-dark.png."
)
_PICTURES = {"light": "card.png", "dark": "card-dark.png"}


def card(args: Sequence[str]) -> int:
    """Run `rlgen card`: measure, write the files, print, and return the exit code."""
    name, rest = _name(args)
    registry.require_extra(name)
    env = registry.make_env(name)
    of_env = list(config.leaves(env))
    given = parse([*_fields(), group("env", of_env)], "rlgen card ENV", ABOUT, rest)
    env = config.override(env, changed(given.env_group, of_env))
    out = Path(given.out or f"card-{name.replace('/', '-')}")
    ask = _ask(given)
    # All checks come before the slow imports below and before the measurement.
    _check_folder(out, given.overwrite)
    from rlgen.evaluation.difficulty.card import card as measure
    from rlgen.evaluation.difficulty.card import to_json

    began = time.monotonic()
    made = measure(env, name, ask, _progress(name))
    _write(out, to_json(made), made, env)
    if given.json:
        print(to_json(made), end="")
        return 0
    from rich.console import Console

    from rlgen.evaluation.difficulty.table import print_card

    print_card(made, Console())
    print(f"Card in {out}, after {time.monotonic() - began:.0f} s")
    return 0


def _name(args: Sequence[str]) -> tuple[str, list[str]]:
    """Split the arguments into the environment's name and the options.

    Raises:
        ValueError: The arguments do not begin with the name of an environment.
    """
    if args and not args[0].startswith("-"):
        return args[0], list(args[1:])
    if wants_help(args):
        return "maze", list(args)  # without a name, help shows the fields of the maze as an example
    raise ValueError(
        "name an environment first, such as `rlgen card maze` or `rlgen card rooms/n6`; "
        f"known: {', '.join(registry.names('envs'))}"
    )


def _ask(given: Any) -> Any:
    """Return the requested sizes, validated before anything is compiled."""
    from rlgen.evaluation.difficulty.card import Ask, check
    from rlgen.evaluation.difficulty.inductive_bias import Asked

    ask = Ask(given.sampled, given.seed, Asked(given.levels, given.rho))
    check(ask)
    return ask


def _check_folder(out: Path, overwrite: bool) -> None:
    if out.exists() and not out.is_dir():
        raise ValueError(f"--out {out} is a file; name a folder")
    if (out / "card.json").exists() and not overwrite:
        raise ValueError(f"{out} already has a card; add --overwrite, or choose another --out")


def _write(out: Path, text: str, made: dict[str, Any], env: Any) -> None:
    from rlgen.evaluation.difficulty.figure import card_figure
    from rlgen.evaluation.report.figures import png_bytes

    pictures = _images(env, made["seed"])
    out.mkdir(parents=True, exist_ok=True)
    (out / "card.json").write_text(text, encoding="utf-8")
    for theme, name in _PICTURES.items():
        (out / name).write_bytes(png_bytes(card_figure(made, pictures, theme)))


def _images(env: Any, seed: int) -> list[Any]:
    """Pictures of the first sampled levels; empty if the environment has no `level_image`."""
    if not registry.has(env, LevelEnv.level_image):
        return []
    import jax

    from rlgen.evaluation.difficulty.card import first_levels
    from rlgen.evaluation.difficulty.figure import NUM_LEVELS

    levels = first_levels(env, seed, NUM_LEVELS)
    rows = range(jax.tree.leaves(levels)[0].shape[0])
    return [env.level_image(jax.tree.map(lambda x, i=i: x[i], levels)) for i in rows]


def _progress(name: str) -> Callable[[str], None]:
    def say(text: str) -> None:
        print(f"{name}: {text} ...", file=sys.stderr, flush=True)

    return say


def _fields() -> list[Field]:
    return [
        option(tuple[int, ...], (16, 64, 256, 1024), "levels", "numbers of training levels"),
        option(tuple[float, ...], (0.5, 0.25, 0.1), "rho", "allowed errors relative to guessing"),
        option(int, 1000, "sampled", "number of sampled levels"),
        option(int, 0, "seed", "random seed"),
        option(str, "", "out", "output folder; by default card-ENV"),
        flag("overwrite", "replace an existing card in the folder"),
        flag("json", "print only JSON"),
    ]
