"""The cgroup subtree of the node: what runs in it is a container of ours, whoever its parent has become.

A crash can kill kubelet, containerd and shims in any order; the containers' processes then belong to process 1. Their
cgroup is the one mark they cannot lose, so it is how `down` finds them. Works on cgroups of version 1 (one hierarchy
per controller), 2 and the hybrid of both.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from hack.cluster.errors import ClusterError

NODE_CGROUP = "video-restoration"
NEEDED_CONTROLLERS = frozenset({"cpu", "cpuset", "memory", "pids"})
_PATIENCE_S = 20


@dataclass(frozen=True)
class Hierarchy:
    """A mounted cgroup file system."""

    mount: Path
    version: int
    controllers: frozenset[str]


def hierarchies() -> list[Hierarchy]:
    """All cgroup hierarchies mounted on this machine."""
    found = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        left, _, right = line.partition(" - ")
        kind, _, options = right.split(" ", 2)
        mount = Path(left.split()[4])
        if kind == "cgroup":
            found.append(Hierarchy(mount, 1, frozenset(options.split(","))))
        elif kind == "cgroup2":
            found.append(Hierarchy(mount, 2, frozenset((mount / "cgroup.controllers").read_text().split())))
    return found


def create_node_cgroup() -> None:
    """Make the node's cgroup in every hierarchy; the kubelet wants to find it there."""
    for hierarchy in hierarchies():
        node = hierarchy.mount / NODE_CGROUP
        if hierarchy.version == 2:
            _delegate(hierarchy.mount)
            node.mkdir(exist_ok=True)
            _delegate(node)
            continue
        node.mkdir(exist_ok=True)
        if "cpuset" in hierarchy.controllers:  # a new cpuset of version 1 is empty and takes no process
            for setting in ("cpuset.cpus", "cpuset.mems"):
                (node / setting).write_text((hierarchy.mount / setting).read_text())


def remove_node_cgroup() -> None:
    """Kill every process in the node's cgroup and remove it. Nothing happens if it is not there."""
    deadline = time.monotonic() + _PATIENCE_S
    while members := set(_members()):
        for pid in members:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if time.monotonic() > deadline:
            raise ClusterError(
                f"Processes {sorted(members)} of old pods do not end; they hang in the kernel, see `dmesg`."
            )
        time.sleep(0.05)
    for node in _node_cgroups():
        for folder, _, _ in os.walk(node, topdown=False):
            with suppress(FileNotFoundError):
                Path(folder).rmdir()


def _node_cgroups() -> list[Path]:
    candidates = [hierarchy.mount / NODE_CGROUP for hierarchy in hierarchies()]
    return [candidate for candidate in candidates if candidate.exists()]


def _members() -> Iterator[int]:
    for node in _node_cgroups():
        for processes in node.rglob("cgroup.procs"):
            with suppress(OSError):  # the cgroup went away between listing and reading
                yield from (int(line) for line in processes.read_text().split())


def _delegate(folder: Path) -> None:
    controllers = (folder / "cgroup.controllers").read_text().split()
    with suppress(OSError):  # in the hybrid layout this hierarchy has no controllers to give
        (folder / "cgroup.subtree_control").write_text(" ".join(f"+{controller}" for controller in controllers))
