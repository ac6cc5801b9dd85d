"""No Secret is ever read by the operator: the API server's own audit of whole lives says so.

A profile names Secrets for credentials and for an authority. The kubelet mounts them; the operator only writes their
names into a pod.
"""

from __future__ import annotations

import json
from pathlib import Path

import aiohttp
import pytest
from tests.builders import chart, outcomes
from tests.builders.audit import requests_of
from tests.builders.kubelet import Kubelet
from tests.builders.live_api import ApiServer, Json, condition, eventually
from tests.builders.operator_process import OperatorProcess
from tests.builders.proxy import Proxy
from tests.builders.resources import make_profile

from restoration_api.outcome import FailureReason

pytestmark = pytest.mark.xdist_group("operator")
TEMPTED = "a test that plays an operator who reads Secrets"
PASSWORD = "hunter2-of-the-object-store"
STORAGE = [
    {
        "name": "media",
        "endpoint": "https://minio.media.svc:9000",
        "secretName": "media-s3",
        "caSecretName": "minio-tls",
    }
]


def audited(log: Path) -> list[Json]:
    """Every request that an operator with the chart's rights has made, of all tests of this control plane."""
    return requests_of(log, chart.FULL_NAME)


def resource(item: Json) -> str:
    return str(item.get("objectRef", {}).get("resource", ""))


async def test_a_whole_life_reads_no_secret(
    api: ApiServer,
    kubelet: Kubelet,
    shared_operator: OperatorProcess,
    audit_log: Path,
    namespace: str,
) -> None:
    for name, keys in {"media-s3": ("access-key", "secret-key"), "minio-tls": ("ca.crt", "tls.key")}.items():
        body = {"metadata": {"name": name}, "stringData": dict.fromkeys(keys, PASSWORD)}
        await api.call("POST", f"/api/v1/namespaces/{namespace}/secrets", body)
    profile = make_profile({"storage": STORAGE}) | {"kind": "RestorationProfile"}
    profile["metadata"] = {"name": "team", "namespace": namespace}
    path = f"/apis/videorestoration.dev/v1alpha1/namespaces/{namespace}/restorationprofiles"
    await api.call("POST", path, profile)
    reference = {"kind": "RestorationProfile", "name": "team"}

    # One that waits because its Secret is not there, and then succeeds.
    await api.apply(namespace, {"profileRef": reference}, name="good")
    pod = await kubelet.pod(namespace)
    volumes = {item["name"]: item.get("secret") for item in pod["spec"]["volumes"]}
    assert volumes["storage-media"]["secretName"] == "media-s3"
    assert [item["key"] for item in volumes["ca-media"]["items"]] == ["ca.crt"], "a private key has no place in a pod"
    await kubelet.say(
        pod, "FailedMount", 'MountVolume.SetUp failed for volume "storage-media": secret "media-s3" not found'
    )
    await kubelet.create(pod)
    await kubelet.start(pod)
    await kubelet.end(pod, 0, outcomes.succeeded())
    assert condition(await api.finished(namespace, "good"), "Succeeded") == ("True", "Completed")
    # One that is refused for good, and one that is tried again and deleted.
    await api.apply(namespace, {"profileRef": reference, "output.uri": "s3://media/b.mp4"}, name="bad")
    uid = (await api.restoration(namespace, "bad"))["metadata"]["uid"]
    pod = await kubelet.pod(namespace, uid=uid)
    await kubelet.start(pod)
    await kubelet.end(pod, 13, outcomes.failed(FailureReason.ACCESS_DENIED, "the storage credentials may not read it"))
    bad = await api.finished(namespace, "bad")
    await api.call("DELETE", f"{path.rpartition('/')[0]}/videorestorations/bad")

    async def seen() -> bool:
        return any(
            resource(item) == "jobs" and item["objectRef"].get("namespace") == namespace for item in audited(audit_log)
        )

    await eventually(seen, what="the audit log tells of this restoration")
    asked = [item for item in audited(audit_log) if item.get("userAgent") != TEMPTED]
    assert {"videorestorations", "jobs", "pods", "configmaps", "leases"} <= {resource(item) for item in asked}
    assert [
        item["requestURI"] for item in asked if resource(item) == "secrets" or "/secrets" in item["requestURI"]
    ] == []
    granted = {resource for _, resource, _ in chart.granted()}
    assert {
        f"{resource(item)}/{item['objectRef'].get('subresource', '')}".rstrip("/") for item in asked if resource(item)
    } <= granted
    assert PASSWORD not in shared_operator.log
    for text in (json.dumps(bad), json.dumps(await api.items(f"/apis/events.k8s.io/v1/namespaces/{namespace}/events"))):
        assert PASSWORD not in text


async def test_the_audit_would_have_shown_it(proxy: Proxy, audit_log: Path, namespace: str) -> None:
    """The same account, asking for a Secret: refused, and written down."""
    url = f"{proxy.url}/api/v1/namespaces/{namespace}/secrets/media-s3"
    async with aiohttp.ClientSession(headers={"User-Agent": TEMPTED}) as session, session.get(url) as answer:
        assert answer.status == 403

    async def written() -> bool:
        tried = (item for item in audited(audit_log) if item.get("userAgent") == TEMPTED)
        return any(resource(item) == "secrets" and item["objectRef"]["namespace"] == namespace for item in tried)

    await eventually(written, what="the attempt is in the audit log")
