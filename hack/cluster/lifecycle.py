"""Starting, inspecting and ending the one node of this machine.

Who holds the node is written in `cluster.json`: bridge, ports and cgroup exist once, so a second checkout is refused
with the first one's name rather than left to fail in pieces. `up` is idempotent, and cleans up after a crash by itself.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from hack.cluster.binaries import CONTROL_PLANE, NODE
from hack.cluster.build import ensure_built
from hack.cluster.cgroups import create_node_cgroup
from hack.cluster.console import Console
from hack.cluster.containerd import Containerd
from hack.cluster.controlplane import ControlPlane, ControlPlaneSettings
from hack.cluster.errors import ClusterError
from hack.cluster.images import remove_builder_mounts
from hack.cluster.leftovers import mounts_below, remove_leftovers
from hack.cluster.locks import file_lock
from hack.cluster.network import GATEWAY, bridge_exists, create_bridge
from hack.cluster.node import NODE_MONITOR_GRACE_S, start_kube_proxy, start_kubelet, wait_until_ready
from hack.cluster.packages import NODE_PACKAGES, install
from hack.cluster.paths import CHECKOUT, DEV_FOLDER, NODE_STATE, cache_folder
from hack.cluster.ports import PortLeases, port_is_free
from hack.cluster.preflight import problems
from hack.cluster.processes import ProcessRecord, ProcessTable, is_alive
from hack.cluster.services import REGISTRY, start_dns, start_registry, start_s3, wait_for_dns, wait_for_s3


@dataclass(frozen=True)
class Holder:
    """The checkout whose node it is, and since when."""

    checkout: str
    since: str


class Node:
    """The node of this machine, running or not."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._processes = ProcessTable(NODE_STATE, bound_to_parent=False)
        self._containerd = Containerd.of_the_node()

    # -- commands -----------------------------------------------------------------------------------------------------

    def up(self) -> None:
        """Start what is missing for a working cluster. Raises ClusterError, with nothing left running, if it cannot."""
        with self._exclusively("starting the cluster"):
            if self._continues():
                return
            _refuse_unfit_machine()
            install(NODE_PACKAGES, self._console)
            _refuse_unfit_machine()  # some questions need a program that may only be there now
            ensure_built((*CONTROL_PLANE, *NODE), self._console)
            try:
                self._start()
            except BaseException as error:
                logs = self._keep_logs()
                self._remove()
                if isinstance(error, ClusterError):
                    raise ClusterError(
                        f"{error}\nEverything started was ended again; the logs are in {logs}."
                    ) from error
                raise

    def down(self, *, anyones: bool = False) -> None:
        """End the node and remove every trace. Does nothing if there is none.

        A running node of another checkout is refused, unless `anyones` says that whoever holds it has lost it.
        """
        with self._exclusively("ending the cluster"):
            if not self.exists():
                self._console.say("no cluster is running")
                return
            if not anyones:
                self._refuse_others()
            with self._console.step("ending the cluster"):
                self._remove()

    def status(self) -> bool:
        """Print what runs and where it answers. Returns whether everything does."""
        holder = self._holder()
        if holder is None:
            print("no cluster" + (", but leftovers of one; `make cluster-down` removes them" if self.exists() else ""))
            return False
        print(f"cluster of {holder.checkout}, since {holder.since}")
        records = self._processes.records()
        for record in records:
            state = "running" if is_alive(record) else f"ended; see {record.log}"
            print(f"  {record.name:26} {record.pid:>8}  {state}")
        for name, value in json.loads((NODE_STATE / "addresses.json").read_text()).items():
            print(f"  {name:26} {value}")
        return all(is_alive(record) for record in records)

    def exists(self) -> bool:
        """Whether a node, or anything of one that ended badly, is on this machine."""
        return bridge_exists() or bool(mounts_below([NODE_STATE])) or (NODE_STATE / "processes").exists()

    def is_running(self) -> bool:
        """Whether any of the node's servers lives; after a crash none does, whatever else is left."""
        return any(is_alive(record) for record in self._processes.records())

    def records(self) -> list[ProcessRecord]:
        """The servers that were started, dead or alive."""
        return self._processes.records()

    @property
    def containerd_socket(self) -> Path:
        """Where this node's containerd listens."""
        return self._containerd.socket

    # -- parts --------------------------------------------------------------------------------------------------------

    def _start(self) -> None:
        NODE_STATE.mkdir(parents=True, exist_ok=True, mode=0o700)
        holder = Holder(str(CHECKOUT), datetime.datetime.now().astimezone().isoformat(timespec="seconds"))
        (NODE_STATE / "cluster.json").write_text(json.dumps(asdict(holder)))
        step, processes = self._console.step, self._processes
        with step("network"):
            create_bridge(NODE_STATE)
            create_node_cgroup()
        with PortLeases(address=GATEWAY) as ports:
            s3 = start_s3(processes, NODE_STATE / "seaweedfs", ports=ports)  # slow to get ready, so first
            with step("image registry"):
                start_registry(processes, NODE_STATE / "registry", content=cache_folder() / "registry")
            with step("containerd"):
                self._containerd.start(processes, registry=REGISTRY)
            with step("control plane"):
                settings = ControlPlaneSettings(
                    folder=NODE_STATE,
                    address=GATEWAY,
                    with_node=True,
                    outlives_starter=True,
                    controller_flags=(f"--node-monitor-grace-period={NODE_MONITOR_GRACE_S}s",),
                )
                cluster = ControlPlane(settings).start(self._console)
            with step("node"):
                start_dns(cluster, NODE_STATE / "coredns")
                start_kube_proxy(cluster, NODE_STATE / "kube-proxy")
                start_kubelet(cluster, self._containerd, NODE_STATE / "kubelet")
                wait_for_dns(processes)
                wait_until_ready(cluster)
            with step("object storage"):
                wait_for_s3(processes, s3)
        (NODE_STATE / "s3.json").write_text(json.dumps(asdict(s3), indent=2))
        addresses = {"API server": cluster.server, "image registry": REGISTRY, "object storage": s3.endpoint}
        (NODE_STATE / "addresses.json").write_text(json.dumps(addresses))
        self._publish()

    def _publish(self) -> None:
        """Put what people need into the checkout: readable by its owner only, since credentials are among it."""
        DEV_FOLDER.mkdir(parents=True, exist_ok=True, mode=0o700)
        for source, name in (("admin.kubeconfig", "kubeconfig"), ("s3.json", "s3.json")):
            target = DEV_FOLDER / name
            shutil.copyfile(NODE_STATE / source, target)
            target.chmod(0o600)
        (DEV_FOLDER / "registry").write_text(REGISTRY + "\n")
        self._console.say(f"the cluster is up: export KUBECONFIG={DEV_FOLDER / 'kubeconfig'}")

    def _continues(self) -> bool:
        """Whether a healthy cluster of this checkout runs already. Removes one that crashed; refuses another's."""
        if not self.exists():
            return False
        self._refuse_others()
        records = self._processes.records()
        if (NODE_STATE / "addresses.json").exists() and all(is_alive(record) for record in records):
            self._publish()
            return True
        with self._console.step("removing what an earlier cluster left"):
            self._remove()
        return False

    def _refuse_others(self) -> None:
        holder = self._holder()
        if holder is None and bridge_exists() and not port_is_free(GATEWAY, int(REGISTRY.rsplit(":", 1)[1])):
            raise ClusterError(
                f"Servers of a node answer on {GATEWAY}, and this file system knows nothing of them: it was started in "
                "another container or mount namespace; run `make cluster-down` there."
            )
        if holder and self.is_running() and holder.checkout != str(CHECKOUT) and Path(holder.checkout).exists():
            raise ClusterError(
                f"This machine's node belongs to {holder.checkout} since {holder.since}; "
                f"run `make cluster-down` there, or use it: export KUBECONFIG={holder.checkout}/.dev/cluster/kubeconfig"
            )

    def _remove(self) -> None:
        # The kubelet first: it would start pods again that are being ended.
        self._processes.stop_one("kubelet")
        self._processes.stop_one("seaweedfs", grace_s=0)  # takes its time, and its data goes with the state anyway
        self._processes.stop()
        remove_leftovers(NODE_STATE, containerd_socket=self._containerd.socket, image_content=self._containerd.content)
        remove_builder_mounts()
        shutil.rmtree(DEV_FOLDER, ignore_errors=True)

    def _keep_logs(self) -> Path:
        """Move the servers' logs out of the state that is about to be removed."""
        target = cache_folder() / "logs-of-last-failure"
        shutil.rmtree(target, ignore_errors=True)
        with contextlib.suppress(FileNotFoundError):
            shutil.copytree(NODE_STATE / "logs", target)
        return target

    @contextlib.contextmanager
    def _exclusively(self, purpose: str) -> Iterator[None]:
        if os.geteuid() != 0:
            raise ClusterError(problems()[0])
        with file_lock(Path("/run/lock/video-restoration-cluster.lock"), purpose=purpose, console=self._console):
            yield

    def _holder(self) -> Holder | None:
        try:
            return Holder(**json.loads((NODE_STATE / "cluster.json").read_text()))
        except FileNotFoundError:
            return None


def _refuse_unfit_machine() -> None:
    found = problems()
    if found:
        raise ClusterError("\n".join(["This machine cannot run the cluster yet:", *(f"  {text}" for text in found)]))
