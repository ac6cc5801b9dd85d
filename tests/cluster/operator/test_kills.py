"""SIGKILL to the real operator at random moments of fifty restorations' lives: none is lost, none is done twice.

The moments are chosen by a fixed seed and fall anywhere: while it starts, lists, reserves, creates, waits, records.
It runs as installed, with a Lease; each new process is its pod's next container, which gets the lease back at once.
`VR_TEST_KILLS` asks for more of them (`make soak`: 1,000).
"""

from __future__ import annotations

import asyncio
import os
import random
from collections import Counter, defaultdict
from pathlib import Path
from typing import Final

import pytest
from tests.builders import outcomes
from tests.builders.chart import FULL_NAME, NAMESPACE
from tests.builders.kubelet import Kubelet
from tests.builders.live_api import GROUP_PATH, ApiServer, Json, condition, eventually
from tests.builders.operator_process import OperatorProcess

from restoration_api.outcome import FailureReason

KILLS: Final = int(os.environ.get("VR_TEST_KILLS", "40"))
RESTORATIONS: Final = max(50, KILLS)
SEED: Final = 2026
STARTING_SECONDS: Final = (0.1, 0.9)
"""Every other process is killed so long after its start, whatever it does then,"""
WORKING_SECONDS: Final = (0.0, 0.8)
"""and the others so long after they lead."""
LEASE: Final = f"/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases/{FULL_NAME}"
AS_INSTALLED: Final = {"namespace": NAMESPACE, "lease_name": FULL_NAME, "pod_name": "operator-killed"}
FAILS_FIRST: Final = 5
"""Every so many restorations the first execution fails in a way that is tried again."""

pytestmark = [pytest.mark.xdist_group("operator-alone"), pytest.mark.timeout(300 + 6 * KILLS)]


class Studio:
    """Pods that run a while and end; and every Job that there ever was."""

    def __init__(self, api: ApiServer, kubelet: Kubelet, namespace: str) -> None:
        self._api = api
        self._kubelet = kubelet
        self._namespace = namespace
        self._dice = random.Random(SEED)
        self._ends: dict[str, float] = {}
        self.jobs: dict[str, Json] = {}
        """Every Job by its uid, as it was seen last."""
        self.live_at_once: Counter[str] = Counter()
        """Most Jobs of one restoration that were neither ended nor being deleted at the same moment."""

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self._count()
            for pod in await self._api.pods(self._namespace):
                await self._play(pod)
            await asyncio.sleep(0.15)

    async def _count(self) -> None:
        live: Counter[str] = Counter()
        for job in await self._api.jobs(self._namespace):
            meta = job["metadata"]
            self.jobs[meta["uid"]] = job
            ended = any(item["type"] in ("Complete", "Failed") for item in job["status"].get("conditions", ()))
            if not ended and "deletionTimestamp" not in meta:
                live[meta["ownerReferences"][0]["name"]] += 1
        self.live_at_once |= live

    async def _play(self, pod: Json) -> None:
        uid, now = pod["metadata"]["uid"], asyncio.get_running_loop().time()
        phase = pod["status"].get("phase")
        if phase == "Pending" and pod["spec"].get("nodeName"):
            await self._kubelet.start(pod)
            self._ends[uid] = now + self._dice.uniform(0.1, 4)
        elif phase == "Running" and now >= self._ends.get(uid, 0.0):
            name = self._owner(pod)
            first = pod["metadata"]["labels"]["videorestoration.dev/execution"] == "1"
            if first and int(name.rpartition("-")[2]) % FAILS_FIRST == 0:
                await self._kubelet.end(pod, 21, outcomes.failed(FailureReason.STORAGE_ERROR, "503 from the store"))
            else:
                await self._kubelet.end(pod, 0, outcomes.succeeded())

    def _owner(self, pod: Json) -> str:
        job = self.jobs[pod["metadata"]["ownerReferences"][0]["uid"]]
        return str(job["metadata"]["ownerReferences"][0]["name"])


async def test_killed_at_random_moments(
    api: ApiServer, kubelet: Kubelet, rights: Path, namespace: str, tmp_path: Path
) -> None:
    dice = random.Random(SEED)
    names = [f"clip-{number}" for number in range(RESTORATIONS)]
    coming = iter(names)
    studio = Studio(api, kubelet, namespace)
    playing = asyncio.create_task(studio.run())
    with OperatorProcess(tmp_path, kubeconfig=rights, watch_namespaces=namespace, **AS_INSTALLED) as operator:
        for kill in range(KILLS):
            for name in [name for _, name in zip(range(1 + (kill % 4 == 0)), coming, strict=False)]:
                policy = {"retryPolicy": {"backoffSeconds": 1}, "output.uri": f"s3://media/restored/{name}.mp4"}
                await api.apply(namespace, policy, name=name)
            if kill % 2:
                await asyncio.sleep(dice.uniform(*STARTING_SECONDS))
            else:
                await _leads_once_more(operator, kill // 2)
                await asyncio.sleep(dice.uniform(*WORKING_SECONDS))
            operator.kill()
            operator.start()
        for name in coming:
            await api.apply(namespace, {"output.uri": f"s3://media/restored/{name}.mp4"}, name=name)
        bodies = await _all_finished(api, namespace, operator)
        await api.job_ttl(namespace, 3600)
        playing.cancel()
        assert (await api.call("GET", LEASE))["spec"]["holderIdentity"] == AS_INSTALLED["pod_name"]
    await api.call("DELETE", LEASE)  # the next test's operator need not wait until it runs out
    await _check(bodies, studio)
    print(f"{KILLS} kills, {len(bodies)} restorations, {len(studio.jobs)} Jobs, none twice, none lost")


async def _leads_once_more(operator: OperatorProcess, before: int) -> None:
    """Those that are killed early may have come as far; then this one is killed early too."""

    async def said() -> bool:
        return operator.log.count('"leading"') > before

    await eventually(said, what="the operator leads")


async def _all_finished(api: ApiServer, namespace: str, operator: OperatorProcess) -> list[Json]:
    async def ask() -> list[Json]:
        if not operator.alive:  # on a machine that is too busy to renew the lease it ends; a kubelet would do this
            operator.start()
        bodies = await api.items(f"{GROUP_PATH}/namespaces/{namespace}/videorestorations")
        over = [condition(body, "Finished")[0] == "True" for body in bodies]
        return bodies if len(bodies) == RESTORATIONS and all(over) else []

    return await eventually(ask, what="every restoration is over", seconds=120 + KILLS)


async def _check(bodies: list[Json], studio: Studio) -> None:
    """Of every restoration: as many Jobs as executions, one after the other, and all of them remembered."""
    jobs: defaultdict[str, list[str]] = defaultdict(list)
    for job in studio.jobs.values():
        jobs[job["metadata"]["ownerReferences"][0]["uid"]].append(job["metadata"]["name"])
    assert max(studio.live_at_once.values()) == 1, studio.live_at_once
    for body in bodies:
        meta, status = body["metadata"], body["status"]
        number = status["attempts"]["executions"]
        assert condition(body, "Succeeded") == ("True", "Completed"), meta["name"]
        expected = 2 if int(meta["name"].rpartition("-")[2]) % FAILS_FIRST == 0 else 1
        assert number == expected, f"{meta['name']}: {number} executions, {status['attemptHistory']}"
        assert len(jobs[meta["uid"]]) == number, f"{meta['name']}: {jobs[meta['uid']]}"
        assert [entry["execution"] for entry in status["attemptHistory"]] == list(range(1, number + 1))
        assert status["attempts"]["retries"] == number - 1
