"""The control plane the other tests stand on: several at once, real controllers, least privilege, no trace left."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hack.cluster.controlplane import ControlPlane
from hack.cluster.errors import ClusterError
from hack.cluster.processes import ProcessRecord, is_alive

PATIENCE_S = 120
pytestmark = pytest.mark.xdist_group("control-plane")

JOB = {
    "apiVersion": "batch/v1",
    "kind": "Job",
    "metadata": {"name": "one"},
    "spec": {
        "template": {
            "spec": {"restartPolicy": "Never", "containers": [{"name": "main", "image": "example.invalid/none"}]}
        }
    },
}


def eventually(holds: Callable[[], object], *, what: str) -> None:
    """Poll until `holds` is true. The limit only ends a broken run: it is no statement about speed."""
    deadline = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < deadline, f"{what} did not happen within {PATIENCE_S} s"
        time.sleep(0.1)


def test_reports_the_version_it_was_built_from(control_plane: ControlPlane) -> None:
    version = json.loads(control_plane.kubectl("version", "--output", "json"))
    assert version["serverVersion"]["gitVersion"] == version["clientVersion"]["gitVersion"] == "v1.36.3"


def test_a_job_gets_a_pod_that_waits_for_a_node(control_plane: ControlPlane, namespace: str) -> None:
    control_plane.kubectl("--namespace", namespace, "apply", "--filename", "-", stdin=json.dumps(JOB))

    def unschedulable() -> bool:
        pods = json.loads(control_plane.kubectl("--namespace", namespace, "get", "pods", "--output", "json"))["items"]
        conditions = [condition for pod in pods for condition in pod["status"].get("conditions", [])]
        return any(c["type"] == "PodScheduled" and c["reason"] == "Unschedulable" for c in conditions)

    eventually(unschedulable, what="A pod judged by the scheduler")


def test_a_service_account_may_do_what_its_role_says_and_no_more(control_plane: ControlPlane, namespace: str) -> None:
    run = control_plane.kubectl
    run("--namespace", namespace, "create", "serviceaccount", "reader")
    run("--namespace", namespace, "create", "role", "read", "--verb=list", "--resource=jobs.batch")
    run(
        "--namespace", namespace, "create", "rolebinding", "read", "--role=read", f"--serviceaccount={namespace}:reader"
    )
    weak = control_plane.service_account_kubeconfig(namespace=namespace, name="reader")
    assert run("--kubeconfig", weak, "auth", "can-i", "list", "jobs.batch").strip() == "yes"
    with pytest.raises(ClusterError, match="Forbidden"):
        run("--kubeconfig", weak, "get", "secrets")


def test_a_user_without_bindings_is_known_but_may_do_nothing(control_plane: ControlPlane) -> None:
    nobody = control_plane.user_kubeconfig("jane@example.com", groups=["reviewers"])
    attributes = json.loads(control_plane.kubectl("--kubeconfig", nobody, "auth", "whoami", "--output", "json"))
    assert attributes["status"]["userInfo"]["username"] == "jane@example.com"
    assert "reviewers" in attributes["status"]["userInfo"]["groups"]
    with pytest.raises(ClusterError, match="Forbidden"):
        control_plane.kubectl("--kubeconfig", nobody, "get", "pods")


STARTER = """
import json, sys, time
from dataclasses import asdict
from hack.cluster.controlplane import ControlPlane
with ControlPlane() as cluster:
    records = [asdict(record) for record in cluster.processes.records()]
    print(json.dumps({"folder": str(cluster.folder), "records": records}), flush=True)
    if sys.argv[1] == "wait":
        time.sleep(3600)
"""


def start_in_another_process(how: str) -> tuple[subprocess.Popen[str], Path, list[ProcessRecord]]:
    starter = subprocess.Popen([sys.executable, "-c", STARTER, how], stdout=subprocess.PIPE, text=True)
    assert starter.stdout is not None
    facts = json.loads(starter.stdout.readline())
    return starter, Path(facts["folder"]), [ProcessRecord(**record) for record in facts["records"]]


def test_leaving_the_context_leaves_no_process_and_no_file(cluster_binaries: None) -> None:
    starter, folder, records = start_in_another_process("leave")
    assert starter.wait(PATIENCE_S) == 0
    assert len(records) == 4
    assert not any(is_alive(record) for record in records)
    assert not folder.exists()


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_one_of_another_process_shares_nothing_and_ends_with_its_starter(
    control_plane: ControlPlane, how: signal.Signals
) -> None:
    starter, folder, records = start_in_another_process("wait")
    assert all(is_alive(record) for record in records)
    assert_nothing_is_shared(control_plane, folder / control_plane.kubeconfig.name, name=how.name.lower())
    os.kill(starter.pid, how)
    starter.wait(PATIENCE_S)
    eventually(lambda: not any(is_alive(record) for record in records), what="The end of all servers")
    ControlPlane().stop()  # whoever comes next removes the folder of an owner that is no longer there
    assert not folder.exists()


def assert_nothing_is_shared(control_plane: ControlPlane, other: Path, *, name: str) -> None:
    """`other`: an administrator's kubeconfig of the other one."""
    run = control_plane.kubectl
    run("create", "configmap", name, "--namespace", "default")
    assert f"configmap/{name}" in run("get", "configmaps", "--namespace", "default", "--output", "name")
    found = run("--kubeconfig", other, "get", "configmaps", "--namespace", "default", "--output", "name")
    assert "configmap/kube-root-ca.crt" in found
    assert f"configmap/{name}" not in found
    with pytest.raises(ClusterError, match=r"certificate|x509"):
        run("--kubeconfig", other, "--server", control_plane.server, "get", "pods")
