"""What Argo CD or Flux compare: the operator changes nothing of an object but its status, however often it looks."""

from __future__ import annotations

import asyncio
import re

import aiohttp
import pytest
from tests.builders.kubelet import Kubelet
from tests.builders.live_api import GROUP_PATH, ApiServer, Json, eventually
from tests.builders.operator_process import OperatorProcess
from tests.builders.resources import make_profile, make_vr

pytestmark = pytest.mark.xdist_group("operator-alone")
RECONCILES = 100
APPLY = "application/apply-patch+yaml"


async def reconciles(operator: OperatorProcess) -> float:
    """How often the operator has looked at a restoration, by its own count."""
    address = re.findall(r'"addresses": \["([^"]+)"\]', operator.log)[-1]
    async with aiohttp.ClientSession() as session, session.get(f"http://{address}/metrics") as answer:
        text = await answer.text()
    return sum(float(count) for count in re.findall(r"^controller_runtime_reconcile_total{.*} (\S+)$", text, re.M))


def written_by(body: Json, manager: str) -> set[str]:
    """The subresources that a manager has fields in; the empty one is the object itself."""
    return {entry.get("subresource", "") for entry in body["metadata"]["managedFields"] if entry["manager"] == manager}


async def test_a_hundred_reconciliations_write_status_only(
    api: ApiServer, kubelet: Kubelet, operator: OperatorProcess, namespace: str
) -> None:
    profiles = f"{GROUP_PATH}/namespaces/{namespace}/restorationprofiles/team"
    restorations = f"{GROUP_PATH}/namespaces/{namespace}/videorestorations/clip"
    query = "?fieldManager=argocd-controller"
    profile = make_profile(kind="RestorationProfile", name="team", namespace=namespace)
    await api.call("PATCH", profiles + query, profile, content_type=APPLY)
    asked = make_vr({"profileRef": {"kind": "RestorationProfile", "name": "team"}}, namespace=namespace)
    applied = await api.call("PATCH", restorations + query, asked, content_type=APPLY)
    pod = await kubelet.pod(namespace)
    await kubelet.start(pod)
    await api.until(namespace, "Scheduled", "Running")

    async def looked_at() -> bool:
        # Somebody else's annotation: each change of the object is looked at.
        await api.merge(
            restorations, {"metadata": {"annotations": {"touched": str(asyncio.get_running_loop().time())}}}
        )
        return await reconciles(operator) >= RECONCILES

    await eventually(looked_at, what=f"{RECONCILES} reconciliations", seconds=240)
    body, judged = await api.call("GET", restorations), await api.call("GET", profiles)
    for found in (body, judged):
        assert written_by(found, "vr-operator") == {"status"}
        managers = {entry["manager"] for entry in found["metadata"]["managedFields"]}
        assert not [name for name in managers if "kopf" in name]
        assert not {"finalizers", "ownerReferences"} & set(found["metadata"])
    assert body["spec"] == applied["spec"]
    assert set(body["metadata"]["annotations"]) == {"touched"}
    # Applied again, as a GitOps controller does every few minutes: nothing to do.
    again = await api.call("PATCH", restorations + query, asked, content_type=APPLY)
    assert again["metadata"]["resourceVersion"] == body["metadata"]["resourceVersion"]
    assert again["metadata"]["generation"] == applied["metadata"]["generation"]
