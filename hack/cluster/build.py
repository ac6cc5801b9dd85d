"""Compile the cluster's programs once per version and keep them in the cache.

All checkouts share the result; one build runs at a time, because two cold builds of Kubernetes on a small machine take
longer side by side than one after the other. A program appears under its final name only when it is complete. Go's
compile cache and the modules' sources are our own, not the user's, and go when the last program is built: 5 and 7 GB
that nothing reads again.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path

from hack.cluster.binaries import ALL, MODULES, Binary
from hack.cluster.console import Console
from hack.cluster.errors import ClusterError
from hack.cluster.locks import file_lock
from hack.cluster.paths import cache_folder
from hack.cluster.toolchain import ensure_go


def missing(binaries: Iterable[Binary]) -> list[Binary]:
    """Those that are not built yet."""
    return [binary for binary in binaries if not binary.path.exists()]


def ensure_built(binaries: Iterable[Binary], console: Console) -> None:
    """Build what is missing. Raises ClusterError with the compiler's last lines if a build fails."""
    wanted = list(binaries)
    if not missing(wanted):
        return
    go = ensure_go(console)
    with file_lock(cache_folder() / "locks" / "build.lock", purpose="building Go programs", console=console):
        for leftover in (cache_folder() / "bin").glob(".partial-*"):  # of a build that was killed; we hold the lock
            shutil.rmtree(leftover)
        for binary in missing(wanted):  # asked again: whoever held the lock may have built some
            estimate = f"up to {binary.cold_build_s} s the first time"
            with console.step(f"building {binary.name} {binary.version} ({estimate})"):
                _build(go, binary)
        if not missing(ALL.values()):
            for folder in (_compile_cache(), _module_cache()):
                shutil.rmtree(folder, ignore_errors=True)


def _compile_cache() -> Path:
    return cache_folder() / "go-build"


def _module_cache() -> Path:
    return cache_folder() / "go-modules"


def _build(go: Path, binary: Binary) -> None:
    destination = binary.path.parent
    partial = destination.with_name(f".partial-{destination.name}")
    partial.mkdir(parents=True)
    flags: list[str | Path] = [
        "-mod=readonly",
        "-trimpath",
        f"-tags={','.join(binary.tags)}",
        "-ldflags",
        binary.linker_flags,
        "-o",
        partial / binary.name,
    ]
    # GOFLAGS and GOWORK of the user's own projects must not leak in; without cgo the result runs on any libc.
    # Modules that may be written to can be removed.
    clean = {"CGO_ENABLED": "0", "GOFLAGS": "-modcacherw", "GOWORK": "off", "GOTOOLCHAIN": "local"}
    caches = {"GOCACHE": str(_compile_cache()), "GOMODCACHE": str(_module_cache())}
    environment = {**os.environ, **clean, **caches}
    try:
        result = subprocess.run(
            [go, "build", *flags, binary.package],
            cwd=MODULES / binary.module,
            env=environment,
            capture_output=True,
            text=True,
        )
        if result.returncode:
            last_lines = "\n".join(f"  {line}" for line in result.stderr.splitlines()[-6:])
            raise ClusterError(f"Building {binary.name} {binary.version} failed:\n{last_lines}")
        _keep(go, binary, partial, environment)
        partial.rename(destination)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _keep(go: Path, binary: Binary, folder: Path, environment: Mapping[str, str]) -> None:
    """Copy what is wanted of the module's files into `folder`, by their last name."""
    if not binary.keeps:
        return
    question: list[str | Path] = [go, "list", "-mod=readonly", "-m", "-f", "{{.Dir}}", binary.source]
    answer = subprocess.run(
        question, cwd=MODULES / binary.module, env=environment, capture_output=True, text=True, check=True
    )
    for file in binary.keeps:
        copy = shutil.copyfile(Path(answer.stdout.strip()) / file, folder / Path(file).name)
        copy.chmod(0o644)
