"""Installed without Helm: kubectl alone, and kustomize."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
import yaml
from hack.cluster.controlplane import ControlPlane
from tests.builders.chart import CHART, TAKE_OVER, Body, run_helm
from tests.builders.resources import make_profile

pytestmark = pytest.mark.xdist_group("chart")
DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
NAME, NAMESPACE = "video-restoration-operator", "video-restoration"
ANNOTATIONS_BYTES = 256 * 1024
"""What an object's annotations may take; client-side apply stores the whole object in one."""


def installed() -> list[Body]:
    return list(yaml.load_all((DEPLOY / "install.yaml").read_text(), Loader=yaml.CSafeLoader))


def test_every_object_fits_client_side_apply_four_times_over() -> None:
    sizes = {body["metadata"]["name"]: len(json.dumps(body)) for body in installed()}
    assert {name: size for name, size in sizes.items() if size > ANNOTATIONS_BYTES / 4} == {}


def overlay(folder: Path) -> Path:
    """The one in deploy/README.md, of this checkout."""
    [text] = re.findall(r"```yaml\n# kustomization.yaml\n(.*?)```", (DEPLOY / "README.md").read_text(), re.DOTALL)
    [remote] = re.findall(r"https://git\S+", text)
    (folder / "overlay").mkdir()
    (folder / "base").symlink_to(DEPLOY)
    (folder / "overlay" / "kustomization.yaml").write_text(text.replace(remote, "../base"))
    return folder / "overlay"


def test_plain_apply_then_an_overlay(control_plane: ControlPlane, tmp_path: Path) -> None:
    cluster = control_plane
    count = len(installed())
    first = cluster.kubectl("apply", "--filename", DEPLOY / "install.yaml").splitlines()
    assert len(first) == count
    # CRDs may be there from another test.
    assert all(line.endswith(" created") for line in first if not line.startswith("customresource")), first
    # Applied again, nothing changes: what the API server makes of it is what the file says.
    again = cluster.kubectl("apply", "--filename", DEPLOY / "install.yaml").splitlines()
    assert all(line.endswith(" unchanged") for line in again), again
    assert cluster.kubectl("apply", "--kustomize", DEPLOY).count(" unchanged") == count

    changed = cluster.kubectl("apply", "--kustomize", overlay(tmp_path)).splitlines()
    assert sorted(line.split("/")[0] for line in changed if line.endswith(" configured")) == [
        "configmap",
        "deployment.apps",
    ]
    here = f"--namespace={NAMESPACE}"
    deployment = json.loads(cluster.kubectl("get", "deployment", NAME, here, "--output=json"))
    [container] = deployment["spec"]["template"]["spec"]["containers"]
    assert container["image"] == "registry.example.com/video-restoration/operator:0.1.0"
    environment = {item["name"]: item.get("value") for item in container["env"]}
    assert environment["VR_RUNNER_IMAGE"] == "registry.example.com/video-restoration/runner:0.1.0"
    assert environment["VR_LEASE_NAME"] == NAME, "a patch of one variable leaves the others"
    text = json.loads(cluster.kubectl("get", "configmap", NAME, here, "--output=json"))["data"]["default-profile.yaml"]
    profile = make_profile() | {"spec": yaml.safe_load(text)}
    cluster.kubectl("apply", "--dry-run=server", "--validate=strict", "--filename=-", stdin=json.dumps(profile))

    # Helm can take it over, as deploy/README.md says, without a new Deployment; and then it is Helm's to remove.
    run_helm(cluster, "install", NAME, CHART, here, TAKE_OVER, "--force-conflicts")
    assert (
        json.loads(cluster.kubectl("get", "deployment", NAME, here, "--output=json"))["metadata"]["uid"]
        == (deployment["metadata"]["uid"])
    )
    run_helm(cluster, "uninstall", NAME, here)
    cluster.kubectl("delete", "namespace", NAMESPACE, "--wait=false")


def test_the_base_is_the_file(control_plane: ControlPlane) -> None:
    def by_name(bodies: list[Body]) -> dict[tuple[str, str], Body]:
        return {(body["kind"], body["metadata"]["name"]): body for body in bodies}

    built = list(yaml.load_all(control_plane.kubectl("kustomize", DEPLOY), Loader=yaml.CSafeLoader))
    assert by_name(built) == by_name(installed())


def test_an_overlay_may_change_names_and_namespace(control_plane: ControlPlane, tmp_path: Path) -> None:
    """Then everything that says a name says the new one: bindings, volumes, and the Lease that its Role allows."""
    shutil.copytree(DEPLOY, tmp_path / "base")
    overlay = {"resources": ["base"], "namespace": "elsewhere", "namePrefix": "mine-", "nameSuffix": "-2"}
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(overlay))
    built = list(yaml.load_all(control_plane.kubectl("kustomize", tmp_path), Loader=yaml.CSafeLoader))
    found = {body["kind"]: body for body in built if body["kind"] not in ("ClusterRole", "CustomResourceDefinition")}
    name = f"mine-{NAME}-2"
    pod = found["Deployment"]["spec"]["template"]["spec"]
    [container] = pod["containers"]
    assert {item["name"]: item.get("value") for item in container["env"]}["VR_LEASE_NAME"] == name
    assert [rule["resourceNames"] for rule in found["Role"]["rules"] if "resourceNames" in rule] == [[name]]
    assert pod["serviceAccountName"] == found["ServiceAccount"]["metadata"]["name"] == name
    for binding in (found["RoleBinding"], found["ClusterRoleBinding"]):
        assert binding["roleRef"]["name"] == name
        assert [(one["name"], one["namespace"]) for one in binding["subjects"]] == [(name, "elsewhere")]
    assert [volume["configMap"]["name"] for volume in pod["volumes"] if "configMap" in volume] == [name]
    assert found["Namespace"]["metadata"]["name"] == "elsewhere"
