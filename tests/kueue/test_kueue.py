"""The operator and a real Kueue: `KUBECONFIG=... make kueue`, on a cluster that has Kueue and nothing else to lose.

Not part of `make test`: what is tested there does to Jobs what Kueue does. Here Kueue does it itself. No pod has to
run, so no image is needed: one restoration takes the whole quota, the next ones wait for it.
"""

from __future__ import annotations

import os
import subprocess
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.builders.live_api import GROUP_PATH, ApiServer, Json, RefusedError, eventually
from tests.builders.operator_process import OperatorProcess
from tests.builders.resources import make_profile, make_vr

ROOT = Path(__file__).resolve().parents[2]
KUEUE = "/apis/kueue.x-k8s.io/v1beta1"
CLUSTER_KINDS = ("resourceflavors", "clusterqueues", "workloadpriorityclasses")


@pytest.fixture(scope="module")
def kubeconfig() -> Path:
    named = os.environ.get("KUBECONFIG")
    if not named:
        pytest.fail("set KUBECONFIG to a cluster that has Kueue")
    for arguments in (["apply"], ["wait", "--for=condition=Established", "--timeout=60s"]):
        subprocess.run(["kubectl", *arguments, "--filename", ROOT / "crds"], check=True, timeout=120)
    return Path(named)


@pytest.fixture
async def api(kubeconfig: Path) -> AsyncIterator[ApiServer]:
    async with ApiServer(kubeconfig) as connected:
        yield connected


@pytest.fixture
async def queue(api: ApiServer) -> AsyncIterator[str]:
    """A namespace with a queue of one processor, under one name for everything."""
    name = f"vr-kueue-{uuid.uuid4().hex[:8]}"
    flavor = {
        "name": name,
        "resources": [{"name": "cpu", "nominalQuota": "1"}, {"name": "memory", "nominalQuota": "1Ti"}],
    }
    groups = [{"coveredResources": ["cpu", "memory"], "flavors": [flavor]}]
    matching = {"matchLabels": {"kubernetes.io/metadata.name": name}}
    spec = {
        "namespaceSelector": matching,
        "resourceGroups": groups,
        "preemption": {"withinClusterQueue": "LowerPriority"},
    }
    await api.call("POST", "/api/v1/namespaces", {"metadata": {"name": name}})
    await api.call("POST", f"{KUEUE}/resourceflavors", body("ResourceFlavor", name, spec={}))
    await api.call("POST", f"{KUEUE}/clusterqueues", body("ClusterQueue", name, spec=spec))
    urgent = body("WorkloadPriorityClass", name, value=1000, description="urgent")
    await api.call("POST", f"{KUEUE}/workloadpriorityclasses", urgent)
    local = body("LocalQueue", "gpu", spec={"clusterQueue": name})
    await api.call("POST", f"{KUEUE}/namespaces/{name}/localqueues", local)
    yield name
    await api.call("DELETE", f"/api/v1/namespaces/{name}")
    for kind in CLUSTER_KINDS:
        try:
            await api.call("DELETE", f"{KUEUE}/{kind}/{name}")
        except RefusedError:
            continue


def body(kind: str, name: str, **rest: Any) -> Json:
    return {"apiVersion": "kueue.x-k8s.io/v1beta1", "kind": kind, "metadata": {"name": name}, **rest}


async def submit(api: ApiServer, namespace: str, name: str, **labels: str) -> None:
    changes = {
        "profileRef": {"kind": "RestorationProfile", "name": "one"},
        "output.uri": f"s3://media/restored/{name}.mp4",
    }
    asked = make_vr(changes, name=name, namespace=namespace, labels={"kueue.x-k8s.io/queue-name": "gpu", **labels})
    await api.call("POST", f"{GROUP_PATH}/namespaces/{namespace}/videorestorations", asked)


async def admitted(api: ApiServer, namespace: str, name: str) -> None:
    async def let_go() -> bool:
        jobs = await api.jobs(namespace)
        mine = [job for job in jobs if job["metadata"]["annotations"]["videorestoration.dev/name"] == name]
        return bool(mine) and mine[0]["spec"].get("suspend") is False

    await eventually(let_go, what=f"Kueue has let {name} go")


async def waits(api: ApiServer, namespace: str, name: str) -> str:
    """What a restoration says that waits in the queue, in Kueue's words."""
    found = await api.until(namespace, "Scheduled", "Queued", name=name)
    return next(str(item["message"]) for item in found["status"]["conditions"] if item["type"] == "Scheduled")


async def test_quota_queue_and_preemption(api: ApiServer, queue: str, kubeconfig: Path, tmp_path: Path) -> None:
    profile = make_profile(
        {"resources": {"requests": {"cpu": "1", "memory": "1Gi"}}},
        kind="RestorationProfile",
        name="one",
        namespace=queue,
    )
    await api.call("POST", f"{GROUP_PATH}/namespaces/{queue}/restorationprofiles", profile)
    settings = {"watch_namespaces": queue, "namespace": queue, "kueue_workloads": "true"}
    with OperatorProcess(tmp_path, kubeconfig=kubeconfig, **settings) as operator:
        await operator.synced()
        await submit(api, queue, "first")
        await admitted(api, queue, "first")
        await submit(api, queue, "second")
        assert "insufficient" in await waits(api, queue, "second")
        # Somebody more urgent comes: Kueue takes the place back, and the operator lets it.
        await submit(api, queue, "urgent", **{"kueue.x-k8s.io/priority-class": queue})
        await admitted(api, queue, "urgent")
        assert "Preempted" in await waits(api, queue, "first")
        # Suspended by its user, it gives the place back: the oldest gets it.
        path = f"{GROUP_PATH}/namespaces/{queue}/videorestorations/urgent"
        await api.merge(path, {"spec": {"suspend": True}})
        await admitted(api, queue, "first")
        assert len(await api.jobs(queue)) == 2
