"""Programs that come from Debian: one list, and installing what is missing of it, named before it happens."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from hack.cluster.console import Console
from hack.cluster.errors import ClusterError


@dataclass(frozen=True)
class Package:
    """A Debian package and the file that shows that it is installed."""

    name: str
    provides: Path
    purpose: str


NODE_PACKAGES = (
    # /bin/busybox may also be the dynamically linked one, which cannot run in an empty image.
    Package("busybox-static", Path("/var/lib/dpkg/info/busybox-static.list"), "the sandbox image of every pod"),
    Package("containernetworking-plugins", Path("/usr/lib/cni/bridge"), "addresses for pods"),
    Package("iproute2", Path("/sbin/ip"), "the bridge"),
    Package("nftables", Path("/usr/sbin/nft"), "Services, written by kube-proxy"),
    Package("runc", Path("/usr/sbin/runc"), "containers"),
)
IMAGE_PACKAGES = (
    Package("buildah", Path("/usr/bin/buildah"), "building images"),
    Package("debootstrap", Path("/usr/sbin/debootstrap"), "the base image"),
)


def missing_packages(packages: tuple[Package, ...]) -> list[Package]:
    """Those of `packages` that are not installed."""
    return [package for package in packages if not package.provides.exists()]


def install(packages: tuple[Package, ...], console: Console) -> None:
    """Install what is missing with apt, after naming it."""
    missing = missing_packages(packages)
    if not missing:
        return
    if shutil.which("apt-get") is None:
        names = ", ".join(f"{package.provides} ({package.purpose})" for package in missing)
        raise ClusterError(f"This machine has no apt-get, so these programs must be installed by hand: {names}.")
    wanted = [package.name for package in missing]
    listed = " ".join(wanted)
    for package in missing:
        console.say(f"apt will install {package.name}, for {package.purpose}")
    with console.step(f"installing {listed}"):
        if not _apt_get("install", *wanted):  # package lists may be old, or not there at all
            _apt_get("update")
            if not _apt_get("install", *wanted):
                raise ClusterError(f"apt could not install {listed}; see why with `apt-get install {listed}`.")


def _apt_get(command: str, *arguments: str) -> bool:
    options = ["--assume-yes", "--no-install-recommends", "-o", "DPkg::Lock::Timeout=120"]
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    result = subprocess.run(["apt-get", command, *options, *arguments], env=environment, capture_output=True)
    return result.returncode == 0
