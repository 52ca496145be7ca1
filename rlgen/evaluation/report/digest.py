"""Digests of saved results: detect damaged, edited and half-replaced results folders.

`results.json` holds two SHA-256 digests: that of the arrays in `episodes.npz`, and that of the
other keys together with the first digest. They protect against damage and careless edits. They do
not protect against forgery, because anyone can compute them for changed results.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from rlgen.evaluation.episodes import Json

KEY = "digest"  # key of the digests in `results.json`
ADVICE = "evaluate again with --overwrite"


def digests(content: Mapping[str, Json], arrays: Mapping[str, np.ndarray]) -> dict[str, Json]:
    """Compute the entry `digest` of `results.json`.

    Args:
        content: Other entries of `results.json`.
        arrays: Arrays of `episodes.npz`, by name.
    """
    episodes = of_arrays(arrays)
    return {"episodes": episodes, "results": of_content(content, episodes)}


def of_arrays(arrays: Mapping[str, np.ndarray]) -> str:
    """SHA-256 digest of names, dtypes, shapes and bytes.

    It depends neither on the order of the arrays nor on their compression.
    """
    total = hashlib.sha256()
    for name in sorted(arrays):
        x = np.asarray(arrays[name])
        x = x.astype(x.dtype.newbyteorder("<"))  # the same on all machines
        total.update(json.dumps([name, x.dtype.str, x.shape]).encode())
        total.update(x.tobytes())
    return total.hexdigest()


def of_content(content: Mapping[str, Json], episodes: str) -> str:
    """SHA-256 digest of the entries of `results.json`, with the digest of the episodes.

    It depends on the values, but not on the order of the keys or on white space.

    Raises:
        ValueError: A number is not finite.
    """
    signed = {name: x for name, x in content.items() if name != KEY} | {KEY: episodes}
    text = json.dumps(signed, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def verify(path: Path, content: Mapping[str, Json], arrays: Mapping[str, np.ndarray]) -> bool:
    """Compare saved results with their digests.

    Args:
        path: The file `results.json`; only named in errors.
        content: Content of the file.
        arrays: Arrays of `episodes.npz` in the same folder, by name.

    Returns:
        True if the results have digests, which agree. False if they have none, because version 0.1
        of rlgen saved them.

    Raises:
        ValueError: A digest does not agree. The message names the file.
    """
    if KEY not in content:
        return False
    saved = content[KEY]
    episodes = saved.get("episodes") if isinstance(saved, dict) else None
    if not isinstance(episodes, str) or not _agrees(content, episodes):
        raise ValueError(
            f"{path} was changed or damaged after it was saved: its content does not agree with "
            f"its digest; {ADVICE}"
        )
    if episodes != of_arrays(arrays):
        raise ValueError(
            f"{path.with_name('episodes.npz')} does not agree with its digest in results.json: it "
            "was changed after it was saved, it belongs to another evaluation, or saving was "
            f"interrupted; {_remedy(path, arrays)}"
        )
    return True


def part_of(path: Path) -> Path:
    """Temporary file to which a file is written before it is replaced."""
    return path.with_name(f".{path.name}.part")


def _agrees(content: Mapping[str, Json], episodes: str) -> bool:
    saved = content[KEY]
    try:
        return isinstance(saved, dict) and saved.get("results") == of_content(content, episodes)
    except ValueError:  # NaN, which rlgen never writes
        return False


def _remedy(path: Path, arrays: Mapping[str, np.ndarray]) -> str:
    """State how to continue; if saving was interrupted, the new `results.json` may be complete."""
    part = part_of(path)
    try:
        content = json.loads(part.read_text(encoding="utf-8"))
        is_whole = content != {} and verify(part, content, arrays)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        is_whole = False
    if not is_whole:
        return ADVICE
    return f"{part} agrees with the episodes: rename it to {path.name}, or {ADVICE}"
