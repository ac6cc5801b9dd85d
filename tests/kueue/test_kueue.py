"""The operator and a real Kueue: built here, or with `KUBECONFIG=... make kueue` a cluster's own.

Other tests do to Jobs what Kueue does; here Kueue does it itself. No pod has to run, so no image is needed: one
restoration takes the whole quota, the next ones wait for it. A cluster of `KUBECONFIG` gets CRDs of ours and should
have nothing to lose.
"""

from __future__ import annotations

import os
import subprocess
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from hack.cluster.binaries import ALL
from hack.cluster.controlplane import ControlPlane
from tests.builders.kueue import Kueue
from tests.builders.live_api import GROUP_PATH, ApiServer, Json, RefusedError, eventually
from tests.builders.operator_process import OperatorProcess
from tests.builders.resources import make_profile, make_vr

pytestmark = pytest.mark.xdist_group("kueue")
ROOT = Path(__file__).resolve().parents[2]
GROUP = "kueue.x-k8s.io"
QUEUE_LABEL = f"{GROUP}/queue-name"
QUOTA = {"cpu": "1", "memory": "1Ti", "ephemeral-storage": "1Ti"}
"""Whatever a pod asks for must be there: Kueue lets no Job go whose resources its queue does not know."""
CLUSTER_KINDS = ("resourceflavors", "clusterqueues", "workloadpriorityclasses")


@pytest.fixture(scope="module")
def cluster(request: pytest.FixtureRequest) -> Iterator[Path]:
    """The kubeconfig of a cluster with Kueue. Never `KUBECONFIG` itself: `make test` touches nobody's cluster."""
    if named := os.environ.get("VR_TEST_KUEUE"):
        yield Path(named)
        return
    request.getfixturevalue("kueue_programs")
    with ControlPlane() as plane, Kueue(plane):
        yield plane.kubeconfig


@pytest.fixture(scope="module")
def kubeconfig(cluster: Path) -> Path:
    kubectl = [ALL["kubectl"].path if ALL["kubectl"].path.exists() else "kubectl", "--kubeconfig", cluster]
    for arguments in (["apply"], ["wait", "--for=condition=Established", "--timeout=60s"]):
        subprocess.run([*kubectl, *arguments, "--filename", ROOT / "crds"], check=True, timeout=120)
    return cluster


@pytest.fixture
async def api(kubeconfig: Path) -> AsyncIterator[ApiServer]:
    async with ApiServer(kubeconfig) as connected:
        yield connected


@pytest.fixture
async def version(api: ApiServer) -> str:
    """The API version that this Kueue prefers: v1beta1 up to 0.14, v1beta2 since, and v1beta1 no more since 0.20."""
    try:
        return str((await api.call("GET", f"/apis/{GROUP}"))["preferredVersion"]["version"])
    except RefusedError as error:
        pytest.fail(f"the cluster of KUBECONFIG has no Kueue: {error}")


@pytest.fixture
async def queue(api: ApiServer, version: str) -> AsyncIterator[str]:
    """A namespace with a queue of one processor, under one name for everything."""
    kueue = f"/apis/{GROUP}/{version}"

    def body(kind: str, name: str, **rest: Any) -> Json:
        return {"apiVersion": f"{GROUP}/{version}", "kind": kind, "metadata": {"name": name}, **rest}

    name = f"vr-kueue-{uuid.uuid4().hex[:8]}"
    flavor = {
        "name": name,
        "resources": [{"name": name, "nominalQuota": most} for name, most in QUOTA.items()],
    }
    groups = [{"coveredResources": [*QUOTA], "flavors": [flavor]}]
    matching = {"matchLabels": {"kubernetes.io/metadata.name": name}}
    spec = {
        "namespaceSelector": matching,
        "resourceGroups": groups,
        "preemption": {"withinClusterQueue": "LowerPriority"},
    }
    await api.call("POST", "/api/v1/namespaces", {"metadata": {"name": name}})
    await api.call("POST", f"{kueue}/resourceflavors", body("ResourceFlavor", name, spec={}))
    await api.call("POST", f"{kueue}/clusterqueues", body("ClusterQueue", name, spec=spec))
    urgent = body("WorkloadPriorityClass", name, value=1000, description="urgent")
    await api.call("POST", f"{kueue}/workloadpriorityclasses", urgent)
    local = body("LocalQueue", "gpu", spec={"clusterQueue": name})
    await api.call("POST", f"{kueue}/namespaces/{name}/localqueues", local)
    yield name
    await api.call("DELETE", f"/api/v1/namespaces/{name}")
    for kind in CLUSTER_KINDS:
        try:
            await api.call("DELETE", f"{kueue}/{kind}/{name}")
        except RefusedError:
            continue


async def submit(api: ApiServer, namespace: str, name: str, **labels: str) -> None:
    changes = {
        "profileRef": {"kind": "RestorationProfile", "name": "one"},
        "output.uri": f"s3://media/restored/{name}.mp4",
    }
    asked = make_vr(changes, name=name, namespace=namespace, labels={QUEUE_LABEL: "gpu", **labels})
    await api.call("POST", f"{GROUP_PATH}/namespaces/{namespace}/videorestorations", asked)


async def admitted(api: ApiServer, namespace: str, *names: str) -> None:
    """Wait until Kueue has let the Job of one of these go."""

    async def let_go() -> bool:
        jobs = await api.jobs(namespace)
        mine = [job for job in jobs if job["metadata"]["annotations"]["videorestoration.dev/name"] in names]
        return any(job["spec"].get("suspend") is False for job in mine)

    await eventually(let_go, what=f"Kueue has let {' or '.join(names)} go")


async def says(api: ApiServer, namespace: str, name: str, word: str) -> None:
    """A restoration waits in the queue and says why in Kueue's words; they are looked up again every half minute."""

    async def said() -> bool:
        body = await api.restoration(namespace, name)
        told = [item for item in body["status"].get("conditions", ()) if item["type"] == "Scheduled"]
        return any(item["reason"] == "Queued" and word in item["message"] for item in told)

    await eventually(said, what=f"{name} waits, and says {word!r}")


def touched_by(job: Json) -> set[str]:
    """Who has written `spec.suspend` last."""
    entries = job["metadata"]["managedFields"]
    return {item["manager"] for item in entries if "f:suspend" in item.get("fieldsV1", {}).get("f:spec", {})}


@pytest.fixture
async def profile(api: ApiServer, queue: str) -> None:
    """One execution takes the whole queue."""
    whole = {"resources": {"requests": {"cpu": "1", "memory": "1Gi"}}}
    body = make_profile(whole, kind="RestorationProfile", name="one", namespace=queue)
    await api.call("POST", f"{GROUP_PATH}/namespaces/{queue}/restorationprofiles", body)


@pytest.mark.usefixtures("profile")
async def test_a_plan_stands_in_no_queue(api: ApiServer, queue: str, kubeconfig: Path, tmp_path: Path) -> None:
    """It needs no GPU, and what it finds out must not wait for one."""
    settings = {"watch_namespaces": queue, "namespace": queue, "plan_jobs": "Always"}
    with OperatorProcess(tmp_path, kubeconfig=kubeconfig, **settings) as operator:
        await operator.synced()
        await submit(api, queue, "planned")
        [job] = await eventually(lambda: api.jobs(queue), what="the plan has its Job")
    assert job["metadata"]["labels"]["videorestoration.dev/role"] == "plan"
    assert QUEUE_LABEL not in job["metadata"]["labels"]
    assert not job["spec"].get("suspend")


@pytest.mark.usefixtures("profile")
async def test_quota_queue_and_preemption(api: ApiServer, queue: str, kubeconfig: Path, tmp_path: Path) -> None:
    settings = {"watch_namespaces": queue, "namespace": queue, "kueue_workloads": "true"}
    with OperatorProcess(tmp_path, kubeconfig=kubeconfig, **settings) as operator:
        await operator.synced()
        await submit(api, queue, "first")
        await admitted(api, queue, "first")
        await submit(api, queue, "second")
        await says(api, queue, "second", "insufficient unused quota for cpu")
        # Somebody more urgent comes: Kueue takes the place back, and the operator lets it.
        await submit(api, queue, "urgent", **{"kueue.x-k8s.io/priority-class": queue})
        await admitted(api, queue, "urgent")
        await says(api, queue, "first", "Preempted to accommodate")
        # Suspended by its user, it gives the place back. Which of the two gets it is Kueue's to say: created within one
        # second they are of the same age to it.
        path = f"{GROUP_PATH}/namespaces/{queue}/videorestorations/urgent"
        await api.merge(path, {"spec": {"suspend": True}})
        await admitted(api, queue, "first", "second")
        jobs = await api.jobs(queue)
        assert len(jobs) == 2
        assert all("vr-operator" not in touched_by(job) for job in jobs if not job["spec"]["suspend"])
