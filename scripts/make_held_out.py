"""Write `envs/held_out.npz`: the hashes of the sealed suites of the environments of rlgen.

    python scripts/make_held_out.py                # minutes on two cores
    python scripts/make_held_out.py rooms          # only the entries of one family
    python scripts/make_held_out.py --check        # compare the file with the suites

Run this script after a change of a suite or of `level_hash`. The file has entries for the default
fields, the variants, the presets and the smallest instance of each family. For other values of the
fields in `LevelEnv.suite_fields`, a run builds the suites when it starts. Families that need an
additional package are left out, because their levels may depend on the version of the package.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
from rich.console import Console

from rlgen import config, registry
from rlgen.held_out import FILE, build_hashes, key_of, save_hashes, shipped
from rlgen.protocols import LevelEnv

FAMILIES = [
    name for name in registry.names("envs") if not vars(registry.load("envs", name)).get("EXTRA")
]
PATH = Path(__file__).resolve().parents[1] / "envs" / FILE


def environments(family: str) -> dict[str, LevelEnv]:
    """Environments of a family whose hashes are in the file, by `key_of`."""
    module = registry.load("envs", family)
    known = [registry.make_env(family), module.tiny()]
    known += [registry.make_env(f"{family}/{name}") for name in registry.variants(module)]
    known += [config.override(known[0], fields) for fields in known[0].presets().values()]
    return {key_of(env): env for env in known}


def main() -> int:
    """Write the file, or compare it with the suites; return the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("families", nargs="*", help="families; by default all")
    parser.add_argument("--check", action="store_true", help="write nothing, only compare")
    given, console, wrong = parser.parse_args(), Console(), []
    for family in given.families or FAMILIES:
        built: dict = {}
        found = {key: build_hashes(env, built) for key, env in environments(family).items()}
        shipped.cache_clear()
        known = shipped() if PATH.exists() else {}
        if given.check:
            wrong += [key for key, suites in found.items() if not _same(suites, known.get(key))]
            continue
        rest = {key: suites for key, suites in known.items() if key.partition(" ")[0] != family}
        save_hashes(PATH, dict(sorted({**rest, **found}.items())))
        console.print(f"{family}: {len(found)} environments; {PATH.stat().st_size:,} bytes in all")
    if given.check:
        console.print("\n".join(wrong) or "the file agrees with all suites")
    return bool(wrong)


def _same(suites: dict, known: dict | None) -> bool:
    return (
        known is not None
        and suites.keys() == known.keys()
        and all(
            shapes == known[name][0] and np.array_equal(hashes, known[name][1])
            for name, (shapes, hashes) in suites.items()
        )
    )


if __name__ == "__main__":
    sys.exit(main())
