"""The storage protocol on S3 and what calls itself compatible: minio-py, with what it lacks added in one place.

minio-py signs, addresses and parses. It has no way to send `If-Match` or `If-None-Match` with a PUT or with the last
step of a multipart upload, so requests go through its `_execute`, which takes headers (the version is pinned in the
lock file, and the conformance tests run every operation against real servers).

Retries are made here, not in urllib3: after an answer was lost, a repeated conditional write meets its own first try
and is refused. Only who counts the tries can tell that refusal from a real one; a nonce in the metadata decides it.
"""

import contextlib
import hashlib
import time
import uuid
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit
from xml.etree import ElementTree

import certifi
import urllib3
from minio import Minio
from minio.error import InvalidResponseError, MinioException, S3Error, ServerError
from minio.time import from_http_header

from restoration_api.outcome import FailureReason
from restoration_api.request import Addressing, StorageRequest
from restoration_runner.errors import RestorationError
from restoration_runner.storage.credentials import ca_bundle, credentials
from restoration_runner.storage.store import (
    Absent,
    ObjectInfo,
    ObjectMissingError,
    OnBytes,
    PreconditionError,
    Unchanged,
    When,
)

T = TypeVar("T")

ATTEMPTS = 6
FIRST_PAUSE_SECONDS = 0.25
"""Doubled after each try: six tries span about eight seconds, longer than a load balancer needs to fail over."""
CONNECT_SECONDS, READ_SECONDS = 10.0, 120.0
PIECE_BYTES = 1 << 20
PART_BYTES = 16 << 20
"""Of a multipart upload; files up to one part are written by a single PUT. Held in memory once."""
MOST_PARTS = 9_000
"""S3 allows 10,000."""
META = "x-amz-meta-"
NONCE = "vr-nonce"
RETRIED_STATUS = frozenset({408, 429, 500, 502, 503, 504})
SKEWED = frozenset({"RequestTimeTooSkewed", "RequestInTheFuture"})
"""A signature is good for 15 minutes; no credentials help against a wrong clock."""
CONFLICT_STATUS = frozenset({409, 412})
"""412: the condition does not hold. 409: somebody writes the same key at this moment (AWS)."""


class S3Store:
    """One bucket at one endpoint."""

    def __init__(self, bucket: str, storage: StorageRequest) -> None:
        self._bucket = bucket
        self._endpoint = storage.endpoint or f"https://s3.{storage.region or 'us-east-1'}.amazonaws.com"
        self._client = _client(self._endpoint, storage)
        self._conditional: bool | None = None

    def uri(self, key: str) -> str:
        return f"s3://{self._bucket}/{key}"

    def describe(self, key: str) -> str:
        return f"{self.uri(key)} at {self._endpoint}"

    def local_path(self, key: str) -> Path | None:
        return None

    def head(self, key: str, *, version_id: str | None = None) -> ObjectInfo | None:
        try:
            response = self._call("HEAD", key, query={"versionId": version_id} if version_id else None)
        except ObjectMissingError:
            return None
        headers = response.headers
        modified = headers.get("last-modified")
        return ObjectInfo(
            key=key,
            size_bytes=int(headers.get("content-length", "0")),
            etag=_unquoted(headers.get("etag")),
            version_id=headers.get("x-amz-version-id"),
            metadata={k.lower()[len(META) :]: v for k, v in headers.items() if k.lower().startswith(META)},
            modified=from_http_header(modified) if modified else None,
        )

    def stream(self, key: str, *, if_match: str | None = None, version_id: str | None = None) -> Iterator[bytes]:
        done, failures, etag = 0, 0, if_match
        while True:
            headers = {"If-Match": f'"{etag}"'} if etag else {}
            if done:
                headers["Range"] = f"bytes={done}-"
            response = self._call(
                "GET", key, headers=headers, query={"versionId": version_id} if version_id else None, preload=False
            )
            try:
                etag = etag or _unquoted(response.headers.get("etag"))
                expected = done + int(response.headers.get("content-length", "0"))
                for piece in response.stream(PIECE_BYTES):
                    done += len(piece)
                    yield piece
                if done >= expected:
                    return
                raise urllib3.exceptions.IncompleteRead(done, expected - done)
            except urllib3.exceptions.HTTPError as error:
                failures += 1
                if failures >= ATTEMPTS:
                    raise self._failure(error, "GET", key) from error
                time.sleep(FIRST_PAUSE_SECONDS * 2**failures)
            finally:
                response.close()
                response.release_conn()

    def put(
        self, key: str, data: bytes, *, when: When | None = None, metadata: Mapping[str, str] | None = None
    ) -> ObjectInfo:
        return self._guarded(
            key,
            when,
            metadata,
            lambda headers, condition: self._written(
                key, self._call("PUT", key, headers={**headers, **condition}, body=data), len(data)
            ),
        )

    def upload(
        self,
        key: str,
        path: Path,
        *,
        when: When | None = None,
        metadata: Mapping[str, str] | None = None,
        on_bytes: OnBytes | None = None,
    ) -> ObjectInfo:
        size = path.stat().st_size
        if size <= PART_BYTES:
            info = self.put(key, path.read_bytes(), when=when, metadata=metadata)
            if on_bytes:
                on_bytes(size)
            return info
        return self._guarded(
            key, when, metadata, lambda headers, condition: self._multipart(key, path, headers, condition, on_bytes)
        )

    def list_objects(self, prefix: str) -> Iterator[ObjectInfo]:
        def page(token: str | None) -> tuple[list[ObjectInfo], str | None]:
            query = {"list-type": "2", "prefix": prefix, "max-keys": "1000", "delimiter": ""}
            if token:
                query["continuation-token"] = token
            return _listing(self._call("GET", prefix, on_bucket=True, query=query).data)

        token: str | None = None
        while True:
            found, token = page(token)
            yield from found
            if token is None:
                return

    def delete(self, key: str, *, if_match: str | None = None) -> None:
        if if_match is not None:
            now = self.head(key)  # DELETE with If-Match is not served everywhere; nobody writes our keys in between
            if now is None or now.etag != if_match:
                return
        try:
            self._call("DELETE", key)
        except ObjectMissingError:
            return

    def abort_uploads(self, key: str, *, older_than: timedelta) -> int:
        query = {"uploads": "", "prefix": key, "max-uploads": "1000", "delimiter": ""}
        limit, aborted = datetime.now(UTC) - older_than, 0
        for found, upload_id, begun in _uploads(self._call("GET", key, on_bucket=True, query=query).data):
            meant = found.startswith(key) if key.endswith("/") else found == key
            if meant and begun <= limit:
                self._abort(found, upload_id)
                aborted += 1
        return aborted

    def conditional(self, probe_prefix: str) -> bool:
        if self._conditional is None:
            self._conditional = True  # so that the probe itself sends conditions
            self._conditional = self._probe(f"{probe_prefix}probe-{uuid.uuid4().hex[:12]}")
        return self._conditional

    def _probe(self, key: str) -> bool:
        """Write a tiny object, then twice more with conditions that do not hold: both must be refused."""
        try:
            self._call("PUT", key, headers={"If-None-Match": "*"}, body=b"1")
            for condition in ({"If-None-Match": "*"}, {"If-Match": f'"{"0" * 32}"'}):
                try:
                    self._call("PUT", key, headers=condition, body=b"2")
                except PreconditionError:
                    continue
                return False
        except _NotImplementedHereError:
            return False
        finally:
            with contextlib.suppress(RestorationError):  # credentials that may not delete leave a byte behind
                self._call("DELETE", key)
        return True

    def _guarded(
        self,
        key: str,
        when: When | None,
        metadata: Mapping[str, str] | None,
        write: Callable[[dict[str, str], dict[str, str]], ObjectInfo],
    ) -> ObjectInfo:
        """One conditional write; where the endpoint checks nothing, look before and after."""
        nonce = uuid.uuid4().hex
        headers = {f"{META}{k}": v for k, v in {**(metadata or {}), NONCE: nonce}.items()}
        if when is not None and self._conditional is False:
            self._check(key, when)
            info = write(headers, {})
            now = self.head(key)
            if now is None or now.etag != info.etag:
                raise PreconditionError(f"{self.describe(key)} was written by somebody else at the same time")
            return info
        condition = {"If-None-Match": "*"} if isinstance(when, Absent) else {}
        if isinstance(when, Unchanged):
            condition = {"If-Match": f'"{when.etag}"'}
        try:
            return write(headers, condition)
        except (PreconditionError, ObjectMissingError) as error:
            # A repeated request may meet the success of its own first try, whose answer was lost.
            now = self.head(key)
            if now is not None and now.metadata.get(NONCE) == nonce:
                return now
            if isinstance(when, Unchanged):  # `If-Match` on a key that is gone is 404 at some, 412 at others
                raise PreconditionError(f"{self.describe(key)} was changed or removed by somebody else") from error
            raise

    def _check(self, key: str, when: When) -> None:
        now = self.head(key)
        if isinstance(when, Absent) and now is not None:
            raise PreconditionError(f"{self.describe(key)} exists already")
        if isinstance(when, Unchanged) and (now is None or now.etag != when.etag):
            raise PreconditionError(f"{self.describe(key)} was changed or removed by somebody else")

    def _multipart(
        self, key: str, path: Path, headers: dict[str, str], condition: dict[str, str], on_bytes: OnBytes | None
    ) -> ObjectInfo:
        size = path.stat().st_size
        part_bytes = max(PART_BYTES, -(-size // MOST_PARTS))
        begun = self._call(
            "POST", key, headers={**headers, "Content-Type": "application/octet-stream"}, query={"uploads": ""}
        )
        upload_id = _text(ElementTree.fromstring(begun.data), "UploadId")
        try:
            etags: list[str] = []
            with path.open("rb") as file:
                while part := file.read(part_bytes):
                    query = {"partNumber": str(len(etags) + 1), "uploadId": upload_id}
                    etags.append(_unquoted(self._call("PUT", key, body=part, query=query).headers.get("etag")))
                    if on_bytes:
                        on_bytes(len(part))
            return self._complete(key, upload_id, etags, condition, size)
        except BaseException:
            self._abort(key, upload_id)
            raise

    def _complete(self, key: str, upload_id: str, etags: list[str], condition: dict[str, str], size: int) -> ObjectInfo:
        body = _complete_body(etags)
        headers = {
            **condition,
            "Content-Type": "application/xml",
            "Content-MD5": b64encode(hashlib.md5(body, usedforsecurity=False).digest()).decode(),
        }
        for attempt in range(1, ATTEMPTS + 1):
            response = self._call("POST", key, headers=headers, body=body, query={"uploadId": upload_id})
            answer = ElementTree.fromstring(response.data)
            if not answer.tag.endswith("Error"):
                return self._written(key, response, size, etag=_unquoted(_text(answer, "ETag")))
            if attempt < ATTEMPTS:  # AWS may answer 200 first and fail afterwards, and says to try again then
                time.sleep(FIRST_PAUSE_SECONDS * 2 ** (attempt - 1))
        raise RestorationError(
            FailureReason.STORAGE_ERROR, f"{self.describe(key)} could not be completed: {_text(answer, 'Code')}"
        )

    def _abort(self, key: str, upload_id: str) -> None:
        """Best effort: what is left is the bucket's lifecycle rule to remove."""
        with contextlib.suppress(RestorationError):
            self._call("DELETE", key, query={"uploadId": upload_id})

    def _written(self, key: str, response: Any, size: int, *, etag: str | None = None) -> ObjectInfo:
        return ObjectInfo(
            key=key,
            size_bytes=size,
            etag=etag or _unquoted(response.headers.get("etag")),
            version_id=response.headers.get("x-amz-version-id"),
        )

    def _call(
        self,
        method: str,
        key: str,
        *,
        headers: Mapping[str, str] | None = None,
        query: Mapping[str, str] | None = None,
        body: bytes | None = None,
        preload: bool = True,
        on_bucket: bool = False,
    ) -> Any:
        """One request, repeated while the failure may pass."""
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return self._client._execute(
                    method,
                    self._bucket,
                    None if on_bucket else key,
                    body=body,
                    headers=dict(headers or {}),
                    query_params=dict(query or {}),
                    preload_content=preload,
                    no_body_trace=True,
                )
            except (MinioException, urllib3.exceptions.HTTPError, OSError, ValueError) as error:
                if attempt == ATTEMPTS or not _may_pass(error):
                    raise self._failure(error, method, key) from error
                time.sleep(FIRST_PAUSE_SECONDS * 2 ** (attempt - 1))
        raise AssertionError("unreachable")

    def _failure(self, error: Exception, method: str, key: str) -> RestorationError:
        """The error as one sentence. Never the client's own text, which may hold a signed request."""
        name, status, code = self.describe(key), _status(error), _code(error)
        reading = method in ("GET", "HEAD")
        if status in CONFLICT_STATUS and code != "NoSuchBucket":
            return PreconditionError(f"{name} is not in the expected state: somebody else wrote it ({code or status})")
        if code == "NoSuchUpload":
            return PreconditionError(f"{name}: the upload was given up by somebody else who wrote the same object")
        if code == "NoSuchBucket":
            return ObjectMissingError(f"bucket '{self._bucket}' does not exist at {self._endpoint} ({name})")
        if status == 404:
            return ObjectMissingError(f"{name} does not exist")
        if code in SKEWED:
            return RestorationError(
                FailureReason.STORAGE_ERROR,
                f"{self._endpoint} refuses the clock of this machine ({code}); set the node's time, for example by NTP",
            )
        if status in (401, 403):
            verb = "read" if reading else "write"
            hint = f" ({code})" if code and code != "AccessDenied" else ""
            return RestorationError(FailureReason.ACCESS_DENIED, f"the storage credentials may not {verb} {name}{hint}")
        if status == 501:
            return _NotImplementedHereError(f"{self._endpoint} does not implement what {name} needs ({method})")
        if status is not None:
            return RestorationError(
                FailureReason.STORAGE_ERROR, f"{name}: the storage answered {status} {code or ''} to {method}".rstrip()
            )
        return RestorationError(
            FailureReason.STORAGE_ERROR, f"{name}: no answer from the storage ({_cause(error)}) after {ATTEMPTS} tries"
        )


class _NotImplementedHereError(RestorationError):
    def __init__(self, message: str) -> None:
        super().__init__(FailureReason.STORAGE_ERROR, message)


def _client(endpoint: str, storage: StorageRequest) -> Minio:
    url = urlsplit(endpoint)
    if url.scheme not in ("http", "https") or not url.netloc or url.path.strip("/"):
        raise RestorationError(
            FailureReason.INVALID_PARAMETERS,
            f"endpoint of storage entry '{storage.name}' must be http(s)://host[:port], not '{endpoint}'",
        )
    ca = ca_bundle(storage)
    pool = urllib3.PoolManager(
        timeout=urllib3.Timeout(connect=CONNECT_SECONDS, read=READ_SECONDS),
        maxsize=8,
        retries=urllib3.Retry(total=0, redirect=0, raise_on_status=False),
        cert_reqs="CERT_REQUIRED",
        ca_certs=str(ca) if ca else certifi.where(),
    )
    aws = (url.hostname or "").endswith(("amazonaws.com", "amazonaws.com.cn"))
    client = Minio(
        url.netloc,
        secure=url.scheme == "https",
        # Elsewhere the region is only part of the signature, and asking for it needs a right of its own.
        region=storage.region or (None if aws else "us-east-1"),
        http_client=pool,
        credentials=credentials(storage),
    )
    if storage.addressing is Addressing.PATH:
        client.disable_virtual_style_endpoint()  # type: ignore[no-untyped-call]
    elif storage.addressing is Addressing.VIRTUAL:
        client.enable_virtual_style_endpoint()  # type: ignore[no-untyped-call]
    return client


def _status(error: Exception) -> int | None:
    if isinstance(error, S3Error):
        return int(error.response.status)
    if isinstance(error, ServerError):
        return int(error.status_code)
    if isinstance(error, InvalidResponseError):
        return int(error._code)
    return None


def _code(error: Exception) -> str | None:
    code = error.code if isinstance(error, S3Error) else None
    return code if isinstance(code, str) and code.isalnum() else None


def _may_pass(error: Exception) -> bool:
    status = _status(error)
    if status is None:
        return not isinstance(error, ValueError)
    return status in RETRIED_STATUS


def _cause(error: Exception) -> str:
    """The innermost reason in a few words: `Connection refused`, `timed out`, `certificate verify failed`."""
    reason: object = getattr(error, "reason", None) or error
    text = str(reason).split("object at 0x")[-1].split(">: ")[-1]
    return text.split(": ", 1)[-1][:120] if text else type(error).__name__


def _unquoted(etag: str | None) -> str:
    return (etag or "").strip().strip('"')


def _local(tag: str) -> str:
    return tag.rsplit("}", 1)[-1]


def _text(element: ElementTree.Element, name: str) -> str:
    for child in element:
        if _local(child.tag) == name:
            return child.text or ""
    return ""


def _listing(data: bytes) -> tuple[list[ObjectInfo], str | None]:
    """One page of ListObjectsV2: (objects, token of the next page)."""
    root = ElementTree.fromstring(data)
    found = [
        ObjectInfo(
            key=_text(item, "Key"), size_bytes=int(_text(item, "Size") or 0), etag=_unquoted(_text(item, "ETag"))
        )
        for item in root
        if _local(item.tag) == "Contents"
    ]
    more = _text(root, "IsTruncated") == "true"
    return found, (_text(root, "NextContinuationToken") or None) if more else None


def _uploads(data: bytes) -> Iterator[tuple[str, str, datetime]]:
    """Unfinished uploads: (key, upload id, when begun)."""
    for item in ElementTree.fromstring(data):
        if _local(item.tag) == "Upload":
            begun = datetime.fromisoformat(_text(item, "Initiated").replace("Z", "+00:00"))
            yield _text(item, "Key"), _text(item, "UploadId"), begun if begun.tzinfo else begun.replace(tzinfo=UTC)


def _complete_body(etags: list[str]) -> bytes:
    root = ElementTree.Element("CompleteMultipartUpload", xmlns="http://s3.amazonaws.com/doc/2006-03-01/")
    for number, etag in enumerate(etags, start=1):
        part = ElementTree.SubElement(root, "Part")
        ElementTree.SubElement(part, "PartNumber").text = str(number)
        ElementTree.SubElement(part, "ETag").text = f'"{etag}"'
    return ElementTree.tostring(root)
