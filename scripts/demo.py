"""`make demo`: train an agent with a curriculum of mazes, then evaluate it on held-out mazes.

Runs and prints ordinary `rlgen` commands. An interrupted demo is resumed; a finished one is only
evaluated again. Takes a few minutes on two CPU cores.
"""

import os
import shlex
import sys
import time
from pathlib import Path

from rlgen.cli.main import main as rlgen

RUN = Path("runs/demo")
STEPS = 5_000_000
TRAIN = f"train plr --env maze --preset fast --steps {STEPS} --seeds 2 --out {RUN}"
EVAL = f"eval {RUN} --suite maze/heldout --untrained --attempts 50 --out {RUN}/eval --overwrite"


def main() -> int:
    """Train, evaluate, and print the path of the report."""
    start = time.perf_counter()
    # No import here may start JAX, which could then no longer split the CPU into devices.
    if not (RUN / "config.json").is_file():
        # Two seeds on two cores: one core per seed.
        code = _type(f"{TRAIN} --devices {min(2, os.cpu_count() or 1)}")
    elif _finished():
        print(f"{RUN} is trained already; remove the folder to train it again.")
        code = 0
    else:
        code = _type(f"train --resume {RUN}")
    code = code or _type(EVAL)
    if code == 0:
        print(f"\nDone in {time.perf_counter() - start:.0f} s. Open {RUN}/eval/report.html")
    return code


def _finished() -> bool:
    from rlgen.runs import checkpoint, folder

    done = checkpoint.updates(RUN)
    return bool(done) and done[-1] >= folder.read(RUN)["plan"]["num_updates"]


def _type(command: str) -> int:
    print(f"\n$ rlgen {command}", flush=True)
    return rlgen(shlex.split(command))


if __name__ == "__main__":
    sys.exit(main())
