"""Removing what a node leaves in the kernel: containers, their shims, mounts and network.

One path for both an orderly end and a crash. It relies on marks that survive the death of whoever made a thing: the
node's cgroup, the socket address in a shim's arguments, the folder a mount lies under, the bridge's name.
"""

from __future__ import annotations

import ctypes
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from hack.cluster.cgroups import remove_node_cgroup
from hack.cluster.errors import ClusterError
from hack.cluster.network import remove_network
from hack.cluster.processes import ProcessRecord, end_process, start_of

_SHIM = "containerd-shim-runc-v2"
_DETACH = 2  # MNT_DETACH of mount(2)
_CONTAINER_LOG_LINKS = Path("/var/log/containers")  # the kubelet offers no setting for it


def remove_leftovers(state: Path, *, containerd_socket: Path, image_content: Path) -> None:
    """Remove every trace of a node whose servers have ended, then its state folder."""
    # Shims first: a living shim would report each killed container, and may be starting another one.
    for shim in shims(containerd_socket):
        end_process(shim, grace_s=0)
    remove_node_cgroup()
    unmount_below([state, image_content])
    remove_network(state)
    _remove_log_links(state)
    _remove_shim_sockets(state)
    shutil.rmtree(state)


def shims(containerd_socket: Path) -> list[ProcessRecord]:
    """The shims that serve the containerd on this socket; other containerds' are left alone."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # ended meanwhile
            arguments = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
            pid = int(entry.name)
            started = start_of(pid)
            if Path(arguments[0]).name == _SHIM and str(containerd_socket) in arguments and started:
                found.append(ProcessRecord(name=f"{_SHIM}-{pid}", pid=pid, started=started, log=""))
    return found


def mounts_below(folders: Iterable[Path]) -> list[Path]:
    """Mount points under `folders`, deepest first."""

    def mount_points() -> Iterator[Path]:
        for line in Path("/proc/self/mountinfo").read_text().splitlines():
            # Spaces and the like are written as octal escapes.
            yield Path(line.split()[4].encode().decode("unicode_escape"))

    wanted = list(folders)
    found = [point for point in mount_points() if any(point.is_relative_to(folder) for folder in wanted)]
    return sorted(found, key=lambda point: len(point.parts), reverse=True)


def unmount_below(folders: Iterable[Path]) -> None:
    """Unmount everything under `folders`. A mount still in use is detached and vanishes with its last user."""
    libc = ctypes.CDLL(None, use_errno=True)
    for point in mounts_below(folders):
        if libc.umount2(os.fsencode(point), _DETACH) != 0:
            reason = os.strerror(ctypes.get_errno())
            raise ClusterError(
                f"Cannot unmount {point}: {reason}. Unmount it by hand and run `make cluster-down` again."
            )


def _remove_log_links(state: Path) -> None:
    for link in _CONTAINER_LOG_LINKS.glob("*.log"):
        with suppress(OSError):
            if link.is_symlink() and str(link.readlink()).startswith(f"{state}/"):
                link.unlink()


def _remove_shim_sockets(state: Path) -> None:
    """Shims listen in /run/containerd/s, whatever containerd's state folder is; each says where in its bundle."""
    for bootstrap in state.glob("containerd/run/io.containerd.runtime.v2.task/*/*/bootstrap.json"):
        with suppress(OSError):
            address = bootstrap.read_text().partition("unix://")[2].partition('"')[0]
            if address:
                Path(address).unlink()
