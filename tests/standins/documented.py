"""Keys that the page of files and metrics lists."""

import re

from tests.paths import ROOT


def listed_keys(heading: str) -> list[str]:
    """First column of the tables below a heading of the second level of docs/files.md."""
    page = (ROOT / "docs" / "files.md").read_text()
    section = page.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    return re.findall(r"^\| `([^`]+)` \|", section, re.M)
