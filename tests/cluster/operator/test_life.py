"""A restoration's life under the real operator and the real control plane; the test plays the kubelet."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime

import pytest
from aiohttp import web
from tests.builders import outcomes
from tests.builders.kubelet import Kubelet
from tests.builders.live_api import ApiServer, Json, condition, eventually
from tests.builders.operator_process import OperatorProcess
from tests.builders.proxy import Proxy

from restoration_api.outcome import FailureReason, Progress, Stage

pytestmark = pytest.mark.xdist_group("operator")
ALL_CONDITIONS = {"Accepted", "Scheduled", "Suspended", "Succeeded", "Finished", "Reconciling", "Stalled"}
WRITES_PER_RESTORATION = 7
"""Reservation, ConfigMap, Job, Job seen, running, end, Job's TTL."""


async def test_happy_path(
    api: ApiServer, kubelet: Kubelet, operator: OperatorProcess, proxy: Proxy, namespace: str
) -> None:
    applied = await api.apply(namespace)

    pod = await kubelet.pod(namespace)
    first = await api.restoration(namespace)
    assert {item["type"] for item in first["status"]["conditions"]} == ALL_CONDITIONS
    assert {item["observedGeneration"] for item in first["status"]["conditions"]} == {1}
    assert condition(first, "Accepted") == ("True", "Valid")
    assert first["status"]["profile"]["kind"] == "Builtin"

    await kubelet.create(pod)
    await kubelet.start(pod)
    running = await api.until(namespace, "Scheduled", "Running")
    assert running["status"]["phase"] == "Running"
    assert running["status"]["worker"]["nodeName"] == kubelet.node

    await kubelet.end(pod, 0, outcomes.succeeded(frames=60))
    body = await api.finished(namespace)
    status = body["status"]
    assert status["phase"] == "Succeeded"
    assert condition(body, "Succeeded") == ("True", "Completed")
    assert condition(body, "Reconciling")[0] == "False"
    assert condition(body, "Stalled")[0] == "False"
    assert status["progress"]["summary"] == "100% 60/60"
    assert status["output"]["verification"]["verdict"] == "Passed"
    assert status["timings"]["inferenceMilliseconds"] == 9000
    assert {"queuedMilliseconds", "startupMilliseconds", "totalMilliseconds"} <= set(status["timings"])
    [attempt] = status["attemptHistory"]
    assert attempt["exitCode"] == 0
    assert attempt["reason"] == "Completed"
    assert attempt["podName"] == pod["metadata"]["name"]
    assert body["metadata"]["generation"] == applied["metadata"]["generation"], "the spec was touched"
    assert "finalizers" not in body["metadata"]
    assert {
        entry["subresource"] for entry in body["metadata"]["managedFields"] if entry["manager"] == "vr-operator"
    } == {"status"}

    await api.job_ttl(namespace, 3600)

    async def told() -> bool:
        return len(await events(api, namespace)) == 3

    await eventually(told, what="three Events")
    assert [event["reason"] for event in await events(api, namespace)] == ["JobCreated", "Running", "Completed"]
    writes = [write for write in proxy.writes if "/events.k8s.io/" not in write.path]
    assert len(writes) <= WRITES_PER_RESTORATION, [(write.method, write.path) for write in writes]


async def events(api: ApiServer, namespace: str) -> list[Json]:
    """The operator's own, in order."""
    found = await api.items(f"/apis/events.k8s.io/v1/namespaces/{namespace}/events")
    ours = [event for event in found if event.get("reportingController") == "videorestoration.dev/operator"]
    assert all(event["regarding"]["kind"] == "VideoRestoration" for event in ours)
    return sorted(ours, key=lambda event: str(event["eventTime"]))


async def test_request_in_the_config_map_is_the_one_the_job_names(
    api: ApiServer, kubelet: Kubelet, operator: OperatorProcess, namespace: str
) -> None:
    await api.apply(namespace)
    await kubelet.pod(namespace)
    [job] = await api.jobs(namespace)
    body = await api.restoration(namespace)
    name = body["status"]["profile"]["snapshotName"]
    stored = await api.call("GET", f"/api/v1/namespaces/{namespace}/configmaps/{name}")
    digest = hashlib.sha256(stored["data"]["request.json"].encode()).hexdigest()
    assert stored["immutable"] is True
    assert f"--request-sha256={digest}" in job["spec"]["template"]["spec"]["containers"][0]["args"]
    assert hashlib.sha256(stored["data"]["profile.json"].encode()).hexdigest() == body["status"]["profile"]["hash"]
    assert json.loads(stored["data"]["request.json"])["restoration"]["target"] == {"scaleFactor": 4}
    assert json.loads(stored["data"]["profile.json"])["image"] == "runner:1"


async def test_progress_is_polled_from_the_pod(
    api: ApiServer, kubelet: Kubelet, operator: OperatorProcess, namespace: str
) -> None:
    said = Progress(
        execution=1,
        stage=Stage.RESTORING,
        frames_done=41,
        frames_total=100,
        segments_done=1,
        segments_total=4,
        remaining_milliseconds=60_000,
        gpu="cpu",
        updated_at=datetime.now(UTC),
    )

    async def answer(request: web.Request) -> web.Response:
        del request
        return web.Response(text=said.to_json())

    app = web.Application()
    app.router.add_get("/progress", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    address = "127.81.7.3"  # a loopback address that nothing else uses: the runner's port is fixed
    await web.TCPSite(runner, address, 8080).start()
    try:
        await api.apply(namespace)
        pod = await kubelet.pod(namespace)
        await kubelet.start(pod, ip=address)

        async def reported() -> Json | None:
            body = await api.restoration(namespace)
            return body if body["status"].get("progress") else None

        body = await eventually(reported, what="progress in the status")
        assert body is not None
        assert body["status"]["progress"]["summary"] == "41% 41/100"
        assert body["status"]["progress"]["stage"] == "Restoring"
        assert "estimatedCompletionTime" in body["status"]["progress"]
        assert body["status"]["worker"]["gpu"] == "cpu"
    finally:
        await runner.cleanup()


async def test_a_failure_is_the_runners_sentence(
    api: ApiServer, kubelet: Kubelet, operator: OperatorProcess, namespace: str
) -> None:
    await api.apply(namespace)
    pod = await kubelet.pod(namespace)
    await kubelet.start(pod)
    sentence = "s3://media/raw/clip.mp4 has no video stream; give a file with one"
    await kubelet.end(pod, 10, outcomes.failed(FailureReason.INVALID_INPUT, sentence))
    body = await api.finished(namespace)
    assert condition(body, "Succeeded") == ("False", "InvalidInput")
    assert condition(body, "Stalled") == ("True", "InvalidInput")
    assert body["status"]["attemptHistory"][0]["message"] == sentence
    assert body["status"]["phase"] == "Failed"
