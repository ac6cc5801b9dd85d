"""From a URI of the request to a store and a key in it."""

from pathlib import Path
from urllib.parse import unquote, urlsplit

from restoration_api.outcome import FailureReason
from restoration_api.request import Request, StorageRequest
from restoration_runner.errors import RestorationError
from restoration_runner.storage.file import FileStore
from restoration_runner.storage.s3 import S3Store
from restoration_runner.storage.store import Store


def open_store(uri: str, storage: str | None, request: Request, *, field: str) -> tuple[Store, str]:
    """The store that serves `uri`, and the key.

    storage: name of the request's entry to use, for `s3://`. field: what the user calls this URI, for messages.

    Raises:
        RestorationError: `InvalidParameters` for a scheme that is not served or an entry that does not exist.
    """
    scheme, _, rest = uri.partition("://")
    if scheme == "s3":
        bucket, _, key = rest.partition("/")
        if "@" in bucket:  # not repeated: it is somebody's password
            raise RestorationError(
                FailureReason.INVALID_PARAMETERS,
                f"{field} must be s3://bucket/key without user or password: those belong into a Secret",
            )
        if not bucket or not key or key.endswith("/"):
            raise RestorationError(
                FailureReason.INVALID_PARAMETERS, f"{field} must be s3://bucket/key without a trailing slash, not {uri}"
            )
        return S3Store(bucket, _entry(storage, request, field=field)), key
    if scheme == "file":
        path = Path(unquote(urlsplit(uri).path))
        return FileStore(), path.relative_to("/").as_posix()
    if scheme == "https":
        raise RestorationError(
            FailureReason.INVALID_PARAMETERS,
            f"{field}: https:// is not served yet; copy the file to a bucket and name it as s3://bucket/key",
        )
    raise RestorationError(
        FailureReason.INVALID_PARAMETERS, f"{field}: '{scheme}' URIs are not served; use s3://bucket/key"
    )


def _entry(name: str | None, request: Request, *, field: str) -> StorageRequest:
    if not request.storage:
        raise RestorationError(
            FailureReason.INVALID_PARAMETERS, f"{field}: the request has no storage entry; the profile must name one"
        )
    if name is None:
        return request.storage[0]
    for entry in request.storage:
        if entry.name == name:
            return entry
    known = ", ".join(entry.name for entry in request.storage)
    raise RestorationError(
        FailureReason.INVALID_PARAMETERS, f"{field}: there is no storage entry '{name}' (there are: {known})"
    )
