"""What a real node does to work that runs, and what is left of it: time is lost, work is not.

Each case disturbs a restoration of one clip that has finished some of its segments, in a way of its own. It ends with
the class that says what happened, or with an output whose bytes are those of a restoration that nobody disturbed; what
was finished before is never made again. docs/operations.md tells users the same, case by case.

Cases that hit one pod run at the same time; those that hit the node have it for themselves.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any

import pytest
from hack.cluster.node import NODE_NAME
from hack.cluster.outages import without
from hack.demo.install import OPERATOR_NAMESPACE
from hack.demo.kubectl import Kubectl
from hack.demo.watch import status_of

from restoration_api.outcome import Verdict
from restoration_api.resources.status import ConditionType, VideoRestorationStatus
from tests.builders import clips
from tests.builders.clips import Clip
from tests.e2e.conftest import Installation, opened_lab
from tests.e2e.lab import Lab, eventually

pytestmark = pytest.mark.timeout(1500)

CLIP = Clip(frames=121, width=48, height=32)
SHORT_SEGMENTS = {"execution.segmentFrames": 20, "cleanup.segments": "Retain"}
SOON = {"retryPolicy": {"backoffSeconds": 1}}
TOO_LITTLE = "192Mi"
"""Of memory: planning needs less, loading the model needs more."""
NO_IMAGE = "no-such-runner:1"
DOWN_S = 5
"""After which the object store is started again; it then takes some 15 seconds to its first write."""
NO_PATIENCE = [
    {"key": f"node.kubernetes.io/{state}", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 0}
    for state in ("unreachable", "not-ready")
]


@pytest.fixture(scope="module")
def lab(installation: Installation, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """One for all cases, so that they share the clip and the undisturbed run."""
    if not installation.stage.nodes_are_local:
        pytest.skip("needs the development cluster: it stops parts of the node")
    with opened_lab(installation, tmp_path_factory.mktemp("disruptions")) as found:
        yield found


@dataclass(frozen=True)
class Scene:
    """The clip in the bucket, and a restoration of it that is left in peace."""

    lab: Lab
    source: str
    profile: Mapping[str, Any]
    """Asks for no processor time, so that several restorations run at once on a small machine."""

    def begin(self, name: str, **changes: Any) -> None:
        """Apply a restoration that writes into a folder of its own."""
        wanted = {**SHORT_SEGMENTS, **self.profile, **changes}
        self.lab.apply(name, source=self.source, to=f"{name}/out.mp4", changes=wanted)

    def segments(self, name: str) -> dict[str, str]:
        """ETags of the markers of a restoration's finished segments."""
        found = self.lab.objects(".json")
        return {key: etag for key, etag in found.items() if f"/{name}/.vr/" in key and "/seg/" in key}

    def await_work(self, *names: str) -> dict[str, dict[str, str]]:
        """Wait until each has finished something; most is left to do then. Their markers."""
        return self.disturb({name: lambda name: lambda: None for name in names})

    def disturb(self, plans: Mapping[str, Callable[[str], Callable[[], None]]]) -> dict[str, dict[str, str]]:
        """Disturb each restoration once it has finished something. The markers it then had.

        A plan is made when the user sees the restoration running and carried out at its first segment: without further
        questions, for it goes on meanwhile.
        """
        actions: dict[str, Callable[[], None]] = {}
        before: dict[str, dict[str, str]] = {}

        def done() -> bool:
            for name in plans.keys() - before.keys():
                if name in actions and self.segments(name):
                    actions[name]()
                    before[name] = self.segments(name)
                elif name not in actions and scheduled(self.lab, name) == "Running":
                    actions[name] = plans[name](name)
            return before.keys() == plans.keys()

        eventually(done, what=f"a finished segment of each of {', '.join(plans)}")
        return before

    def pod(self, name: str) -> str:
        """Name of the pod that restores now."""
        [pod] = [pod for pod in self.lab.pods(name) if pod["status"]["phase"] == "Running"]
        found: str = pod["metadata"]["name"]
        return found

    def bytes_of(self, name: str) -> str:
        """SHA-256 of the output."""
        return hashlib.sha256(self.lab.download(f"{name}/out.mp4").read_bytes()).hexdigest()

    def is_whole(self, name: str, before: Mapping[str, str]) -> VideoRestorationStatus:
        """It succeeded: verified, byte for byte as if nothing had happened, with the segments it had `before`."""
        status = self.lab.succeed(name)
        assert status.output is not None and status.output.verification is not None
        assert status.output.verification.verdict is Verdict.PASSED
        after = self.segments(name)
        assert 1 <= len(before) < len(after), "it was disturbed too early or too late to show anything"
        assert before.items() <= after.items(), "a finished segment was made again"
        self.lab.succeed("quiet")
        assert self.bytes_of(name) == self.bytes_of("quiet")
        return status


@pytest.fixture(scope="module")
def scene(lab: Lab) -> Scene:
    source = lab.upload(clips.write(lab.folder / "long.mp4", CLIP))
    found = Scene(lab, source, lab.profile("plain", {}))
    found.begin("quiet")
    nowhere = lab.profile("imageless", {"image": f"{lab.stage.registry}/{NO_IMAGE}"})
    found.begin("imageless", **nowhere, startDeadlineSeconds=60)  # it fails while the other cases take their time
    return found


def scheduled(lab: Lab, name: str) -> str | None:
    """Reason of the condition `Scheduled`."""
    conditions = status_of(lab.kubectl, name).conditions
    return next((item.reason for item in conditions if item.type == ConditionType.SCHEDULED), None)


def ends(status: VideoRestorationStatus) -> list[str | None]:
    """How the executions ended, in their order."""
    return [item.reason for item in status.attempt_history]


def counted(status: VideoRestorationStatus) -> tuple[int, int, int, int]:
    """Executions, and what is charged to each budget: retries, infrastructure, disruptions."""
    found = status.attempts
    return found.executions, found.retries, found.infrastructure_retries, found.disruptions


def kill(processes: list[int]) -> None:
    """SIGKILL, from outside of the container."""
    for process in processes:
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)


def evict(kubectl: Kubectl, pod: str) -> None:
    """Through the eviction API, as `kubectl drain`, an autoscaler or a descheduler does it."""
    metadata = {"name": pod, "namespace": kubectl.namespace}
    body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": metadata}
    path = f"/api/v1/namespaces/{kubectl.namespace}/pods/{pod}/eviction"
    kubectl.run("create", f"--raw={path}", "--filename=-", stdin=json.dumps(body))


def delete(kubectl: Kubectl, pod: str) -> None:
    """By hand, as somebody does who means well."""
    kubectl.run("delete", "pod", pod, "--wait=false")


def test_pods_that_are_killed_evicted_deleted_or_short_of_memory(scene: Scene) -> None:
    lab = scene.lab
    small = lab.profile("small", {"resources": {"limits": {"memory": TOO_LITTLE}}})
    scene.begin("little", **small, **SOON)
    plans = {
        "killed": lambda name: partial(kill, lab.runner_processes(name)),
        "evicted": lambda name: partial(evict, lab.kubectl, scene.pod(name)),
        "deleted": lambda name: partial(delete, lab.kubectl, scene.pod(name)),
    }
    for name in plans:
        scene.begin(name, **SOON)
    before = scene.disturb(plans)

    killed = scene.is_whole("killed", before["killed"])
    assert (ends(killed), counted(killed)) == (["Unknown", "Completed"], (2, 1, 0, 0))
    assert killed.attempt_history[0].exit_code == 137
    deleted = scene.is_whole("deleted", before["deleted"])
    assert (ends(deleted), counted(deleted)) == (["PodDeleted", "Completed"], (2, 0, 0, 1))
    # The Job itself makes another pod: the place in a queue is kept, and it is no execution of its own.
    evicted = scene.is_whole("evicted", before["evicted"])
    assert (ends(evicted), counted(evicted)) == (["Completed"], (1, 0, 0, 1))

    reason, message = lab.fail("little")
    little = status_of(lab.kubectl, "little")
    assert (reason, counted(little)) == ("HostOutOfMemory", (2, 1, 0, 0))
    assert "OOMKilled" in message and "resources.limits.memory" in message
    assert ends(little) == ["HostOutOfMemory", "HostOutOfMemory"]
    first, second = little.attempt_history
    assert (first.memory_hint_mib, second.memory_hint_mib) == (None, 96)
    assert "--memory-hint-mib=96" in arguments_of(lab, second.job_name)


def arguments_of(lab: Lab, job: str | None) -> list[str]:
    found = lab.kubectl.get("job", job or "")
    assert found is not None
    arguments: list[str] = found["spec"]["template"]["spec"]["containers"][0]["args"]
    return arguments


def test_the_container_runtime_is_away_for_a_while(scene: Scene) -> None:
    """Containers need it to begin and to be told of when they end: one finishes meanwhile, another one is killed."""
    scene.begin("worked-on", **SOON)
    scene.begin("died", **SOON)
    before = scene.await_work("worked-on", "died")
    dying = scene.lab.runner_processes("died")
    with without("containerd"):
        kill(dying)
        eventually(lambda: scene.lab.objects("worked-on/out.mp4"), what="an output made without container runtime")
    worked_on = scene.is_whole("worked-on", before["worked-on"])
    assert (ends(worked_on), counted(worked_on)) == (["Completed"], (1, 0, 0, 0))
    died = scene.is_whole("died", before["died"])
    # containerd does not know how it ended (Unknown, 255), so the bucket was asked whether there is an output.
    assert (ends(died), counted(died)) == (["NodeShutdown", "Completed"], (2, 0, 0, 1))
    assert "segments are finished and kept" in (died.attempt_history[0].message or "")


def test_object_storage_is_down_for_twenty_seconds(scene: Scene) -> None:
    """With the retries that somebody has who says nothing about them."""
    scene.begin("storeless")
    before = scene.await_work("storeless")["storeless"]
    with without("seaweedfs"):
        time.sleep(DOWN_S)
    status = scene.is_whole("storeless", before)
    assert set(ends(status)[:-1]) == {"StorageError"}, ends(status)
    assert status.attempts.retries == status.attempts.executions - 1
    assert (status.attempts.infrastructure_retries, status.attempts.disruptions) == (0, 0)
    sentence = status.attempt_history[0].message or ""
    assert scene.lab.bucket.endpoint.from_pods in sentence


def test_the_node_is_drained_with_the_operator_on_it(scene: Scene) -> None:
    """Nobody sees the pod end; who comes back finds the Job's next pod and counts what happened."""
    operator = scene.lab.kubectl.in_namespace(OPERATOR_NAMESPACE)
    scene.begin("drained", **SOON)
    scene.await_work("drained")
    try:
        options = ("--ignore-daemonsets", "--delete-emptydir-data", "--timeout=120s")
        said = scene.lab.kubectl.run("drain", NODE_NAME, *options, timeout_s=150)
        before = scene.segments("drained")
        assert f"evicting pod {OPERATOR_NAMESPACE}/" in said
        assert not [pod for pod in scene.lab.pods("drained") if pod["status"]["phase"] == "Running"]
    finally:
        scene.lab.kubectl.run("uncordon", NODE_NAME)
        deployment = "--selector=app.kubernetes.io/component=operator"
        operator.run("wait", "--for=condition=Available", "deployment", deployment, "--timeout=180s", timeout_s=200)
    status = scene.is_whole("drained", before)
    assert (ends(status), counted(status)) == (["Completed"], (1, 0, 0, 1))


def test_an_image_that_does_not_exist_by_the_start_deadline(scene: Scene) -> None:
    reason, message = scene.lab.fail("imageless")
    assert reason == "StartDeadlineExceeded"
    assert "before the start deadline" in message and NO_IMAGE in message
    imageless = status_of(scene.lab.kubectl, "imageless")
    assert counted(imageless) == (1, 0, 0, 0)
    assert not scene.lab.objects("imageless/out.mp4")


@contextmanager
def another_node(kubectl: Kubectl) -> Iterator[None]:
    """A second node that is alive and takes no pods: from the last living node Kubernetes evicts nothing."""
    name, stop = "bystander", threading.Event()
    spec = {"unschedulable": True}
    kubectl.apply({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}, "spec": spec})
    ready = {"type": "Ready", "status": "True", "reason": "Test", "message": "a node without machine"}

    def live() -> None:
        while not stop.is_set():
            now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
            lease = {"holderIdentity": name, "leaseDurationSeconds": 40, "renewTime": now}
            metadata = {"name": name, "namespace": "kube-node-lease"}
            kubectl.in_namespace("kube-node-lease").apply(
                {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata, "spec": lease}
            )
            stop.wait(2)

    heart = threading.Thread(target=live, name=name)
    try:
        heart.start()
        patch = json.dumps({"status": {"conditions": [ready]}})
        kubectl.run("patch", "node", name, "--subresource=status", "--type=merge", f"--patch={patch}")
        yield
    finally:
        stop.set()
        heart.join()
        kubectl.run("delete", "node", name)
        kubectl.in_namespace("kube-node-lease").run("delete", "lease", name)


def test_the_kubelet_is_stopped_for_good(scene: Scene) -> None:
    """Two restorations are lost. The runner of one died with its node; that of the other works on, and nobody knows.

    With a second node they would go on there; here the next executions wait until the kubelet is back.
    """
    lab = scene.lab
    pod = {"tolerations": NO_PATIENCE, "terminationGracePeriodSeconds": 1}
    hasty = lab.profile("hasty", {"pod": pod})
    names = ("dead", "unseen")
    for name in names:
        scene.begin(name, **hasty, **SOON)
    with another_node(lab.kubectl):
        scene.await_work(*names)
        dying = lab.runner_processes("dead")
        with without("kubelet"):
            kill(dying)
            before = {name: scene.segments(name) for name in names}
            for name in names:
                eventually(lambda name=name: is_lost(lab, name), what=f"{name}: lost, and the next execution waits")
    for name in names:
        status = scene.is_whole(name, before[name])
        assert status.attempt_history[0].reason == "NodeLost"
        assert f"node {NODE_NAME} is not ready" in (status.attempt_history[0].message or "")
        # The node's taint may outlive its return by a moment: a pod that comes at once is evicted again.
        evicted = pods_made(lab, status.job_name or "") - 1
        assert counted(status) == (2, 0, 0, 1 + evicted)


def pods_made(lab: Lab, job: str) -> int:
    """Pods that a Job had one after another, as its Events tell."""
    wanted = f"involvedObject.kind=Job,involvedObject.name={job},reason=SuccessfulCreate"
    return len(lab.kubectl.run("get", "events", f"--field-selector={wanted}", "--output=name").split())


def is_lost(lab: Lab, name: str) -> bool:
    """Whether the first execution is declared lost, and the pod of the second has no node to run on."""
    status = status_of(lab.kubectl, name)
    lost = ends(status)[:1] == ["NodeLost"] and status.attempts.executions == 2
    return lost and scheduled(lab, name) == "Unschedulable"
