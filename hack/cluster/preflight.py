"""Whether this machine can run a node, asked before anything on it is changed.

Each finding is one sentence with its remedy. All are reported at once: fixing one prerequisite only to be told of the
next is what makes people give up.
"""

from __future__ import annotations

import os
import shutil
import socket
import struct
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from hack.cluster.binaries import CONTROL_PLANE, NODE
from hack.cluster.build import missing
from hack.cluster.cgroups import NEEDED_CONTROLLERS, hierarchies
from hack.cluster.images import REPOSITORY
from hack.cluster.leftovers import mounts_below
from hack.cluster.network import GATEWAY, POD_NETWORK, networks_in_the_way
from hack.cluster.node import KUBE_PROXY_PORTS, KUBELET_PORTS
from hack.cluster.paths import NODE_STATE, cache_folder
from hack.cluster.ports import port_is_free
from hack.cluster.services import DNS_PORT, REGISTRY, S3_PORT

GIB = 2**30


@dataclass(frozen=True)
class Port:
    """A fixed port of the node and the server that wants it."""

    number: int
    server: str
    address: str = GATEWAY
    kind: socket.SocketKind = socket.SOCK_STREAM


FIXED_PORTS = (
    Port(6443, "kube-apiserver"),
    Port(int(REGISTRY.split(":")[1]), "the image registry"),
    Port(S3_PORT, "the S3 server"),
    Port(DNS_PORT, "CoreDNS"),
    Port(DNS_PORT, "CoreDNS", kind=socket.SOCK_DGRAM),
    Port(KUBELET_PORTS[0], "the kubelet"),
    Port(KUBELET_PORTS[1], "the kubelet", "127.0.0.1"),
    *(Port(number, "kube-proxy", "127.0.0.1") for number in KUBE_PROXY_PORTS),
)


def problems() -> list[str]:
    """Everything that keeps a node from starting here; empty if it can. Changes nothing."""
    if os.geteuid() != 0:
        return ["A node needs root: kubelet and containerd make mounts, cgroups and network devices; run this as root."]
    return [*_kernel(), *_cgroups(), *_network(), *_ports(), *_disk()]


def _kernel() -> Iterator[str]:
    if "\toverlay\n" not in Path("/proc/filesystems").read_text() and not _loads("overlay"):
        yield "The kernel has no overlay file system, which containers need; load it with `modprobe overlay`."
    # A mount namespace with its own propagation, as runc makes one for every container.
    if subprocess.run(["unshare", "--mount", "true"], capture_output=True).returncode != 0:
        if Path("/") in mounts_below([Path("/")]):
            yield "File systems cannot be mounted here; use a virtual machine, or a container with CAP_SYS_ADMIN."
        else:
            yield "Containers cannot start in a chroot that is no mount point; bind-mount its folder onto itself first."
    # In a network namespace of its own, so that nothing is left of the attempt.
    attempt = ["unshare", "--net", "ip", "link", "add", "name", "probe", "type", "bridge"]
    if shutil.which("ip") and subprocess.run(attempt, capture_output=True).returncode != 0:
        yield "A network bridge cannot be made here; load the module with `modprobe bridge`, or allow CAP_NET_ADMIN."
    if not nftables_answers():
        yield "The kernel has no nftables, which kube-proxy needs; load it with `modprobe nf_tables`."


def _cgroups() -> Iterator[str]:
    mounted = frozenset[str]().union(*(hierarchy.controllers for hierarchy in hierarchies()))
    absent = sorted(NEEDED_CONTROLLERS - mounted)
    if absent:
        yield f"The cgroup controllers {', '.join(absent)} are not mounted under /sys/fs/cgroup; mount or enable them."


def _network() -> Iterator[str]:
    if shutil.which("ip"):
        for other in networks_in_the_way():
            yield f"The network {POD_NETWORK} of the pods overlaps {other} of this machine; take that one down."


def _ports() -> Iterator[str]:
    for port in FIXED_PORTS:
        if not port_is_free(port.address, port.number, kind=port.kind):
            kind = "UDP" if port.kind is socket.SOCK_DGRAM else "TCP"
            remedy = f"find who has it with `ss -lnp 'sport = :{port.number}'` and end it"
            yield f"{kind} port {port.number}, which {port.server} needs, is in use on {port.address}; {remedy}."


def _disk() -> Iterator[str]:
    needs: dict[int, tuple[Path, int]] = {}
    for folder, size in ((cache_folder(), disk_needed_in_cache_bytes()), (NODE_STATE, 2 * GIB)):
        existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
        device = existing.stat().st_dev
        needs[device] = (existing, needs.get(device, (existing, 0))[1] + size)
    for existing, size in needs.values():
        free = shutil.disk_usage(existing).free
        if free < size:
            yield (
                f"The disk of {existing} has {free / GIB:.0f} GiB free, and what is still to be built needs "
                f"{size / GIB:.0f} GiB; free some, or set XDG_CACHE_HOME to a folder on a larger disk."
            )


def disk_needed_in_cache_bytes() -> int:
    """What is still to be written to the cache. The sizes are measured, rounded up."""
    size = 0
    if missing(CONTROL_PLANE):
        size += 8 * GIB  # Go modules and compile cache of a cold build of Kubernetes
    if missing(NODE):
        size += 2 * GIB
    repositories = cache_folder() / "registry" / "docker" / "registry" / "v2" / "repositories"
    if not (repositories / REPOSITORY / "runner").exists():
        size += 17 * GIB  # the runner's image: in the builder, in the registry, in containerd, unpacked
    return size


def nftables_answers() -> bool:
    """Ask the kernel for the generation of its nftables rules: a question that any kernel with nftables answers."""
    getgen, request, subsystem = 16, 1, 10
    message = struct.pack("=IHHII", 20, subsystem << 8 | getgen, request, 1, 0) + struct.pack("=BBH", 0, 0, 0)
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12) as netlink:  # NETLINK_NETFILTER
            netlink.settimeout(2)
            netlink.send(message)
            answer = netlink.recv(4096)
    except OSError:
        return False
    error_type = 2  # NLMSG_ERROR
    return int(struct.unpack_from("=H", answer, 4)[0]) != error_type


def _loads(module: str) -> bool:
    """Whether the kernel could load `module`; a dry run."""
    found = shutil.which("modprobe")
    return found is not None and subprocess.run([found, "--dry-run", module], capture_output=True).returncode == 0
