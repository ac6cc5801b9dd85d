"""Operators for a part of the cluster, each with the rights that the chart gives it and no others."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from hack.cluster.controlplane import ControlPlane
from tests.builders import chart, outcomes
from tests.builders.audit import requests_of
from tests.builders.kubelet import Kubelet
from tests.builders.live_api import GROUP_PATH, ApiServer, Json, condition, eventually
from tests.builders.operator_process import OperatorProcess
from tests.builders.resources import make_profile

pytestmark = pytest.mark.xdist_group("operator-alone")
PROFILES = "clusterrestorationprofiles"
UNSEEN = {"observedGeneration": -1}
"""The status that the API server itself writes: docs/decisions/0027-a-status-before-the-first-visit.md."""


@pytest.fixture
async def elsewhere(api: ApiServer, namespace: str) -> AsyncIterator[str]:
    """Another namespace."""
    name = f"{namespace}-b"
    await api.call("POST", "/api/v1/namespaces", {"metadata": {"name": name}})
    yield name
    await api.call("DELETE", f"/api/v1/namespaces/{name}")


def installed(control_plane: ControlPlane, release: str, values: dict[str, Any]) -> Path:
    """A kubeconfig of an operator that was installed with these values."""
    bodies = chart.rights(values, release=release)
    control_plane.kubectl("apply", "--filename=-", stdin="\n---\n".join(json.dumps(body) for body in bodies))
    name = f"{release}-video-restoration-operator"
    return control_plane.service_account_kubeconfig(namespace=chart.NAMESPACE, name=name)


def asked(audit_log: Path, release: str) -> list[Json]:
    """What it has asked of the API server, discovery aside."""
    ours = requests_of(audit_log, f"{release}-video-restoration-operator")
    return [item for item in ours if "objectRef" in item]


async def untouched(api: ApiServer, namespace: str, name: str = "clip") -> bool:
    return (await api.restoration(namespace, name))["status"] == UNSEEN


@pytest.mark.usefixtures("rights")
async def test_a_list_asks_nothing_of_the_whole_cluster_but_its_profiles(
    api: ApiServer,
    kubelet: Kubelet,
    control_plane: ControlPlane,
    audit_log: Path,
    namespace: str,
    elsewhere: str,
    tmp_path: Path,
) -> None:
    kubeconfig = installed(control_plane, "listed", {"scope.namespaces": [namespace]})
    settings = {
        "watch_namespaces": namespace,
        "namespace": chart.NAMESPACE,
        "lease_name": "listed-video-restoration-operator",
        "lost_node_seconds": "1",
    }
    with OperatorProcess(tmp_path, kubeconfig=kubeconfig, **settings) as operator:
        await operator.synced()
        await api.apply(elsewhere)
        await api.call("POST", f"{GROUP_PATH}/{PROFILES}", make_profile(name=namespace))
        await judged(api, f"{GROUP_PATH}/{PROFILES}/{namespace}")
        # A whole life, with a profile of the cluster.
        await api.apply(namespace, {"profileRef": {"name": namespace}})
        pod = await kubelet.pod(namespace)
        await kubelet.start(pod)
        await api.until(namespace, "Scheduled", "Running")
        await kubelet.end(pod, 0, outcomes.succeeded())
        await api.finished(namespace)
        await api.job_ttl(namespace, 3600)
        await api.call("DELETE", f"{GROUP_PATH}/{PROFILES}/{namespace}")
        assert await untouched(api, elsewhere)
    requests = asked(audit_log, "listed")
    assert not [item for item in requests if item["responseStatus"].get("code") == 403]
    wide = {(item["objectRef"]["resource"], item["verb"]) for item in requests if "namespace" not in item["objectRef"]}
    assert wide == {(PROFILES, "list"), (PROFILES, "watch"), (PROFILES, "patch")}
    places = {item["objectRef"]["namespace"] for item in requests if "namespace" in item["objectRef"]}
    assert places == {namespace, chart.NAMESPACE}


async def judged(api: ApiServer, path: str) -> None:
    async def has_status() -> bool:
        return condition(await api.call("GET", path), "Ready")[0] == "True"

    await eventually(has_status, what="the profile is judged")


@pytest.mark.usefixtures("rights")
async def test_a_lost_node_is_judged_by_time_where_nodes_may_not_be_read(
    api: ApiServer, kubelet: Kubelet, control_plane: ControlPlane, audit_log: Path, namespace: str, tmp_path: Path
) -> None:
    values = {"scope.namespaces": [namespace], "scope.clusterProfiles": False}
    kubeconfig = installed(control_plane, "alone", values)
    settings = {"watch_namespaces": namespace, "cluster_profiles": "false", "lost_node_seconds": "1"}
    with OperatorProcess(tmp_path, kubeconfig=kubeconfig, **settings) as operator:
        await operator.synced()
        await api.apply(namespace, {"retryPolicy": {"maxDisruptions": 0}})
        pod = await kubelet.pod(namespace)
        await kubelet.start(pod)
        await api.until(namespace, "Scheduled", "Running")
        await kubelet.go_silent()
        path = f"/api/v1/namespaces/{namespace}/pods/{pod['metadata']['name']}"
        await api.call("DELETE", path, {"gracePeriodSeconds": 1})
        body = await api.finished(namespace)
        assert body["status"]["attemptHistory"][0]["reason"] == "NodeLost"
        await kubelet.remove(pod)
    requests = asked(audit_log, "alone")
    assert requests
    assert not [item for item in requests if item["responseStatus"].get("code") == 403]
    assert not [item for item in requests if "namespace" not in item["objectRef"]]


@pytest.mark.usefixtures("rights")
async def test_namespaces_come_and_go_with_their_labels(
    api: ApiServer, control_plane: ControlPlane, audit_log: Path, namespace: str, elsewhere: str, tmp_path: Path
) -> None:
    kubeconfig = installed(control_plane, "chosen", {"scope.namespaceSelector": "restoration=enabled"})

    async def label(name: str, value: str | None) -> None:
        await api.merge(f"/api/v1/namespaces/{name}", {"metadata": {"labels": {"restoration": value}}})

    await label(namespace, "enabled")
    settings = {"namespace_selector": "restoration=enabled", "namespace": chart.NAMESPACE}
    with OperatorProcess(tmp_path, kubeconfig=kubeconfig, **settings) as operator:
        await operator.synced()
        await api.apply(elsewhere, {"output.uri": "s3://media/restored/b.mp4"})
        await api.apply(namespace)
        await api.until(namespace, "Accepted", "Valid")
        assert await untouched(api, elsewhere)
        # It is made before its namespace matches, and found all the same.
        await label(elsewhere, "enabled")
        await api.until(elsewhere, "Accepted", "Valid")
        await label(namespace, None)

        async def heard() -> bool:
            await api.apply(elsewhere, {"output.uri": f"s3://media/{len(said)}.mp4"}, name=f"later-{len(said)}")
            said.append(await api.until(elsewhere, "Accepted", "Valid", name=f"later-{len(said)}"))
            return len(said) > 1

        said: list[Json] = []
        await eventually(heard, what="the operator has gone on")
        await api.apply(namespace, {"output.uri": "s3://media/other.mp4"}, name="ignored")
        await heard()
        assert await untouched(api, namespace, "ignored")
    assert not [item for item in asked(audit_log, "chosen") if item["responseStatus"].get("code") == 403]


WORKLOADS = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {
        "name": "workloads.kueue.x-k8s.io",
        "annotations": {"api-approved.kubernetes.io": "unapproved, a test"},
    },
    "spec": {
        "group": "kueue.x-k8s.io",
        "scope": "Namespaced",
        "names": {"kind": "Workload", "plural": "workloads", "singular": "workload", "listKind": "WorkloadList"},
        "versions": [
            {
                "name": "v1beta1",
                "served": True,
                "storage": True,
                "schema": {
                    "openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
                },
            }
        ],
    },
}


@pytest.mark.usefixtures("rights")
async def test_why_a_job_is_held_back_in_kueues_words(
    api: ApiServer, control_plane: ControlPlane, audit_log: Path, namespace: str, tmp_path: Path
) -> None:
    """Kueue itself is not here: its kind is, and a Workload as Kueue would write it."""
    control_plane.kubectl("apply", "--filename=-", stdin=json.dumps(WORKLOADS))
    control_plane.kubectl("wait", "--for=condition=Established", "--timeout=60s", "crd/workloads.kueue.x-k8s.io")
    kubeconfig = installed(control_plane, "queue", {"scope.namespaces": [namespace], "kueue.readWorkloads": True})
    settings = {"watch_namespaces": namespace, "namespace": chart.NAMESPACE, "kueue_workloads": "true"}
    why = "couldn't assign flavors to pod set main: insufficient unused quota for nvidia.com/gpu in flavor l40s"
    with OperatorProcess(tmp_path, kubeconfig=kubeconfig, **settings) as operator:
        await operator.synced()
        await api.apply(namespace)

        async def made() -> list[Json]:
            return await api.jobs(namespace)

        [job] = await eventually(made, what="the Job")
        condition = {"type": "QuotaReserved", "status": "False", "reason": "Pending", "message": why}
        workload = {
            "apiVersion": "kueue.x-k8s.io/v1beta1",
            "kind": "Workload",
            "metadata": {"name": "job-clip", "labels": {"kueue.x-k8s.io/job-uid": job["metadata"]["uid"]}},
            "status": {"conditions": [condition]},
        }
        await api.call("POST", f"/apis/kueue.x-k8s.io/v1beta1/namespaces/{namespace}/workloads", workload)
        await api.merge(
            f"/apis/batch/v1/namespaces/{namespace}/jobs/{job['metadata']['name']}", {"spec": {"suspend": True}}
        )

        async def said() -> bool:
            body = await api.restoration(namespace)
            return any(item.get("message") == why for item in body["status"].get("conditions", ()))

        await eventually(said, what="Kueue's words in the condition")
    requests = asked(audit_log, "queue")
    assert ("workloads", "list") in {(item["objectRef"]["resource"], item["verb"]) for item in requests}
    assert not [item for item in requests if item["responseStatus"].get("code") == 403]
