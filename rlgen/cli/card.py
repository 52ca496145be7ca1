"""`rlgen card`: how hard the levels of an environment are, without training anybody."""

import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rlgen import config, registry
from rlgen.cli.options import Field, changed, flag, group, option, parse, wants_help
from rlgen.protocols import LevelEnv

ABOUT = (
    "The difficulty card of an environment: how many levels it has, how long they take, what "
    "acting at random and acting best earn, what levels share, and how many bits a learner must "
    "bring along to act well on new ones. Writes card.json, card.png and card-dark.png."
)
_PICTURES = {"light": "card.png", "dark": "card-dark.png"}


def card(args: Sequence[str]) -> int:
    """Measure, write, print."""
    name, rest = _name(args)
    registry.require_extra(name)
    env = registry.make_env(name)
    of_env = list(config.leaves(env))
    given = parse([*_fields(), group("env", of_env)], "rlgen card ENV", ABOUT, rest)
    env = config.override(env, changed(given.env_group, of_env))
    out = Path(given.out or f"card-{name.replace('/', '-')}")
    ask = _ask(given)
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
    """The environment, wherever it stands among the options.

    Raises:
        ValueError: none is named.
    """
    if args and not args[0].startswith("-"):
        return args[0], list(args[1:])
    if wants_help(args):
        return "maze", list(args)
    raise ValueError(
        "name an environment first, such as `rlgen card maze` or `rlgen card rooms/n6`; "
        f"known: {', '.join(registry.names('envs'))}"
    )


def _ask(given: Any) -> Any:
    """Sizes, checked before anything is compiled."""
    from rlgen.evaluation.difficulty.card import Ask, check
    from rlgen.evaluation.difficulty.inductive_bias import Asked

    ask = Ask(given.sampled, given.seed, Asked(given.levels, given.rho))
    check(ask)
    return ask


def _check_folder(out: Path, overwrite: bool) -> None:
    if out.exists() and not out.is_dir():
        raise ValueError(f"--out {out} is a file; name a folder")
    if (out / "card.json").exists() and not overwrite:
        raise ValueError(f"{out} holds a card already; add --overwrite, or name another --out")


def _write(out: Path, text: str, made: dict[str, Any], env: Any) -> None:
    from rlgen.evaluation.difficulty.figure import card_figure
    from rlgen.evaluation.report.figures import png_bytes

    pictures = _images(env, made["seed"])
    out.mkdir(parents=True, exist_ok=True)
    (out / "card.json").write_text(text, encoding="utf-8")
    for theme, name in _PICTURES.items():
        (out / name).write_bytes(png_bytes(card_figure(made, pictures, theme)))


def _images(env: Any, seed: int) -> list[Any]:
    """Pictures of the first sampled levels, if the environment draws any."""
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
        option(tuple[int, ...], (16, 64, 256, 1024), "levels", "training levels, for the bits"),
        option(tuple[float, ...], (0.5, 0.25, 0.1), "rho", "errors allowed, relative to guessing"),
        option(int, 1000, "sampled", "levels sampled"),
        option(int, 0, "seed", "of everything that is drawn"),
        option(str, "", "out", "the folder to write; by default card-ENV"),
        flag("overwrite", "replace a card that is in the folder"),
        flag("json", "print only JSON"),
    ]
