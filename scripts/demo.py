"""`make demo`: train a curriculum agent on generated mazes, then see it on mazes it never saw.

Types the same commands as you would. A demo that was interrupted goes on where it stopped; one
that is finished is evaluated again. A few minutes on two CPU cores.
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
    """Train, evaluate, say where the report lies."""
    start = time.perf_counter()
    # Nothing is imported here that starts JAX, which then would not divide the CPU into devices.
    if not (RUN / "config.json").is_file():
        # Two seeds on two cores: each has one to itself.
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
