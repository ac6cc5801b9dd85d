"""The node the end-to-end tests stand on: real containers with real ends, and nothing left of it, even after a crash.

Runs before the other end-to-end tests (folders sort before files), because it ends the cluster it starts.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hack.cluster import cgroups, leftovers, lifecycle, network
from hack.cluster.binaries import ALL
from hack.cluster.console import Console
from hack.cluster.containerd import BUSYBOX
from hack.cluster.errors import ClusterError
from hack.cluster.images import build_image
from hack.cluster.lifecycle import Node
from hack.cluster.paths import CHECKOUT, DEV_FOLDER, NODE_STATE, cache_folder
from hack.cluster.processes import is_alive

PATIENCE_S = 180
KEEP_RUNNING = pytest.mark.skipif(
    Node(Console(quiet=True)).is_running(), reason="a cluster runs on this machine, and this test would end it"
)
pytestmark = [KEEP_RUNNING, pytest.mark.timeout(900)]

DOCKERFILE = """\
FROM scratch
COPY busybox /bin/busybox
ENV PATH=/bin
USER 65532:65532
ENTRYPOINT ["/bin/busybox", "sh", "-c"]
"""


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    console = Console()
    running = Node(console)
    running.up()
    yield running
    running.down()


@pytest.fixture(scope="module")
def image(node: Node, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A busybox, built by buildah and pushed to the cluster's registry: the kubelet has to pull it from there."""
    context = tmp_path_factory.mktemp("busybox")
    shutil.copy(BUSYBOX, context / "busybox")
    (context / "Dockerfile").write_text(DOCKERFILE)
    return build_image("busybox", dockerfile=context / "Dockerfile", context=context, console=Console())


def kubectl(*arguments: str, stdin: str | None = None) -> str:
    command = [ALL["kubectl"].path, "--kubeconfig", DEV_FOLDER / "kubeconfig", *arguments]
    return subprocess.run(command, input=stdin, capture_output=True, text=True, check=True).stdout


def get(kind: str, *arguments: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(kubectl("get", kind, *arguments, "--output", "json"))
    return document


def eventually(holds: Callable[[], bool], *, what: str) -> None:
    """Poll until `holds` is true. The limit only ends a broken run: it is no statement about speed."""
    deadline = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < deadline, f"{what} did not happen within {PATIENCE_S} s"
        time.sleep(0.2)


def pod_spec(image: str, script: str, *, security: dict[str, Any] | None = None) -> dict[str, Any]:
    """A container as strict as the runner's: no root, no capabilities, no token, nothing to write to."""
    container = {
        "name": "main",
        "image": image,
        "args": [script],
        "resources": {"limits": {"memory": "64Mi"}},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
            **(security or {}),
        },
    }
    return {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "terminationGracePeriodSeconds": 1,
        "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [container],
    }


@dataclass(frozen=True)
class End:
    """How a Job ends: what its script does, and what Kubernetes then says."""

    script: str
    condition: str
    exit_code: int
    reason: str
    message: str = ""
    security: dict[str, Any] = field(default_factory=dict)


ENDS = {
    "success": End("echo -n done > /dev/termination-log", "Complete", 0, "Completed", "done"),
    "failure": End("echo -n why > /dev/termination-log; exit 11", "Failed", 11, "Error", "why"),
    "out of memory": End("x=0123456789abcdef; while :; do x=$x$x; done", "Failed", 137, "OOMKilled"),
    "read-only root": End("echo no > /file", "Failed", 1, "Error"),
    "not root": End('[ "$(busybox id -u)" = 65532 ]', "Complete", 0, "Completed"),
}


@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS.keys())
def test_a_job_ends_as_its_container_does(node: Node, image: str, end: End) -> None:
    name = f"job-{uuid.uuid4().hex[:8]}"
    spec = {"backoffLimit": 0, "template": {"spec": pod_spec(image, end.script)}}
    job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name}, "spec": spec}
    kubectl("apply", "--filename", "-", stdin=json.dumps(job))
    kubectl("wait", f"--for=condition={end.condition}", f"job/{name}", f"--timeout={PATIENCE_S}s")
    (pod,) = get("pods", "--selector", f"job-name={name}")["items"]
    terminated = pod["status"]["containerStatuses"][0]["state"]["terminated"]
    assert (terminated["exitCode"], terminated["reason"]) == (end.exit_code, end.reason)
    assert terminated.get("message", "") == end.message


def test_an_image_that_wants_root_is_not_started(node: Node, image: str) -> None:
    spec = pod_spec(image, "true", security={"runAsUser": 0})
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "wants-root"}, "spec": spec}
    kubectl("apply", "--filename", "-", stdin=json.dumps(pod))

    def refused() -> bool:
        statuses = get("pod", "wants-root")["status"].get("containerStatuses", [])
        return any(s["state"].get("waiting", {}).get("reason") == "CreateContainerConfigError" for s in statuses)

    eventually(refused, what="The refusal of a container that runs as root")


def test_a_pod_reaches_another_by_the_name_of_its_service(node: Node, image: str) -> None:
    """The way from pod to pod through a Service crosses the bridge twice; without masquerading the answer is lost."""
    server_spec = pod_spec(image, "while :; do echo hello | busybox nc -l -p 8080; done")
    labels = {"app": "server"}
    server = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "server", "labels": labels}, "spec": server_spec}
    ports = [{"port": 80, "targetPort": 8080}]
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "server"}}
    service["spec"] = {"selector": labels, "ports": ports}
    for document in (server, service):
        kubectl("apply", "--filename", "-", stdin=json.dumps(document))
    kubectl("wait", "--for=condition=Ready", "pod/server", f"--timeout={PATIENCE_S}s")
    script = "until busybox nc -w 5 server.default.svc.cluster.local 80 < /dev/null | busybox grep hello; do :; done"
    client = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "client"}, "spec": pod_spec(image, script)}
    kubectl("apply", "--filename", "-", stdin=json.dumps(client))
    kubectl("wait", "--for=jsonpath={.status.phase}=Succeeded", "pod/client", f"--timeout={PATIENCE_S}s")
    assert kubectl("logs", "client").strip() == "hello"


def test_a_second_up_changes_nothing(node: Node) -> None:
    before = (DEV_FOLDER / "kubeconfig").read_text()
    node.up()
    assert (DEV_FOLDER / "kubeconfig").read_text() == before
    assert node.status()


@pytest.mark.parametrize("command", ["up", "down"])
def test_another_checkout_is_told_whose_node_it_is(node: Node, monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    monkeypatch.setattr(lifecycle, "CHECKOUT", Path("/another/checkout"))
    with pytest.raises(ClusterError, match=f"belongs to {CHECKOUT} since"):
        getattr(Node(Console(quiet=True)), command)()
    assert node.is_running()


@pytest.mark.parametrize("command", ["up", "down"])
def test_a_node_of_another_mount_namespace_is_left_alone(
    node: Node, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, command: str
) -> None:
    """Bridge and ports belong to the whole machine, the files that tell whose they are may not."""
    monkeypatch.setattr(lifecycle, "NODE_STATE", tmp_path / "nothing")
    with pytest.raises(ClusterError, match="another container or mount namespace"):
        getattr(Node(Console(quiet=True)), command)()
    assert node.is_running()


def traces() -> dict[str, list[str]]:
    """What exists on this machine because a node ran; each list is empty when nothing does."""
    state = str(NODE_STATE)
    nft = subprocess.run(["nft", "list", "tables"], capture_output=True, text=True, check=True).stdout
    found = {
        "processes": [entry.parent.name for entry in Path("/proc").glob("[0-9]*/cmdline") if state in _read(entry)],
        "mounts": [
            *map(
                str, leftovers.mounts_below([NODE_STATE, *(cache_folder() / name for name in ("containerd", "images"))])
            )
        ],
        "bridge": [network.BRIDGE] if network.bridge_exists() else [],
        "interfaces of pods": [link.name for link in Path("/sys/class/net").glob("veth*")],
        "rules": [line for line in nft.splitlines() if "kube-proxy" in line],
        "cgroups": [str(h.mount) for h in cgroups.hierarchies() if (h.mount / cgroups.NODE_CGROUP).exists()],
        "files": [str(path) for path in (NODE_STATE, DEV_FOLDER) if path.exists()],
        "addresses": [str(path) for path in Path("/var/lib/cni").rglob(f"{network.CNI_NETWORK}*")],
        "log links": [
            str(p) for p in Path("/var/log/containers").glob("*") if p.is_symlink() and state in str(p.readlink())
        ],
    }
    return {what: where for what, where in found.items() if where}


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return ""


def start_a_pod(image: str) -> None:
    spec = pod_spec(image, "busybox sleep 3600")
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "sleeper"}, "spec": spec}
    kubectl("apply", "--filename", "-", stdin=json.dumps(pod))
    kubectl("wait", "--for=condition=Ready", "pod/sleeper", f"--timeout={PATIENCE_S}s")


def kill_every_server_and_shim(node: Node) -> None:
    victims = [*node.records(), *leftovers.shims(node.containerd_socket)]
    for victim in victims:
        os.kill(victim.pid, signal.SIGKILL)
    eventually(lambda: not any(is_alive(victim) for victim in victims), what="The death of every server")


@pytest.mark.parametrize("crashed", [False, True], ids=["running", "crashed"])
def test_down_leaves_no_trace(node: Node, image: str, crashed: bool) -> None:
    node.up()
    start_a_pod(image)
    forwarding_before = (NODE_STATE / "ip_forward.before").read_text()
    if crashed:
        kill_every_server_and_shim(node)
        assert {"mounts", "bridge", "cgroups", "rules"} <= traces().keys()  # else the crash would prove nothing
    node.down()
    assert traces() == {}
    assert Path("/proc/sys/net/ipv4/ip_forward").read_text() == forwarding_before


def test_up_after_a_crash_cleans_up_by_itself(node: Node, image: str) -> None:
    node.up()
    start_a_pod(image)
    kill_every_server_and_shim(node)
    node.up()
    assert node.status()
    assert get("pods")["items"] == []
    start_a_pod(image)
