"""Programs from Debian that tests and demo need beside the Python environment: named, then installed where missing.

python -m hack.prerequisites
"""

from __future__ import annotations

import sys
from pathlib import Path

from hack.cluster.console import Console
from hack.cluster.errors import ClusterError
from hack.cluster.packages import Package, install

MEDIA_PACKAGES = (Package("ffmpeg", Path("/usr/bin/ffprobe"), "judging videos by a program that is not ours"),)


def main() -> int:
    """Install what is missing. Returns the process's exit code."""
    try:
        install(MEDIA_PACKAGES, Console())
    except ClusterError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
