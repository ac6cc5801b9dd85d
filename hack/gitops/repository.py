"""A git repository in a folder of this machine, which a repo-server on the same machine reads by its `file://` URL."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

_IDENTITY = ("-c", "user.name=studio", "-c", "user.email=studio@example.com", "-c", "commit.gpgsign=false")


class Repository:
    """Files are written into `folder`; what is committed is what others see."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        self.folder = folder
        self._git("init", "--quiet", "--initial-branch=main")

    @property
    def url(self) -> str:
        """What an Application names as its repoURL."""
        return self.folder.as_uri()

    def copy(self, source: Path, to: str, *, change: Callable[[str], str] = lambda text: text) -> None:
        """A file or a folder of text files, each passed through `change` on its way."""
        files = [source] if source.is_file() else sorted(path for path in source.rglob("*") if path.is_file())
        for file in files:
            target = self.folder / to / file.relative_to(source) if source.is_dir() else self.folder / to
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(change(file.read_text(encoding="utf-8")), encoding="utf-8")

    def write(self, files: Mapping[str, str]) -> None:
        """Texts by path; folders are made."""
        for path, text in files.items():
            target = self.folder / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text, encoding="utf-8")

    def remove(self, path: str) -> None:
        """A file or a folder."""
        target = self.folder / path
        shutil.rmtree(target) if target.is_dir() else target.unlink()

    def commit(self, message: str) -> str:
        """Everything as it lies there; returns the revision."""
        self._git("add", "--all")
        self._git(*_IDENTITY, "commit", "--quiet", f"--message={message}")
        return self._git("rev-parse", "HEAD").strip()

    def revert(self) -> str:
        """Take the last commit back by a new one; returns its revision."""
        self._git(*_IDENTITY, "revert", "--no-edit", "HEAD")
        return self._git("rev-parse", "HEAD").strip()

    def _git(self, *arguments: str) -> str:
        command = ["git", "-C", self.folder, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout
