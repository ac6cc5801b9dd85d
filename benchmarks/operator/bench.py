"""What the scenarios share: the control plane, the operator's process, and what the kernel says about both.

etcd and kube-apiserver run on the same cores as everything else. The Job controller is off, so that the operator is
what is measured, and the scenario plays Job controller and kubelet; the garbage collector is on.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import aiohttp
from hack.cluster.controlplane import ControlPlane
from tests.builders.operator_process import OperatorProcess
from tests.builders.servers import free_ports

from benchmarks.operator.api import VRS, Api

ROOT = Path(__file__).resolve().parents[2]
TICK_HZ = os.sysconf("SC_CLK_TCK")
# The default of 20 requests a second would make Kubernetes' own controllers, not the operator, what is measured.
CONTROLLERS_ON = ("--kube-api-qps=2000", "--kube-api-burst=2000")
CONTROLLERS_OFF = ("--controllers=*,-job-controller", *CONTROLLERS_ON)


Figures = dict[str, Any]


@dataclass(frozen=True)
class Bench:
    """A running control plane and the load's own connection to it."""

    plane: ControlPlane
    api: Api

    def server_cpu_s(self) -> float:
        """CPU seconds that kube-apiserver and etcd have used so far."""
        return sum(cpu_s(self._pid(name)) for name in ("kube-apiserver", "etcd"))

    def _pid(self, name: str) -> int:
        [record] = (self.plane.folder / "processes").glob(f"*-{name}.json")
        return int(json.loads(record.read_text())["pid"])


@asynccontextmanager
async def connected(plane: ControlPlane) -> AsyncIterator[Bench]:
    """The load's connection; CRDs are installed."""
    plane.kubectl("apply", "--filename", ROOT / "crds")
    plane.kubectl("wait", "--for=condition=Established", "--timeout=60s", "--filename", ROOT / "crds")
    async with Api(plane.kubeconfig) as api:
        await _served(api)
        yield Bench(plane=plane, api=api)


async def _served(api: Api) -> None:
    """An established CRD answers 429 "storage is (re)initializing" for another moment."""
    while True:
        try:
            await api.call("GET", VRS.format("default"))
        except RuntimeError:
            await asyncio.sleep(0.2)
        else:
            return


class Operator:
    """The operator as a process that serves one namespace; an async context manager."""

    def __init__(self, bench: Bench, namespace: str, **settings: str) -> None:
        self._folder = TemporaryDirectory(prefix="benchmark-")
        [port] = free_ports(1)
        self.url = f"http://127.0.0.1:{port}"
        self._process = OperatorProcess(
            Path(self._folder.name),
            kubeconfig=bench.plane.kubeconfig,
            watch_namespaces=namespace,
            http_port=str(port),
            poll_seconds="5",
            **settings,
        )
        self.ready_s = 0.0
        """From the start of the process until `/readyz` said so."""

    async def __aenter__(self) -> Operator:
        began = time.monotonic()
        self._process.start()
        async with aiohttp.ClientSession() as session:
            self._session = session
            while not await self._ready(session):
                self._alive()
                await asyncio.sleep(0.02)
        self.ready_s = time.monotonic() - began
        self._session = aiohttp.ClientSession()
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self._session.close()
        if exception[0] is not None:
            print(self._process.log[-4000:])
        self._process.kill()
        self._folder.cleanup()

    @property
    def pid(self) -> int:
        """Its process id."""
        self._alive()
        return self._process.pid

    def signal(self, number: int) -> None:
        """Send it a signal."""
        os.kill(self.pid, number)

    def cpu_s(self) -> float:
        """CPU seconds used so far."""
        return cpu_s(self.pid)

    def rss_mib(self) -> float:
        """Resident memory."""
        return memory_mib(self.pid, "VmRSS")

    def peak_mib(self) -> float:
        """Its largest resident memory so far."""
        return memory_mib(self.pid, "VmHWM")

    async def metric(self, name: str, **labels: str) -> float:
        """The sum of a metric's samples that carry `labels`."""
        async with self._session.get(f"{self.url}/metrics") as answer:
            text = await answer.text()
        wanted = [f'{key}="{value}"' for key, value in labels.items()]
        lines = (line for line in text.splitlines() if line.split("{")[0].split(" ")[0] == name)
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if all(label in line for label in wanted))

    async def writes(self) -> float:
        """Writes to the API that it has made so far, by its own count."""
        return await self.metric("vr_operator_api_writes_total")

    async def _ready(self, session: aiohttp.ClientSession) -> bool:
        try:
            async with session.get(f"{self.url}/readyz") as answer:
                return answer.status == 200
        except aiohttp.ClientError:
            return False

    def _alive(self) -> None:
        if not self._process.alive:
            raise RuntimeError(f"the operator has ended:\n{self._process.log[-4000:]}")


async def at_rest(operator: Operator) -> float:
    """Wait until the operator has written nothing for a second; returns what it has written."""
    before = -1.0
    while (written := await operator.writes()) != before:
        before = written
        await asyncio.sleep(1)
    return written


def cpu_s(pid: int) -> float:
    """User and system time of a process and all its threads so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICK_HZ


def memory_mib(pid: int, field: str) -> float:
    """A field of `/proc/PID/status` that is in kB."""
    line = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith(f"{field}:"))
    return int(line.split()[1]) / 1024


def quantile(values: list[float], share: float) -> float:
    """The value that `share` of all values do not exceed (nearest rank)."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, -(-int(len(ordered) * share * 1000) // 1000) - 1))]
