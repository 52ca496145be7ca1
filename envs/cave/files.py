"""Reading and writing caves as plain `.npz` files. Runs on the host.

A plain file contains three arrays of integers: `tiles` [n, H, W], with 0 for empty, 1 for wall, 2
for lava and 3 for moss; `start` [n, 2], x and y; and `goal` [n, 2], x and y. Three arrays of text
[n] are optional: `structure`, `split` and `names`. The file contains no time limits, so the levels
get the time limit of the environment.
"""

import zipfile
import zlib
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from rlgen.envs.cave.check import check_tiles
from rlgen.envs.cave.level import Level, make_level, to_grid

_NEEDED, _TEXTS = ("tiles", "start", "goal"), ("structure", "split", "names")


class Plain(NamedTuple):
    """Validated contents of a plain file."""

    tiles: np.ndarray  # [n, H, W]
    start: np.ndarray  # [n, 2]
    goal: np.ndarray  # [n, 2]
    names: tuple[str, ...]
    split: str  # "test" if the file does not name the split


def arrays_of(path: Path | str) -> dict[str, np.ndarray]:
    """Read all arrays of an `.npz` file; nothing is unpickled.

    Raises:
        ValueError: The file is missing, is not an `.npz` file, is damaged, or holds Python objects.
    """
    if not Path(path).is_file():
        raise ValueError(f"there is no file {path} to read levels from")
    # All exceptions that numpy and zipfile raise on truncated or altered files.
    damage = (OSError, EOFError, ValueError, zipfile.BadZipFile, zlib.error)
    try:
        file = np.load(path, allow_pickle=False)
    except damage as error:
        raise ValueError(f"{path} is not an .npz file, or it is damaged") from error
    if not isinstance(file, np.lib.npyio.NpzFile):
        raise ValueError(f"{path} is a single array; a level file is an .npz file")
    with file:
        return {name: _array(path, file, name, damage) for name in file.files}


def _array(path: Path | str, file: Any, name: str, damage: tuple) -> np.ndarray:
    try:
        return file[name]
    except damage as error:
        # numpy raises ValueError both for damage and for arrays that must be unpickled. Only the
        # message distinguishes these two cases.
        if "Object arrays" in str(error):
            raise ValueError(
                f"{path}: {name} holds Python objects (levels of mixed sizes?), which rlgen never "
                "unpickles; save levels of one size, as arrays of numbers or text"
            ) from error
        raise ValueError(f"{path} is damaged: {name} cannot be read") from error


def read_plain(path: Path | str, arrays: dict[str, np.ndarray] | None = None) -> Plain:
    """Read and validate a plain file; its levels may have any size.

    Args:
        path: Path of the file.
        arrays: Arrays of the file, if `arrays_of` has already read them.

    Raises:
        ValueError: The file is unreadable, or a level is not well-formed. The message names the
            file and the level.
    """
    arrays = arrays_of(path) if arrays is None else arrays
    _check_shapes(path, arrays)
    tiles, start, goal = (arrays[name].astype(np.int32) for name in _NEEDED)
    check_tiles(f"{path}: ", tiles, start, goal)
    num = len(tiles)
    names = tuple(map(str, arrays.get("names", ())))
    if not names:
        structure = arrays.get("structure", np.full(num, Path(path).stem))
        names = tuple(f"{kind}-{i:04d}" for i, kind in enumerate(structure))
    splits = sorted(set(map(str, arrays.get("split", ("test",)))))
    if len(splits) > 1:
        raise ValueError(
            f"{path} mixes the splits {', '.join(splits)}; keep each split in a separate file"
        )
    return Plain(tiles, start, goal, names, splits[0])


def stack(plain: Plain, max_steps: int) -> Level:
    """Convert the contents of a plain file to levels [n, ...]."""
    make = jax.jit(jax.vmap(partial(make_level, max_steps=max_steps)))
    return make(plain.tiles, plain.start, plain.goal)


def save_plain(
    path: Path | str,
    levels: Level,
    structure: Sequence[str] | np.ndarray = (),
    split: str = "",
    names: Sequence[str] = (),
) -> None:
    """Write levels [n, ...] as a plain file; time limits and start directions are not saved.

    Args:
        path: Path of the file, ending in `.npz`.
        levels: Stacked levels, [n, ...], as returned by a vmapped `make_level`.
        structure: Name of the wall structure of each level, n strings.
        split: Split of all levels, such as `train`.
        names: Name of each level, n strings. If it is empty, `read_plain` derives the names from
            the structures.
    """
    grid = jax.tree.map(np.asarray, jax.jit(jax.vmap(to_grid))(levels))
    texts = {"structure": structure, "split": [split] * len(grid.start) if split else ()}
    texts = {
        name: np.asarray(text) for name, text in (texts | {"names": names}).items() if len(text)
    }
    arrays = {
        "tiles": grid.tiles.astype(np.uint8),
        "start": grid.start.astype(np.int32),
        "goal": grid.goal.astype(np.int32),
    }
    np.savez_compressed(path, **arrays, **texts)  # pyright: ignore[reportArgumentType]


def check_size(path: Path | str, tiles: tuple[int, int], height: int, width: int) -> None:
    """Reject a file whose levels differ in size from the environment.

    Raises:
        ValueError: The sizes differ; the message names the fields to set.
    """
    if tiles != (height, width):
        raise ValueError(
            f"{path}: its levels have {tiles[0]} x {tiles[1]} cells (height x width), but the "
            f"environment has {height} x {width}; set height={tiles[0]} and width={tiles[1]}"
        )


def _check_shapes(path: Path | str, arrays: dict[str, np.ndarray]) -> None:
    for name in _NEEDED:
        if name not in arrays:
            found = ", ".join(arrays) or "none"
            raise ValueError(f"{path} lacks the array {name}; it has {found}")
        if not np.issubdtype(arrays[name].dtype, np.integer):
            raise ValueError(f"{path}: {name} should be integers, found {arrays[name].dtype}")
    tiles = arrays["tiles"]
    if tiles.ndim != 3:
        raise ValueError(f"{path}: tiles should have shape [n, H, W], found {list(tiles.shape)}")
    if not tiles.size:
        raise ValueError(f"{path} contains no levels")
    wanted = {"start": (len(tiles), 2), "goal": (len(tiles), 2)}
    wanted |= {name: (len(tiles),) for name in _TEXTS if name in arrays}
    for name, shape in wanted.items():
        if arrays[name].shape != shape:
            found = list(arrays[name].shape)
            raise ValueError(
                f"{path}: {name} should have shape {list(shape)}, one row per level, found {found}"
            )
