"""Watches are cut all the time; the operator goes on where it was."""

from __future__ import annotations

import asyncio

import pytest
from tests.builders import outcomes
from tests.builders.kubelet import Kubelet
from tests.builders.live_api import ApiServer, Json, eventually
from tests.builders.operator_process import OperatorProcess
from tests.builders.proxy import Proxy

CUTS = 12
pytestmark = [pytest.mark.xdist_group("operator-kills"), pytest.mark.timeout(300)]


async def pod_of(api: ApiServer, namespace: str, name: str) -> Json:
    """The pod of a restoration, once it is on a node."""

    async def placed() -> Json | None:
        uid = (await api.restoration(namespace, name))["metadata"]["uid"]
        pods = [pod for pod in await api.pods(namespace) if pod["spec"].get("nodeName")]
        return next((pod for pod in pods if pod["metadata"]["labels"]["videorestoration.dev/uid"] == uid), None)

    found = await eventually(placed, what=f"a pod of {name} on a node")
    assert found is not None
    return found


async def test_watches_are_cut_all_the_time(
    api: ApiServer, kubelet: Kubelet, operator: OperatorProcess, proxy: Proxy, namespace: str
) -> None:
    """Load balancers do this; nothing is missed and nothing is done twice."""

    async def cut() -> None:
        for _ in range(CUTS):
            await asyncio.sleep(0.5)
            proxy.cut_watches()

    cutting = asyncio.create_task(cut())
    names = [f"clip-{number}" for number in range(4)]
    for name in names:
        await api.apply(namespace, {"output.uri": f"s3://media/restored/{name}.mp4"}, name=name)
        pod = await pod_of(api, namespace, name)
        await kubelet.start(pod)
        await api.until(namespace, "Scheduled", "Running", name=name)
        await kubelet.end(pod, 0, outcomes.succeeded())
    for name in names:
        body = await api.finished(namespace, name)
        assert body["status"]["attempts"]["executions"] == 1
    await cutting
    jobs = await api.jobs(namespace)
    assert sorted(job["metadata"]["ownerReferences"][0]["name"] for job in jobs) == names
    assert proxy.watches_cut >= len(names)
    assert operator.alive
