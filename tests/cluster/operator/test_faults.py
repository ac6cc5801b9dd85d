"""An API server that fails, and answers that never arrive; the proxy is the fault."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from tests.builders import outcomes
from tests.builders.kubelet import Kubelet
from tests.builders.live_api import GROUP_PATH, ApiServer, condition, eventually
from tests.builders.operator_process import OperatorProcess, plain_kubeconfig
from tests.builders.proxy import WRITES, Proxy

pytestmark = pytest.mark.xdist_group("operator-alone")


async def whole_life(api: ApiServer, kubelet: Kubelet, namespace: str) -> None:
    await api.apply(namespace)
    pod = await kubelet.pod(namespace)
    await kubelet.start(pod)
    await api.until(namespace, "Scheduled", "Running")
    await kubelet.end(pod, 0, outcomes.succeeded())
    body = await api.finished(namespace)
    assert condition(body, "Succeeded") == ("True", "Completed")
    assert len(await api.jobs(namespace)) == 1
    assert body["status"]["attempts"]["executions"] == 1


async def test_every_write_fails_once(
    api: ApiServer, kubelet: Kubelet, operator: OperatorProcess, proxy: Proxy, namespace: str
) -> None:
    """500, 429 with Retry-After and 503 in turn, before the API server sees anything."""
    failed: set[str] = set()
    answers = [
        (500, {}),
        (429, {"Retry-After": "1"}),
        (503, {}),
    ]

    def fault(request: web.Request, number: int) -> web.Response | None:
        key = f"{request.method} {request.path}"
        if request.method not in WRITES or key in failed:
            return None
        failed.add(key)
        status, headers = answers[number % len(answers)]
        return web.json_response({"message": "simulated", "reason": "Simulated"}, status=status, headers=headers)

    proxy.fault = fault
    await whole_life(api, kubelet, namespace)
    await api.job_ttl(namespace, 3600)  # the last write of a life follows after its end
    assert len(failed) >= 4, failed


async def test_somebody_changes_the_object_all_the_time(
    api: ApiServer, kubelet: Kubelet, operator: OperatorProcess, proxy: Proxy, namespace: str
) -> None:
    """Before a status write arrives, the object has changed: its first answer is always 409."""
    path = f"{GROUP_PATH}/namespaces/{namespace}/videorestorations/clip"
    touched: set[bytes] = set()

    async def touch_first(request: web.Request, body: bytes) -> None:
        status = json.dumps(json.loads(body)["status"]).encode() if request.path.endswith("/status") else b""
        if status and status not in touched:
            touched.add(status)
            await api.merge(path, {"metadata": {"labels": {"touched": str(len(touched))}}})

    proxy.before_forwarding = touch_first
    await whole_life(api, kubelet, namespace)
    conflicts = [write for write in proxy.writes if write.status == 409]
    assert conflicts
    assert any(method == "GET" and "/videorestorations/clip" in url for method, url, _ in proxy.requests)


async def test_a_watch_that_is_alive_in_appearance_only(
    api: ApiServer, proxy: Proxy, namespace: str, tmp_path: Path
) -> None:
    """It is connected and says nothing: no timeout ends it. A listing tells, and the process starts afresh."""

    connected = asyncio.Event()

    async def silence() -> web.Response:
        connected.set()
        await asyncio.Event().wait()
        raise AssertionError("cancelled with its connection")

    def fault(request: web.Request, number: int) -> Any:
        deaf = "watch" in request.query and request.path.endswith("/videorestorations")
        return silence() if deaf else None

    proxy.fault = fault
    settings = {"watch_namespaces": namespace, "resync_seconds": "1", "stale_watch_seconds": "1"}
    with OperatorProcess(tmp_path, kubeconfig=plain_kubeconfig(tmp_path, proxy.url), **settings) as operator:
        await operator.synced()
        await asyncio.wait_for(connected.wait(), timeout=60)
        await api.apply(namespace)

        async def ended() -> bool:
            return operator.returncode is not None

        await eventually(ended, what="the operator has ended", seconds=60)
        assert operator.returncode == 1
        assert "were not delivered by a watch" in operator.log
        assert "Traceback" not in operator.log
        proxy.fault = None
        operator.start()
        assert condition(await api.until(namespace, "Accepted", "Valid"), "Accepted")[0] == "True"
