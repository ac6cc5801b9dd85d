"""What the cluster runs, where its source comes from and how its version is stamped.

Everything is compiled from Go modules pinned by `modules/*/go.mod` and `go.sum`: the same source everywhere, no
download besides the module proxy, and nothing to trust that go.sum does not name. One module per upstream project whose
dependencies clash with the others'. Versions are read from go.mod, never repeated here.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from hack.cluster.paths import PACKAGE, cache_folder

MODULES = PACKAGE / "modules"


@dataclass(frozen=True)
class Binary:
    """One program: `package` built inside `modules/<module>`, versioned like the Go module `source`."""

    name: str
    module: str
    source: str
    package: str
    cold_build_s: int
    """Seconds the first build takes on two cores, in the order of the table below; only for telling the user."""
    stamp: tuple[str, ...] = ()
    """`-X` linker settings; {version}, {number} (without its v), {major} and {minor} are filled in.

    Without them Kubernetes reports v0.0.0."""
    tags: tuple[str, ...] = ()
    """Build tags."""
    keeps: tuple[str, ...] = ()
    """Files of the module that are wanted beside the program, by path: its sources do not stay."""

    @property
    def version(self) -> str:
        """The version that go.mod requires, with its leading v."""
        return _required_version(MODULES / self.module / "go.mod", self.source)

    @property
    def linker_flags(self) -> str:
        """Flags for `go build -ldflags`: no symbol table (a third of the size), and the version."""
        number = self.version.removeprefix("v")
        major, minor, *_ = number.split(".")
        known = {"version": self.version, "number": number, "major": major, "minor": minor}
        settings = [setting.format_map(known) for setting in self.stamp]
        return " ".join(["-s", "-w", *(f"-X {setting}" for setting in settings)])

    @property
    def path(self) -> Path:
        """Where the built program lies. The folder's name holds everything that decides what it does."""
        digest = hashlib.sha256()
        for text in (self.package, self.linker_flags, *self.tags, *self.keeps):
            digest.update(text.encode() + b"\0")
        for file in ("go.mod", "go.sum"):
            digest.update((MODULES / self.module / file).read_bytes())
        return cache_folder() / "bin" / f"{self.name}-{self.version}-{digest.hexdigest()[:12]}" / self.name


@cache
def _required_version(go_mod: Path, source: str) -> str:
    found = re.search(rf"^(?:require )?\s*{re.escape(source)} (v\S+)", go_mod.read_text(), re.MULTILINE)
    if found is None:
        raise LookupError(f"{go_mod} does not require {source}")
    return found[1]


def _kubernetes(name: str, cold_build_s: int) -> Binary:
    variable = "k8s.io/component-base/version.git"
    stamp = (f"{variable}Version={{version}}", f"{variable}Major={{major}}", f"{variable}Minor={{minor}}")
    package = f"k8s.io/kubernetes/cmd/{name}"
    return Binary(name, "kubernetes", "k8s.io/kubernetes", package, cold_build_s, stamp)


def _containerd(name: str, cold_build_s: int) -> Binary:
    source = "github.com/containerd/containerd/v2"
    stamp = (f"{source}/version.Version={{version}}",)
    return Binary(name, "containerd", source, f"{source}/cmd/{name}", cold_build_s, stamp)


_DISTRIBUTION = "github.com/distribution/distribution/v3"

# In this order: kube-apiserver compiles most of what the others share.
CONTROL_PLANE: tuple[Binary, ...] = (
    _kubernetes("kube-apiserver", 366),
    Binary("etcd", "kubernetes", "go.etcd.io/etcd/server/v3", "go.etcd.io/etcd/server/v3", 27),
    _kubernetes("kube-controller-manager", 76),
    _kubernetes("kube-scheduler", 7),
    _kubernetes("kubectl", 28),
)
NODE: tuple[Binary, ...] = (
    _kubernetes("kubelet", 24),
    _kubernetes("kube-proxy", 11),
    _containerd("containerd", 93),
    _containerd("containerd-shim-runc-v2", 2),
    _containerd("ctr", 4),
    Binary(
        "registry",
        "registry",
        _DISTRIBUTION,
        f"{_DISTRIBUTION}/cmd/registry",
        72,
        (f"{_DISTRIBUTION}/version.version={{version}}",),
    ),
    Binary("coredns", "coredns", "github.com/coredns/coredns", "github.com/coredns/coredns", 115),
)
ALL = {binary.name: binary for binary in (*CONTROL_PLANE, *NODE)}

MINIO = Binary("minio", "minio", "github.com/minio/minio", "github.com/minio/minio", 150)
"""An object store for tests only, as a program of its own: its licence is the AGPL, and nothing of ours links it."""

KWOK = Binary(
    "kwok",
    "kwok",
    "sigs.k8s.io/kwok",
    "sigs.k8s.io/kwok/cmd/kwok",
    105,
    ("sigs.k8s.io/kwok/pkg/consts.Version={version}",),
)
"""Plays kubelets, for the benchmark of the operator with every controller on."""


def _prometheus(name: str, cold_build_s: int) -> Binary:
    source = "github.com/prometheus/prometheus"
    stamp = ("github.com/prometheus/common/version.Version={version}",)
    # Service discovery is a third of its dependencies, most of it clouds', and nothing here is discovered.
    return Binary(name, "prometheus", source, f"{source}/cmd/{name}", cold_build_s, stamp, ("remove_all_sd",))


PROMTOOL = _prometheus("promtool", 120)
PROMETHEUS = _prometheus("prometheus", 105)
"""For tests only: alerts are judged by promtool, the dashboard's queries answered by a server (without its pages)."""

ACTIONLINT = Binary(
    "actionlint", "actionlint", "github.com/rhysd/actionlint", "github.com/rhysd/actionlint/cmd/actionlint", 15
)
"""For tests only: judges `.github/workflows`."""

_KUEUE = "sigs.k8s.io/kueue"
_KUEUE_KINDS = (
    "admissionchecks",
    "clusterqueues",
    "cohorts",
    "localqueues",
    "multikueueclusters",
    "multikueueconfigs",
    "provisioningrequestconfigs",
    "resourceflavors",
    "topologies",
    "workloadpriorityclasses",
    "workloads",
)
KUEUE = Binary(
    "kueue",
    "kueue",
    _KUEUE,
    f"{_KUEUE}/cmd/kueue",
    150,
    (f"{_KUEUE}/pkg/version.GitVersion={{version}}",),
    keeps=(
        *(f"config/components/crd/bases/kueue.x-k8s.io_{kind}.yaml" for kind in _KUEUE_KINDS),
        "config/components/webhook/manifests.yaml",
    ),
)
"""For tests only: the queue that clusters share, with the CRDs and webhooks of the same version."""

_ARGOCD = "github.com/argoproj/argo-cd/v3"
ARGOCD = Binary(
    "argocd",
    "argocd",
    _ARGOCD,
    f"{_ARGOCD}/cmd",
    140,
    (f"{_ARGOCD}/common.version={{number}}",),
    keeps=(
        "manifests/crds/application-crd.yaml",
        "manifests/crds/appproject-crd.yaml",
        "manifests/crds/applicationset-crd.yaml",
    ),
)
"""For tests only: command line, repo-server and application-controller in one program, which its name tells apart.

3.2.6, because the module of 3.2.12 does not compile by itself, and 3.3 and later need modules that no proxy serves."""
