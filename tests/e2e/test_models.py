"""The same weights by every way a profile knows: from the image, an OCI image, a claim, a bucket; the same frames."""

import json
import shutil
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from hack.cluster.console import Console
from hack.cluster.images import build_image

from restoration_api.resources.status import VideoRestorationStatus
from restoration_runner.weights.digest import digest_of, read_sums
from restoration_runner.weights.source import shipped_folder
from tests.builders import clips
from tests.builders.clips import Clip
from tests.e2e.conftest import Installation
from tests.e2e.lab import Lab, eventually

ASKED = {
    "restoration": {"target": {"scaleFactor": 2}, "chunk": {"frames": 9, "overlapFrames": 4}},
    "execution.segmentFrames": 60,
    "cleanup.segments": "Retain",
}
CLAIM = "models"
WAYS = ("builtin", "image", "volume", "bucket", "kept")


def digest() -> str:
    sums = read_sums(shipped_folder())
    assert sums is not None
    return digest_of(sums)


def weights_image(lab: Lab) -> str:
    """An image that holds the model in a folder, as a user would make it."""
    context = lab.folder / "context"
    shutil.copytree(shipped_folder(), context / "nano")
    dockerfile = context / "Dockerfile"
    dockerfile.write_text("FROM scratch\nCOPY nano /weights/nano\n")
    return build_image(
        "nano-weights", dockerfile=dockerfile, context=context, console=Console(), registry=lab.stage.registry
    )


def claim_with_weights(lab: Lab, runner: str) -> Path | None:
    """A claim filled by a Job with the runner's image; where it lies, if that is this machine."""
    here = lab.folder / "volume"
    name = f"{lab.kubectl.namespace}-{CLAIM}"
    spec: dict[str, Any] = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    if lab.stage.nodes_are_local:  # no provisioner there: a folder of the node stands for a disk
        here.mkdir()
        here.chmod(0o777)
        spec |= {"storageClassName": "", "volumeName": name}
        volume = {
            "capacity": {"storage": "1Gi"},
            "accessModes": ["ReadWriteOnce"],
            "persistentVolumeReclaimPolicy": "Retain",
            "storageClassName": "",
            "hostPath": {"path": str(here)},
        }
        lab.kubectl.apply({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name}, "spec": volume})
    metadata = {"name": CLAIM, "namespace": lab.kubectl.namespace}
    lab.kubectl.apply({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata, "spec": spec})
    lab.kubectl.apply(filling_job(lab, runner))
    lab.kubectl.run("wait", "--for=condition=Complete", "--timeout=180s", "job/fill", timeout_s=200)
    return here if lab.stage.nodes_are_local else None


def filling_job(lab: Lab, runner: str) -> dict[str, Any]:
    """It passes the restricted Pod Security Standard, as examples/02-models/fill-claim.yaml does."""
    pod = {
        "restartPolicy": "Never",
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": 65532,
            "fsGroup": 65532,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [
            {
                "name": "fill",
                "image": runner,
                "command": ["sh", "-c", "cp -rL /models/seedvr2-nano /weights/nano"],
                "securityContext": {
                    "allowPrivilegeEscalation": False,
                    "readOnlyRootFilesystem": True,
                    "capabilities": {"drop": ["ALL"]},
                },
                "volumeMounts": [{"name": "weights", "mountPath": "/weights"}],
            }
        ],
        "volumes": [{"name": "weights", "persistentVolumeClaim": {"claimName": CLAIM}}],
    }
    metadata = {"name": "fill", "namespace": lab.kubectl.namespace}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": {"template": {"spec": pod}}}


def sources(lab: Lab, image: str) -> dict[str, dict[str, Any]]:
    uri = lab.uri("weights/nano")
    return {
        "image": {"image": {"reference": image, "subPath": "weights/nano"}},
        "volume": {"persistentVolumeClaim": {"claimName": CLAIM, "subPath": "nano"}},
        "bucket": {"download": {"uri": uri, "sizeLimit": "1Gi"}},
        "kept": {"download": {"uri": uri, "sizeLimit": "1Gi", "cacheClaimName": CLAIM}},
    }


def frames_of(lab: Lab, status: VideoRestorationStatus) -> list[str]:
    """Hashes of the decoded planes of all segments, from the manifest."""
    assert status.output is not None and status.output.manifest_uri is not None
    path = lab.folder / f"{status.cache_key}.json"
    lab.bucket.download(urlsplit(status.output.manifest_uri).path.lstrip("/"), path)
    return [marker["framesSha256"] for marker in json.loads(path.read_text())["markers"]]


@pytest.mark.timeout(600)
def test_wherever_the_weights_come_from_the_frames_are_the_same(lab: Lab, installation: Installation) -> None:
    source = lab.upload(clips.write(lab.folder / "short.mp4", Clip(frames=5, width=48, height=32)))
    for path in sorted(shipped_folder().iterdir()):
        if path.is_file():
            lab.bucket.upload(path, f"{lab.prefix}weights/nano/{path.name}")
    here = claim_with_weights(lab, installation.images.runner)
    lab.apply("builtin", source=source, to="builtin.mp4", changes=ASKED)
    for name, way in sources(lab, weights_image(lab)).items():
        model = {"name": "studio", "precision": "FP32", "digest": digest(), "source": way}
        lab.apply(name, source=source, to=f"{name}.mp4", changes=ASKED | lab.profile(name, {"model": model}))

    wrong = sources(lab, "")["bucket"]
    model = {"name": "studio", "precision": "FP32", "digest": f"sha256:{'0' * 64}", "source": wrong}
    lab.apply("wrong", source=source, to="wrong.mp4", changes=ASKED | lab.profile("wrong", {"model": model}))
    reason, message = lab.fail("wrong")
    assert reason == "ModelInvalid"
    assert f"promises a model with the digest {digest()}" in message

    statuses = {name: lab.succeed(name) for name in WAYS}
    assert len({status.cache_key for status in statuses.values()}) == 1  # which model, not where from
    made = {name: frames_of(lab, status) for name, status in statuses.items()}
    assert all(frames == made["builtin"] and frames for frames in made.values()), made
    if here is not None:
        eventually(lambda: published(here), what="the claim keeps the model")
        assert [path.name for path in here.iterdir() if path.name.startswith(".")] == []
        lab.kubectl.run("delete", "pv", f"{lab.kubectl.namespace}-{CLAIM}", "--wait=false")


def published(claim: Path) -> bool:
    return sorted(path.name for path in claim.iterdir()) == ["nano", f"studio-{digest().removeprefix('sha256:')[:16]}"]
