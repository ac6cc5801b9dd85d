"""Flux needs nothing of ours but kstatus: its manifests are valid, and kstatus waits for a video that really comes."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import yaml
from hack.chart.paths import ROOT
from hack.cluster.console import Console
from hack.gitops.flux import flux_crds
from hack.gitops.kinds import install_kinds

from tests.gitops.scene import Scene

pytestmark = pytest.mark.timeout(600)
EXAMPLE = ROOT / "examples" / "11-flux"
NAMESPACE = "flux-system"


def test_the_example_is_what_flux_takes(scene: Scene) -> None:
    """Strictly, by the schemas that Flux installs; its restorations are checked with all others of the repository."""
    kubectl = scene.lab.kubectl.in_namespace(NAMESPACE)
    crds = flux_crds(Console())
    kubectl.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
    install_kinds(kubectl, crds)
    try:
        files = [f"--filename={EXAMPLE / file}" for file in ("flux.yaml", "operator/release.yaml")]
        said = kubectl.run("apply", "--dry-run=server", "--validate=strict", *files)
        assert len(said.splitlines()) == 5
    finally:
        kubectl.run("delete", "--wait=false", *(f"--filename={file}" for file in crds))
        kubectl.run("delete", "namespace", NAMESPACE, "--wait=false")


def test_steps_follow_each_other_and_lead_somewhere() -> None:
    documents = list(yaml.safe_load_all((EXAMPLE / "flux.yaml").read_text()))
    steps = {body["metadata"]["name"]: body["spec"] for body in documents if body["kind"] == "Kustomization"}
    assert all((ROOT / spec["path"]).is_dir() and spec["wait"] and spec["prune"] for spec in steps.values())
    order = {name: [item["name"] for item in spec.get("dependsOn", ())] for name, spec in steps.items()}
    assert order == {"video-restoration": [], "studio": ["video-restoration"], "second-pass": ["studio"]}


def test_kstatus_waits_for_the_video(tree: Scene, tmp_path: Path) -> None:
    """helm has Flux's own kstatus. The example's studio as a release: it is installed when the video is published."""
    chart = tmp_path / "studio"
    (chart / "templates").mkdir(parents=True)
    (chart / "Chart.yaml").write_text("apiVersion: v2\nname: studio\nversion: 1.0.0\n")
    documents = yaml.safe_load_all(tree.localised((EXAMPLE / "studio" / "episode.yaml").read_text()))
    _, profile, episode = documents
    profile["metadata"]["name"] = episode["spec"]["profileRef"]["name"] = "flux"
    episode["metadata"]["name"] = "kstatus"
    episode["spec"]["output"]["uri"] = tree.lab.uri("flux/episode.mp4")
    episode["spec"]["cache"] = "Bypass"
    (chart / "templates" / "studio.yaml").write_text(yaml.safe_dump_all([profile, episode]))
    stage, here = tree.lab.stage, f"--namespace={tree.lab.kubectl.namespace}"
    command = [stage.helm, "install", "studio", chart, here, "--wait", "--timeout=5m"]
    result = subprocess.run([*command, f"--kubeconfig={stage.kubectl.kubeconfig}"], capture_output=True, text=True)
    status = tree.restoration("kstatus")["status"]
    assert result.returncode == 0, f"{result.stderr}\n{status}"
    assert {item["type"]: item["status"] for item in status["conditions"]}["Finished"] == "True"
    assert f"{tree.lab.prefix}flux/episode.mp4" in tree.lab.objects()
