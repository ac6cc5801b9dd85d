"""containerd: the program that pulls images and runs containers for the kubelet.

Its content (images, snapshots) lives in the cache and survives the cluster, so that a second start pulls nothing. What
it knows of *running* things lies in the cluster's state and goes with it.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
from pathlib import Path

from hack.cluster.binaries import ALL
from hack.cluster.errors import ClusterError
from hack.cluster.network import CNI_PLUGINS, write_cni_configuration
from hack.cluster.oci import write_image
from hack.cluster.paths import NODE_STATE, cache_folder
from hack.cluster.processes import ProcessTable

BUSYBOX = Path("/bin/busybox")  # Debian's busybox-static
NAMESPACE = "k8s.io"  # where containerd's Kubernetes side keeps everything

_CONFIGURATION = """\
version = 3
root = "{content}"
state = "{state}/run"
# These two serve other users and would open sockets and folders outside our state.
disabled_plugins = ["io.containerd.nri.v1.nri", "io.containerd.internal.v1.tracing"]

[grpc]
  address = "{socket}"

[plugins."io.containerd.internal.v1.opt"]
  path = "{state}/opt"

[plugins."io.containerd.cri.v1.images"]
  snapshotter = "overlayfs"
  # The registry on this machine keeps the layers; a second packed copy would cost gigabytes.
  discard_unpacked_layers = true
  [plugins."io.containerd.cri.v1.images".pinned_images]
    sandbox = "{sandbox_image}"
  [plugins."io.containerd.cri.v1.images".registry]
    config_path = "{state}/registries"

[plugins."io.containerd.cri.v1.runtime"]
  # Without CAP_SYS_RESOURCE (nested containers, many CI machines) an oom score cannot be lowered, and every sandbox
  # would fail with "can't get final child's PID from pipe: EOF".
  restrict_oom_score_adj = true
  # Network namespaces then lie in our state, where `down` finds them.
  netns_mounts_under_state_dir = true
  [plugins."io.containerd.cri.v1.runtime".cni]
    bin_dirs = ["{cni_plugins}"]
    conf_dir = "{state}/cni"
  [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
      SystemdCgroup = false
      Root = "{state}/runc"
"""


class Containerd:
    """containerd with its state in `state` and its images in `content`."""

    def __init__(self, *, state: Path, content: Path) -> None:
        self.state, self.content = state, content
        self.socket = state / "containerd.sock"

    @classmethod
    def of_the_node(cls) -> Containerd:
        """The one of this machine's node, running or not."""
        return cls(state=NODE_STATE / "containerd", content=cache_folder() / "containerd")

    def start(self, processes: ProcessTable, *, registry: str) -> None:
        """Start containerd and return when it answers. `registry` (host:port) is pulled from over plain http."""
        self.state.mkdir(parents=True, exist_ok=True)
        self.content.mkdir(parents=True, exist_ok=True)
        write_cni_configuration(self.state / "cni", state=self.state)
        self._allow_plain_http(registry)
        configuration = self.state / "config.toml"
        configuration.write_text(
            _CONFIGURATION.format(
                content=self.content,
                state=self.state,
                socket=self.socket,
                sandbox_image=sandbox_image(),
                cni_plugins=CNI_PLUGINS,
            )
        )
        self._run(processes, configuration)
        if self._forget_containers():
            # The CRI plugin loaded them at its start, and would report pods of a cluster that no longer exists.
            processes.stop_one("containerd")
            self._run(processes, configuration)
        self._import_sandbox_image()

    def _run(self, processes: ProcessTable, configuration: Path) -> None:
        # containerd finds its shim through PATH.
        path = f"{ALL['containerd-shim-runc-v2'].path.parent}:{os.environ['PATH']}"
        command: list[str | Path] = [ALL["containerd"].path, "--config", configuration]
        processes.start("containerd", command, environment={"PATH": path})
        processes.wait_until("containerd", self.answers, what="containerd")

    def ctr(self, *arguments: str | Path) -> str:
        """Run containerd's own client in the Kubernetes namespace; its standard output. Raises ClusterError."""
        result = self._ctr(*arguments)
        if result.returncode:
            raise ClusterError(f"ctr {' '.join(map(str, arguments))} failed: {result.stderr.strip()}")
        return result.stdout

    def _ctr(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        command = [ALL["ctr"].path, "--address", self.socket, "--namespace", NAMESPACE, *arguments]
        return subprocess.run(command, capture_output=True, text=True)

    def answers(self) -> bool:
        """Whether it takes requests."""
        return self.socket.exists() and self._ctr("version").returncode == 0

    def _forget_containers(self) -> bool:
        """Remove what an earlier cluster left in the content's database. Returns whether there was anything."""
        left = self.ctr("containers", "list", "--quiet").split()
        if left:
            self.ctr("containers", "delete", *left)
        return bool(left)

    def _import_sandbox_image(self) -> None:
        name = sandbox_image()
        if name not in self.ctr("images", "list", "--quiet").split():
            archive = self.state / "sandbox.tar"
            write_image(
                archive, name=name, files={"/bin/busybox": BUSYBOX}, command=["/bin/busybox", "sleep", "2147483647"]
            )
            self.ctr("images", "import", "--local", archive)
            archive.unlink()
        # Image garbage collection must never take it: no registry has it.
        self.ctr("images", "label", name, "io.cri-containerd.pinned=pinned", "io.cri-containerd.image=managed")

    def _allow_plain_http(self, registry: str) -> None:
        folder = self.state / "registries" / registry
        folder.mkdir(parents=True, exist_ok=True)
        host = f'[host."http://{registry}"]\n  capabilities = ["pull", "resolve"]\n'
        (folder / "hosts.toml").write_text(f'server = "http://{registry}"\n\n{host}')


def sandbox_image() -> str:
    """Name of the sandbox image, by the content of busybox: another busybox is another image."""
    return f"localhost/video-restoration/sandbox:{hashlib.sha256(BUSYBOX.read_bytes()).hexdigest()[:12]}"
