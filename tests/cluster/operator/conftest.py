"""The operator as a process, behind a proxy, against a real control plane; the node is played by the test."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hack.cluster.controlplane import ControlPlane
from tests.builders.kubelet import Kubelet
from tests.builders.live_api import ApiServer
from tests.builders.operator_process import OperatorProcess
from tests.builders.proxy import Proxy


@pytest.fixture(scope="session")
def crds(control_plane: ControlPlane) -> None:
    control_plane.kubectl("apply", "--filename", "crds/")
    control_plane.kubectl("wait", "--for=condition=Established", "--timeout=60s", "--filename", "crds/")


@pytest.fixture
async def api(control_plane: ControlPlane, crds: None) -> AsyncIterator[ApiServer]:
    async with ApiServer(control_plane.kubeconfig) as connected:
        yield connected


@pytest.fixture
async def kubelet(api: ApiServer) -> AsyncIterator[Kubelet]:
    async with Kubelet(api) as playing:
        yield playing


@pytest.fixture
async def proxy(api: ApiServer) -> AsyncIterator[Proxy]:
    async with Proxy(api) as listening:
        yield listening


@pytest.fixture
async def operator(proxy: Proxy, namespace: str, tmp_path: Path) -> AsyncIterator[OperatorProcess]:
    async with OperatorProcess(tmp_path, server=proxy.url, namespace=namespace) as running:
        await running.synced()
        yield running
