"""The CustomResourceDefinitions of Flux, from its Go modules: what manifests for Flux are validated against.

Three small downloads and nothing compiled. The modules are pinned by Go's own checksum; only the CRDs are kept.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Final

from hack.cluster.console import Console
from hack.cluster.errors import ClusterError
from hack.cluster.locks import file_lock
from hack.cluster.paths import cache_folder
from hack.cluster.toolchain import ensure_go

# Module and version, its checksum as go.sum would have it, the CRD wanted of it.
_PINNED: Final = (
    (
        "github.com/fluxcd/source-controller@v1.7.0",
        "h1:/fBgS4CSmT5Jj/fjQDF92y+pC3gst1GJjgNSzY8Ff9I=",
        "source.toolkit.fluxcd.io_gitrepositories.yaml",
    ),
    (
        "github.com/fluxcd/kustomize-controller@v1.7.3",
        "h1:SzNnGn/4ObAPEHHleM5U7y/AKxKXph3Vj6ZhteeXw8M=",
        "kustomize.toolkit.fluxcd.io_kustomizations.yaml",
    ),
    (
        "github.com/fluxcd/helm-controller@v1.4.0",
        "h1:rkm8rmB6Na7eNc4pJOnvtXEaJ19iKluRtayHKjBxcUM=",
        "helm.toolkit.fluxcd.io_helmreleases.yaml",
    ),
)


def flux_crds(console: Console) -> list[Path]:
    """Files with the CRDs of GitRepository, Kustomization and HelmRelease; fetched where they are not cached.

    Raises:
        ClusterError: a module cannot be had, or is not the one that is pinned.
    """
    found = [cache_folder() / "crds" / module.rpartition("/")[2] / file for module, _, file in _PINNED]
    if all(path.exists() for path in found):
        return found
    with file_lock(cache_folder() / "locks" / "flux.lock", purpose="fetching Flux's CRDs", console=console):
        for target, (module, checksum, file) in zip(found, _PINNED, strict=True):
            with console.step(f"fetching {file} of {module}"):
                _fetch(target, module, checksum, file, console)
    return found


def _fetch(target: Path, module: str, checksum: str, file: str, console: Console) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        clean = {"GOFLAGS": "-modcacherw", "GOWORK": "off", "GOTOOLCHAIN": "local", "GOMODCACHE": f"{scratch}/modules"}
        command = [ensure_go(console), "mod", "download", "-json", module]
        result = subprocess.run(command, cwd=scratch, env={**os.environ, **clean}, capture_output=True, text=True)
        facts = json.loads(result.stdout or "{}")
        if result.returncode or facts.get("Sum") != checksum:
            problem = facts.get("Error") or result.stderr.strip() or f"its checksum is {facts.get('Sum')}"
            raise ClusterError(f"The module {module} cannot be used: {problem}")
        target.parent.mkdir(parents=True, exist_ok=True)
        copy = shutil.copyfile(Path(facts["Dir"]) / "config" / "crd" / "bases" / file, target.with_suffix(".partial"))
        copy.rename(target)
