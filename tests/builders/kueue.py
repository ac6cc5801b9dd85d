"""The real Kueue beside a control plane without nodes: its CRDs and webhooks of the same version.

What a Deployment and a kubelet do for it elsewhere is done here: its Secret is laid out as files, and its Service is
the name of this machine, for the API server finds an `ExternalName` without a network of pods.
"""

from __future__ import annotations

import base64
import json
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any, Final, Self

import yaml
from hack.cluster.binaries import KUEUE
from hack.cluster.controlplane import LOOPBACK, ControlPlane
from hack.cluster.ports import PortLeases

NAMESPACE: Final = "kueue-system"
SERVICE: Final = "kueue-webhook-service"
SECRET: Final = "kueue-webhook-server-cert"
CONVERTED: Final = {"clusterqueues", "cohorts", "localqueues", "multikueueclusters", "workloads"}
"""Kinds with more than one version, which Kueue's own webhook converts: config/components/crd/kustomization.yaml."""
INTEGRATED: Final = {"batch", "kueue.x-k8s.io"}
"""The webhooks that are wanted: those for Jobs and for Kueue's own objects."""


class Kueue:
    """A context manager; `plane` holds its process, and it ends with it."""

    def __init__(self, plane: ControlPlane) -> None:
        self._plane = plane
        self._ports = PortLeases()
        self._webhooks, self._health = self._ports.take(), self._ports.take()
        self._certificates = plane.folder / "kueue-certificates"

    def __enter__(self) -> Self:
        self._plane.create_namespace(NAMESPACE)
        self._apply(self._service(), self._secret(), *self._kinds())
        self._plane.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=60s")
        self._apply(*self._configurations())
        configuration = self._plane.folder / "kueue.yaml"
        configuration.write_text(yaml.safe_dump(self._configuration()))
        command = [KUEUE.path, f"--config={configuration}", f"--kubeconfig={self._plane.kubeconfig}"]
        # It would answer questions about queues as an API server of its own, in front of which nothing stands here.
        self._plane.processes.start("kueue", [*command, "--feature-gates=VisibilityOnDemand=false"])
        self._plane.processes.wait_until("kueue", self._has_certificates, what="Kueue's certificates")
        self._plane.processes.wait_until("kueue", self._is_ready, what="Kueue")
        return self

    def __exit__(self, *exception: object) -> None:
        self._plane.processes.stop_one("kueue", grace_s=0)
        self._ports.close()

    def _apply(self, *objects: dict[str, Any]) -> None:
        self._plane.kubectl("apply", "--server-side", "--filename", "-", stdin=yaml.safe_dump_all(objects))

    def _configuration(self) -> dict[str, Any]:
        return {
            "apiVersion": "config.kueue.x-k8s.io/v1beta2",
            "kind": "Configuration",
            "namespace": NAMESPACE,
            "health": {"healthProbeBindAddress": f"{LOOPBACK}:{self._health}"},
            "metrics": {"bindAddress": "0"},
            "webhook": {"host": LOOPBACK, "port": self._webhooks, "certDir": str(self._certificates)},
            "leaderElection": {"leaderElect": False},
            "internalCertManagement": {"enable": True, "webhookServiceName": SERVICE, "webhookSecretName": SECRET},
            "integrations": {"frameworks": ["batch/job"]},
        }

    def _client(self, path: str) -> dict[str, Any]:
        return {"service": {"namespace": NAMESPACE, "name": SERVICE, "path": path, "port": self._webhooks}}

    def _kinds(self) -> list[dict[str, Any]]:
        kinds = [self._file(Path(file).name) for file in KUEUE.keeps if "/crd/" in file]
        for [kind] in kinds:
            if kind["spec"]["names"]["plural"] in CONVERTED:
                webhook = {"clientConfig": self._client("/convert"), "conversionReviewVersions": ["v1"]}
                kind["spec"]["conversion"] = {"strategy": "Webhook", "webhook": webhook}
        return [kind for [kind] in kinds]

    def _configurations(self) -> list[dict[str, Any]]:
        found = self._file("manifests.yaml")
        for each in found:
            each["metadata"]["name"] = f"kueue-{each['metadata']['name']}"
            wanted = [
                hook for hook in each["webhooks"] if all({*rule["apiGroups"]} <= INTEGRATED for rule in hook["rules"])
            ]
            for hook in wanted:
                hook["clientConfig"] = self._client(hook["clientConfig"]["service"]["path"])
            each["webhooks"] = wanted
        return found

    @staticmethod
    def _file(name: str) -> list[dict[str, Any]]:
        text = (KUEUE.path.parent / name).read_text()
        return [document for document in yaml.safe_load_all(text) if document]

    def _service(self) -> dict[str, Any]:
        ports = [{"port": self._webhooks}]
        return {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": SERVICE, "namespace": NAMESPACE},
            "spec": {"type": "ExternalName", "externalName": "localhost", "ports": ports},
        }

    @staticmethod
    def _secret() -> dict[str, Any]:
        return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": SECRET, "namespace": NAMESPACE}}

    def _has_certificates(self) -> bool:
        """Do what a kubelet does with a Secret that is mounted."""
        status, answer = self._plane.api.request("GET", f"/api/v1/namespaces/{NAMESPACE}/secrets/{SECRET}")
        data = json.loads(answer).get("data") or {} if status == 200 else {}
        if "tls.crt" not in data:
            return False
        self._certificates.mkdir(mode=0o700, exist_ok=True)
        for name, encoded in data.items():
            (self._certificates / name).write_bytes(base64.b64decode(encoded))
        return True

    def _is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://{LOOPBACK}:{self._health}/readyz", timeout=5) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False
