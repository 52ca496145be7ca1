"""`make demo`: train an agent with a curriculum of mazes, then evaluate it on held-out mazes.

The script prints and runs ordinary `rlgen` commands. If it was interrupted, it resumes training. If
training is finished, it only repeats the evaluation. Training and evaluation take a few minutes on
two CPU cores.
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
    # No import here may start JAX, because JAX can divide the CPU into devices only at its start.
    if not (RUN / "config.json").is_file():
        # With two devices, each seed is trained on its own core.
        code = _type(f"{TRAIN} --devices {min(2, os.cpu_count() or 1)}")
    elif _finished():
        print(f"{RUN} is already trained; remove the folder to train again.")
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
