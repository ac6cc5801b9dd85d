"""Everything that can happen to a Job or a pod, on a real control plane, under exactly the chart's rights.

One operator serves all of these tests; the last one compares what it asked for with what the chart allows it.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from tests.builders import outcomes
from tests.builders.audit import requests_of
from tests.builders.chart import FULL_NAME, granted
from tests.builders.kubelet import Kubelet
from tests.builders.live_api import GROUP_PATH, ApiServer, Json, RefusedError, condition, eventually
from tests.builders.operator_process import OperatorProcess
from tests.builders.resources import make_profile

pytestmark = [pytest.mark.xdist_group("operator"), pytest.mark.usefixtures("shared_operator")]
RARELY_USED = {("videorestoration.dev", "videorestorations", "get")}
"""After a conflict, which these tests do not force (`test_faults` does), and when a listing lacks a restoration."""


def jobs_path(namespace: str, name: str = "") -> str:
    return f"/apis/batch/v1/namespaces/{namespace}/jobs" + (f"/{name}" if name else "")


def restoration_path(namespace: str, name: str = "clip") -> str:
    return f"{GROUP_PATH}/namespaces/{namespace}/videorestorations/{name}"


async def running(api: ApiServer, kubelet: Kubelet, namespace: str, changes: dict[str, Any] | None = None) -> Json:
    """A restoration whose runner runs; returns its pod."""
    await api.apply(namespace, changes)
    pod = await kubelet.pod(namespace)
    await kubelet.start(pod)
    await api.until(namespace, "Scheduled", "Running")
    return pod


SOON = {"retryPolicy": {"backoffSeconds": 1}}
"""For tests that go on to the next execution."""


async def second_try(api: ApiServer, kubelet: Kubelet, namespace: str) -> Json:
    """The restoration once its second execution has succeeded."""

    async def begun() -> bool:
        body = await api.restoration(namespace)
        await kubelet.find_no_report(namespace, body["metadata"]["uid"])
        return bool(body["status"]["attempts"]["executions"] == 2)

    await eventually(begun, what="the second execution has begun")
    pod = await kubelet.pod(namespace, execution=2)
    await kubelet.start(pod)
    await kubelet.end(pod, 0, outcomes.succeeded())
    body = await api.finished(namespace)
    assert condition(body, "Succeeded") == ("True", "Completed")
    assert body["status"]["attempts"]["executions"] == 2
    return body


async def second_job(api: ApiServer, namespace: str) -> Json:
    """The Job of the second execution."""

    async def made() -> Json | None:
        jobs = await api.jobs(namespace)
        return next((job for job in jobs if job["metadata"]["labels"]["videorestoration.dev/execution"] == "2"), None)

    job = await eventually(made, what="the second execution has a Job")
    assert job is not None
    return job


def counted(body: Json) -> dict[str, int]:
    """The budgets that something was taken from."""
    counters = body["status"]["attempts"]
    return {name: counters[name] for name in ("retries", "infrastructureRetries", "disruptions") if counters[name]}


async def test_a_node_refuses_the_pod(api: ApiServer, kubelet: Kubelet, namespace: str) -> None:
    await api.apply(namespace, SOON)
    await kubelet.refuse(await kubelet.pod(namespace), "UnexpectedAdmissionError", "no GPU is healthy")
    body = await second_try(api, kubelet, namespace)
    assert body["status"]["attemptHistory"][0]["reason"] == "StartupFailure"
    assert "no GPU is healthy" in body["status"]["attemptHistory"][0]["message"]
    assert counted(body) == {"infrastructureRetries": 1}


async def test_somebody_deletes_the_pod(api: ApiServer, kubelet: Kubelet, namespace: str) -> None:
    pod = await running(api, kubelet, namespace, SOON)
    await api.call("DELETE", f"/api/v1/namespaces/{namespace}/pods/{pod['metadata']['name']}")
    body = await second_try(api, kubelet, namespace)
    assert body["status"]["attemptHistory"][0]["reason"] == "PodDeleted"
    assert counted(body) == {"disruptions": 1}


@pytest.mark.parametrize("propagation", ["Background", "Foreground"])
async def test_somebody_deletes_the_job(api: ApiServer, kubelet: Kubelet, namespace: str, propagation: str) -> None:
    await running(api, kubelet, namespace, SOON)
    [job] = await api.jobs(namespace)
    await api.call("DELETE", jobs_path(namespace, job["metadata"]["name"]), {"propagationPolicy": propagation})
    body = await second_try(api, kubelet, namespace)
    assert body["status"]["attemptHistory"][0]["reason"] == "PodDeleted"
    assert counted(body) == {"disruptions": 1}


async def test_a_pod_that_lost_its_job_may_still_finish(api: ApiServer, kubelet: Kubelet, namespace: str) -> None:
    pod = await running(api, kubelet, namespace)
    [job] = await api.jobs(namespace)
    await api.call("DELETE", jobs_path(namespace, job["metadata"]["name"]), {"propagationPolicy": "Orphan"})

    async def gone() -> bool:
        return not await api.jobs(namespace)

    await eventually(gone, what="the Job is gone")
    assert condition(await api.restoration(namespace), "Finished")[0] == "False"
    await kubelet.end(pod, 0, outcomes.succeeded())
    assert condition(await api.finished(namespace), "Succeeded") == ("True", "Completed")


async def test_an_eviction_stays_inside_the_job(api: ApiServer, kubelet: Kubelet, namespace: str) -> None:
    pod = await running(api, kubelet, namespace)
    await kubelet.end(pod, 143, disruption="EvictionByEvictionAPI")

    async def replacement() -> Json | None:
        newest = await kubelet.pod(namespace)
        return newest if newest["metadata"]["uid"] != pod["metadata"]["uid"] else None

    again = await eventually(replacement, what="the Job has made another pod", seconds=60)
    assert again is not None
    await kubelet.start(again)
    await kubelet.end(again, 0, outcomes.succeeded())
    body = await api.finished(namespace)
    assert condition(body, "Succeeded") == ("True", "Completed")
    assert body["status"]["attempts"]["executions"] == 1
    assert body["status"]["attemptHistory"][0]["podName"] == again["metadata"]["name"]


async def test_a_lost_node(api: ApiServer, kubelet: Kubelet, namespace: str) -> None:
    """The pod cannot end and its Job goes all the same; the next execution does not wait for the node."""
    pod = await running(api, kubelet, namespace, SOON)
    await kubelet.go_silent()
    path = f"/api/v1/namespaces/{namespace}/pods/{pod['metadata']['name']}"
    await api.call("DELETE", path, {"gracePeriodSeconds": 1})
    job = await second_job(api, namespace)
    assert [item["metadata"]["name"] for item in await api.jobs(namespace)] == [job["metadata"]["name"]]
    assert await api.find(path) is not None, "the pod of the lost node is still there"
    body = await api.restoration(namespace)
    assert body["status"]["attemptHistory"][0]["reason"] == "NodeLost"
    assert kubelet.node in body["status"]["attemptHistory"][0]["message"]
    assert counted(body) == {"disruptions": 1}
    await kubelet.remove(pod)


async def test_why_it_does_not_start(api: ApiServer, kubelet: Kubelet, namespace: str) -> None:
    """An image that is not there, then comes: shown at once, and forgotten."""
    await api.apply(namespace)
    pod = await kubelet.pod(namespace)
    for _ in range(2):
        await kubelet.wait_in(pod, "ErrImagePull", 'failed to pull "runner:1": not found')
        body = await api.until(namespace, "Scheduled", "ImagePullError")
        assert condition(body, "Finished")[0] == "False"
        await kubelet.create(pod)
        await api.until(namespace, "Scheduled", "Pending")

    async def series() -> bool:
        told = await api.items(f"/apis/events.k8s.io/v1/namespaces/{namespace}/events")
        [event] = [item for item in told if item["reason"] == "ImagePullError"]
        return bool(event.get("series", {}).get("count") == 2)

    await eventually(series, what="the same Event again is counted")
    await kubelet.start(pod)
    await kubelet.end(pod, 0, outcomes.succeeded())
    assert condition(await api.finished(namespace), "Succeeded") == ("True", "Completed")


async def test_a_quota_refuses_the_pod(api: ApiServer, kubelet: Kubelet, namespace: str) -> None:
    """Neither Job nor pod says so: the text comes from the Job's Events."""
    quota = {"metadata": {"name": "none"}, "spec": {"hard": {"pods": "0"}}}
    await api.call("POST", f"/api/v1/namespaces/{namespace}/resourcequotas", quota)
    await api.apply(namespace)
    body = await api.until(namespace, "Scheduled", "PodRejected")
    message = next(item["message"] for item in body["status"]["conditions"] if item["type"] == "Scheduled")
    assert "exceeded quota" in message


async def test_a_quota_refuses_the_job(api: ApiServer, kubelet: Kubelet, namespace: str) -> None:
    path = f"/api/v1/namespaces/{namespace}/resourcequotas"
    await api.call("POST", path, {"metadata": {"name": "none"}, "spec": {"hard": {"count/jobs.batch": "0"}}})
    await api.apply(namespace)
    body = await api.until(namespace, "Accepted", "ChildRejected")
    assert body["status"]["phase"] == "Pending"
    await api.call("DELETE", f"{path}/none")
    pod = await kubelet.pod(namespace)
    await kubelet.start(pod)
    await kubelet.end(pod, 0, outcomes.succeeded())
    body = await api.finished(namespace)
    assert condition(body, "Accepted") == ("True", "Valid")
    assert body["status"]["attempts"]["executions"] == 1


async def test_a_job_whose_labels_somebody_changed_is_not_taken_for_gone(
    api: ApiServer, kubelet: Kubelet, namespace: str
) -> None:
    """Watches and listings go by labels, which a policy may set: there must be no second Job beside a living one."""
    pod = await running(api, kubelet, namespace, SOON)
    [job] = await api.jobs(namespace)
    paths = (
        jobs_path(namespace, job["metadata"]["name"]),
        f"/api/v1/namespaces/{namespace}/pods/{pod['metadata']['name']}",
    )
    for path in paths:
        await api.merge(path, {"metadata": {"labels": {"app.kubernetes.io/managed-by": "platform"}}})
    await asyncio.sleep(3)  # the next execution would be due after one
    assert [item["metadata"]["uid"] for item in await api.jobs(namespace)] == [job["metadata"]["uid"]]
    for path in paths:
        await api.merge(path, {"metadata": {"labels": {"app.kubernetes.io/managed-by": "vr-operator"}}})
    await kubelet.end(pod, 0, outcomes.succeeded())
    body = await api.finished(namespace)
    assert condition(body, "Succeeded") == ("True", "Completed")
    assert (body["status"]["attempts"]["executions"], counted(body)) == (1, {})


async def test_a_strangers_job_has_the_name(api: ApiServer, kubelet: Kubelet, namespace: str) -> None:
    body = await api.apply(namespace, {"suspend": True})
    await api.until(namespace, "Suspended", "UserRequested")
    name = f"vr-clip-{body['metadata']['uid'].replace('-', '')[-8:]}-e1-run"
    container = {"name": "c", "image": "i"}
    spec = {"suspend": True, "template": {"spec": {"restartPolicy": "Never", "containers": [container]}}}
    await api.call("POST", jobs_path(namespace), {"metadata": {"name": name}, "spec": spec})
    await api.merge(restoration_path(namespace), {"spec": {"suspend": False}})
    await api.until(namespace, "Accepted", "NameConflict")
    await api.call("DELETE", jobs_path(namespace, name), {"propagationPolicy": "Background"})
    await kubelet.start(await kubelet.pod(namespace))
    assert condition(await api.until(namespace, "Scheduled", "Running"), "Accepted") == ("True", "Valid")


async def test_suspended_and_resumed(api: ApiServer, kubelet: Kubelet, namespace: str) -> None:
    await running(api, kubelet, namespace)
    await api.merge(restoration_path(namespace), {"spec": {"suspend": True}})

    async def stopped() -> bool:
        return not await api.jobs(namespace) and not await api.pods(namespace)

    await eventually(stopped, what="Job and pod are gone")
    body = await api.until(namespace, "Suspended", "UserRequested")
    assert body["status"]["phase"] == "Suspended"
    assert condition(body, "Reconciling")[0] == "False"
    await api.merge(restoration_path(namespace), {"spec": {"suspend": False}})
    pod = await kubelet.pod(namespace, execution=2)
    await kubelet.start(pod)
    await kubelet.end(pod, 0, outcomes.succeeded())
    body = await api.finished(namespace)
    assert [item["reason"] for item in body["status"]["attemptHistory"]] == ["Suspended", "Completed"]
    assert body["status"]["attempts"]["executions"] == 2
    assert body["status"]["observedGeneration"] == body["metadata"]["generation"] == 3


async def test_two_restorations_want_one_output(api: ApiServer, kubelet: Kubelet, namespace: str) -> None:
    pod = await running(api, kubelet, namespace)
    await api.apply(namespace, {"input.uri": "s3://media/raw/other.mp4"}, name="second")
    claimed = await api.until(namespace, "Accepted", "OutputClaimed", name="second")
    assert condition(claimed, "Stalled")[0] == "False"
    await kubelet.end(pod, 0, outcomes.succeeded())
    await api.finished(namespace)
    await api.until(namespace, "Accepted", "Valid", name="second")


async def test_the_profile_comes_after_the_restoration(api: ApiServer, kubelet: Kubelet, namespace: str) -> None:
    reference = {"profileRef": {"kind": "RestorationProfile", "name": "team"}}
    await api.apply(namespace, reference)
    body = await api.until(namespace, "Accepted", "ProfileNotFound")
    assert condition(body, "Stalled")[0] == "False", "a minute's patience: they may come in one apply"
    profile = make_profile(kind="RestorationProfile", name="team", namespace=namespace)
    await api.call("POST", f"{GROUP_PATH}/namespaces/{namespace}/restorationprofiles", profile)
    body = await api.until(namespace, "Accepted", "Valid")
    assert body["status"]["profile"]["kind"] == "RestorationProfile"


async def test_its_own_time_comes(api: ApiServer, kubelet: Kubelet, namespace: str) -> None:
    pod = await running(api, kubelet, namespace, {"ttlSecondsAfterFinished": 2})
    await kubelet.end(pod, 0, outcomes.succeeded())

    async def gone() -> bool:
        return await api.find(restoration_path(namespace)) is None

    await eventually(gone, what="the restoration is deleted")


async def test_an_immutable_field_stays(api: ApiServer, namespace: str) -> None:
    await api.apply(namespace, {"suspend": True})
    with pytest.raises(RefusedError, match="input is immutable"):
        await api.merge(restoration_path(namespace), {"spec": {"input": {"uri": "s3://media/raw/other.mp4"}}})


@pytest.mark.parametrize(
    ("changes", "ready", "message"),
    [
        ({}, ("True", "Valid"), ""),
        ({"resources.requests": {"cpu": "8"}, "resources.limits": {"cpu": "4"}}, ("False", "InvalidTemplate"), "cpu"),
        ({"model.source": {"download": {"uri": "hf://a/b"}}}, ("False", "InvalidTemplate"), "model.source.download"),
    ],
    ids=["valid", "refused by the API server", "refused by the operator"],
)
async def test_a_profile_is_judged_before_anybody_uses_it(
    api: ApiServer, namespace: str, changes: dict[str, Any], ready: tuple[str, str], message: str
) -> None:
    path = f"{GROUP_PATH}/namespaces/{namespace}/restorationprofiles"
    body = make_profile(changes, kind="RestorationProfile", name="team", namespace=namespace)
    await api.call("POST", path, body)

    async def judged() -> Json | None:
        found = await api.call("GET", f"{path}/team")
        return found if condition(found, "Ready")[0] else None

    found = await eventually(judged, what="the profile has a status")
    assert found is not None
    assert condition(found, "Ready") == ready
    assert message in found["status"]["conditions"][0]["message"]
    assert found["status"]["observedGeneration"] == 1


async def test_a_cluster_profile_is_judged_too(api: ApiServer, namespace: str) -> None:
    path = f"{GROUP_PATH}/clusterrestorationprofiles"
    await api.call("POST", path, make_profile({"pod.specPatch": {"containers": "none"}}, name=namespace))
    try:

        async def judged() -> bool:
            return condition(await api.call("GET", f"{path}/{namespace}"), "Ready") == ("False", "InvalidTemplate")

        await eventually(judged, what="a broken specPatch is seen on the profile")
    finally:
        await api.call("DELETE", f"{path}/{namespace}")


def test_rights_are_exactly_those_used(
    request: pytest.FixtureRequest, audit_log: Path, shared_operator: OperatorProcess
) -> None:
    """Runs last. Nothing was refused, and nothing is granted that nobody needs."""
    asked = requests_of(audit_log, FULL_NAME)
    assert asked
    # Quotas and namespaces that are going away answer 403 too, to requests that rights allow.
    refused = [item for item in asked if item["annotations"]["authorization.k8s.io/decision"] != "allow"]
    assert not refused, [(item["verb"], item["requestURI"]) for item in refused]
    here = [item for item in request.session.items if item.path == request.path]
    if len(here) < 20:
        pytest.skip(f"only {len(here)} tests of this file were chosen: their operator did not do everything")
    used = {
        (item["objectRef"].get("apiGroup", ""), _resource(item["objectRef"]), item["verb"])
        for item in asked
        if "objectRef" in item
    }
    assert granted() - used - RARELY_USED == set(), "granted and never used"


def _resource(reference: Json) -> str:
    subresource = reference.get("subresource")
    return reference["resource"] + (f"/{subresource}" if subresource else "")
