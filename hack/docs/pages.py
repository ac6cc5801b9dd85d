"""Which files are documentation: every Markdown file that git knows, but for those of tests and models."""

from __future__ import annotations

import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_NOT_PAGES = ("tests/", "runner/")


def repository_files(root: Path = ROOT) -> list[str]:
    """Paths of all files that are in git or about to be, relative to `root`, sorted."""
    command = ["git", "-C", str(root), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split("\0")
    return sorted({path for path in listed if path and (root / path).is_file()})


def pages(root: Path = ROOT) -> list[str]:
    """Paths of all pages, relative to `root`, sorted."""
    return [path for path in repository_files(root) if path.endswith(".md") and not path.startswith(_NOT_PAGES)]
