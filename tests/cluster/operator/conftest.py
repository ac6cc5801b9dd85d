"""The operator as a process, behind a proxy, against a real control plane; the node is played by the test."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hack.cluster.controlplane import ControlPlane
from tests.builders.chart import cluster_role_rules
from tests.builders.kubelet import Kubelet
from tests.builders.live_api import ApiServer
from tests.builders.operator_process import OperatorProcess
from tests.builders.proxy import Proxy

FORBIDDEN = 403


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


@pytest.fixture(scope="session")
def operators_kubeconfig(control_plane: ControlPlane) -> Path:
    """An identity with the rights that the chart gives the operator, and no others."""
    role = {"metadata": {"name": "as-the-chart-says"}, "rules": cluster_role_rules()}
    binding = {
        "metadata": {"name": "as-the-chart-says"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "as-the-chart-says"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "operator"}],
    }
    control_plane.api.create("/apis/rbac.authorization.k8s.io/v1/clusterroles", role)
    control_plane.api.create("/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", binding)
    return control_plane.user_kubeconfig("operator")


@pytest.fixture
async def proxy(operators_kubeconfig: Path, crds: None) -> AsyncIterator[Proxy]:
    async with ApiServer(operators_kubeconfig) as operators_rights, Proxy(operators_rights) as listening:
        yield listening
        forbidden = [f"{method} {path}" for method, path, status in listening.requests if status == FORBIDDEN]
        assert not forbidden, f"the chart's ClusterRole lacks rights for {forbidden}"


@pytest.fixture
async def operator(proxy: Proxy, namespace: str, tmp_path: Path) -> AsyncIterator[OperatorProcess]:
    async with OperatorProcess(tmp_path, server=proxy.url, namespace=namespace) as running:
        await running.synced()
        yield running
