"""From one chart to the next and back, with restorations there; and how long `helm --wait` waits."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from hack.cluster.controlplane import ControlPlane
from tests.builders.chart import (
    CHART,
    FULL_NAME,
    TAKE_OVER,
    Body,
    as_flags,
    helm,
    helm_program,
    run_helm,
    wait_for_kinds,
)
from tests.builders.resources import make_vr
from tests.builders.statuses import make_status, running

pytestmark = pytest.mark.xdist_group("chart")
PREVIOUS = sorted((Path(__file__).parent / "previous").glob("*.tgz"))
"""Packaged as they were published; the newest is not the one of today."""
CRD = RESTORATIONS = "videorestorations.videorestoration.dev"


def get(cluster: ControlPlane, kind: str, name: str, namespace: str = "default") -> Body:
    body: Body = json.loads(cluster.kubectl("get", kind, name, f"--namespace={namespace}", "--output=json"))
    return body


def report(cluster: ControlPlane, namespace: str, status: Any) -> None:
    """What the operator would write."""
    patch = json.dumps({"status": status})
    cluster.kubectl(
        "patch",
        RESTORATIONS,
        "clip",
        f"--namespace={namespace}",
        "--subresource=status",
        "--type=merge",
        "--patch",
        patch,
    )


def settings(body: Body) -> Any:
    """The part of a CRD that a release decides on."""
    return body["spec"]["versions"][0]["schema"]


@pytest.mark.parametrize("previous", PREVIOUS, ids=lambda path: path.stem)
def test_upgrade_and_rollback_with_a_restoration_at_work(
    control_plane: ControlPlane, namespace: str, previous: Path
) -> None:
    cluster, here = control_plane, f"--namespace={namespace}"
    storage = as_flags({"defaultProfile.storage": [{"name": "media", "secretName": "s3"}], "podLabels": {"team": "a"}})
    # Conflicts: CRDs of today, which other tests have left, become those of then.
    run_helm(cluster, "install", "vr", previous, here, TAKE_OVER, "--force-conflicts", *storage)
    wait_for_kinds(cluster)
    cluster.kubectl("apply", "--filename=-", stdin=json.dumps(make_vr(namespace=namespace)))
    report(cluster, namespace, running(40))
    before, crd_before = get(cluster, RESTORATIONS, "clip", namespace), get(cluster, "crd", CRD)

    # The values that were given stay, what is new gets its default: --reuse-values would leave it out.
    run_helm(cluster, "upgrade", "vr", CHART, here, "--reset-then-reuse-values")
    current = yaml.safe_load((CHART / "files" / "crds" / f"{CRD}.yaml").read_text())
    fresh = get(cluster, "crd", CRD)
    assert settings(current) != settings(crd_before), "the CRDs are the same: package a later chart as fixture"
    assert names(settings(fresh)) == names(settings(current))
    assert fresh["metadata"]["uid"] == crd_before["metadata"]["uid"]
    assert get(cluster, RESTORATIONS, "clip", namespace) == before
    deployment = get(cluster, "deployment", FULL_NAME, namespace)
    assert deployment["spec"]["template"]["metadata"]["labels"]["team"] == "a"
    assert "VR_LEASE_NAME" in json.dumps(deployment), "the upgrade has reached the pods"

    run_helm(cluster, "rollback", "vr", "1", here)
    assert names(settings(get(cluster, "crd", CRD))) == names(settings(crd_before))
    assert "VR_LEASE_NAME" not in json.dumps(get(cluster, "deployment", FULL_NAME, namespace))
    assert get(cluster, RESTORATIONS, "clip", namespace)["metadata"]["uid"] == before["metadata"]["uid"]

    run_helm(cluster, "upgrade", "vr", CHART, here, "--reset-then-reuse-values")
    run_helm(cluster, "uninstall", "vr", here)
    after = get(cluster, RESTORATIONS, "clip", namespace)
    assert (after["metadata"]["uid"], after["spec"], after["status"]) == (
        before["metadata"]["uid"],
        before["spec"],
        before["status"],
    )
    left = cluster.kubectl("get", "all,configmaps,networkpolicies,roles,serviceaccounts", here, "--output=name")
    assert FULL_NAME not in left


def names(schema: Body, prefix: str = "") -> set[str]:
    """Paths of all fields; the API server adds to the rest of a schema."""
    if "properties" not in schema and "openAPIV3Schema" in schema:
        return names(schema["openAPIV3Schema"])
    found = {f"{prefix}{name}" for name in schema.get("properties", {})}
    for name, child in schema.get("properties", {}).items():
        found |= names(child, f"{prefix}{name}.")
    return found | (names(schema["items"], f"{prefix}[].") if "items" in schema else set())


@contextmanager
def helm_in_background(cluster: ControlPlane, *arguments: str | Path) -> Iterator[subprocess.Popen[str]]:
    command = [helm_program(), *arguments, "--kubeconfig", cluster.kubeconfig]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def pods(cluster: ControlPlane, namespace: str) -> list[Body]:
    selector = "--selector=app.kubernetes.io/component=operator"
    found = cluster.kubectl("get", "pods", f"--namespace={namespace}", selector, "--output=json")
    items: list[Body] = json.loads(found)["items"]
    return items


def test_an_install_waits_for_the_operator(control_plane: ControlPlane, namespace: str) -> None:
    """helm judges by kstatus. There is no kubelet here: the pod is ready when this test says so."""
    cluster, here = control_plane, f"--namespace={namespace}"
    with helm_in_background(cluster, "install", "vr", CHART, here, TAKE_OVER, "--wait", "--timeout=4m") as helm_process:
        cluster.processes.wait_until(
            "kube-controller-manager", lambda: bool(pods(cluster, namespace)), what="The operator's pod"
        )
        assert helm_process.poll() is None, helm_process.communicate()
        now = {"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}
        ready = json.dumps({"status": {"phase": "Running", "conditions": [now]}})
        for pod in pods(cluster, namespace):
            name = pod["metadata"]["name"]
            cluster.kubectl("patch", "pod", name, here, "--subresource=status", "--type=merge", "--patch", ready)
        output, errors = helm_process.communicate(timeout=240)
        assert helm_process.returncode == 0, errors
    assert "STATUS: deployed" in output
    run_helm(cluster, "uninstall", "vr", here)


@pytest.fixture
def chart_with_a_restoration(tmp_path: Path) -> Path:
    """Somebody else's chart, whose release has a VideoRestoration in it."""
    chart = tmp_path / "show"
    (chart / "templates").mkdir(parents=True)
    (chart / "Chart.yaml").write_text("apiVersion: v2\nname: show\nversion: 1.0.0\n")
    body = make_vr()
    del body["metadata"]["namespace"]
    body["metadata"]["annotations"] = {"night": "{{ .Values.night }}"}
    (chart / "templates" / "clip.yaml").write_text(json.dumps(body))
    (chart / "values.yaml").write_text("night: one\n")
    return chart


_OVER = {"Reconciling": "False/Finished", "Finished": "True/Completed", "Succeeded": "True/Completed"}


def test_a_release_with_a_restoration_waits_for_its_end(
    control_plane: ControlPlane, namespace: str, chart_with_a_restoration: Path
) -> None:
    """Reconciling and Stalled, as kstatus reads them: Flux and other tools wait the same way."""
    cluster, here = control_plane, f"--namespace={namespace}"
    cluster.kubectl("apply", "--filename", CHART / "files" / "crds")
    wait_for_kinds(cluster)
    install = ["install", "show", chart_with_a_restoration, here, "--wait", "--timeout=3s"]
    early = helm(*install, kubeconfig=cluster.kubeconfig)
    assert early.returncode != 0 and "clip" in early.stderr, "nobody has looked at it yet: helm had to wait"
    report(cluster, namespace, running(40))
    upgrade = ["upgrade", "show", chart_with_a_restoration, here, "--wait"]
    late = helm(*upgrade, "--timeout=3s", kubeconfig=cluster.kubeconfig)
    assert late.returncode != 0 and "clip" in late.stderr, "it runs: helm had to wait"
    report(cluster, namespace, make_status("Succeeded", **_OVER))
    run_helm(cluster, *upgrade, "--timeout=4m")
    stuck = make_status("Failed", message="no such bucket", Reconciling="False/Stalled", Stalled="True/InputNotFound")
    report(cluster, namespace, stuck)
    failed = helm(*upgrade, "--timeout=20s", kubeconfig=cluster.kubeconfig)
    assert failed.returncode != 0 and "clip" in failed.stderr
    run_helm(cluster, "uninstall", "show", here)
