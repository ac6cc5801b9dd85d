"""etcd, kube-apiserver, kube-controller-manager and kube-scheduler: everything of Kubernetes but a node.

`ControlPlane` is what tests use: loopback, free ports, state in a temporary folder, no root, as many at once as wanted,
and nothing left when the process that started it ends, however it ends. The node (`node.py`) builds on the same class
with an address that pods can reach and servers that outlive the command.

    with ControlPlane() as cluster:
        cluster.kubectl("apply", "--filename", "crds/")
        operator_kubeconfig = cluster.service_account_kubeconfig(namespace="system", name="operator")
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Self

from hack.cluster.apiclient import ApiClient
from hack.cluster.binaries import ALL, CONTROL_PLANE
from hack.cluster.build import ensure_built
from hack.cluster.console import SILENT, Console
from hack.cluster.errors import ClusterError
from hack.cluster.kubeconfig import Token, write_kubeconfig
from hack.cluster.locks import file_lock, release, try_lock
from hack.cluster.pki import Authority, KeyPair, signing_key
from hack.cluster.ports import PortLeases
from hack.cluster.processes import ProcessTable

LOOPBACK = "127.0.0.1"
SERVICE_NETWORK = "10.96.0.0/16"
API_SERVICE_ADDRESS = "10.96.0.1"  # the first address of SERVICE_NETWORK is always the API server's own Service
_OWNER_LOCK = "owner.lock"


@dataclass(frozen=True)
class ControlPlaneSettings:
    """Where the servers keep their state and who can reach them."""

    folder: Path
    address: str = LOOPBACK
    """Address the API server listens on. With a node: the bridge's, which host and pods reach alike."""
    with_node: bool = False
    """Publish the API server's address as the endpoint of the `kubernetes` Service, for pods."""
    outlives_starter: bool = False
    api_server_flags: tuple[str, ...] = ()
    """More flags for kube-apiserver, for example an audit log."""
    controller_flags: tuple[str, ...] = ()
    """More flags for kube-controller-manager, for example to leave a controller out."""


class ControlPlane:
    """A running control plane. A context manager; `start` and `stop` are there for fixtures and the node's launcher."""

    def __init__(
        self,
        settings: ControlPlaneSettings | None = None,
        *,
        api_server_flags: Sequence[str] = (),
        controller_flags: Sequence[str] = (),
    ) -> None:
        """Without `settings`, state goes to a fresh temporary folder that `stop` removes."""
        self._owner_lock: int | None = None
        self._is_temporary = settings is None
        if settings is None:
            settings = ControlPlaneSettings(folder=self._claim_temporary_folder())
        self.settings = replace(
            settings,
            api_server_flags=(*settings.api_server_flags, *api_server_flags),
            controller_flags=(*settings.controller_flags, *controller_flags),
        )
        self.folder = settings.folder
        self.kubeconfig = self.folder / "admin.kubeconfig"
        """Kubeconfig of a cluster administrator (group system:masters)."""
        self.processes = ProcessTable(self.folder, bound_to_parent=not settings.outlives_starter)
        self._ports = PortLeases()  # the one server that pods may reach, the API server, then has a well-known port

    # -- life ---------------------------------------------------------------------------------------------------------

    def start(self, console: Console = SILENT) -> Self:
        """Start the servers and return when pods can be created. If one fails: ClusterError, and nothing is left."""
        ensure_built(CONTROL_PLANE, console)
        try:
            self._prepare()
            self._start_etcd()
            self._start_api_server()
            self._start_controllers()
            # `/readyz` comes seconds before a pod can be created: pods need the service account.
            self._wait_for_service_account("default")
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """End every server and, if the folder was temporary, remove it. May be called twice."""
        if self.folder.exists():
            # What is thrown away needs no time to put itself in order: the API server would take seconds for that.
            self.processes.stop(grace_s=0 if self._is_temporary else 10)
        self._ports.close()
        if self._is_temporary:
            shutil.rmtree(self.folder, ignore_errors=True)
        if self._owner_lock is not None:
            release(self._owner_lock)
            self._owner_lock = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    # -- use ----------------------------------------------------------------------------------------------------------

    @property
    def server(self) -> str:
        """URL of the API server."""
        return f"https://{self.settings.address}:{self._api_port}"

    @property
    def authority(self) -> Path:
        """PEM file with the authority that signed the API server's certificate."""
        return self._authority.pair.certificate

    def user_kubeconfig(self, user: str, *, groups: Sequence[str] = (), namespace: str = "default") -> Path:
        """A kubeconfig of `user`, by client certificate. Without RBAC bindings this user may do next to nothing."""
        name = f"user-{_slug(user)}"
        pair = self._authority.issue(name, common_name=user, organizations=groups)
        return self.write_kubeconfig(name, pair, namespace=namespace)

    def service_account_kubeconfig(self, *, namespace: str, name: str, valid_for_s: int = 24 * 3600) -> Path:
        """A kubeconfig of an existing service account, by the same kind of token that a pod of it would mount."""
        path = f"/api/v1/namespaces/{namespace}/serviceaccounts/{name}/token"
        body = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {"expirationSeconds": valid_for_s},
        }
        token = self.api.create(path, body)["status"]["token"]
        return self.write_kubeconfig(f"service-account-{namespace}-{name}", Token(token), namespace=namespace)

    def write_kubeconfig(self, name: str, identity: KeyPair | Token, *, namespace: str = "default") -> Path:
        """Write `<folder>/<name>.kubeconfig` for `identity`. Returns its path."""
        path = self.folder / f"{name}.kubeconfig"
        return write_kubeconfig(
            path, server=self.server, authority=self.authority, identity=identity, namespace=namespace
        )

    def kubectl(self, *arguments: str | Path, stdin: str | None = None, check: bool = True) -> str:
        """Run the real kubectl as administrator and return its standard output. Raises ClusterError if it fails."""
        result = subprocess.run(
            [ALL["kubectl"].path, "--kubeconfig", self.kubeconfig, *arguments],
            input=stdin,
            capture_output=True,
            text=True,
        )
        if check and result.returncode:
            raise ClusterError(f"kubectl {' '.join(map(str, arguments))} failed: {result.stderr.strip()}")
        return result.stdout

    def issue(
        self, name: str, *, common_name: str, organizations: Sequence[str] = (), hosts: Sequence[str] = ()
    ) -> KeyPair:
        """A certificate of the cluster's authority, for the node's own components."""
        return self._authority.issue(name, common_name=common_name, organizations=organizations, hosts=hosts)

    def create_namespace(self, name: str) -> None:
        """Create a namespace and return when pods can be created in it: when it has its default service account."""
        self.api.create("/api/v1/namespaces", {"metadata": {"name": name}})
        self._wait_for_service_account(name)

    @property
    def api(self) -> ApiClient:
        """A minimal client with the administrator's rights."""
        return ApiClient(
            host=self.settings.address, port=self._api_port, authority=self.authority, identity=self._administrator
        )

    # -- parts --------------------------------------------------------------------------------------------------------

    def _claim_temporary_folder(self) -> Path:
        """A fresh folder, locked while we live; folders whose owner was killed are removed on the way."""
        base = Path(tempfile.gettempdir()) / f"video-restoration-control-planes-{os.getuid()}"
        base.mkdir(mode=0o700, exist_ok=True)
        # One at a time: a folder that is made but not locked yet would look like one whose owner is gone.
        with file_lock(base / "folders.lock", purpose="starting a control plane"):
            for folder in base.glob("cluster-*"):
                descriptor = try_lock(folder / _OWNER_LOCK)
                if descriptor is not None:
                    ProcessTable(folder, bound_to_parent=False).stop()
                    shutil.rmtree(folder, ignore_errors=True)
                    release(descriptor)
            folder = Path(tempfile.mkdtemp(prefix="cluster-", dir=base))
            self._owner_lock = try_lock(folder / _OWNER_LOCK)
        return folder

    def _prepare(self) -> None:
        pki = self.folder / "pki"
        self._authority = Authority(pki, name="cluster-authority")
        self._etcd_authority = Authority(pki, name="etcd-authority")
        self._token_key = signing_key(pki / "service-accounts.key")
        self._administrator = self._authority.issue(
            "administrator", common_name="administrator", organizations=["system:masters"]
        )
        hosts = {LOOPBACK, "localhost", self.settings.address, API_SERVICE_ADDRESS}
        names = ["kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"]
        self._serving = self._authority.issue(
            "kube-apiserver", common_name="kube-apiserver", hosts=[*sorted(hosts), *names]
        )
        # With a node the address is part of what people copy around, so it is the well-known one.
        self._api_port = 6443 if self.settings.with_node else self._ports.take()
        write_kubeconfig(self.kubeconfig, server=self.server, authority=self.authority, identity=self._administrator)

    def _start_etcd(self) -> None:
        self._etcd_port, peer_port = self._ports.take(), self._ports.take()
        # Any user of the machine reaches loopback, and whoever writes to etcd is administrator: certificates here too.
        server = self._etcd_authority.issue("etcd", common_name="etcd", hosts=[LOOPBACK])
        self._etcd_client = self._etcd_authority.issue("etcd-client", common_name="kube-apiserver")
        urls, peer_urls = f"https://{LOOPBACK}:{self._etcd_port}", f"http://{LOOPBACK}:{peer_port}"
        self.processes.start(
            "etcd",
            [
                ALL["etcd"].path,
                "--name=default",
                f"--data-dir={self.folder / 'etcd'}",
                f"--listen-client-urls={urls}",
                f"--advertise-client-urls={urls}",
                f"--listen-peer-urls={peer_urls}",
                f"--initial-advertise-peer-urls={peer_urls}",
                f"--initial-cluster=default={peer_urls}",
                f"--cert-file={server.certificate}",
                f"--key-file={server.key}",
                "--client-cert-auth",
                f"--trusted-ca-file={self._etcd_authority.pair.certificate}",
                "--unsafe-no-fsync",  # the data lives as long as the cluster; syncing costs a third of the start
                "--log-level=warn",
            ],
        )

    def _start_api_server(self) -> None:
        address = self.settings.address
        flags: list[str | Path] = [
            f"--etcd-servers=https://{LOOPBACK}:{self._etcd_port}",
            f"--etcd-cafile={self._etcd_authority.pair.certificate}",
            f"--etcd-certfile={self._etcd_client.certificate}",
            f"--etcd-keyfile={self._etcd_client.key}",
            f"--bind-address={address}",
            f"--secure-port={self._api_port}",
            f"--client-ca-file={self.authority}",
            f"--tls-cert-file={self._serving.certificate}",
            f"--tls-private-key-file={self._serving.key}",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={self._token_key}",
            f"--service-account-signing-key-file={self._token_key}",
            f"--service-cluster-ip-range={SERVICE_NETWORK}",
            f"--advertise-address={address}",  # else it looks for a default route, which a machine may not have
            "--authorization-mode=Node,RBAC",
            "--enable-admission-plugins=NodeRestriction",
            "--allow-privileged=true",
        ]
        if self.settings.with_node:
            kubelet_client = self._authority.issue(
                "kubelet-client", common_name="kube-apiserver-kubelet-client", organizations=["system:masters"]
            )
            flags += [
                # By name, `kubectl logs` would ask a DNS server that has never heard of this node.
                "--kubelet-preferred-address-types=InternalIP",
                f"--kubelet-client-certificate={kubelet_client.certificate}",
                f"--kubelet-client-key={kubelet_client.key}",
            ]
        else:
            # Loopback is not a legal endpoint address, and without pods nobody needs the endpoint.
            flags += ["--endpoint-reconciler-type=none"]
        command = [ALL["kube-apiserver"].path, *flags, *self.settings.api_server_flags]
        self.processes.start("kube-apiserver", command)
        self.processes.wait_until("kube-apiserver", lambda: self.api.answers("/readyz"), what="The API server")

    def _start_controllers(self) -> None:
        for name in ("kube-controller-manager", "kube-scheduler"):
            pair = self._authority.issue(name, common_name=f"system:{name}")
            kubeconfig = self.write_kubeconfig(name, pair)
            command: list[str | Path] = [
                ALL[name].path,
                f"--kubeconfig={kubeconfig}",
                f"--authentication-kubeconfig={kubeconfig}",
                f"--authorization-kubeconfig={kubeconfig}",
                f"--bind-address={LOOPBACK}",
                f"--secure-port={self._ports.take()}",
                f"--cert-dir={self.folder / name}",
                "--leader-elect=false",
                # At the default of 20 requests a second the controllers' accounts alone take five seconds of the start.
                "--kube-api-qps=500",
                "--kube-api-burst=1000",
            ]
            if name == "kube-controller-manager":
                command += [
                    f"--service-account-private-key-file={self._token_key}",
                    f"--root-ca-file={self.authority}",
                    "--use-service-account-credentials",
                    *self.settings.controller_flags,
                ]
            self.processes.start(name, command)

    def _wait_for_service_account(self, namespace: str) -> None:
        path = f"/api/v1/namespaces/{namespace}/serviceaccounts/default"
        self.processes.wait_until(
            "kube-controller-manager",
            lambda: self.api.answers(path),
            what=f"The service account default of {namespace}",
        )


def _slug(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9.-]+", "-", text)
