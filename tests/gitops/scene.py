"""A studio that works by GitOps: the example of this repository in a git repository, a real Argo CD that follows it.

Only what the example tells its readers to change is changed: addresses of git, images and storage, and names that keep
one run of the tests from another.
"""

from __future__ import annotations

import json
import subprocess
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import yaml
from hack.chart.argocd import config_data
from hack.chart.paths import CHART, ROOT
from hack.cluster.console import Console
from hack.demo import store_pod
from hack.demo.install import (
    OPERATOR_NAMESPACE,
    RELEASE,
    SECRET,
    Images,
    build_images,
    chart_values,
    prepare_namespace,
)
from hack.demo.stage import Stage, open_stage
from hack.gitops.argocd import ArgoCD
from hack.gitops.repository import Repository

from tests.e2e.lab import Lab, eventually

EXAMPLE: Final = Path("examples/10-argo-cd")
ARGOCD_NAMESPACE: Final = "argo-system"
"""Not the usual one: everything of ours must take it from its settings."""
TREE, OPERATOR, STUDIO = "video-restoration-root", "video-restoration", "studio"
FINISHED = ("episode", "second-pass")
"""The example's restorations, in order."""
_SEEN_IN_GIT: Final = "https://git.example.com/video-restoration"


@dataclass(frozen=True)
class Scene:
    """Argo CD, the repository it follows, and the namespace of the restorations with its folder in the bucket."""

    argo: ArgoCD
    repository: Repository
    lab: Lab
    history: list[tuple[str, str]] = field(default_factory=list)
    """Health of resources in the order in which Argo CD was seen to say so."""

    def refresh(self, application: str, *, hard: bool = False) -> dict[str, Any]:
        """Make Argo CD look at git and cluster now; returns the Application's status."""
        self.argo.run("app", "get", application, "--hard-refresh" if hard else "--refresh", "--output=json")
        status: dict[str, Any] = self.argo.application(application)["status"]
        return status

    def health(self, application: str, name: str) -> tuple[str, str]:
        """Status and message that Argo CD gives a restoration; empty before it has one."""
        found = self.argo.resources(application).get(f"VideoRestoration/{name}", {}).get("health", {})
        seen = (found.get("status", ""), found.get("message", ""))
        before = next((health for resource, health in reversed(self.history) if resource == name), "")
        if seen[0] not in ("", before):
            self.history.append((name, seen[0]))
        return seen

    def until_health(self, application: str, name: str, wanted: str, *, saying: str = "") -> str:
        """Wait for a health, with these words in its message; returns the message."""

        def reached() -> bool:
            health, message = self.health(application, name)
            return health == wanted and saying in message

        self.until(reached, what=f"{application}: {name} {wanted}")
        return self.health(application, name)[1]

    def until(self, holds: Callable[[], object], *, what: str) -> None:
        """Wait for it; if it does not come, fail with all that Argo CD says."""
        try:
            eventually(holds, what=what)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.story()}") from None

    def story(self) -> str:
        """What Argo CD says of every Application, the end of its controller's log, and the restorations."""
        parts = []
        for body in self.argo.kubectl.list("applications.argoproj.io"):
            status = body.get("status", {})
            told = {key: status.get(key) for key in ("sync", "health", "conditions", "resources")}
            told["operation"] = status.get("operationState", {}).get("message")
            parts.append(f"--- {body['metadata']['name']}\n{json.dumps(told)[:4000]}")
        parts.append(f"--- controller\n{self.argo.log('application-controller')[-3000:]}")
        return "\n".join([*parts, self.lab.story("restorations")])

    def is_settled(self, application: str) -> bool:
        """Synced and Healthy, and no operation under way."""
        status = self.argo.application(application).get("status", {})
        words = (status.get("sync", {}).get("status"), status.get("health", {}).get("status"))
        running = status.get("operationState", {}).get("phase") == "Running"
        return words == ("Synced", "Healthy") and not running

    def restoration(self, name: str) -> dict[str, Any]:
        """The object as it is in the cluster."""
        found = self.lab.kubectl.get("vr", name)
        assert found is not None, f"there is no VideoRestoration {name}"
        return found

    def videos(self) -> dict[str, str]:
        """ETags of the example's videos and their manifests in the bucket."""
        kept = (".mp4", "/final.json")
        return {key: tag for key, tag in self.lab.objects().items() if "/restored/" in key and key.endswith(kept)}

    def edited(self, file: str) -> str:
        """A file of the example as it is put into the repository."""
        text = (ROOT / EXAMPLE / file).read_text(encoding="utf-8")
        return self.localised(text)

    def localised(self, text: str) -> str:
        """What readers of the example are told to change."""
        return _localised(text, self.repository.url, self.lab)


@contextmanager
def open_scene(folder: Path, console: Console) -> Iterator[Scene]:
    """Everything but the one `kubectl apply` of the example. Ends what it started and removes what it added."""
    stage = open_stage(console)
    images = build_images(stage, console)
    ArgoCD.prepare(console)
    with store_pod.bucket_of(stage, console) as bucket:
        bucket.ensure()
        _remove_release(stage)
        name = f"gitops-{uuid.uuid4().hex[:8]}"
        lab = Lab(stage, prepare_namespace(stage.kubectl.in_namespace(name), bucket), bucket, f"{name}/", folder)
        repository = Repository(folder / "git")
        _fill(repository, lab, images)
        where = folder / "argocd"
        argo = ArgoCD(stage.kubectl, where, helm=stage.helm, settings=_application_health(), namespace=ARGOCD_NAMESPACE)
        _discard_applications(argo)
        found = _kinds(stage)
        with argo:
            try:
                _apply_chart_option(argo, stage)
                yield Scene(argo, repository, lab)
            finally:
                for application in (TREE, "desk"):
                    argo.kubectl.attempt("delete", "applications.argoproj.io", application, timeout_s=300)
        argo.uninstall()
        lab.kubectl.run("delete", "namespace", name, "--wait=false")
        ours = [] if found else _kinds(stage)
        if ours:  # helm, in other tests, refuses kinds that Argo CD has installed
            stage.kubectl.run("delete", *ours)


def _fill(repository: Repository, lab: Lab, images: Images) -> None:
    """Chart and example, as somebody would have them in a repository of their own."""
    repository.copy(CHART, str(CHART.relative_to(ROOT)))
    repository.copy(ROOT / EXAMPLE, str(EXAMPLE), change=lambda text: _localised(text, repository.url, lab))
    path = f"{EXAMPLE}/apps/operator.yaml"
    operator = yaml.safe_load((repository.folder / path).read_text())
    values = operator["spec"]["source"]["helm"]["valuesObject"]
    operator["spec"]["source"]["helm"]["valuesObject"] = values | chart_values(images, lab.bucket)
    repository.write({path: yaml.safe_dump(operator, sort_keys=False)})
    repository.commit("the example")


def _localised(text: str, url: str, lab: Lab) -> str:
    changes = {
        _SEEN_IN_GIT: url,
        "namespace: argocd": f"namespace: {ARGOCD_NAMESPACE}",
        "namespace: studio": f"namespace: {lab.kubectl.namespace}",
        "https://minio.media.svc:9000": lab.bucket.endpoint.from_pods,
        "secretName: media-s3": f"secretName: {SECRET}",
        "s3://media/": lab.uri(""),
    }
    for old, new in changes.items():
        text = text.replace(old, new)
    return text


def _application_health() -> Mapping[str, str]:
    """The health of Applications, as documented for Applications of Applications."""
    data: Mapping[str, str] = yaml.safe_load((ROOT / "argocd" / "application-health.yaml").read_text())["data"]
    return data


def _apply_chart_option(argo: ArgoCD, stage: Stage) -> None:
    """The chart's `argocd.enabled`, as helm would apply it: our keys beside those that are there."""
    command = [stage.helm, "template", RELEASE, CHART, "--show-only=templates/argocd.yaml"]
    command += [f"--set=argocd.enabled=true,argocd.namespace={ARGOCD_NAMESPACE}"]
    rendered = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    argo.kubectl.run("apply", "--server-side", "--field-manager=helm", "--filename=-", stdin=rendered)
    settings = argo.kubectl.get("configmap", "argocd-cm")
    assert settings is not None and settings["data"] == {**_application_health(), **config_data()}


def _kinds(stage: Stage) -> list[str]:
    """Our CustomResourceDefinitions in the cluster, as kubectl names them."""
    names = stage.kubectl.run("get", "crds", "--output=name").split()
    return [name for name in names if name.endswith(".videorestoration.dev")]


def _remove_release(stage: Stage) -> None:
    """The release that other tests may have left in this cluster: two operators would work against each other."""
    command = [stage.helm, "uninstall", RELEASE, f"--namespace={OPERATOR_NAMESPACE}", "--ignore-not-found", "--wait"]
    subprocess.run([*command, f"--kubeconfig={stage.kubectl.kubeconfig}"], check=True, capture_output=True, text=True)


def _discard_applications(argo: ArgoCD) -> None:
    """Applications that a killed run has left, without what they installed: their repository is gone."""
    found = argo.kubectl.attempt("get", "applications.argoproj.io", "--output=name").stdout.split()
    for name in found:
        argo.kubectl.run("patch", name, "--type=merge", '--patch={"metadata": {"finalizers": null}}')
        argo.kubectl.run("delete", name)
