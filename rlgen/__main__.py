"""`python -m rlgen` is `rlgen`."""

import sys

from rlgen.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
