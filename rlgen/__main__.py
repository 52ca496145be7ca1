"""Entry point of `python -m rlgen`, the same command as `rlgen`."""

import sys

from rlgen.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
