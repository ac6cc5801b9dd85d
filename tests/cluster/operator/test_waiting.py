"""Why is it waiting: every cause that a control plane alone can produce is produced, and read from the status.

Quota, Pod Security, service accounts, limits, the scheduler and the Job controller are real; what a kubelet would say
is put into pod status and Events by the test (the real kubelet's turn is in `tests/e2e/test_waiting.py`). All causes
wait at once: the operator has patience with each, and so would the tests have, one after the other.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from hack.cluster.controlplane import ControlPlane
from tests.builders.kubelet import Kubelet
from tests.builders.live_api import GROUP_PATH, ApiServer, Json, condition, eventually
from tests.builders.operator_process import OperatorProcess
from tests.builders.resources import make_profile, make_vr

pytestmark = [pytest.mark.xdist_group("operator")]
CLAIM: Json = {"accessModes": ["ReadOnlyMany"], "resources": {"requests": {"storage": "1Gi"}}}
OTHER_ARCHITECTURE = {"pod.nodeSelector": {"kubernetes.io/arch": "riscv64"}}


@dataclass(frozen=True)
class Cause:
    """Something that keeps a restoration from running."""

    reason: str
    message: str
    profile: dict[str, Any] = field(default_factory=dict)
    objects: tuple[Json, ...] = ()
    labels: dict[str, str] = field(default_factory=dict)
    """Of the namespace."""


def quota(**hard: str) -> Json:
    return {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "limits"}, "spec": {"hard": hard}}


def claim(name: str, **spec: Any) -> Json:
    body = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name}}
    return body | {"spec": CLAIM | spec}


LIMITS: Json = {
    "apiVersion": "v1",
    "kind": "LimitRange",
    "metadata": {"name": "small"},
    "spec": {"limits": [{"type": "Container", "max": {"memory": "16Mi"}, "default": {"memory": "16Mi"}}]},
}

CAUSES: dict[str, Cause] = {
    "quota": Cause("PodRejected", "exceeded quota: limits", objects=(quota(pods="0"),)),
    "quota-wants-limits": Cause(
        "PodRejected", "failed quota: limits: must specify", objects=(quota(**{"limits.cpu": "8"}),)
    ),
    "limit-range": Cause(
        "PodRejected",
        "maximum memory usage per Container is 16Mi",
        profile={"resources": {"requests": {"memory": "1Gi"}, "limits": {"memory": "1Gi"}}},
        objects=(LIMITS,),
    ),
    "pod-security": Cause(
        "PodRejected",
        "violates PodSecurity",
        profile={"pod.specPatch": {"hostNetwork": True}},
        labels={"pod-security.kubernetes.io/enforce": "baseline"},
    ),
    "service-account": Cause(
        "PodRejected", 'serviceaccount "ghost" not found', profile={"pod.serviceAccountName": "ghost"}
    ),
    "no-node-fits": Cause("Unschedulable", "node affinity/selector", profile=OTHER_ARCHITECTURE),
    "too-large": Cause(
        "Unschedulable",
        "Insufficient memory",
        profile={"resources": {"requests": {"memory": "64Ti"}, "limits": {"memory": "64Ti"}}},
    ),
    "claim-missing": Cause(
        "Unschedulable",
        'persistentvolumeclaim "weights" not found',
        profile={"model.source": {"persistentVolumeClaim": {"claimName": "weights"}}},
    ),
    "claim-not-bound": Cause(
        "Unschedulable",
        "unbound immediate PersistentVolumeClaims",
        profile={"model.source": {"persistentVolumeClaim": {"claimName": "weights"}}},
        objects=(claim("weights", storageClassName=""),),
    ),
}


@pytest.fixture(scope="module")
def waiting(control_plane: ControlPlane, shared_operator: OperatorProcess) -> Iterator[dict[str, str]]:
    """A restoration `clip` for every cause, each in a namespace of its own: the namespace by the cause's name."""
    namespaces = {name: f"waiting-{name}" for name in CAUSES}
    objects: list[Json] = []
    for name, cause in CAUSES.items():
        control_plane.create_namespace(namespaces[name])
        if cause.labels:
            labels = [f"{key}={value}" for key, value in cause.labels.items()]
            control_plane.kubectl("label", "namespace", namespaces[name], *labels)
        objects += [body | {"metadata": body["metadata"] | {"namespace": namespaces[name]}} for body in cause.objects]
        objects.append(make_profile(cause.profile, name=namespaces[name]))
    apply(control_plane, objects)
    wishes = {name: {"profileRef.name": namespaces[name], "output.uri": f"s3://media/{name}.mp4"} for name in CAUSES}
    apply(control_plane, [make_vr(wishes[name], namespace=namespaces[name]) for name in CAUSES])
    yield namespaces
    control_plane.kubectl("delete", "clusterrestorationprofiles", *namespaces.values())
    control_plane.kubectl("delete", "namespace", "--wait=false", *namespaces.values())


def apply(control_plane: ControlPlane, objects: list[Json]) -> None:
    control_plane.kubectl("apply", "--filename=-", stdin="\n---\n".join(json.dumps(body) for body in objects))


@pytest.fixture
async def node(api: ApiServer) -> AsyncIterator[Kubelet]:
    async with Kubelet(api, node="waiting-node") as playing:
        yield playing


def message(body: Json) -> str:
    return next(str(item["message"]) for item in body["status"]["conditions"] if item["type"] == "Scheduled")


async def told(api: ApiServer, namespace: str, reason: str, text: str) -> Json:
    """The restoration once its condition `Scheduled` says this."""

    async def says() -> Json | None:
        body = await api.restoration(namespace)
        ready = bool(body["status"]) and condition(body, "Scheduled") == ("False", reason) and text in message(body)
        return body if ready else None

    found = await eventually(says, what=f"{namespace}: Scheduled=False/{reason} with {text!r}", seconds=90)
    assert found is not None
    return found


@pytest.mark.parametrize("name", CAUSES)
async def test_the_true_cause(api: ApiServer, node: Kubelet, waiting: dict[str, str], name: str) -> None:
    cause = CAUSES[name]
    body = await told(api, waiting[name], cause.reason, cause.message)
    assert condition(body, "Finished")[0] == "False"
    assert condition(body, "Accepted") == ("True", "Valid")
    assert (await events(api, waiting[name]))[cause.reason]


async def test_a_cause_that_is_over_leaves_nothing_behind(
    api: ApiServer, node: Kubelet, waiting: dict[str, str]
) -> None:
    namespace = waiting["quota"]
    await told(api, namespace, "PodRejected", "exceeded quota")
    await api.call("DELETE", f"/api/v1/namespaces/{namespace}/resourcequotas/limits")
    pod = await node.pod(namespace)
    await node.start(pod)
    body = await api.until(namespace, "Scheduled", "Running")
    assert message(body) == f"pod {pod['metadata']['name']} on node {node.node}"


async def test_the_start_deadline_names_the_cause(
    api: ApiServer, shared_operator: OperatorProcess, namespace: str
) -> None:
    path = f"{GROUP_PATH}/namespaces/{namespace}/restorationprofiles"
    profile = make_profile({"pod.serviceAccountName": "ghost"}, kind="RestorationProfile", namespace=namespace)
    await api.call("POST", path, profile)
    await api.apply(namespace, {"profileRef.kind": "RestorationProfile", "startDeadlineSeconds": 9})
    body = await api.finished(namespace)
    assert condition(body, "Succeeded") == ("False", "StartDeadlineExceeded")
    assert condition(body, "Scheduled") == ("False", "StartDeadlineExceeded")
    assert 'serviceaccount "ghost" not found' in message(body)


PLAYED = {
    "a Secret in the environment": ("CreateContainerConfigError", 'secret "env" not found', "PodRejected"),
    "an image that is not there": ("ErrImagePull", "runner:1: not found", "ImagePullError"),
}


@pytest.mark.parametrize(("reason", "text", "expected"), PLAYED.values(), ids=PLAYED)
async def test_what_the_container_says(
    api: ApiServer,
    node: Kubelet,
    shared_operator: OperatorProcess,
    namespace: str,
    reason: str,
    text: str,
    expected: str,
) -> None:
    await api.apply(namespace)
    pod = await node.pod(namespace)
    await node.wait_in(pod, reason, text)
    await told(api, namespace, expected, text)
    # Another cause takes its place at once.
    if expected == "ImagePullError":
        await node.wait_in(pod, "CreateContainerError", "device is busy")
        await told(api, namespace, "PodRejected", "device is busy")
    else:
        await node.wait_in(pod, "InvalidImageName", "couldn't parse image name")
        await told(api, namespace, "ImagePullError", "couldn't parse image name")


async def test_what_only_the_kubelets_events_say(
    api: ApiServer, node: Kubelet, shared_operator: OperatorProcess, namespace: str
) -> None:
    await api.apply(namespace)
    pod = await node.pod(namespace)
    missing = 'MountVolume.SetUp failed for volume "storage-media": secret "media-s3" not found'
    await node.say(pod, "FailedMount", missing)
    await node.create(pod, ago_seconds=25)
    await told(api, namespace, "MountFailed", 'secret "media-s3" not found')
    await node.start(pod)
    body = await api.until(namespace, "Scheduled", "Running")
    assert "media-s3" not in message(body)


async def events(api: ApiServer, namespace: str) -> dict[str, list[str]]:
    """Notes of the operator's own Events by reason, once there is one."""

    async def ask() -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for event in await api.items(f"/apis/events.k8s.io/v1/namespaces/{namespace}/events"):
            if event.get("reportingController") == "videorestoration.dev/operator":
                found.setdefault(event["reason"], []).append(event["note"])
        return found

    async def waits() -> dict[str, list[str]] | None:
        found = await ask()
        return found if set(found) - {"JobCreated"} else None

    found = await eventually(waits, what=f"{namespace}: an Event that says why")
    assert found is not None
    return found
