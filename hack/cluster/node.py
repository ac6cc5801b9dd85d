"""The node: kubelet and kube-proxy on this machine, registered as the only node of the cluster."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from hack.cluster.binaries import ALL
from hack.cluster.cgroups import NODE_CGROUP
from hack.cluster.containerd import Containerd
from hack.cluster.controlplane import ControlPlane
from hack.cluster.network import GATEWAY, service_rules_exist
from hack.cluster.services import CLUSTER_DOMAIN

NODE_NAME = "dev"
# Under a cgroup of our own: whatever is in it is ours to end, and another kubelet's /kubepods is never touched.
CGROUP = f"/{NODE_CGROUP}"
KUBELET_PORTS = (10250, 10248)
KUBE_PROXY_PORTS = (10256, 10249)
NODE_MONITOR_GRACE_S = 16
"""How long the node may be silent before it counts as unreachable. Kubernetes' 50 s allow for networks between kubelet
and API server; here there is none, and tests wait for it."""


def start_kubelet(cluster: ControlPlane, containerd: Containerd, folder: Path) -> None:
    """Start the kubelet; it registers its node by itself. Return when the node is Ready."""
    certificate = cluster.issue("kubelet", common_name=f"system:node:{NODE_NAME}", organizations=["system:nodes"])
    serving = cluster.issue("kubelet-serving", common_name=NODE_NAME, hosts=[GATEWAY])
    kubeconfig = cluster.write_kubeconfig("kubelet", certificate)
    folder.mkdir(parents=True, exist_ok=True)
    configuration = {
        "kind": "KubeletConfiguration",
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "address": GATEWAY,
        "port": KUBELET_PORTS[0],
        "healthzBindAddress": "127.0.0.1",
        "healthzPort": KUBELET_PORTS[1],
        "tlsCertFile": str(serving.certificate),
        "tlsPrivateKeyFile": str(serving.key),
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(cluster.authority)},
        },
        "authorization": {"mode": "Webhook"},
        "clusterDNS": [GATEWAY],
        "clusterDomain": CLUSTER_DOMAIN,
        "containerRuntimeEndpoint": f"unix://{containerd.socket}",
        "podLogsDir": str(folder / "logs"),
        "volumePluginDir": str(folder / "plugins"),
        # The machine may be a container itself: cgroups of version 1, swap that cannot be turned off, no iptables.
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": CGROUP,
        "failCgroupV1": False,
        "failSwapOn": False,
        "enforceNodeAllocatable": [],
        "makeIPTablesUtilChains": False,
        # A developer's disk is usually rather full. Eviction would taint the only node; image garbage collection
        # would delete images that can only be built again.
        "evictionHard": {"memory.available": "100Mi"},
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
        "maxPods": 60,
        # A sign of life every quarter of it: five of them fit into NODE_MONITOR_GRACE_S.
        "nodeLeaseDurationSeconds": 12,
    }
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(configuration))
    cluster.processes.start(
        "kubelet",
        [
            ALL["kubelet"].path,
            f"--config={path}",
            f"--root-dir={folder}",
            f"--kubeconfig={kubeconfig}",
            f"--hostname-override={NODE_NAME}",
            f"--node-ip={GATEWAY}",
        ],
    )


def wait_until_ready(cluster: ControlPlane) -> None:
    """Return when the node is Ready, that is: when it takes pods, and Services lead somewhere."""
    cluster.processes.wait_until("kubelet", lambda: _is_ready(cluster), what="A Ready node")
    # Not its /healthz: that answers 200 before the first rules are written.
    cluster.processes.wait_until("kube-proxy", service_rules_exist, what="The Services' rules")


def start_kube_proxy(cluster: ControlPlane, folder: Path) -> None:
    """Start kube-proxy: Services become nftables rules on this machine."""
    folder.mkdir(parents=True, exist_ok=True)
    identity = cluster.issue("kube-proxy", common_name="system:kube-proxy")
    configuration = {
        "kind": "KubeProxyConfiguration",
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "mode": "nftables",
        "clientConnection": {"kubeconfig": str(cluster.write_kubeconfig("kube-proxy", identity))},
        "hostnameOverride": NODE_NAME,
        "bindAddress": GATEWAY,
        "healthzBindAddress": f"127.0.0.1:{KUBE_PROXY_PORTS[0]}",
        "metricsBindAddress": f"127.0.0.1:{KUBE_PROXY_PORTS[1]}",
        # All pods share one bridge: without masquerading, the answer of a pod behind a Service goes straight to the
        # client's pod, from an address that pod never called.
        "nftables": {"masqueradeAll": True},
        "conntrack": {"maxPerCore": 0, "min": 0},  # these settings belong to the machine, not to us
    }
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(configuration))
    cluster.processes.start("kube-proxy", [ALL["kube-proxy"].path, f"--config={path}"])


def _is_ready(cluster: ControlPlane) -> bool:
    status, body = cluster.api.request("GET", f"/api/v1/nodes/{NODE_NAME}")
    node: dict[str, Any] = json.loads(body) if status == 200 else {}
    conditions = node.get("status", {}).get("conditions", [])
    return any(condition["type"] == "Ready" and condition["status"] == "True" for condition in conditions)
