"""Generate the sets of cave levels that ship with rlgen, or sets from your own drawings.

    python scripts/make_cave_levels.py --out levels            # minutes on two cores
    python scripts/make_cave_levels.py --out levels --small    # seconds

Layouts resemble the drawings in `envs/cave/data/drawings.txt`. Each drawing defines a structure.
Four structures are used for training and for tests on the training distribution; the other
structures are used only for other tests. See `wave_function_collapse` and `decoration` in
`rlgen.envs.cave`. The levels of one structure in one set are a part, which has its own file in
`--parts`. If the script is interrupted, repeat the command to continue. If the drawings or the code
change, all parts are generated again. Equal seeds give equal levels for any number of processes.

Source of the sets: Garcin et al., 2024, "DRED: Zero-Shot Transfer in Reinforcement Learning via
Data-Regularised Environment Design". Layouts with fewer than 20 free cells are rejected.
"""

import argparse
import hashlib
import multiprocessing
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from rich.console import Console
from rich.progress import track

from rlgen.envs.cave import decoration, wave_function_collapse
from rlgen.envs.cave.decoration import (
    LAVA,
    MOSS,
    WALL,
    Cave,
    Share,
    decorate,
    distances,
    largest_part,
)
from rlgen.envs.cave.wave_function_collapse import DRAWINGS, layout, patterns_of, read_drawings

TRAINING = ("boulders", "partitions", "winding", "offices")
FEWEST = 20
USUAL = Share(0.10, 0.25)


class Set(NamedTuple):
    """Specification of a level set."""

    structures: str  # "training", "others" or "all"
    num: int  # number of levels of each structure
    split: str  # "train" or "test"
    moss: Share = USUAL
    lava: Share = USUAL
    size: int = 13


SETS = {
    "train": Set("training", 128, "train"),
    "test": Set("training", 512, "test"),
    "unseen": Set("others", 8, "test"),
    "few-cues": Set("others", 8, "test", moss=Share(0.05, 0.05)),
    "lava": Set("others", 8, "test", moss=Share(0.05, 0.05), lava=Share(0.5, 0.5)),
    "large": Set("all", 6, "test", Share(0.10, 0.25, 2.0), Share(0.10, 0.25, 2.0), size=43),
}


class Part(NamedTuple):
    """Levels of one structure in one set."""

    set_name: str
    structure: str
    num: int


def main(arguments: Sequence[str] | None = None) -> int:
    """Generate missing parts, assemble the sets, and print their statistics."""
    options = _parse(arguments)
    drawings = read_drawings(options.drawings)
    parts = [
        Part(name, structure, 2 if options.small else one.num)
        for name, one in SETS.items()
        for structure in _structures(one, list(drawings))
    ]
    options.parts /= _recipe(options.drawings)
    options.parts.mkdir(parents=True, exist_ok=True)
    options.out.mkdir(parents=True, exist_ok=True)
    work = partial(_make, options.parts, options.drawings, options.seed)
    with multiprocessing.get_context("spawn").Pool(options.workers) as pool:
        console = Console(stderr=True)
        done = pool.imap_unordered(work, parts)
        rejected = sum(track(done, "levels", len(parts), console=console))
    print(f"{rejected} attempts produced no valid layout")
    known: set[bytes] = set()
    for name, one in SETS.items():
        files = [
            _file(options.parts, options.seed, part) for part in parts if part.set_name == name
        ]
        known |= _put_together(options.out / f"{name}.npz", files, one.split, known)
    return 0


def _recipe(drawings: Path) -> str:
    """Return a hash of drawings and code, so that parts made from other versions are not reused."""
    made_by = (
        drawings,
        Path(__file__),
        *(Path(m.__file__ or "") for m in (wave_function_collapse, decoration)),
    )
    return hashlib.sha256(b"".join(path.read_bytes() for path in made_by)).hexdigest()[:12]


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for the level sets")
    parser.add_argument(
        "--drawings", type=Path, default=DRAWINGS, help="file of drawings that layouts resemble"
    )
    parser.add_argument("--seed", type=int, default=0, help="random seed (default: %(default)s)")
    parser.add_argument(
        "--workers", type=int, default=2, help="number of processes (default: %(default)s)"
    )
    parser.add_argument(
        "--small", action="store_true", help="generate only two levels of each structure"
    )
    parser.add_argument(
        "--parts",
        type=Path,
        default=Path("build/cave-levels"),
        help="folder for finished parts of the sets (default: %(default)s)",
    )
    return parser.parse_args(arguments)


def _structures(one: Set, known: list[str]) -> list[str]:
    others = [name for name in known if name not in TRAINING]
    return {"training": [*TRAINING], "others": others, "all": [*TRAINING, *others]}[one.structures]


def _file(folder: Path, seed: int, part: Part) -> Path:
    return folder / f"{part.set_name}-{part.structure}-{part.num}-seed{seed}.npz"


def _make(folder: Path, drawings: Path, seed: int, part: Part) -> int:
    """Write the levels of a part, unless they exist; return the number of rejected layouts."""
    path = _file(folder, seed, part)
    if path.exists():
        return 0
    one = SETS[part.set_name]
    patterns = patterns_of(read_drawings(drawings)[part.structure])
    stream = [seed, list(SETS).index(part.set_name), *part.structure.encode()]
    caves: list[Cave] = []
    attempt = 0
    while len(caves) < part.num:
        rng = np.random.default_rng([attempt, *stream])
        attempt += 1
        walls = layout(rng, patterns, (one.size, one.size))
        if walls is not None and largest_part(~walls).sum() >= FEWEST:
            caves.append(decorate(rng, walls, one.moss, one.lava))
    arrays = {name: np.stack([getattr(cave, name) for cave in caves]) for name in Cave._fields}
    unfinished = path.with_name(f".{path.name}")
    arrays["structure"] = np.full(part.num, part.structure)
    np.savez(unfinished, **arrays)  # pyright: ignore[reportArgumentType]
    unfinished.rename(path)
    return attempt - part.num


def _put_together(path: Path, files: list[Path], split: str, known: set[bytes]) -> set[bytes]:
    """Write a set, and return its levels as bytes.

    Duplicates and levels in `known`, which belong to earlier sets, are left out.
    """
    columns: dict[str, list[np.ndarray]] = {}
    for file in files:
        with np.load(file) as part:
            for name in part.files:
                columns.setdefault(name, []).append(part[name])
    arrays = {name: np.concatenate(values) for name, values in columns.items()}
    place = {name: arrays[name].astype(np.uint8) for name in ("start", "goal")}
    words = [
        b"".join(x[i].tobytes() for x in (arrays["tiles"], *place.values()))
        for i in range(len(arrays["tiles"]))
    ]
    kept = [i for i, word in enumerate(words) if word not in known and word not in words[:i]]
    arrays = {name: x[kept] for name, x in (arrays | place).items()}
    arrays["split"] = np.full(len(kept), split)
    np.savez_compressed(path, **arrays)  # pyright: ignore[reportArgumentType]
    print(f"{path}: {len(kept)} levels, {len(words) - len(kept)} left out as duplicates")
    _describe(arrays)
    return {words[i] for i in kept}


def _describe(arrays: dict[str, np.ndarray]) -> None:
    """Print means per structure: free cells, moss, lava, and distances to the goal in steps."""
    heads = ("free", "moss", "lava", "start", "mean", "moss", "farthest")
    print(f"  {'':12}" + "".join(f"{head:>9}" for head in heads) + "   (the last four: steps)")
    for structure in dict.fromkeys(arrays["structure"]):
        rows = np.flatnonzero(arrays["structure"] == structure)
        found = [_facts(*(arrays[name][i] for name in Cave._fields)) for i in rows]
        print(f"  {structure:12}" + "".join(f"{x:9.1f}" for x in np.nanmean(found, axis=0)))


def _facts(tiles: np.ndarray, start: np.ndarray, goal: np.ndarray) -> list[float]:
    away = distances((tiles != WALL) & (tiles != LAVA), goal[::-1].astype(int))
    moss = tiles == MOSS
    near = away[moss].mean() if moss.any() else np.nan
    counts = [(away >= 0).sum(), moss.sum(), (tiles == LAVA).sum()]
    steps = [away[start[1], start[0]], away[away >= 0].mean(), near, away.max()]
    return [float(x) for x in (*counts, *steps)]


if __name__ == "__main__":
    sys.exit(main())
