"""Where the runner finds weights that its image does not bring: the volume, its mount, and what it is told to fetch.

A node keeps weights for its next pod in two ways, and neither needs hostPath: as an image volume, which the kubelet
pulls once, or as files on a claim, put there once or left there by the first runner that fetched them. What a runner
fetches lies in a folder named by the digest that the profile pins, so one claim may hold several models, and nobody
takes one for another.
"""

from typing import Any, Final

from restoration_api.defaults import model_defaults
from restoration_api.request import ModelDownload, ModelRequest
from restoration_api.resources import ProfileSpec
from restoration_api.resources.profile import DownloadSource, Model
from restoration_operator.build.names import Role
from restoration_operator.build.quantity import amount

Json = dict[str, Any]

MODEL_FOLDER: Final = "/models"
"""Where weights that do not come with the image are mounted."""
TOKEN_FOLDER: Final = "/var/run/vr/model-token"
TOKEN_KEY: Final = "token"
SECRET_MODE: Final = 0o440
"""Secrets are readable for the pod's group and nobody else."""
DIGEST_CHARACTERS: Final = 16
"""Of a fetched folder's name: for people and against confusion; the whole digest is checked."""
DESCRIPTION_SIZE: Final = "64Mi"
"""A pod without a GPU fetches a list of digests and a description."""


def model_request(model: Model, *, default_storage: str) -> ModelRequest:
    """What the runner is told of its model. The caller has checked what a download needs (`decide.admission`)."""
    download = model.source.download
    return ModelRequest(
        name=model.name,
        precision=model.precision or model_defaults(model.name).precision,
        path=_path(model),
        digest=model.digest,
        download=None if download is None else _download(download, default_storage),
    )


def _path(model: Model) -> str:
    if model.source.builtin is not None:
        return f"{model.source.builtin.path.rstrip('/')}/{model.name}"
    if model.source.download is None:
        return MODEL_FOLDER
    digest = (model.digest or "").removeprefix("sha256:")
    return f"{MODEL_FOLDER}/{model.name}-{digest[:DIGEST_CHARACTERS]}"


def _download(source: DownloadSource, default_storage: str) -> ModelDownload:
    from_bucket = source.uri.startswith("s3://")
    return ModelDownload(
        uri=source.uri,
        storage=source.storage or default_storage if from_bucket else None,
        revision=source.revision,
        endpoint=source.endpoint,
        token=source.token_secret_name is not None,
        max_bytes=int(amount(source.size_limit)),
        shared=source.cache_claim_name is not None,
    )


def mounts(profile: ProfileSpec) -> list[Json]:
    """Read-only, but for what the runner fills itself."""
    source = profile.model.source
    if source.builtin is not None:
        return []
    mount: Json = {"name": "model", "mountPath": MODEL_FOLDER}
    if source.download is None:
        mount["readOnly"] = True
        folder = source.image or source.persistent_volume_claim
        if folder is not None and folder.sub_path:
            mount["subPath"] = folder.sub_path
        return [mount]
    if source.download.token_secret_name is None:
        return [mount]
    return [mount, {"name": "model-token", "mountPath": TOKEN_FOLDER, "readOnly": True}]


def volumes(profile: ProfileSpec, role: Role) -> list[Json]:
    """The volumes of `mounts`."""
    volume = _volume(profile, role)
    found = [] if volume is None else [{"name": "model", **volume}]
    download = profile.model.source.download
    if download is not None and download.token_secret_name is not None:
        items = [{"key": TOKEN_KEY, "path": TOKEN_KEY}]
        secret = {"secretName": download.token_secret_name, "items": items, "defaultMode": SECRET_MODE}
        found.append({"name": "model-token", "secret": secret})
    return found


def node_disk(profile: ProfileSpec, role: Role) -> str | int | None:
    """What the weights take of the node's own disk, where they do."""
    download = profile.model.source.download
    if download is None or download.cache_claim_name:
        return None
    return download.size_limit if role is Role.RUN else DESCRIPTION_SIZE


def tied_to_nodes(profile: ProfileSpec) -> bool:
    """Whether the weights are reached only from where the profile puts its pods."""
    source = profile.model.source
    claimed = source.download is not None and bool(source.download.cache_claim_name)
    return source.host_path is not None or source.persistent_volume_claim is not None or claimed


def _volume(profile: ProfileSpec, role: Role) -> Json | None:
    source = profile.model.source
    if source.image is not None:
        return {"image": {"reference": source.image.reference, "pullPolicy": source.image.pull_policy}}
    if source.persistent_volume_claim is not None:
        return {"persistentVolumeClaim": {"claimName": source.persistent_volume_claim.claim_name, "readOnly": True}}
    if source.host_path is not None:
        return {"hostPath": {"path": source.host_path.path, "type": "Directory"}}
    if source.download is None:
        return None
    if source.download.cache_claim_name:
        return {"persistentVolumeClaim": {"claimName": source.download.cache_claim_name}}
    return {"emptyDir": {"sizeLimit": node_disk(profile, role)}}
