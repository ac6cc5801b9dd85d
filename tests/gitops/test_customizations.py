"""`argocd/`: health checks and actions, judged by Argo CD's own binary from the files that its own tests would read."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from hack.chart.argocd import CUSTOMIZATIONS, config_data
from hack.cluster.binaries import ALL, ARGOCD

from restoration_api.resources import ConditionType, Phase
from restoration_cli import again
from tests.builders.resources import model_of

ROOT = CUSTOMIZATIONS.parents[2]
SETTINGS = ROOT / "argocd" / "argocd-cm.yaml"
ACTIONS = CUSTOMIZATIONS / "VideoRestoration" / "actions"


def cases(file: str, section: str) -> list[Any]:
    """Every case of every file of this name, with the folder that its paths start from."""
    return [
        pytest.param(table.parent, case, id="-".join((kind_of(table), *filter(None, (case.get("action"),)), stem)))
        for table in sorted(CUSTOMIZATIONS.rglob(file))
        for case in yaml.safe_load(table.read_text())[section]
        for stem in (Path(case["inputPath"]).stem,)
    ]


def kind_of(path: Path) -> str:
    return path.relative_to(CUSTOMIZATIONS).parts[0]


def attempt(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """`argocd admin settings resource-overrides`, by the settings that are shipped."""
    command = [ARGOCD.path, "admin", "settings", "resource-overrides", *arguments, f"--argocd-cm-path={SETTINGS}"]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=120, env=os.environ | environment, check=False
    )


def argocd(*arguments: str | Path, **environment: str) -> str:
    """The same, and it must succeed; returns what it prints."""
    result = attempt(*arguments, **environment)
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.mark.parametrize(("folder", "case"), cases("health_test.yaml", "tests"))
def test_health(argocd_program: None, folder: Path, case: dict[str, Any]) -> None:
    said = argocd("health", folder / case["inputPath"])
    wanted = case["healthStatus"]
    assert said.splitlines() == [f"STATUS: {wanted['status']}", f"MESSAGE: {wanted['message']}"]


@pytest.mark.parametrize(("folder", "case"), cases("action_test.yaml", "discoveryTests"))
def test_actions_that_are_offered(argocd_program: None, folder: Path, case: dict[str, Any]) -> None:
    lines = argocd("list-actions", folder / case["inputPath"]).splitlines()
    offered = {tuple(line.split()[:2]) for line in lines[1:]}
    assert offered == {(action["name"], str(action["disabled"]).lower()) for action in case["result"]}


def outcome(file: Path, action: str, show: Path) -> Any:
    """What an action makes of an object: itself, changed, or as in Argo CD's own tests what is to be created."""
    # A difference is shown by the program of this name, which is given the old object and the new one.
    show.write_text('#!/bin/sh\nexec cat "$2"\n')
    show.chmod(0o755)
    said = argocd("run-action", file, action, KUBECTL_EXTERNAL_DIFF=str(show))
    body = yaml.safe_load(said[said.index("apiVersion:") :])
    return [{"k8sOperation": "create", "unstructuredObj": body}] if "resource was created" in said else body


@pytest.mark.parametrize(("folder", "case"), cases("action_test.yaml", "actionTests"))
def test_what_an_action_does(argocd_program: None, tmp_path: Path, folder: Path, case: dict[str, Any]) -> None:
    after = outcome(folder / case["inputPath"], case["action"], tmp_path / "show")
    assert after == yaml.safe_load((folder / case["expectedOutputPath"]).read_text())


NAMES = ["clip", "clip-r2", "clip-r9", "clip-r", "a-r2-r3", "r2", "n" * 252, "n" * 248 + "-r99", "n" * 249 + "-.x"]


@pytest.mark.parametrize("name", NAMES, ids=lambda name: f"{len(name)}-{name[-8:]}")
def test_the_action_retry_is_the_command_retry(argocd_program: None, tmp_path: Path, name: str) -> None:
    """Both know the same names, and leave out the same marks of owners."""
    body = yaml.safe_load((ACTIONS / "testdata" / "failed_owned.yaml").read_text())
    body["metadata"]["name"] = name
    file = tmp_path / "failed.yaml"
    file.write_text(yaml.safe_dump(body))
    [created] = outcome(file, "retry", tmp_path / "show")
    wanted = again.again(body, again.next_name(name))
    assert wanted["spec"].pop("execution") == {}, "Lua knows no difference between an empty object and an empty list"
    assert created["unstructuredObj"] == wanted


@pytest.mark.parametrize("state", ["running", "suspended", "succeeded", "new"])
def test_only_what_has_failed_is_tried_again(argocd_program: None, state: str) -> None:
    refused = attempt("run-action", ACTIONS.parent / "testdata" / f"{state}.yaml", "retry")
    assert refused.returncode != 0
    assert "clip has not failed: there is nothing to try again" in refused.stderr


def inputs() -> list[Path]:
    return sorted(path for folder in CUSTOMIZATIONS.rglob("testdata") for path in folder.iterdir())


def bodies(path: Path) -> list[Any]:
    """The objects of a file of test data: one, or those that an action creates."""
    written = yaml.safe_load(path.read_text())
    return [item["unstructuredObj"] for item in written] if isinstance(written, list) else [written]


@pytest.mark.parametrize("path", inputs(), ids=lambda path: f"{kind_of(path)}-{path.stem}")
def test_inputs_are_objects_of_the_api(path: Path) -> None:
    """What a health check is tested with must be what the operator writes."""
    for body in bodies(path):
        known = model_of(body["kind"]).model_validate(body).to_json()
        assert_within(body.get("status", {}), known.get("status", {}))
        assert_within(body["spec"], known["spec"])


def assert_within(written: Any, known: Any) -> None:
    """Every field of `written` is a field of the API and was read as it stands."""
    if isinstance(written, dict):
        assert set(written) <= set(known)
        for key, value in written.items():
            assert_within(value, known[key])
    elif isinstance(written, list):
        for one, other in zip(written, known, strict=True):
            assert_within(one, other)
    else:
        assert written == known


def test_every_phase_and_condition_is_judged() -> None:
    statuses = [body.get("status", {}) for path in inputs() for body in bodies(path)]
    assert {status.get("phase") for status in statuses} >= set(map(str, Phase))
    seen = {(item["type"], item["status"]) for status in statuses for item in status.get("conditions", ())}
    # Accepted is Unknown only before the first visit, and Scheduled says all three.
    assert seen >= {(str(kind), word) for kind in ConditionType for word in ("True", "False")}


def test_the_kustomize_component_adds_to_what_is_there(tmp_path: Path) -> None:
    """As documented: beside Argo CD's own manifests, whatever its namespace, and without losing a setting."""
    settings = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "argocd-cm", "labels": {"app.kubernetes.io/part-of": "argocd"}},
        "data": {"url": "https://argocd.example.com"},
    }
    (tmp_path / "install.yaml").write_text(json.dumps(settings))
    (tmp_path / "component").symlink_to(ROOT / "argocd")
    kustomization = {"namespace": "cd", "resources": ["install.yaml"], "components": ["component"]}
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
    command = [ALL["kubectl"].path, "kustomize", "--load-restrictor=LoadRestrictionsNone", tmp_path]
    built = yaml.safe_load(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    applications = yaml.safe_load((ROOT / "argocd" / "application-health.yaml").read_text())
    assert built["metadata"] == settings["metadata"] | {"namespace": "cd"}
    assert built["data"] == settings["data"] | config_data() | applications["data"]


def test_the_shipped_settings_are_valid(argocd_program: None) -> None:
    command = [ARGOCD.path, "admin", "settings", "validate", f"--argocd-cm-path={SETTINGS}"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0 and "❌" not in result.stdout, result.stdout + result.stderr
