"""Folders of the checkout and of its tests."""

from pathlib import Path

TESTS = Path(__file__).parent
ROOT = TESTS.parent
