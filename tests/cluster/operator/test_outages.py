"""The API server goes away and comes back with a shorter memory; watches are cut; the operator goes on where it was."""

from __future__ import annotations

import asyncio
import base64
import ssl
from collections.abc import AsyncIterator
from contextlib import suppress

import aiohttp
import pytest
from hack.cluster.controlplane import ControlPlane
from tests.builders import outcomes
from tests.builders.kubelet import Kubelet
from tests.builders.live_api import GROUP_PATH, ApiServer, Json, RefusedError, condition, eventually
from tests.builders.operator_process import OperatorProcess
from tests.builders.proxy import Proxy

OUTAGE_SECONDS = 30
CUTS = 12
pytestmark = [pytest.mark.xdist_group("operator-alone"), pytest.mark.timeout(300)]


async def compact(control_plane: ControlPlane) -> int:
    """Make etcd forget every revision but the newest; returns that."""
    tls = ssl.create_default_context(cafile=str(control_plane._etcd_authority.pair.certificate))
    tls.load_cert_chain(control_plane._etcd_client.certificate, control_plane._etcd_client.key)
    url = f"https://127.0.0.1:{control_plane._etcd_port}/v3/kv"
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=tls)) as session:
        key = base64.b64encode(b"/").decode()
        async with session.post(f"{url}/range", json={"key": key}) as answer:
            revision = int((await answer.json())["header"]["revision"])
        async with session.post(f"{url}/compaction", json={"revision": str(revision), "physical": True}) as answer:
            assert answer.status == 200, await answer.text()
    return revision


def restoration_path(namespace: str, name: str) -> str:
    return f"{GROUP_PATH}/namespaces/{namespace}/videorestorations/{name}"


async def pod_of(api: ApiServer, namespace: str, name: str) -> Json:
    """The pod of a restoration, once it is on a node."""

    async def placed() -> Json | None:
        uid = (await api.restoration(namespace, name))["metadata"]["uid"]
        pods = [pod for pod in await api.pods(namespace) if pod["spec"].get("nodeName")]
        return next((pod for pod in pods if pod["metadata"]["labels"]["videorestoration.dev/uid"] == uid), None)

    found = await eventually(placed, what=f"a pod of {name} on a node")
    assert found is not None
    return found


async def delete_with_all_it_has(api: ApiServer, namespace: str, name: str) -> None:
    """What the garbage collector does as well, half a minute later where a kind is as new to it as ours is here."""
    uid = (await api.call("DELETE", restoration_path(namespace, name)))["details"]["uid"]
    for job in await api.jobs(namespace):
        if job["metadata"]["ownerReferences"][0]["uid"] == uid:
            path = f"/apis/batch/v1/namespaces/{namespace}/jobs/{job['metadata']['name']}"
            with suppress(RefusedError):  # the garbage collector may have been quicker
                await api.call("DELETE", path, {"propagationPolicy": "Background"})


@pytest.fixture
async def three(
    api: ApiServer, kubelet: Kubelet, operator: OperatorProcess, namespace: str
) -> AsyncIterator[list[Json]]:
    """Pods of the restorations `ends`, `goes on` and `goes away`, all of them running."""
    pods = []
    for name in ("ends", "goes-on", "goes-away"):
        await api.apply(namespace, {"output.uri": f"s3://media/restored/{name}.mp4"}, name=name)
        pod = await pod_of(api, namespace, name)
        await kubelet.start(pod)
        await api.until(namespace, "Scheduled", "Running", name=name)
        pods.append(pod)
    yield pods


async def test_away_for_thirty_seconds_and_back_without_the_history(
    control_plane: ControlPlane,
    api: ApiServer,
    kubelet: Kubelet,
    operator: OperatorProcess,
    proxy: Proxy,
    namespace: str,
    three: list[Json],
) -> None:
    """While the operator hears nothing, one restoration ends, one is deleted with all it has, and one is new. Then the
    API server is stopped, and etcd has forgotten what the operator's watches would continue from: 410 Gone."""
    ends, goes_on, goes_away = three
    proxy.cut_off = True
    proxy.cut_watches()
    await kubelet.end(ends, 0, outcomes.succeeded())
    await delete_with_all_it_has(api, namespace, "goes-away")
    await api.apply(namespace, {"output.uri": "s3://media/restored/new.mp4"}, name="new")

    async def gone() -> bool:
        return all(pod["metadata"]["uid"] != goes_away["metadata"]["uid"] for pod in await api.pods(namespace))

    await eventually(gone, what="the deleted restoration's pod is gone")
    await compact(control_plane)
    # Clients wait ever longer before they try again: the operator has to bear that, Kubernetes' own start afresh.
    for server in ("kube-scheduler", "kube-controller-manager", "kube-apiserver"):
        control_plane.processes.stop_one(server, grace_s=0)
    proxy.cut_off = False  # from here on it is the API server that does not answer
    await asyncio.sleep(OUTAGE_SECONDS)
    control_plane._start_api_server()
    control_plane._start_controllers()

    # The first kubelet did not survive the outage. Without one the node is soon tainted, and takes no pod any more.
    async with Kubelet(api) as again:
        new = await pod_of(api, namespace, "new")
        await again.start(new)
        await again.end(goes_on, 0, outcomes.succeeded())
        await again.end(new, 0, outcomes.succeeded())
        for name in ("ends", "goes-on", "new"):
            body = await api.finished(namespace, name)
            assert condition(body, "Succeeded") == ("True", "Completed")
            assert body["status"]["attempts"]["executions"] == 1
    names = sorted(job["metadata"]["ownerReferences"][0]["name"] for job in await api.jobs(namespace))
    assert names == ["ends", "goes-on", "new"], "a Job too many or too few"
    assert proxy.expired, "no watch was told that its history is gone"
    assert operator.alive, "it did not have to start again for that"


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
