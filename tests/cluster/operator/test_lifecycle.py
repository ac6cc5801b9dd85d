"""Deleted, re-created, suspended in whatever phase it is: nothing is left behind, and nothing hangs."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tests.builders import outcomes
from tests.builders.kubelet import Kubelet
from tests.builders.live_api import GROUP_PATH, ApiServer, Json, condition, eventually
from tests.builders.resources import make_profile

from restoration_api.outcome import FailureReason

pytestmark = [pytest.mark.xdist_group("operator"), pytest.mark.usefixtures("shared_operator")]
PHASES = ("Pending", "Suspended", "Starting", "Running", "Retrying", "Succeeded", "Failed")


def restoration_path(namespace: str, name: str) -> str:
    return f"{GROUP_PATH}/namespaces/{namespace}/videorestorations/{name}"


async def reach(api: ApiServer, kubelet: Kubelet, namespace: str, phase: str) -> Json:
    """A restoration in this phase, with the phase as its name."""
    name = phase.lower()
    changes: dict[str, Any] = {
        "output.uri": f"s3://media/restored/{name}.mp4",
        "retryPolicy": {"backoffSeconds": 600, "maxBackoffSeconds": 600},
    }
    if phase == "Pending":
        changes["profileRef"] = {"kind": "RestorationProfile", "name": "missing"}
    if phase == "Suspended":
        changes["suspend"] = True
    applied = await api.apply(namespace, changes, name=name)
    ends = {
        "Retrying": (21, outcomes.failed(FailureReason.STORAGE_ERROR, "503")),
        "Succeeded": (0, outcomes.succeeded()),
        "Failed": (10, outcomes.failed(FailureReason.INVALID_INPUT, "no video")),
    }
    if phase in ("Running", *ends):
        pod = await kubelet.pod(namespace, uid=applied["metadata"]["uid"])
        await kubelet.start(pod)
        if phase in ends:
            await kubelet.end(pod, *ends[phase])

    async def reached() -> Json | None:
        body = await api.restoration(namespace, name)
        return body if body["status"].get("phase") == phase else None

    body = await eventually(reached, what=f"{name} is {phase}", seconds=60)
    assert body is not None
    return body


async def children(api: ApiServer, namespace: str) -> list[str]:
    """Everything that the operator or its Jobs have made and that still exists."""
    maps = await api.items(f"/api/v1/namespaces/{namespace}/configmaps")
    ours = [item for item in maps if item["metadata"].get("ownerReferences")]
    return [item["metadata"]["name"] for item in (*await api.jobs(namespace), *await api.pods(namespace), *ours)]


@pytest.mark.timeout(300)
@pytest.mark.parametrize("what", ["each restoration", "the namespace"])
async def test_deleted_in_every_phase(api: ApiServer, kubelet: Kubelet, namespace: str, what: str) -> None:
    await asyncio.gather(*(reach(api, kubelet, namespace, phase) for phase in PHASES))
    assert len(await children(api, namespace)) >= 10
    if what == "the namespace":
        # It goes only when everything in it has: a finalizer of ours, or a Job that waits for something, would hold it.
        await api.call("DELETE", f"/api/v1/namespaces/{namespace}")
        path = f"/api/v1/namespaces/{namespace}"

        async def gone() -> bool:
            return await api.find(path) is None

        await eventually(gone, what="the namespace is gone", seconds=120)
        await api.call("POST", "/api/v1/namespaces", {"metadata": {"name": namespace}})
        return
    for phase in PHASES:
        await api.call("DELETE", restoration_path(namespace, phase.lower()))

    async def clean() -> bool:
        return not await children(api, namespace)

    await eventually(clean, what="nothing is left", seconds=120)


async def test_for_what_is_being_deleted_nothing_is_started(api: ApiServer, kubelet: Kubelet, namespace: str) -> None:
    """`kubectl delete --cascade=foreground`, or another's finalizer: the Job goes first, and that is no disruption."""
    finalizers = ["test.example.com/hold"]
    path = restoration_path(namespace, "clip")
    await api.apply(namespace, {"retryPolicy": {"backoffSeconds": 1}})
    await kubelet.start(await kubelet.pod(namespace))
    await api.until(namespace, "Scheduled", "Running")
    await api.merge(path, {"metadata": {"finalizers": finalizers}})
    await api.call("DELETE", path, {"propagationPolicy": "Foreground"})

    async def without_children() -> bool:
        return not await api.jobs(namespace) and not await api.pods(namespace)

    await eventually(without_children, what="the garbage collector has removed its Job")

    async def noticed() -> bool:
        history = (await api.restoration(namespace))["status"].get("attemptHistory", [])
        return bool(history and history[0].get("reason"))

    await eventually(noticed, what="the operator has seen that")
    await asyncio.sleep(3)  # the next execution would be due after one
    body = await api.restoration(namespace)
    assert (body["status"]["attempts"]["executions"], await api.jobs(namespace)) == (1, [])
    await api.merge(path, {"metadata": {"finalizers": None}})


@pytest.mark.timeout(300)
async def test_re_created_in_every_phase(api: ApiServer, kubelet: Kubelet, namespace: str) -> None:
    """The new object has the old one's name and none of its history."""
    phases = ("Running", "Retrying", "Succeeded")
    before = await asyncio.gather(*(reach(api, kubelet, namespace, phase) for phase in phases))
    for body in before:
        await api.call("DELETE", restoration_path(namespace, body["metadata"]["name"]))
        await api.apply(namespace, {"output.uri": body["spec"]["output"]["uri"]}, name=body["metadata"]["name"])
    for body in before:
        name = body["metadata"]["name"]
        fresh = await api.restoration(namespace, name)
        pod = await kubelet.pod(namespace, uid=fresh["metadata"]["uid"])
        await kubelet.start(pod)
        await kubelet.end(pod, 0, outcomes.succeeded())
        over = await api.finished(namespace, name)
        assert over["metadata"]["uid"] != body["metadata"]["uid"]
        assert condition(over, "Succeeded") == ("True", "Completed")
        assert over["status"]["attempts"]["executions"] == 1
        assert len(over["status"]["attemptHistory"]) == 1


async def test_the_profile_is_gone_when_the_next_execution_starts(
    api: ApiServer, kubelet: Kubelet, namespace: str
) -> None:
    """It was accepted with a profile, and goes on with that one, from the snapshot."""
    profile = make_profile({"image": "theirs:1"}, kind="RestorationProfile", name="team", namespace=namespace)
    path = f"{GROUP_PATH}/namespaces/{namespace}/restorationprofiles"
    await api.call("POST", path, profile)
    reference = {"kind": "RestorationProfile", "name": "team"}
    await api.apply(namespace, {"profileRef": reference, "retryPolicy": {"backoffSeconds": 1}})
    pod = await kubelet.pod(namespace)
    await kubelet.start(pod)
    await api.call("DELETE", f"{path}/team")
    await kubelet.end(pod, 21, outcomes.failed(FailureReason.STORAGE_ERROR, "503"))
    again = await kubelet.pod(namespace, execution=2)
    assert again["spec"]["containers"][0]["image"] == "theirs:1"
    await kubelet.start(again)
    await kubelet.end(again, 0, outcomes.succeeded())
    assert condition(await api.finished(namespace), "Succeeded") == ("True", "Completed")


async def test_a_stranger_has_the_name_of_the_next_job(api: ApiServer, kubelet: Kubelet, namespace: str) -> None:
    body = await api.apply(namespace, {"retryPolicy": {"backoffSeconds": 1}})
    pod = await kubelet.pod(namespace)
    await kubelet.start(pod)
    await api.until(namespace, "Scheduled", "Running")
    await api.merge(restoration_path(namespace, "clip"), {"spec": {"suspend": True}})

    async def stopped() -> bool:
        return not await api.jobs(namespace)

    await eventually(stopped, what="the first Job is gone")
    path = f"/apis/batch/v1/namespaces/{namespace}/jobs"
    name = f"vr-clip-{body['metadata']['uid'].replace('-', '')[-8:]}-e2-run"
    template = {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}}
    strange = {"metadata": {"name": name}, "spec": {"suspend": True, "template": template}}
    stranger = await api.call("POST", path, strange)
    await api.merge(restoration_path(namespace, "clip"), {"spec": {"suspend": False}})
    body = await api.until(namespace, "Accepted", "NameConflict")
    assert name in next(item["message"] for item in body["status"]["conditions"] if item["type"] == "Accepted")
    untouched = await api.call("GET", f"{path}/{name}")
    assert untouched["metadata"]["uid"] == stranger["metadata"]["uid"]
    assert "deletionTimestamp" not in untouched["metadata"], "it is not ours to delete"
    await api.call("DELETE", f"{path}/{name}", {"propagationPolicy": "Background"})
    again = await kubelet.pod(namespace, execution=2)
    await kubelet.start(again)
    await kubelet.end(again, 0, outcomes.succeeded())
    over = await api.finished(namespace)
    assert condition(over, "Succeeded") == ("True", "Completed")
    assert over["status"]["attempts"]["executions"] == 2


async def test_a_lost_node_while_the_user_suspends(api: ApiServer, kubelet: Kubelet, namespace: str) -> None:
    """The Job is being deleted in the foreground and waits for a pod that cannot end; neither may stay for ever."""
    await api.apply(namespace, {"retryPolicy": {"backoffSeconds": 1}, "activeDeadlineSeconds": 10_000})
    pod = await kubelet.pod(namespace)
    await kubelet.start(pod)
    await api.until(namespace, "Scheduled", "Running")
    await kubelet.go_silent()
    patch = {"metadata": {"finalizers": ["test.example.com/hold"]}}
    pod_path = f"/api/v1/namespaces/{namespace}/pods/{pod['metadata']['name']}"
    await api.merge(pod_path, patch)
    await api.merge(restoration_path(namespace, "clip"), {"spec": {"suspend": True}})

    async def leaving() -> bool:
        return any(job["metadata"].get("deletionTimestamp") for job in await api.jobs(namespace))

    await eventually(leaving, what="the Job is being deleted")
    # Without a grace period the API server would wait for the kubelet for 30 seconds more.
    await api.call("DELETE", pod_path, {"gracePeriodSeconds": 1})

    async def gone() -> bool:
        return not await api.jobs(namespace)

    await eventually(gone, what="the Job is gone although its pod is not", seconds=90)
    assert await api.find(pod_path) is not None
    body = await api.restoration(namespace)
    assert body["status"]["attemptHistory"][0]["reason"] == "NodeLost"
    assert body["status"]["phase"] == "Suspended"
    await api.merge(pod_path, {"metadata": {"finalizers": None}})
    await kubelet.remove(pod)
