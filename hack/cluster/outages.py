"""Taking one server of the running node away for a while, as crashes and maintenance do, and bringing it back.

The node is shared. So whatever happens in between, the server runs again afterwards, started as it was the first time;
and should this process be killed before that, the next `up` finds a server that ended and builds the cluster anew.
"""

from __future__ import annotations

import http.client
import json
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Literal

from hack.cluster.binaries import ALL
from hack.cluster.containerd import Containerd
from hack.cluster.node import KUBELET_PORTS, NODE_NAME
from hack.cluster.paths import NODE_STATE
from hack.cluster.processes import ProcessTable
from hack.cluster.s3 import S3Endpoint

Server = Literal["containerd", "kubelet", "seaweedfs"]

GRACE_S: Final = {"containerd": 10.0, "kubelet": 0.0, "seaweedfs": 0.0}
"""After SIGTERM, before SIGKILL. SeaweedFS waits half a minute for clients that keep their connections, and its data
survive; the kubelet need not take leave, which would give a runner time to finish."""


@contextmanager
def without(server: Server) -> Iterator[None]:
    """The node without this server, for as long as the context lasts; then with it, and in working order.

    Containers go on without kubelet and containerd. Raises ClusterError if the server does not come back.
    """
    processes = ProcessTable(NODE_STATE, bound_to_parent=False)
    processes.end(server, grace_s=GRACE_S[server])
    try:
        yield
    finally:
        processes.start_again(server)
        processes.wait_until(server, _WORKS[server], what=f"A working {server}")
        processes.wait_until("kubelet", _node_takes_pods, what="A node that takes pods")


def _kubelet_works() -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", KUBELET_PORTS[1], timeout=5)
    try:
        connection.request("GET", "/healthz")
        return connection.getresponse().status == 200
    finally:
        connection.close()


def _store_works() -> bool:
    return S3Endpoint(**json.loads((NODE_STATE / "s3.json").read_text())).takes_writes()


_WORKS: Final[dict[str, Callable[[], bool]]] = {
    "containerd": lambda: Containerd.of_the_node().answers(),
    "kubelet": _kubelet_works,
    "seaweedfs": _store_works,
}


def _node_takes_pods() -> bool:
    """Ready, and without a taint that a silent kubelet or runtime brought."""
    access = f"--kubeconfig={NODE_STATE / 'admin.kubeconfig'}"
    command: list[str | Path] = [ALL["kubectl"].path, access, "get", "node", NODE_NAME, "--output=json"]
    answer = subprocess.run(command, capture_output=True, text=True)
    if answer.returncode:
        return False
    node = json.loads(answer.stdout)
    ready = any(item["type"] == "Ready" and item["status"] == "True" for item in node["status"]["conditions"])
    keys = {taint["key"] for taint in node["spec"].get("taints", [])}
    return ready and not keys & {"node.kubernetes.io/unreachable", "node.kubernetes.io/not-ready"}
