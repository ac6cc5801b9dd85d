"""The one network of a node: a bridge whose gateway address both the host and its pods can reach.

Everything that pods talk to (API server, DNS, registry, object storage) listens on the gateway's address, so the same
address works in a kubeconfig on the host and inside a pod. The bridge has a name of our own: whatever has it is ours
to delete, and another CNI's `cni0` is never touched.
"""

from __future__ import annotations

import ipaddress
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

BRIDGE = "vr-cluster0"
POD_NETWORK = ipaddress.ip_network("10.88.0.0/16")
GATEWAY = "10.88.0.1"
CNI_NETWORK = "video-restoration"
CNI_PLUGINS = Path("/usr/lib/cni")  # where Debian's containernetworking-plugins puts them
# Made by kube-proxy; it never removes them by itself, not even when it is stopped in good order.
NFT_TABLES = (("ip", "kube-proxy"), ("ip6", "kube-proxy"))
_IP_FORWARD = Path("/proc/sys/net/ipv4/ip_forward")
_CNI_RESULTS = Path("/var/lib/cni/results")  # libcni's cache; containerd offers no setting for it


def create_bridge(state: Path) -> None:
    """Make the bridge with its address, and let the kernel forward packets. Remembers what it changed in `state`."""
    _ip("link", "add", "name", BRIDGE, "type", "bridge")
    _ip("address", "add", f"{GATEWAY}/{POD_NETWORK.prefixlen}", "dev", BRIDGE)
    _ip("link", "set", "dev", BRIDGE, "up")
    (state / "ip_forward.before").write_text(_IP_FORWARD.read_text())
    _IP_FORWARD.write_text("1")


def write_cni_configuration(folder: Path, *, state: Path) -> None:
    """One conflist: each pod gets an address on the bridge. Outgoing packets are not masqueraded; nothing needs it."""
    plugin = {
        "type": "bridge",
        "bridge": BRIDGE,
        "isGateway": True,
        "hairpinMode": True,  # a pod may reach itself through its own Service
        "ipam": {
            "type": "host-local",
            "dataDir": str(state / "addresses"),
            "ranges": [[{"subnet": str(POD_NETWORK), "gateway": GATEWAY}]],
            "routes": [{"dst": "0.0.0.0/0"}],
        },
    }
    folder.mkdir(parents=True, exist_ok=True)
    document = {"cniVersion": "1.0.0", "name": CNI_NETWORK, "plugins": [plugin]}
    (folder / "10-bridge.conflist").write_text(json.dumps(document, indent=2))


def remove_network(state: Path) -> None:
    """Delete bridge and rules, restore forwarding. Works after a crash too; missing parts are fine."""
    if bridge_exists():
        _ip("link", "delete", "dev", BRIDGE)
    if shutil.which("nft"):
        for family, table in NFT_TABLES:
            subprocess.run(["nft", "delete", "table", family, table], capture_output=True)
    for result in _CNI_RESULTS.glob(f"{CNI_NETWORK}-*"):
        result.unlink(missing_ok=True)
    before = state / "ip_forward.before"
    if before.exists():
        _IP_FORWARD.write_text(before.read_text())


def service_rules_exist() -> bool:
    """Whether kube-proxy has written its rules; it does so once, in one transaction, when it knows every Service."""
    family, table = NFT_TABLES[0]
    return subprocess.run(["nft", "list", "table", family, table], capture_output=True).returncode == 0


def bridge_exists() -> bool:
    """Whether our bridge is there."""
    return Path("/sys/class/net", BRIDGE).exists()


def networks_in_the_way() -> list[str]:
    """`device network` of every route that overlaps ours: other people's bridges and VPNs."""
    routes: list[dict[str, Any]] = json.loads(_ip("-json", "route", "show"))
    found = []
    for route in routes:
        if route["dst"] == "default" or route.get("dev") == BRIDGE:
            continue
        if ipaddress.ip_network(route["dst"]).overlaps(POD_NETWORK):
            found.append(f"{route.get('dev', 'unknown')} {route['dst']}")
    return found


def _ip(*arguments: str) -> str:
    return subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True).stdout
