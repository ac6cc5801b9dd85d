"""Where an image's sources come from, as OCI's labels say it.

Labels are part of the configuration, so they change the image's digest but no layer's. The development cluster builds
without them: there, the same files are the same image, whatever the commit.
"""

from __future__ import annotations

import datetime
import subprocess
import tomllib
from dataclasses import dataclass

from hack.cluster.paths import CHECKOUT

_PREFIX = "org.opencontainers.image."


@dataclass(frozen=True)
class Origin:
    """Version and commit of the sources. `source` is the address of their repository, empty if it is not known."""

    version: str
    revision: str
    created: datetime.datetime
    source: str = ""

    @property
    def labels(self) -> dict[str, str]:
        """Those that the Dockerfiles cannot know. What is not known has no label."""
        created = self.created.astimezone(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        labels = {
            f"{_PREFIX}created": created,
            f"{_PREFIX}revision": self.revision,
            f"{_PREFIX}version": self.version,
        }
        if self.source:
            labels |= {f"{_PREFIX}source": self.source, f"{_PREFIX}url": self.source}
        return labels


def origin(source: str = "") -> Origin:
    """Of this checkout. A revision with changes that are not committed ends in `-dirty`."""
    version = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]["version"]
    dirty = "-dirty" if _git("status", "--porcelain", "--untracked-files=no") else ""
    created = datetime.datetime.fromtimestamp(int(_git("log", "-1", "--format=%ct")), tz=datetime.UTC)
    return Origin(version, _git("rev-parse", "HEAD") + dirty, created, source)


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", "-C", CHECKOUT, *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()
