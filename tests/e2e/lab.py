"""What an end-to-end test does: put a clip into the bucket, apply a restoration, wait for it, look at what came out."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hack.demo.bucket import Bucket
from hack.demo.install import SECRET, STORAGE
from hack.demo.kubectl import Kubectl, Manifest
from hack.demo.stage import Stage
from hack.demo.watch import status_of, why

from restoration_api.resources.status import ConditionType, VideoRestorationStatus
from tests.builders.resources import make_profile, make_vr

FINISH_S = 600
"""Ends a broken run; no statement about speed."""


@dataclass(frozen=True)
class Lab:
    """One namespace and one folder of the bucket, both fresh. `folder` is for files on this machine."""

    stage: Stage
    kubectl: Kubectl
    bucket: Bucket
    prefix: str
    folder: Path

    def upload(self, path: Path) -> str:
        """Put a file into the bucket; returns its URI."""
        self.bucket.upload(path, self.prefix + path.name)
        return self.uri(path.name)

    def uri(self, name: str) -> str:
        """The URI of `name` in this test's folder of the bucket."""
        return self.bucket.uri(self.prefix + name)

    def apply(self, name: str, *, source: str, to: str, changes: dict[str, Any] | None = None) -> None:
        """`kubectl apply` of a restoration of `source` (URI) to `to` (name in this test's folder)."""
        wanted = {"input.uri": source, "output.uri": self.uri(to), **(changes or {})}
        self.kubectl.apply(make_vr(wanted, name=name, namespace=self.kubectl.namespace))

    def profile(self, name: str, changes: Mapping[str, Any]) -> dict[str, Any]:
        """Apply a RestorationProfile for the lab's store; returns what a restoration says to use it."""
        store = self.bucket.endpoint
        storage = {"name": STORAGE, "endpoint": store.from_pods, "region": store.region, "addressing": "Path"}
        known = {
            "storage": [storage | {"secretName": SECRET}],
            "resources.requests": {"cpu": "100m", "memory": "1Gi"},
            "scratch.sizeLimit": "2Gi",
        }
        spec = known | dict(changes)
        body = make_profile(spec, kind="RestorationProfile", name=name, namespace=self.kubectl.namespace)
        self.kubectl.apply(body)
        return {"profileRef.kind": "RestorationProfile", "profileRef.name": name}

    def finish(self, name: str) -> VideoRestorationStatus:
        """Wait as users do, with `kubectl wait`; returns the final status."""
        waiting = ["wait", "--for=condition=Finished", f"--timeout={FINISH_S}s", f"vr/{name}"]
        done = self.kubectl.attempt(*waiting, timeout_s=FINISH_S + 30)
        status = status_of(self.kubectl, name)
        assert done.returncode == 0, f"{done.stderr.strip()}; {why(status)}\n{self.story(name)}"
        return status

    def succeed(self, name: str) -> VideoRestorationStatus:
        """Wait for success, and fail with the whole story if it does not come."""
        status = self.finish(name)
        assert status.condition(ConditionType.SUCCEEDED) == "True", f"{why(status)}\n{self.story(name)}"
        return status

    def fail(self, name: str) -> tuple[str, str]:
        """Wait for failure; returns reason and message."""
        status = self.finish(name)
        [condition] = [item for item in status.conditions if item.type == ConditionType.SUCCEEDED]
        assert (condition.status, str(status.phase)) == ("False", "Failed"), f"{why(status)}\n{self.story(name)}"
        return condition.reason, condition.message

    def download(self, name: str) -> Path:
        """Fetch `name` from this test's folder of the bucket."""
        path = self.folder / f"out-{name}"
        self.bucket.download(self.prefix + name, path)
        return path

    def objects(self, suffix: str = "") -> dict[str, str]:
        """ETags of this test's objects whose keys end in `suffix`."""
        found = self.bucket.endpoint.client().list_objects(self.bucket.name, prefix=self.prefix, recursive=True)
        etags = {item.object_name or "": item.etag or "" for item in found}
        return {key: etag for key, etag in etags.items() if key.endswith(suffix)}

    def pods(self, name: str) -> list[Manifest]:
        """Runner pods of a restoration."""
        found = self.kubectl.get("vr", name)
        assert found is not None
        return list(self.kubectl.list("pods", selector=f"videorestoration.dev/uid={found['metadata']['uid']}"))

    def runner_processes(self, name: str) -> list[int]:
        """Ids of every process of the restoration's running container, on the node."""
        assert self.stage.nodes_are_local, "needs the development cluster: its node's processes are looked at"
        [pod] = [item for item in self.pods(name) if item["metadata"]["labels"]["videorestoration.dev/role"] == "run"]
        container = pod["status"]["containerStatuses"][0]["containerID"].removeprefix("containerd://")
        found = [int(process.name) for process in Path("/proc").glob("[0-9]*") if _belongs_to(process, container)]
        assert found, f"no process of container {container} was found"
        return found

    def story(self, name: str) -> str:
        """Everything that helps to understand a failure."""
        described = self.kubectl.attempt("describe", "vr,jobs,pods").stdout
        logs = self.kubectl.attempt("logs", "--selector=app.kubernetes.io/managed-by=vr-operator", "--tail=30").stdout
        operator = self.kubectl.in_namespace("video-restoration")
        decisions = operator.attempt("logs", "--selector=app.kubernetes.io/component=operator", "--tail=60").stdout
        parts = {f"objects of {name}": described[-6000:], "runner": logs[-4000:], "operator": decisions[-6000:]}
        return "\n".join(f"--- {title}\n{text}" for title, text in parts.items())


def _belongs_to(process: Path, container: str) -> bool:
    try:
        return container in (process / "cgroup").read_text()
    except OSError:  # it ended while we looked
        return False


def eventually(holds: Callable[[], object], *, what: str) -> None:
    """Poll until `holds` is true. The limit only ends a broken run."""
    deadline = time.monotonic() + FINISH_S
    while not holds():
        assert time.monotonic() < deadline, f"{what} did not happen within {FINISH_S} s"
        time.sleep(0.2)
