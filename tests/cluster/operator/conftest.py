"""The operator as a process against a real control plane; the node is played by the test.

The control plane is these tests' own: they need the CRDs for as long as they run, an audit log, and an operator that
has no more rights than the chart gives it.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import yaml
from hack.cluster.controlplane import ControlPlane
from tests.builders import chart
from tests.builders.kubelet import Kubelet
from tests.builders.live_api import ApiServer
from tests.builders.operator_process import OperatorProcess, plain_kubeconfig
from tests.builders.proxy import Proxy

ROOT = Path(__file__).resolve().parents[3]
NAME, SYSTEM = chart.FULL_NAME, chart.NAMESPACE
AUDIT_POLICY = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [
        {"level": "Metadata", "userGroups": [f"system:serviceaccounts:{SYSTEM}"]},
        {"level": "None"},
    ],
}


@pytest.fixture(scope="package")
def audit_log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What operators with the chart's rights have asked for, one JSON document a line."""
    return tmp_path_factory.mktemp("audit") / "audit.log"


@pytest.fixture(scope="package")
def control_plane(cluster_binaries: None, audit_log: Path) -> Iterator[ControlPlane]:
    policy = audit_log.with_name("policy.yaml")
    policy.write_text(yaml.safe_dump(AUDIT_POLICY))
    flags = [f"--audit-policy-file={policy}", f"--audit-log-path={audit_log}"]
    with ControlPlane(api_server_flags=flags) as running:
        running.kubectl("apply", "--filename", ROOT / "crds")
        running.kubectl("wait", "--for=condition=Established", "--timeout=60s", "--filename", ROOT / "crds")
        yield running


@pytest.fixture(scope="package")
def rights(control_plane: ControlPlane) -> Path:
    """A kubeconfig of a service account that may do exactly what the chart lets the operator do."""
    control_plane.create_namespace(SYSTEM)
    objects = chart.rights()
    control_plane.kubectl("apply", "--filename=-", stdin="\n---\n".join(json.dumps(body) for body in objects))
    return control_plane.service_account_kubeconfig(namespace=SYSTEM, name=NAME)


@pytest.fixture
async def api(control_plane: ControlPlane) -> AsyncIterator[ApiServer]:
    async with ApiServer(control_plane.kubeconfig) as connected:
        yield connected


@pytest.fixture
async def kubelet(api: ApiServer) -> AsyncIterator[Kubelet]:
    async with Kubelet(api) as playing:
        yield playing


@pytest.fixture
async def proxy(api: ApiServer, rights: Path) -> AsyncIterator[Proxy]:
    """Between the API server and an operator with the chart's rights."""
    async with Proxy(api, rights) as listening:
        yield listening


@pytest.fixture(scope="module")
def shared_operator(rights: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OperatorProcess]:
    """One operator for all namespaces, with the chart's rights; for tests that do not harm it."""
    folder = tmp_path_factory.mktemp("operator")
    as_installed = {"namespace": SYSTEM, "lease_name": NAME, "pod_name": "operator-0"}
    with OperatorProcess(folder, kubeconfig=rights, lost_node_seconds="1", **as_installed) as running:
        yield running


@pytest.fixture
async def operator(proxy: Proxy, namespace: str, tmp_path: Path) -> AsyncIterator[OperatorProcess]:
    """An operator for one namespace, behind the proxy."""
    kubeconfig = plain_kubeconfig(tmp_path, proxy.url)
    with OperatorProcess(tmp_path, kubeconfig=kubeconfig, watch_namespaces=namespace) as running:
        await running.synced()
        yield running
