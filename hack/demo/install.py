"""From sources to a running operator: both images, the chart, a namespace with the store's credentials."""

from __future__ import annotations

import base64
import json
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from hack.cluster.console import Console
from hack.cluster.images import build_component
from hack.cluster.paths import CHECKOUT
from hack.demo.bucket import Bucket
from hack.demo.kubectl import DemoError, Kubectl
from hack.demo.stage import Stage

CHART = CHECKOUT / "charts" / "video-restoration-operator"
RELEASE = "video-restoration"
OPERATOR_NAMESPACE = "video-restoration"
SECRET = "demo-s3"
STORAGE = "demo"


@dataclass(frozen=True)
class Images:
    """References with digests: exactly what was built, whatever a tag says by then."""

    operator: str
    runner: str


def build_images(stage: Stage, console: Console) -> Images:
    """Build and push both images; only changed layers cost time."""
    operator, runner = (
        build_component(name, console, registry=stage.registry, base_image=stage.base_image)
        for name in ("operator", "runner")
    )
    return Images(operator=operator, runner=runner)


def install_chart(
    stage: Stage, images: Images, bucket: Bucket, *, settings: Mapping[str, str] = MappingProxyType({})
) -> None:
    """`helm upgrade --install` and wait for the operator. Raises DemoError with helm's and the operator's words.

    `settings` are more of the operator's environment variables.
    """
    values = chart_values(images, bucket)
    values["extraEnv"] += [{"name": name, "value": value} for name, value in settings.items()]
    command: list[str | Path] = [stage.helm, "upgrade", "--install", RELEASE, CHART]
    command += [f"--kubeconfig={stage.kubectl.kubeconfig}", f"--namespace={OPERATOR_NAMESPACE}", "--create-namespace"]
    command += ["--values=-", "--wait", "--timeout=3m"]
    result = subprocess.run(command, input=json.dumps(values), capture_output=True, text=True, check=False)
    if result.returncode:
        operator = stage.kubectl.in_namespace(OPERATOR_NAMESPACE)
        pods = operator.attempt("get", "pods", "--output=wide").stdout
        logs = operator.attempt("logs", "--selector=app.kubernetes.io/component=operator", "--tail=5").stdout
        raise DemoError(f"helm could not install the operator: {result.stderr.strip()}\n{pods}{logs}")


def chart_values(images: Images, bucket: Bucket) -> dict[str, Any]:
    """The values a user would write for this store and these images."""
    return {
        "image": _image_values(images.operator),
        "runner": {"image": _image_values(images.runner)},
        "defaultProfile": {
            "storage": [
                {
                    "name": STORAGE,
                    "endpoint": bucket.endpoint.from_pods,
                    "region": bucket.endpoint.region,
                    "addressing": "Path",
                    "secretName": SECRET,
                }
            ]
        },
        # A clip of two seconds is over before the usual five have passed.
        "extraEnv": [{"name": "VR_POLL_SECONDS", "value": "1"}],
    }


def _image_values(reference: str) -> dict[str, str]:
    repository, _, digest = reference.partition("@")
    return {"repository": repository, "digest": digest}


def prepare_namespace(kubectl: Kubectl, bucket: Bucket) -> Kubectl:
    """The namespace of `kubectl`, with the store's credentials. It enforces the strictest Pod Security Standard."""
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    credentials = {"access-key": bucket.endpoint.access_key, "secret-key": bucket.endpoint.secret_key}
    kubectl.apply(
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": kubectl.namespace, "labels": labels}},
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": SECRET, "namespace": kubectl.namespace},
            "data": {key: base64.b64encode(value.encode()).decode() for key, value in credentials.items()},
        },
    )
    return kubectl
