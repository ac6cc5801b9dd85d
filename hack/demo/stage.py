"""Where the demo plays: a cluster, a place for images, an object store.

Without KUBECONFIG it is the development cluster, which is started. With it, it is yours:

* REGISTRY         where images are pushed to, and pulled from by the cluster's nodes (needed)
* BASE_IMAGE       what they are built on (default: a minimal Debian that is made here)
* S3_ENDPOINT      your object store, with AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION and S3_BUCKET;
                   without it SeaweedFS runs as a pod beside the demo
* S3_ENDPOINT_IN_CLUSTER   how pods reach it, if not by the same URL

A kubeconfig in a `.dev/cluster` folder has registry and store lying beside it; then nothing else need be said.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from hack.cluster.binaries import ALL
from hack.cluster.build import ensure_built
from hack.cluster.console import Console
from hack.cluster.lifecycle import Node
from hack.cluster.paths import DEV_FOLDER
from hack.cluster.toolchain import ensure_helm
from hack.demo.bucket import Bucket, Endpoint
from hack.demo.kubectl import DemoError, Kubectl


@dataclass(frozen=True)
class Stage:
    """What the demo and the end-to-end tests need of the outside world."""

    kubectl: Kubectl
    helm: Path
    registry: str
    base_image: str | None
    bucket: Bucket | None
    """None: no store was named, one has to be run in the cluster."""
    nodes_are_local: bool
    """Whether the development cluster's own node runs the pods, so that tests may kill processes on it."""


def open_stage(console: Console, environment: Mapping[str, str] = os.environ) -> Stage:
    """The user's cluster, else the development cluster, started if need be.

    Raises:
        DemoError: something the user's cluster needs was not said.
        ClusterError: the development cluster cannot run here.
    """
    given = environment.get("KUBECONFIG", "")
    if not given:
        Node(console).up()
    kubeconfig = Path(given) if given else DEV_FOLDER / "kubeconfig"
    if not kubeconfig.is_file():
        raise DemoError(f"KUBECONFIG names {given}, which is no file; unset it to use the development cluster.")
    beside = kubeconfig.parent
    registry = environment.get("REGISTRY") or _text(beside / "registry")
    if not registry:
        raise DemoError("Set REGISTRY to a registry that you may push to and that the nodes of KUBECONFIG pull from.")
    return Stage(
        kubectl=Kubectl(_kubectl_program(console), kubeconfig),
        helm=ensure_helm(console),
        registry=registry,
        base_image=environment.get("BASE_IMAGE") or None,
        bucket=_bucket(environment, beside / "s3.json"),
        nodes_are_local=(beside / "s3.json").is_file(),
    )


def _kubectl_program(console: Console) -> Path:
    """Our own kubectl if it is built, the machine's if it has one; only without both is one built."""
    own, installed = ALL["kubectl"], shutil.which("kubectl")
    if not own.path.exists() and installed:
        return Path(installed)
    ensure_built([own], console)
    return own.path


def _bucket(environment: Mapping[str, str], development: Path) -> Bucket | None:
    url = environment.get("S3_ENDPOINT")
    if url:
        try:
            access_key, secret_key = environment["AWS_ACCESS_KEY_ID"], environment["AWS_SECRET_ACCESS_KEY"]
        except KeyError as missing:
            raise DemoError(f"S3_ENDPOINT is set, so set {missing.args[0]} too.") from None
        endpoint = Endpoint(
            from_here=url,
            from_pods=environment.get("S3_ENDPOINT_IN_CLUSTER", url),
            access_key=access_key,
            secret_key=secret_key,
            region=environment.get("AWS_REGION", "us-east-1"),
        )
        return Bucket(endpoint, environment.get("S3_BUCKET", "video-restoration-demo"))
    if development.is_file():
        facts = json.loads(development.read_text())
        endpoint = Endpoint(
            from_here=facts["endpoint"],
            from_pods=facts["endpoint"],
            access_key=facts["accessKey"],
            secret_key=facts["secretKey"],
            region=facts["region"],
        )
        return Bucket(endpoint, facts["bucket"])
    return None


def _text(path: Path) -> str:
    return path.read_text().strip() if path.is_file() else ""
