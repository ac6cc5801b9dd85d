"""The chart as helm renders it: `rendered({"crds.install": False})` gives the objects, by kind and name.

Tests of the operator take its rights from here (`rights`), so that it never runs with more than users have.
"""

import json
import subprocess
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from hack.cluster.console import SILENT
from hack.cluster.controlplane import ControlPlane
from hack.cluster.toolchain import ensure_helm

CHART = Path(__file__).resolve().parents[2] / "charts" / "video-restoration-operator"
RELEASE, NAMESPACE = "vr", "video-restoration"
FULL_NAME = "vr-video-restoration-operator"
TAKE_OVER = "--take-ownership"
"""Of CRDs that another release, or kubectl, has left."""

Body = dict[str, Any]


@cache
def helm_program() -> Path:
    """The real helm."""
    return ensure_helm(SILENT)


def helm(*arguments: str | Path, kubeconfig: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run helm; the caller looks at the exit code."""
    access = ["--kubeconfig", kubeconfig] if kubeconfig else []
    return subprocess.run([helm_program(), *arguments, *access], capture_output=True, text=True, timeout=120)


def run_helm(cluster: ControlPlane, *arguments: str | Path) -> str:
    """Run helm against a cluster; it must succeed. Returns what it prints."""
    result = helm(*arguments, kubeconfig=cluster.kubeconfig)
    assert result.returncode == 0, result.stderr
    return result.stdout


def wait_for_kinds(cluster: ControlPlane, *names: str) -> None:
    """Until the API server serves CRDs, the chart's own if none is named. `kubectl wait` fails where it comes so early
    that a CRD has no status at all."""
    wanted = [f"crd/{name}" for name in names] or ["--filename", str(CHART / "files" / "crds")]

    def established() -> bool:
        found = json.loads(cluster.kubectl("get", *wanted, "--output=json"))
        bodies = found["items"] if found["kind"] == "List" else [found]
        states = [body.get("status", {}).get("conditions", []) for body in bodies]
        return all(
            {"Established": "True"}.items() <= {c["type"]: c["status"] for c in state}.items() for state in states
        )

    cluster.processes.wait_until("kube-apiserver", established, what="The kinds of the CRDs")


def as_flags(values: Mapping[str, Any]) -> list[str]:
    """`--set-json` flags for values written by path: `{"rbac.create": False}`."""
    return [f"--set-json={path}={json.dumps(value)}" for path, value in values.items()]


def rendered(values: Mapping[str, Any] | None = None) -> dict[tuple[str, str], Body]:
    """All objects of the chart by (kind, name). Fails the test with helm's own words if it does not render."""
    return {(body["kind"], body["metadata"]["name"]): body for body in objects(values)}


def objects(values: Mapping[str, Any] | None = None, *, release: str = RELEASE) -> list[Body]:
    """The same as a list: with several namespaces there are several of one name."""
    text = _template(release, tuple(as_flags(values or {})))
    return [body for body in yaml.load_all(text, Loader=yaml.CSafeLoader) if body]


@cache
def _template(release: str, flags: tuple[str, ...]) -> str:
    """The chart does not change while tests run."""
    result = helm("template", release, CHART, f"--namespace={NAMESPACE}", *flags)
    assert result.returncode == 0, result.stderr
    return result.stdout


def cluster_role_rules() -> list[Body]:
    """What the operator may do."""
    rules: list[Body] = rendered()["ClusterRole", FULL_NAME]["rules"]
    return rules


def rights(values: Mapping[str, Any] | None = None, *, release: str = RELEASE) -> list[Body]:
    """The operator's service account, roles and bindings, to be applied as they are."""
    kinds = ("ServiceAccount", "ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding")
    rendering = objects({"rbac.aggregateToDefaultRoles": False, **(values or {})}, release=release)
    return [body for body in rendering if body["kind"] in kinds]


def granted(values: Mapping[str, Any] | None = None) -> set[tuple[str, str, str]]:
    """All that they allow, as (group, resource, verb)."""
    return {
        (group, resource, verb)
        for body in rights(values)
        for rule in body.get("rules", ())
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
