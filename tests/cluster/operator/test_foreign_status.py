"""A status that somebody else has written to, as a restore from a backup does, or a hand with `kubectl edit`.

Server-side apply keeps what another field manager owns, whatever the operator applies: what it leaves out stays, and a
list of ten that it shortens grows beyond what the schema holds.
"""

from __future__ import annotations

from typing import Any

import pytest
from tests.builders import outcomes
from tests.builders.kubelet import Kubelet
from tests.builders.live_api import GROUP_PATH, ApiServer, Json, condition

pytestmark = [pytest.mark.xdist_group("operator"), pytest.mark.usefixtures("shared_operator")]

FOREIGN: dict[str, Json] = {
    "what the operator takes away": {
        "progress": {"percent": 99, "summary": "99% 99/100", "stage": "Restoring"},
        "worker": {"podName": "elsewhere", "nodeName": "elsewhere"},
    },
    "a list that is full": {
        "attemptHistory": [{"execution": number, "reason": "StorageError"} for number in range(901, 911)]
    },
}


@pytest.mark.parametrize("foreign", FOREIGN.values(), ids=FOREIGN)
async def test_it_keeps_nobody_from_going_on(
    api: ApiServer, kubelet: Kubelet, namespace: str, foreign: dict[str, Any]
) -> None:
    await api.apply(namespace, {"suspend": True})
    await api.until(namespace, "Suspended", "UserRequested")
    path = f"{GROUP_PATH}/namespaces/{namespace}/videorestorations/clip"
    await api.merge(f"{path}/status?fieldManager=velero", {"status": foreign})
    await api.merge(path, {"spec": {"suspend": False}})
    pod = await kubelet.pod(namespace)
    await kubelet.start(pod)
    body = await api.until(namespace, "Scheduled", "Running")
    assert body["status"]["worker"]["podName"] == pod["metadata"]["name"]
    await kubelet.end(pod, 0, outcomes.succeeded())
    body = await api.finished(namespace)
    assert condition(body, "Succeeded") == ("True", "Completed")
    assert len(body["status"]["attemptHistory"]) <= 10
