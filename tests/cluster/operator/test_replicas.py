"""Two replicas of the real operator and one Lease: who writes, who follows, and what happens when the first one stops.

Each replica has a proxy of its own, which counts its writes. The Lease's times are short, their order is as always.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.builders import outcomes
from tests.builders.chart import FULL_NAME, NAMESPACE
from tests.builders.kubelet import Kubelet
from tests.builders.live_api import ApiServer, RefusedError, condition, eventually
from tests.builders.operator_process import OperatorProcess, plain_kubeconfig
from tests.builders.proxy import Proxy

pytestmark = pytest.mark.xdist_group("operator-alone")
LEASE = f"/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases/{FULL_NAME}"
FREEZES = int(os.environ.get("VR_TEST_FREEZES", "1"))
"""`make soak` asks for more: each time at another moment of the work."""
TIMES = {"lease_duration_seconds": "6", "lease_renew_deadline_seconds": "4", "lease_retry_seconds": "0.5"}


@dataclass(frozen=True)
class Replica:
    name: str
    process: OperatorProcess
    proxy: Proxy

    @property
    def writes(self) -> list[tuple[str, str]]:
        """What it has asked for, whatever came of it; the Lease apart."""
        return [(write.method, write.path) for write in self.proxy.writes if "/leases" not in write.path]


@dataclass(frozen=True)
class Pair:
    api: ApiServer
    namespace: str
    first: Replica
    second: Replica

    async def holder(self) -> str:
        lease = await self.api.find(LEASE)
        return str(lease["spec"]["holderIdentity"]) if lease else ""

    async def led_by(self, replica: Replica) -> None:
        async def leads() -> bool:
            return await self.holder() == replica.name and '"leading"' in replica.process.log

        await eventually(leads, what=f"{replica.name} leads")

    async def apply(self, count: int, *, prefix: str) -> list[str]:
        names = [f"{prefix}-{number}" for number in range(count)]
        for name in names:
            await self.api.apply(self.namespace, {"output.uri": f"s3://media/restored/{name}.mp4"}, name=name)
        return names

    async def jobs_of(self, names: list[str]) -> list[str]:
        jobs = await self.api.jobs(self.namespace)
        owners = (job["metadata"]["ownerReferences"][0]["name"] for job in jobs)
        return sorted(owner for owner in owners if owner in names)

    async def each_has_one_job(self, names: list[str]) -> None:
        async def all_there() -> bool:
            return set(await self.jobs_of(names)) == set(names)

        await eventually(all_there, what="each restoration has its Job", seconds=60)
        assert await self.jobs_of(names) == sorted(names)


@pytest.fixture
async def pair(api: ApiServer, rights: Path, namespace: str, tmp_path: Path) -> AsyncIterator[Pair]:
    """The first leads, the second follows."""
    async with AsyncExitStack() as stack:
        replicas = []
        for name in ("first", "second"):
            proxy = await stack.enter_async_context(Proxy(api, rights))
            folder = tmp_path / name
            folder.mkdir()
            settings = {"watch_namespaces": namespace, "namespace": NAMESPACE, "lease_name": FULL_NAME} | TIMES
            process = OperatorProcess(folder, kubeconfig=plain_kubeconfig(folder, proxy.url), pod_name=name, **settings)
            replicas.append(Replica(name, stack.enter_context(process), proxy))
            if name == "first":
                await Pair(api, namespace, replicas[0], replicas[0]).led_by(replicas[0])
        await replicas[1].process.synced()
        yield Pair(api, namespace, *replicas)
    with suppress(RefusedError):
        await api.call("DELETE", LEASE)


@pytest.mark.parametrize("turn", range(FREEZES))
async def test_a_frozen_leader_that_is_let_go_on_writes_nothing(pair: Pair, turn: int) -> None:
    names = await pair.apply(10, prefix="before")
    await pair.each_has_one_job(names)
    # It is frozen in the middle of its work: some of these have a Job, some not even a status.
    burst = asyncio.create_task(pair.apply(20, prefix="burst"))
    written = len(pair.first.writes)

    async def at_work() -> bool:
        return len(pair.first.writes) > written + 10 + turn

    await eventually(at_work, what="the first is busy")
    pair.first.process.freeze()
    await pair.led_by(pair.second)
    names += await burst
    before = pair.first.writes
    pair.first.process.let_go_on()
    assert await asyncio.to_thread(pair.first.process.ended) == 1
    assert "this process must not write" in pair.first.process.log
    await pair.each_has_one_job(names)
    assert pair.first.writes == before, "the old leader wrote after the new one had taken over"


async def test_a_crash_is_taken_over_and_work_goes_on(pair: Pair, kubelet: Kubelet) -> None:
    await pair.api.apply(pair.namespace)
    pod = await kubelet.pod(pair.namespace)
    await kubelet.start(pod)
    await pair.api.until(pair.namespace, "Scheduled", "Running")
    assert pair.second.writes == [], "a replica that follows writes nothing"
    pair.first.process.kill()
    await kubelet.end(pod, 0, outcomes.succeeded())
    body = await pair.api.finished(pair.namespace)
    assert condition(body, "Succeeded") == ("True", "Completed")
    assert body["status"]["attempts"]["executions"] == 1
    assert await pair.holder() == "second"


async def test_a_graceful_stop_hands_over_at_once(pair: Pair) -> None:
    names = await pair.apply(5, prefix="before")
    await pair.each_has_one_job(names)
    assert await asyncio.to_thread(pair.first.process.terminate) == 0, pair.first.process.log[-6000:]
    assert "lease released" in pair.first.process.log
    await pair.led_by(pair.second)
    last = pair.first.writes
    names = await pair.apply(5, prefix="after")
    await pair.each_has_one_job(names)
    assert pair.first.writes == last
