"""What Kueue does to a Job, done to it by the test: suspended at its creation, let go with a place to run, taken back.

A `MutatingAdmissionPolicy` of the real API server plays Kueue's webhook: it suspends every Job with a queue's name. The
rest is patches with a field manager of their own, as Kueue writes them.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import pytest
from tests.builders import outcomes
from tests.builders.kubelet import Kubelet
from tests.builders.live_api import GROUP_PATH, ApiServer, Json, RefusedError, condition, eventually
from tests.builders.resources import make_profile, make_vr

pytestmark = [pytest.mark.xdist_group("operator"), pytest.mark.usefixtures("shared_operator", "kueue")]
POLICIES = "/apis/admissionregistration.k8s.io/v1"
QUEUE = "kueue.x-k8s.io/queue-name"
ADMITTED = {
    "nodeSelector": {"cloud.example/gpu": "l40s"},
    "tolerations": [{"key": "spot", "operator": "Exists"}],
}


@pytest.fixture
async def kueue(api: ApiServer, namespace: str) -> AsyncIterator[None]:
    """Suspends Jobs of this namespace that carry a queue's name."""
    rule = {"apiGroups": ["batch"], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["jobs"]}
    expression = "Object{spec: Object.spec{suspend: true}}"
    policy = {
        "metadata": {"name": namespace},
        "spec": {
            "matchConstraints": {
                "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}},
                "resourceRules": [rule],
                "objectSelector": {"matchExpressions": [{"key": QUEUE, "operator": "Exists"}]},
            },
            "failurePolicy": "Fail",
            "reinvocationPolicy": "Never",
            "mutations": [{"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": expression}}],
        },
    }
    binding = {"metadata": {"name": namespace}, "spec": {"policyName": namespace}}
    await api.call("POST", f"{POLICIES}/mutatingadmissionpolicies", policy)
    await api.call("POST", f"{POLICIES}/mutatingadmissionpolicybindings", binding)
    await eventually(lambda: _suspends(api, namespace), what="the policy is in force")
    yield
    for kind in ("mutatingadmissionpolicybindings", "mutatingadmissionpolicies"):
        with suppress(RefusedError):
            await api.call("DELETE", f"{POLICIES}/{kind}/{namespace}")


async def _suspends(api: ApiServer, namespace: str) -> bool:
    """Whether a Job that is only tried comes back suspended."""
    container = {"name": "c", "image": "i"}
    spec = {"template": {"spec": {"restartPolicy": "Never", "containers": [container]}}}
    trial = {"metadata": {"generateName": "trial-", "labels": {QUEUE: "gpu"}}, "spec": spec}
    tried = await api.call("POST", f"/apis/batch/v1/namespaces/{namespace}/jobs?dryRun=All", trial)
    return bool(tried["spec"].get("suspend"))


async def queued(api: ApiServer, namespace: str, changes: dict[str, Any] | None = None) -> Json:
    """A restoration whose Job stands in its queue; returns the Job."""
    body = make_vr(changes, namespace=namespace, labels={QUEUE: "gpu", "kueue.x-k8s.io/priority-class": "overnight"})
    body["metadata"]["annotations"] = {
        "kueue.x-k8s.io/podset-preferred-topology": "rack",
        "kueue.x-k8s.io/job-min-parallelism": "1",
    }
    await api.call("POST", f"{GROUP_PATH}/namespaces/{namespace}/videorestorations", body)
    await api.until(namespace, "Scheduled", "Queued")
    return await run_job(api, namespace)


async def run_job(api: ApiServer, namespace: str) -> Json:
    """The newest Job that stands in the queue."""
    jobs = [job for job in await api.jobs(namespace) if QUEUE in job["metadata"]["labels"]]
    return max(jobs, key=lambda job: str(job["metadata"]["name"]))


async def change(api: ApiServer, job: Json, spec: Json) -> None:
    path = f"/apis/batch/v1/namespaces/{job['metadata']['namespace']}/jobs/{job['metadata']['name']}"
    query = "?fieldManager=kueue-job-controller"
    await api.call("PATCH", path + query, {"spec": spec}, content_type="application/strategic-merge-patch+json")


async def admit(api: ApiServer, job: Json) -> None:
    await change(api, job, {"suspend": False, "template": {"spec": ADMITTED}})


async def evict(api: ApiServer, job: Json) -> None:
    await change(api, job, {"suspend": True})


async def place(api: ApiServer, kubelet: Kubelet, namespace: str, *, but: str = "") -> Json:
    """The pod that the Job controller has made since."""

    async def made() -> Json | None:
        pods = [pod for pod in await api.pods(namespace) if pod["spec"].get("nodeName")]
        found = [pod for pod in pods if pod["metadata"]["uid"] != but and not pod["metadata"].get("deletionTimestamp")]
        return found[0] if found else None

    pod = await eventually(made, what="a pod on a node", seconds=60)
    assert pod is not None
    return pod


def message(body: Json, kind: str = "Scheduled") -> str:
    return next(str(item["message"]) for item in body["status"]["conditions"] if item["type"] == kind)


@pytest.fixture(autouse=True)
async def roomy_node(api: ApiServer, kubelet: Kubelet) -> None:
    """The node that the queue's flavor stands for."""
    await api.merge(f"/api/v1/nodes/{kubelet.node}", {"metadata": {"labels": {"cloud.example/gpu": "l40s"}}})


async def test_from_the_queue_to_the_end(api: ApiServer, kubelet: Kubelet, namespace: str) -> None:
    job = await queued(api, namespace)
    labels, template = job["metadata"]["labels"], job["spec"]["template"]
    assert labels["kueue.x-k8s.io/priority-class"] == "overnight"
    assert template["metadata"]["annotations"]["kueue.x-k8s.io/podset-preferred-topology"] == "rack"
    assert job["metadata"]["annotations"]["kueue.x-k8s.io/job-min-parallelism"] == "1"
    body = await api.restoration(namespace)
    assert body["status"]["phase"] == "Queued"
    assert "held back by its queue" in message(body)
    assert condition(body, "Suspended")[0] == "False"

    await admit(api, job)
    pod = await place(api, kubelet, namespace)
    assert pod["spec"]["nodeSelector"] == ADMITTED["nodeSelector"]
    await kubelet.start(pod)
    await api.until(namespace, "Scheduled", "Running")
    await kubelet.end(pod, 0, outcomes.succeeded())
    body = await api.finished(namespace)
    assert condition(body, "Succeeded") == ("True", "Completed")
    assert body["status"]["attempts"].get("disruptions", 0) == 0
    await api.job_ttl(namespace, 3600)
    done = await run_job(api, namespace)
    # What the queue wrote stands: nobody has applied the template again, or touched `suspend`.
    assert done["spec"]["template"]["spec"]["nodeSelector"] == ADMITTED["nodeSelector"]
    ours = [entry for entry in done["metadata"]["managedFields"] if entry["manager"] == "vr-operator"]
    assert [entry["operation"] for entry in ours] == ["Update"]
    assert all("f:suspend" not in entry["fieldsV1"].get("f:spec", {}) for entry in ours)


async def test_taken_back_and_let_go_again(api: ApiServer, kubelet: Kubelet, namespace: str) -> None:
    job = await queued(api, namespace)
    await admit(api, job)
    first = await place(api, kubelet, namespace)
    await kubelet.start(first)
    await api.until(namespace, "Scheduled", "Running")

    await evict(api, job)
    body = await api.until(namespace, "Scheduled", "Queued")
    [entry] = body["status"]["attemptHistory"]
    assert entry["reason"] == "Preempted"
    assert body["status"]["attempts"]["disruptions"] == 1
    assert condition(body, "Finished")[0] == "False"

    await admit(api, job)
    second = await place(api, kubelet, namespace, but=first["metadata"]["uid"])
    await kubelet.start(second)
    await api.until(namespace, "Scheduled", "Running")
    await kubelet.end(second, 0, outcomes.succeeded())
    body = await api.finished(namespace)
    assert condition(body, "Succeeded") == ("True", "Completed")
    [entry] = body["status"]["attemptHistory"]
    assert (entry["execution"], entry["reason"], entry["podName"]) == (1, "Completed", second["metadata"]["name"])
    assert body["status"]["attempts"]["disruptions"] == 1
    assert len([one for one in await api.jobs(namespace) if QUEUE in one["metadata"]["labels"]]) == 1


async def test_taken_back_before_it_ran(api: ApiServer, kubelet: Kubelet, namespace: str) -> None:
    """Nothing is lost, so nothing is counted."""
    job = await queued(api, namespace)
    await admit(api, job)
    pod = await place(api, kubelet, namespace)
    await evict(api, job)

    async def gone() -> bool:
        pods = await api.pods(namespace)
        return all(one["metadata"]["uid"] != pod["metadata"]["uid"] for one in pods)

    await eventually(gone, what="its pod is gone")
    body = await api.until(namespace, "Scheduled", "Queued")
    assert body["status"]["attempts"].get("disruptions", 0) == 0
    await admit(api, job)
    await kubelet.start(await place(api, kubelet, namespace, but=pod["metadata"]["uid"]))
    await api.until(namespace, "Scheduled", "Running")


async def test_no_slot_before_one_is_free(api: ApiServer, kubelet: Kubelet, namespace: str) -> None:
    """`maxActive`, without a queue: the oldest go first, the others say where they stand."""
    profiles = f"{GROUP_PATH}/namespaces/{namespace}/restorationprofiles"
    profile = make_profile({"limits.maxActive": 1}, kind="RestorationProfile", name="team", namespace=namespace)
    await api.call("POST", profiles, profile)
    names = ("first", "second", "third")
    for name in names:
        changes = {
            "profileRef": {"kind": "RestorationProfile", "name": "team"},
            "output.uri": f"s3://media/restored/{name}.mp4",
        }
        await api.apply(namespace, changes, name=name)
        await asyncio.sleep(1.1)  # creation times are in whole seconds

    async def stands(name: str, position: int) -> None:
        async def said() -> bool:
            body = await api.restoration(namespace, name)
            ending = f"1 of 1 slots of profile team in use; position {position}"
            return condition(body, "Scheduled") == ("False", "Queued") and message(body) == ending

        await eventually(said, what=f"{name} is number {position}")

    await stands("second", 1)
    await stands("third", 2)
    last = ""
    for name in names:
        pod = await place(api, kubelet, namespace, but=last)
        last = pod["metadata"]["uid"]
        assert pod["metadata"]["name"].startswith(f"vr-{name}-")
        await kubelet.start(pod)
        await kubelet.end(pod, 0, outcomes.succeeded())
        await api.finished(namespace, name)
        await kubelet.remove(pod)
        if name == "first":
            await stands("third", 1)
