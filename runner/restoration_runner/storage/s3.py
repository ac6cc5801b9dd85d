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
from xml.etree import ElementTree

import urllib3
from minio.time import from_http_header

from restoration_api.outcome import FailureReason
from restoration_api.request import StorageRequest
from restoration_runner.errors import RestorationError
from restoration_runner.storage.answers import listing, parse_xml, text_of, unquoted, uploads
from restoration_runner.storage.connection import connect
from restoration_runner.storage.refusals import (
    CLIENT_ERRORS,
    Asked,
    NotImplementedHereError,
    failure,
    may_pass,
    status_of,
)
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
PIECE_BYTES = 1 << 20
PART_BYTES = 16 << 20
"""Of a multipart upload; files up to one part are written by a single PUT. Held in memory once."""
MOST_PARTS = 9_000
"""S3 allows 10,000."""
META = "x-amz-meta-"
NONCE = "vr-nonce"


class S3Store:
    """One bucket at one endpoint."""

    def __init__(self, bucket: str, storage: StorageRequest) -> None:
        self._bucket = bucket
        self._connection = connect(storage)
        self._conditional: bool | None = None

    def uri(self, key: str) -> str:
        return f"s3://{self._bucket}/{key}"

    def describe(self, key: str) -> str:
        return f"{self.uri(key)} at {self._connection.place.endpoint}"

    def local_path(self, key: str) -> Path | None:
        return None

    def head(self, key: str, *, version_id: str | None = None) -> ObjectInfo | None:
        try:
            response = self._call("HEAD", key, query={"versionId": version_id} if version_id else None)
        except ObjectMissingError:
            return None
        headers = response.headers
        return ObjectInfo(
            key=key,
            size_bytes=_length(headers),
            etag=unquoted(headers.get("etag")),
            version_id=headers.get("x-amz-version-id"),
            metadata={k.lower()[len(META) :]: v for k, v in headers.items() if k.lower().startswith(META)},
            modified=_moment(headers.get("last-modified")),
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
                etag = etag or unquoted(response.headers.get("etag"))
                expected = done + _length(response.headers)
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

    def part(self, key: str, *, start: int, size_bytes: int, if_match: str | None = None) -> bytes:
        if not size_bytes:
            return b""
        headers = {"Range": f"bytes={start}-{start + size_bytes - 1}"}
        if if_match:
            headers["If-Match"] = f'"{if_match}"'
        data: bytes = self._call("GET", key, headers=headers).data
        if len(data) != size_bytes:
            raise PreconditionError(
                f"{self.describe(key)}: {len(data)} bytes came where {size_bytes} from {start} on were asked for"
            )
        return data

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
            return self._parsed(listing, self._call("GET", prefix, on_bucket=True, query=query), prefix)

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
        answer = self._call("GET", key, on_bucket=True, query=query)
        for found, upload_id, begun in self._parsed(uploads, answer, key):
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
        except NotImplementedHereError:
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
        upload_id = text_of(self._parsed(parse_xml, begun, key), "UploadId")
        try:
            etags: list[str] = []
            with path.open("rb") as file:
                while part := file.read(part_bytes):
                    query = {"partNumber": str(len(etags) + 1), "uploadId": upload_id}
                    etags.append(unquoted(self._call("PUT", key, body=part, query=query).headers.get("etag")))
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
            answer = self._parsed(parse_xml, response, key)
            if not answer.tag.endswith("Error"):
                return self._written(key, response, size, etag=unquoted(text_of(answer, "ETag")))
            if attempt < ATTEMPTS:  # AWS may answer 200 first and fail afterwards, and says to try again then
                time.sleep(FIRST_PAUSE_SECONDS * 2 ** (attempt - 1))
        raise RestorationError(
            FailureReason.STORAGE_ERROR, f"{self.describe(key)} could not be completed: {text_of(answer, 'Code')}"
        )

    def _abort(self, key: str, upload_id: str) -> None:
        """Best effort: what is left is the bucket's lifecycle rule to remove."""
        with contextlib.suppress(RestorationError):
            self._call("DELETE", key, query={"uploadId": upload_id})

    def _written(self, key: str, response: Any, size: int, *, etag: str | None = None) -> ObjectInfo:
        return ObjectInfo(
            key=key,
            size_bytes=size,
            etag=etag or unquoted(response.headers.get("etag")),
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
        """One request, repeated while the failure may pass, and once with renewed credentials or authorities."""
        attempt, renewed = 1, False
        given: dict[str, Any] = {"query_params": dict(query or {}), "no_body_trace": True}
        name = None if on_bucket else key
        while True:
            try:
                return self._connection.client._execute(
                    method, self._bucket, name, body=body, headers=dict(headers or {}), preload_content=preload, **given
                )
            except CLIENT_ERRORS as error:
                reason = self._reason(error, name, given) if method == "HEAD" else error
                if not renewed and self._connection.renew(reason):
                    renewed = True
                    continue
                if attempt == ATTEMPTS or not may_pass(reason):
                    raise self._failure(reason, method, key) from error
                time.sleep(FIRST_PAUSE_SECONDS * 2 ** (attempt - 1))
                attempt += 1

    def _reason(self, error: Exception, name: str | None, given: dict[str, Any]) -> Exception:
        """An answer to HEAD has no body; where its status says nothing either, GET is asked for the same."""
        if status_of(error) != 400:
            return error
        try:
            self._connection.client._execute("GET", self._bucket, name, headers={"Range": "bytes=0-0"}, **given)
        except CLIENT_ERRORS as said:
            return said
        return error

    def _failure(self, error: Exception, method: str, key: str) -> RestorationError:
        return failure(error, Asked(method, self.describe(key), self._bucket, self._connection.place))

    def _parsed(self, read: Callable[[bytes], T], response: Any, key: str) -> T:
        """What an answer means; an answer that means nothing is the storage's failure."""
        try:
            return read(response.data)
        except (ElementTree.ParseError, ValueError) as error:
            raise RestorationError(
                FailureReason.STORAGE_ERROR, f"{self.describe(key)}: the storage's answer is not one of S3's"
            ) from error


def _length(headers: Mapping[str, str]) -> int:
    """Bytes of the body; 0 where a server does not say it, or says something else."""
    text = headers.get("content-length", "")
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 20 else 0


def _moment(text: str | None) -> datetime | None:
    try:
        return from_http_header(text) if text else None
    except ValueError:
        return None


def _complete_body(etags: list[str]) -> bytes:
    root = ElementTree.Element("CompleteMultipartUpload", xmlns="http://s3.amazonaws.com/doc/2006-03-01/")
    for number, etag in enumerate(etags, start=1):
        part = ElementTree.SubElement(root, "Part")
        ElementTree.SubElement(part, "PartNumber").text = str(number)
        ElementTree.SubElement(part, "ETag").text = f'"{etag}"'
    return ElementTree.tostring(root)
