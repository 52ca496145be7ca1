"""Chromium without a window, for tests of pages."""

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")


def browser(profile: Path) -> Callable[..., str]:
    """Return a function that opens a page with options and returns what the browser prints.

    Skips the test if no browser is installed, or fails it under RLGEN_BROWSER=required.

    Args:
        profile: Folder for the browser's settings.
    """
    paths = [path for path in map(shutil.which, NAMES) if path]
    if not paths and os.environ.get("RLGEN_BROWSER") == "required":
        pytest.fail(f"RLGEN_BROWSER=required, and none of these exists: {', '.join(NAMES)}")
    if not paths:
        pytest.skip(f"no browser; install one of {', '.join(NAMES)}")

    def run(page: str, *options: str) -> str:
        command = [paths[0], "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
        command += [f"--user-data-dir={profile}", *options, page]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stdout

    return run
