"""Debian packages that a command needs: names them, then installs what is missing.

`python -m hack.prerequisites NAME…`. Nothing is installed unannounced, and without root the remedy is one sentence.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys


def missing(packages: list[str]) -> list[str]:
    """Those that dpkg does not know as installed."""
    query = ["dpkg-query", "--show", "--showformat", "${Package} ${db:Status-Status}\n", *packages]
    listing = subprocess.run(query, capture_output=True, text=True, check=False).stdout
    installed = {line.split()[0] for line in listing.splitlines() if line.endswith(" installed")}
    return [name for name in packages if name not in installed]


def install(packages: list[str]) -> None:
    """Install `packages` with apt. Raises SystemExit with one sentence where that cannot be done."""
    names = " ".join(packages)
    if shutil.which("apt-get") is None:
        raise SystemExit(f"This machine has no apt-get; install what Debian calls {names} and run this again.")
    if os.geteuid() != 0:
        raise SystemExit(f"Missing Debian packages: {names}. Run `sudo apt-get install {names}` and try again.")
    print(f"installing Debian packages: {names}", flush=True)
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (["update", "-qq"], ["install", "-qq", "--yes", "--no-install-recommends", *packages]):
        result = subprocess.run(["apt-get", *command], env=environment, capture_output=True, text=True)
        if result.returncode:
            raise SystemExit(f"apt-get {command[0]} failed: {result.stderr.strip().splitlines()[-1]}")


def main() -> None:
    needed = missing(sys.argv[1:])
    if needed and shutil.which("dpkg-query") is not None:
        install(needed)


if __name__ == "__main__":
    main()
