"""The operator is killed before and after each of its writes; the API server counts the Jobs.

The proxy holds the n-th write, either before it reaches the API server or after it was carried out but before the
operator learns of it. Then comes SIGKILL, a new process, and the rest of the restoration's life.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from tests.builders import outcomes
from tests.builders.kubelet import Kubelet
from tests.builders.live_api import ApiServer, Json, condition, eventually
from tests.builders.operator_process import OperatorProcess, plain_kubeconfig
from tests.builders.proxy import Proxy

pytestmark = pytest.mark.xdist_group("operator-alone")
WRITES = ("reservation", "snapshot", "job", "job seen", "running", "end", "ttl")


class Watcher:
    """Records every state that a restoration and its Jobs ever had."""

    def __init__(self, api: ApiServer, namespace: str) -> None:
        self._api = api
        self._namespace = namespace
        self.jobs: dict[str, str] = {}
        """Name by uid of every Job that ever existed."""
        self.states: list[Json] = []

    async def run(self) -> None:
        """Poll quickly; what a Job that lives shorter than this would do cannot be missed: a Job that ran stays."""
        while True:
            for job in await self._api.jobs(self._namespace):
                self.jobs[job["metadata"]["uid"]] = job["metadata"]["name"]
            body = await self._api.restoration(self._namespace)
            if not self.states or body["metadata"]["resourceVersion"] != self.states[-1]["metadata"]["resourceVersion"]:
                self.states.append(body)
            await asyncio.sleep(0.2)


async def play(api: ApiServer, kubelet: Kubelet, namespace: str) -> None:
    """The pod's whole life, at the pace of the cluster."""
    pod = await kubelet.pod(namespace)
    await kubelet.start(pod)
    await asyncio.sleep(0.7)  # time for the operator to record that it runs, if it is alive
    await kubelet.end(pod, 0, outcomes.succeeded())


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("number", range(len(WRITES)), ids=WRITES)
async def test_killed_at_every_write(
    api: ApiServer, kubelet: Kubelet, proxy: Proxy, namespace: str, tmp_path: Path, number: int, moment: str
) -> None:
    setattr(proxy, f"hold_{moment}", number)
    kubeconfig = plain_kubeconfig(tmp_path, proxy.url)
    with OperatorProcess(tmp_path, kubeconfig=kubeconfig, watch_namespaces=namespace) as operator:
        await api.apply(namespace)
        watcher = Watcher(api, namespace)
        watching = asyncio.create_task(watcher.run())
        playing = asyncio.create_task(play(api, kubelet, namespace))
        await asyncio.wait_for(proxy.held.wait(), timeout=60)
        operator.kill()
        proxy.release()
        operator.start()
        await playing
        body = await api.finished(namespace)
        await api.job_ttl(namespace, 3600)
        watching.cancel()
    assert condition(body, "Succeeded") == ("True", "Completed")
    assert len(watcher.jobs) == 1, watcher.jobs
    assert len(await api.jobs(namespace)) == 1
    assert body["status"]["attempts"]["executions"] == 1
    assert [entry["execution"] for entry in body["status"]["attemptHistory"]] == [1]
    assert_history_is_legal(watcher.states)


def assert_history_is_legal(states: list[Json]) -> None:
    """Numbers never fall, and what is finished stays so."""
    executions = [state["status"].get("attempts", {}).get("executions", 0) for state in states]
    assert executions == sorted(executions)
    over = [condition(state, "Finished")[0] == "True" for state in states]
    assert over == sorted(over), "a finished restoration was un-finished"


async def test_two_operators_at_once_create_one_job(
    api: ApiServer, kubelet: Kubelet, proxy: Proxy, namespace: str, tmp_path: Path
) -> None:
    first_folder, second_folder = tmp_path / "first", tmp_path / "second"
    first_folder.mkdir()
    second_folder.mkdir()
    kubeconfig = plain_kubeconfig(tmp_path, proxy.url)
    with (
        OperatorProcess(first_folder, kubeconfig=kubeconfig, watch_namespaces=namespace) as first,
        OperatorProcess(second_folder, kubeconfig=kubeconfig, watch_namespaces=namespace) as second,
    ):
        await first.synced()
        await second.synced()
        names = [f"clip-{number}" for number in range(5)]
        for name in names:
            await api.apply(namespace, {"output.uri": f"s3://media/restored/{name}.mp4"}, name=name)

        async def each_has_one() -> bool:
            return len(await api.jobs(namespace)) >= len(names)

        await eventually(each_has_one, what="each restoration has a Job")
        await asyncio.sleep(2)  # time for the other one to be late
        jobs = await api.jobs(namespace)
        owners = [job["metadata"]["ownerReferences"][0]["name"] for job in jobs]
        assert sorted(owners) == names
        assert all(job["metadata"]["labels"]["videorestoration.dev/execution"] == "1" for job in jobs)


async def test_deleted_and_created_again_under_its_name(
    api: ApiServer, kubelet: Kubelet, operator: OperatorProcess, namespace: str
) -> None:
    first = await api.apply(namespace)
    pod = await kubelet.pod(namespace)
    await kubelet.start(pod)
    await api.until(namespace, "Scheduled", "Running")
    path = f"/apis/videorestoration.dev/v1alpha1/namespaces/{namespace}/videorestorations/clip"
    await api.call("DELETE", path, {"propagationPolicy": "Background"})
    second = await api.apply(namespace)
    assert second["metadata"]["uid"] != first["metadata"]["uid"]

    async def replaced() -> Json | None:
        for job in await api.jobs(namespace):
            if job["metadata"]["ownerReferences"][0]["uid"] == second["metadata"]["uid"]:
                return job
        return None

    job = await eventually(replaced, what="the second object has its own Job")
    assert job is not None
    body = await api.restoration(namespace)
    assert body["status"]["attempts"]["executions"] == 1
    assert body["status"]["jobName"] == job["metadata"]["name"]
    assert body["status"]["jobName"] != first.get("status", {}).get("jobName")
