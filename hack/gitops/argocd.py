"""Argo CD as processes of this machine against any cluster, with its API server and the command line that users have.

Nothing of it runs in the cluster, so no image has to be built or pulled; the cluster holds its custom resources and its
settings only. What is left out are the parts that no Application here needs: Dex, notifications, ApplicationSets.

The servers listen on loopback without TLS or users; whoever reaches them is administrator of the cluster. For tests.
"""

from __future__ import annotations

import json
import os
import secrets
import subprocess
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import yaml

from hack.cluster.binaries import ARGOCD
from hack.cluster.build import ensure_built
from hack.cluster.console import Console
from hack.cluster.packages import Package, install
from hack.cluster.ports import PortLeases, port_is_free
from hack.cluster.processes import ProcessTable
from hack.demo.kubectl import Kubectl, Manifest
from hack.gitops.kinds import install_kinds

NAMESPACE: Final = "argocd"
_LOOPBACK: Final = "127.0.0.1"
_REDIS: Final = Package("redis-tools", Path("/usr/bin/redis-check-rdb"), "the cache of Argo CD")
"""Debian's redis is one program that goes by the name it is called by. The package `redis-server` adds a link to it,
and a service that would run on everybody's machine from then on."""
_LABELS: Final = {"app.kubernetes.io/part-of": "argocd"}
"""Argo CD reads only settings that carry it."""


class ArgoCD:
    """Redis, repo-server, application-controller and API server. A context manager.

    Args:
        kubectl: the cluster it manages and lives in.
        folder: for state, logs and configuration; made if need be.
        helm: the program that renders charts.
        settings: data of `argocd-cm`, as `kubectl apply --server-side` of Argo CD's own manifests would leave it.
        namespace: where its settings and Applications are.
    """

    def __init__(
        self,
        kubectl: Kubectl,
        folder: Path,
        *,
        helm: Path,
        settings: Mapping[str, str] | None = None,
        namespace: str = NAMESPACE,
    ) -> None:
        self._folder = folder
        self._helm = helm
        self._settings = dict(settings or {})
        self.kubectl = kubectl.in_namespace(namespace)
        self._processes = ProcessTable(folder, bound_to_parent=True)
        self._ports = PortLeases()
        self._port: dict[str, int] = {}

    # -- life ---------------------------------------------------------------------------------------------------------

    @staticmethod
    def prepare(console: Console) -> None:
        """Build and install what is missing: minutes the first time."""
        ensure_built([ARGOCD], console)
        install((_REDIS,), console)

    def __enter__(self) -> Self:
        self._folder.mkdir(parents=True, exist_ok=True)
        try:
            self._install()
            self._start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """End the servers. Custom resources and settings stay, see `uninstall`."""
        self._processes.stop(grace_s=0)
        self._ports.close()

    def uninstall(self) -> None:
        """Take Argo CD's traces out of the cluster; delete Applications first, while it runs: they have finalizers."""
        crds = [f"--filename={file}" for file in self._crds()]
        self.kubectl.run("delete", *crds, "--ignore-not-found", "--wait=false")
        self.kubectl.run("delete", "namespace", self.kubectl.namespace, "--ignore-not-found", "--wait=false")

    # -- use ----------------------------------------------------------------------------------------------------------

    def run(self, *arguments: str, timeout_s: float = 300) -> str:
        """The command line `argocd`; returns its output. Fails the caller with Argo CD's own words."""
        result = self.attempt(*arguments, timeout_s=timeout_s)
        if result.returncode:
            raise AssertionError(f"argocd {' '.join(arguments)}: {result.stderr.strip()}\n{result.stdout.strip()}")
        return result.stdout

    def attempt(self, *arguments: str, timeout_s: float = 300) -> subprocess.CompletedProcess[str]:
        """The same, whatever it answers."""
        access = [f"--server={_LOOPBACK}:{self._port['server']}", "--plaintext", f"--config={self._folder / 'cli'}"]
        command = [ARGOCD.path, *arguments, *access]
        return subprocess.run(
            command, capture_output=True, text=True, timeout=timeout_s, env=self._environment(), check=False
        )

    def application(self, name: str) -> Manifest:
        """An Application as it is now; empty if there is none yet."""
        return self.kubectl.get("applications.argoproj.io", name) or {}

    def resources(self, name: str) -> dict[str, Manifest]:
        """What an Application says of its resources: `{"VideoRestoration/clip": {"status": "Synced", …}}`."""
        found = self.application(name).get("status", {}).get("resources", [])
        return {f"{item['kind']}/{item['name']}": item for item in found}

    def log(self, server: str) -> str:
        """What a server has said."""
        return (self._folder / "logs" / f"{server}.log").read_text(errors="replace")

    # -- parts --------------------------------------------------------------------------------------------------------

    def _install(self) -> None:
        before = self.kubectl.get("namespace", self.kubectl.namespace)
        if before and before["metadata"].get("deletionTimestamp"):  # of a run that has just ended
            self.kubectl.run("wait", "--for=delete", f"namespace/{self.kubectl.namespace}", "--timeout=110s")
        self.kubectl.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": self.kubectl.namespace}})
        install_kinds(self.kubectl, self._crds())
        settings = yaml.safe_dump(self._setting("ConfigMap", "argocd-cm", data=self._settings))
        self.kubectl.run("apply", "--server-side", "--force-conflicts", "--filename=-", stdin=settings)
        self.kubectl.apply(
            self._setting("ConfigMap", "argocd-rbac-cm"),
            self._setting("ConfigMap", "argocd-gpg-keys-cm"),
            self._setting("Secret", "argocd-secret", stringData={"server.secretkey": secrets.token_hex(32)}),
            {
                "apiVersion": "argoproj.io/v1alpha1",
                "kind": "AppProject",
                "metadata": {"name": "default", "namespace": self.kubectl.namespace},
                "spec": {
                    "sourceRepos": ["*"],
                    "destinations": [{"namespace": "*", "server": "*"}],
                    "clusterResourceWhitelist": [{"group": "*", "kind": "*"}],
                },
            },
        )

    @staticmethod
    def _crds() -> list[Path]:
        return [ARGOCD.path.with_name(Path(file).name) for file in ARGOCD.keeps]

    def _setting(self, kind: str, name: str, **content: Any) -> Manifest:
        metadata = {"name": name, "namespace": self.kubectl.namespace, "labels": _LABELS}
        return {"apiVersion": "v1", "kind": kind, "metadata": metadata, **content}

    def _start(self) -> None:
        for name in ("redis", "repo", "server", *(f"metrics-{part}" for part in ("repo", "controller", "server"))):
            self._port[name] = self._ports.take()
        redis, repo = f"{_LOOPBACK}:{self._port['redis']}", f"{_LOOPBACK}:{self._port['repo']}"
        program = self._folder / "redis-server"
        program.symlink_to(_REDIS.provides)
        listen = ["--bind", _LOOPBACK, "--port", str(self._port["redis"])]
        self._processes.start("redis", [program, *listen, "--save", "", "--appendonly", "no"])
        metrics = [f"--metrics-port={self._port['metrics-repo']}", f"--metrics-address={_LOOPBACK}"]
        listen = [f"--port={self._port['repo']}", f"--address={_LOOPBACK}"]
        self._serve("repo-server", "--disable-tls", f"--redis={redis}", *listen, *metrics)
        behind = [f"--redis={redis}", f"--repo-server={repo}", "--repo-server-plaintext"]
        # Settings of the controller's own clocks: how soon it looks at git, and how often it may repair what drifted.
        self._serve(
            "application-controller", *behind, f"--metrics-port={self._port['metrics-controller']}",
            "--app-resync=10", "--app-resync-jitter=0", "--self-heal-timeout-seconds=1",
            "--persist-resource-health",  # in the Application, beside the cache, where kubectl can see it
        )  # fmt: skip
        metrics = [f"--metrics-port={self._port['metrics-server']}", f"--metrics-address={_LOOPBACK}"]
        listen = [f"--port={self._port['server']}", f"--address={_LOOPBACK}"]
        self._serve("server", "--insecure", "--disable-auth", *behind, *listen, *metrics)
        for name in ("redis", "repo", "server"):
            port, process = self._port[name], {"repo": "repo-server"}.get(name, name)
            self._processes.wait_until(process, lambda port=port: not port_is_free(_LOOPBACK, port), what=name)

    def _serve(self, name: str, *flags: str) -> None:
        environment = self._environment() | {"ARGOCD_BINARY_NAME": f"argocd-{name}"}
        command = [ARGOCD.path, *flags, f"--namespace={self.kubectl.namespace}"]
        if name == "repo-server":  # it knows no cluster
            command.pop()
        self._processes.start(name, command, environment=environment)

    def _environment(self) -> dict[str, str]:
        keys = self._folder / "gnupg"
        keys.mkdir(exist_ok=True, mode=0o700)
        return {
            "PATH": f"{self._helm.parent}{os.pathsep}{os.environ['PATH']}",
            "HOME": str(self._folder),
            "TMPDIR": str(self._folder),
            "KUBECONFIG": str(self._kubeconfig()),
            "ARGOCD_FAKE_IN_CLUSTER": "true",
            "ARGOCD_GPG_ENABLED": "false",
            "ARGOCD_GNUPGHOME": str(keys),
            "ARGOCD_RECONCILIATION_TIMEOUT": "10s",
        }

    def _kubeconfig(self) -> Path:
        """The cluster's, with Argo CD's namespace as the default one."""
        path = self._folder / "kubeconfig"
        if not path.exists():
            document = yaml.safe_load(self.kubectl.kubeconfig.read_text())
            for context in document["contexts"]:
                context["context"]["namespace"] = self.kubectl.namespace
            path.touch(mode=0o600)
            path.write_text(json.dumps(document))
        return path
