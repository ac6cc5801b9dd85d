"""Which bytes are the input, and getting exactly those.

The input is identified before it is read (object storage knows its etag), pinned values of the request are compared,
and every read says which version it means. A local file has no etag worth the name: its content's hash identifies it.
"""

import hashlib
import shutil
from dataclasses import dataclass
from pathlib import Path

from restoration_api.ledger import InputIdentity
from restoration_api.outcome import FailureReason
from restoration_api.request import Request
from restoration_runner.errors import RestorationError
from restoration_runner.stopping import StopSignal
from restoration_runner.storage.open import open_store
from restoration_runner.storage.store import ObjectInfo, ObjectMissingError, PreconditionError, Store


@dataclass(frozen=True, kw_only=True)
class Input:
    """The input, found but not yet read. `info.etag` is what every read insists on."""

    store: Store
    key: str
    info: ObjectInfo
    version_id: str | None
    identity: InputIdentity


def find_input(request: Request, *, stop: StopSignal) -> Input:
    """Look at the input and compare what the request pins.

    Raises:
        RestorationError: `InputNotFound`, `InputChanged` (another etag or hash than pinned), `InvalidParameters`
            (larger than the profile allows), and what storage says.
    """
    asked = request.input
    store, key = open_store(asked.uri, asked.storage, request, field="input.uri")
    info = store.head(key, version_id=asked.version_id)
    if info is None:
        version = f" in version {asked.version_id}" if asked.version_id else ""
        raise RestorationError(
            FailureReason.INPUT_NOT_FOUND, f"input.uri: {store.describe(key)} does not exist{version}"
        )
    if asked.etag is not None and asked.etag.strip('"') != info.etag:
        raise RestorationError(
            FailureReason.INPUT_CHANGED, f"input.etag: {store.uri(key)} has the etag {info.etag}, not {asked.etag}"
        )
    limit = request.limits.max_input_bytes
    if limit is not None and info.size_bytes > limit:
        raise RestorationError(
            FailureReason.INVALID_PARAMETERS,
            f"input.uri: {store.uri(key)} has {info.size_bytes} bytes, more than the {limit} of the profile's "
            "limits.maxInputBytes",
        )
    path = store.local_path(key)
    identity = InputIdentity(
        uri=asked.uri,
        size_bytes=info.size_bytes,
        etag=None if path else info.etag,
        version_id=info.version_id,
        sha256=_checked(_hash_file(path, stop), request, store.uri(key)) if path else asked.sha256,
    )
    return Input(store=store, key=key, info=info, version_id=asked.version_id, identity=identity)


def fetch_input(found: Input, request: Request, *, folder: Path, stop: StopSignal) -> Path:
    """The input as a local file: in place if it is one, else downloaded into `folder` and checked.

    Raises:
        RestorationError: `InputChanged` if it is no longer the object that was found; `StorageError` if the disk is
            full.
    """
    here = found.store.local_path(found.key)
    if here is not None:
        return here
    uri = found.store.uri(found.key)
    free = shutil.disk_usage(folder).free
    if free < found.info.size_bytes:
        raise RestorationError(
            FailureReason.STORAGE_ERROR,
            f"scratch has {free >> 20} MiB free, {uri} needs {found.info.size_bytes >> 20} MiB: raise the profile's "
            "scratch.sizeLimit",
        )
    # The suffix helps a prober with formats that have no signature.
    path = folder / f"input{Path(found.key).suffix[:8]}"
    digest = hashlib.sha256()
    try:
        with path.open("wb") as file:
            for piece in found.store.stream(found.key, if_match=found.info.etag, version_id=found.version_id):
                stop.check()
                digest.update(piece)
                file.write(piece)
    except (PreconditionError, ObjectMissingError) as error:
        raise _changed(uri) from error
    if path.stat().st_size != found.info.size_bytes:
        raise _changed(uri)
    _checked(digest.hexdigest(), request, uri)
    return path


def check_unchanged(found: Input) -> None:
    """A file that is read in place may have been written to meanwhile.

    Raises:
        RestorationError: `InputChanged`.
    """
    if found.store.local_path(found.key) is not None:
        now = found.store.head(found.key)
        if now is None or now.etag != found.info.etag:
            raise _changed(found.store.uri(found.key))


def _checked(sha256: str, request: Request, uri: str) -> str:
    pinned = request.input.sha256
    if pinned is not None and pinned.lower().removeprefix("sha256:") != sha256:
        raise RestorationError(
            FailureReason.INPUT_CHANGED, f"input.sha256: {uri} has the sha256 {sha256}, not {pinned}"
        )
    return sha256


def _hash_file(path: Path, stop: StopSignal) -> str:
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while piece := file.read(1 << 22):
                stop.check()
                digest.update(piece)
    except PermissionError as error:
        raise RestorationError(FailureReason.ACCESS_DENIED, f"input.uri: no permission to read {path}") from error
    return digest.hexdigest()


def _changed(uri: str) -> RestorationError:
    return RestorationError(
        FailureReason.INPUT_CHANGED, f"input.uri: {uri} changed while it was worked on; start again with the new one"
    )
