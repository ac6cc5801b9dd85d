"""Plans before GPUs, and lost reports settled, on a real control plane: the real Job controller and scheduler, one
operator that plans, and pods that say what a test lets them say."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.builders import outcomes
from tests.builders.kubelet import Kubelet
from tests.builders.live_api import ApiServer, Json, condition, eventually
from tests.builders.operator_process import OperatorProcess

from restoration_api.outcome import FailureReason

pytestmark = pytest.mark.xdist_group("operator-alone")


@pytest.fixture
def planner(rights: Path, namespace: str, tmp_path: Path) -> Iterator[OperatorProcess]:
    """An operator for this namespace whose executions begin with a plan."""
    with OperatorProcess(tmp_path, kubeconfig=rights, watch_namespaces=namespace, plan_jobs="Always") as running:
        yield running


async def pod_of(api: ApiServer, namespace: str, role: str) -> Json:
    async def placed() -> Json | None:
        labelled = [
            pod
            for pod in await api.pods(namespace)
            if pod["metadata"]["labels"].get("videorestoration.dev/role") == role and pod["spec"].get("nodeName")
        ]
        return labelled[0] if labelled else None

    pod = await eventually(placed, what=f"a pod that does {role}")
    assert pod is not None
    return pod


async def roles(api: ApiServer, namespace: str) -> list[str]:
    return sorted("-".join(job["metadata"]["name"].rsplit("-", 2)[1:]) for job in await api.jobs(namespace))


async def end(api: ApiServer, kubelet: Kubelet, namespace: str, role: str, code: int, message: str) -> None:
    pod = await pod_of(api, namespace, role)
    await kubelet.start(pod)
    await kubelet.end(pod, code, message)


async def test_a_plan_then_the_work(api: ApiServer, kubelet: Kubelet, namespace: str, planner: OperatorProcess) -> None:
    await api.apply(namespace)
    await api.until(namespace, "Scheduled", "Pending")
    assert await roles(api, namespace) in ([], ["e1-plan"])
    await end(api, kubelet, namespace, "plan", 0, outcomes.planned())
    await end(api, kubelet, namespace, "run", 0, outcomes.succeeded())
    body = await api.finished(namespace)
    assert condition(body, "Succeeded") == ("True", "Completed")
    assert await roles(api, namespace) == ["e1-plan", "e1-run"]
    status = body["status"]
    assert status["attempts"]["executions"] == 1
    assert [item["jobName"].rpartition("-")[2] for item in status["attemptHistory"]] == ["run"]
    assert status["timings"]["fetchMilliseconds"] == 420  # of both


@pytest.mark.parametrize(
    ("code", "message", "reason"),
    [
        (12, outcomes.failed(FailureReason.INPUT_NOT_FOUND, "s3://media/raw/clip.mp4 does not exist"), "InputNotFound"),
        (13, outcomes.failed(FailureReason.ACCESS_DENIED, "403 at s3://media"), "AccessDenied"),
        (0, outcomes.succeeded(reason="CacheHit"), "CacheHit"),
    ],
    ids=["no input", "no access", "cache hit"],
)
async def test_what_is_found_out_without_a_gpu_ends_without_one(
    api: ApiServer, kubelet: Kubelet, namespace: str, planner: OperatorProcess, code: int, message: str, reason: str
) -> None:
    await api.apply(namespace)
    await end(api, kubelet, namespace, "plan", code, message)
    body = await api.finished(namespace)
    assert condition(body, "Finished") == ("True", reason)
    assert await roles(api, namespace) == ["e1-plan"]


async def test_a_report_that_nobody_read_is_asked_for_in_the_bucket(
    api: ApiServer, kubelet: Kubelet, namespace: str, planner: OperatorProcess
) -> None:
    """The operator is down while the work ends, and Job and pod are removed before it is back."""
    await api.apply(namespace)
    await end(api, kubelet, namespace, "plan", 0, outcomes.planned())
    pod = await pod_of(api, namespace, "run")
    await kubelet.start(pod)
    await api.until(namespace, "Scheduled", "Running")
    planner.kill()
    await kubelet.end(pod, 0, outcomes.succeeded())
    name = pod["metadata"]["labels"]["batch.kubernetes.io/job-name"]
    await api.call("DELETE", f"/apis/batch/v1/namespaces/{namespace}/jobs/{name}", {"propagationPolicy": "Background"})

    async def gone() -> bool:
        return all(item["metadata"]["uid"] != pod["metadata"]["uid"] for item in await api.pods(namespace))

    await eventually(gone, what="the pod is gone with its report")
    planner.start()
    await end(api, kubelet, namespace, "assemble", 0, outcomes.succeeded())
    body = await api.finished(namespace)
    assert condition(body, "Succeeded") == ("True", "Completed")
    assert body["status"]["attempts"] | {"runningSeconds": 0} == {
        "executions": 1, "retries": 0, "infrastructureRetries": 0, "disruptions": 0, "failuresInARow": 0,
        "runningSeconds": 0,
    }  # fmt: skip
    assert body["status"]["output"]["etag"] == "def"
