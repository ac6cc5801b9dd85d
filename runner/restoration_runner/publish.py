"""The output: whether it is there already, whether it may be replaced, and making it appear whole and once.

An output carries in its metadata what made it. That is how a finished work is recognised after a crash, by another
runner, or by the same request a year later, without reading the file.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import structlog

from restoration_api.outcome import FailureReason
from restoration_api.request import CacheMode, Overwrite, Request
from restoration_runner.errors import RestorationError
from restoration_runner.outcomes import SHA256_METADATA
from restoration_runner.plan import Keys
from restoration_runner.storage.store import (
    Absent,
    ObjectInfo,
    PreconditionError,
    Store,
    Unchanged,
    When,
)

log = structlog.get_logger()

KEY, REQUEST_KEY, WORK = "vr-key", "vr-request-key", "vr-work"
TRIES = 5
STALE_UPLOAD = timedelta(days=1)
"""Unfinished uploads younger than this may be somebody's who is still at it."""


@dataclass(frozen=True)
class Seen:
    """The destination. hit: what lies there is this work's result. before: what lies there now, if anything."""

    hit: ObjectInfo | None
    before: ObjectInfo | None


@dataclass(frozen=True)
class Published:
    """sha256: of the object's content. adopted: somebody else published the same work first."""

    info: ObjectInfo
    sha256: str
    adopted: bool


class Destination:
    """One output object, for one piece of work."""

    def __init__(self, store: Store, key: str, *, request: Request, keys: Keys, work_name: str) -> None:
        self._store = store
        self._key = key
        self._overwrite = request.output.overwrite
        self._bypass = request.cache is CacheMode.BYPASS
        self._keys = keys
        self._work_name = work_name

    def look(self) -> Seen:
        """What lies there, and whether the work is done.

        Raises:
            RestorationError: `OutputConflict` if something else lies there and must not be replaced.
        """
        now = self._store.head(self._key)
        if now is None:
            return Seen(None, None)
        if self._is_ours(now):
            return Seen(now, now)
        if self._overwrite is Overwrite.NEVER:
            if now.metadata.get(REQUEST_KEY) == self._keys.request_key and not self._bypass:
                return Seen(now, now)  # the same wish, served by an earlier runner: fine as it is
            raise self._conflict("exists already, and output.overwrite is Never")
        return Seen(None, now)

    def publish(self, path: Path, *, before: ObjectInfo | None, on_bytes: Callable[[int], None]) -> Published:
        """Upload a verified file, and read it back.

        Raises:
            RestorationError: `OutputConflict` if somebody else wrote something else there meanwhile; `StorageError` if
                what was stored is not what was sent.
        """
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        metadata = {
            KEY: self._keys.cache_key,
            REQUEST_KEY: self._keys.request_key,
            WORK: self._work_name,
            SHA256_METADATA: sha256,
        }
        for _ in range(TRIES):
            when: When = Absent() if before is None else Unchanged(before.etag)
            try:
                info = self._store.upload(self._key, path, when=when, metadata=metadata, on_bytes=on_bytes)
            except PreconditionError as error:
                now = self._store.head(self._key)
                if now is not None and self._is_ours(now):
                    return Published(now, now.metadata.get(SHA256_METADATA, sha256), adopted=True)
                unchanged = (now and now.etag) == (before and before.etag)  # refused only for the moment (409 at AWS)
                if not unchanged and self._overwrite is not Overwrite.ALWAYS:
                    raise self._conflict("was written by somebody else meanwhile") from error
                before = now
                continue
            self._read_back(info, sha256)
            # Whoever else is still uploading the same object can only lose now.
            self.abort_uploads(older_than=timedelta(0))
            return Published(info, sha256, adopted=False)
        raise self._conflict(f"was written by somebody else {TRIES} times meanwhile")

    def abort_uploads(self, *, older_than: timedelta = STALE_UPLOAD) -> None:
        """Give up unfinished uploads of this object. Credentials need not allow it: a lifecycle rule can do it, too."""
        try:
            aborted = self._store.abort_uploads(self._key, older_than=older_than)
        except RestorationError as error:
            log.info("unfinished uploads cannot be listed or given up", cause=error.message)
            return
        if aborted:
            log.info("unfinished uploads given up", count=aborted)

    def _is_ours(self, now: ObjectInfo) -> bool:
        if self._bypass:
            # Recompute even what is there, except what this very restoration put there before it was interrupted.
            return now.metadata.get(WORK) == self._work_name
        return now.metadata.get(KEY) == self._keys.cache_key

    def _read_back(self, info: ObjectInfo, sha256: str) -> None:
        digest = hashlib.sha256()
        for piece in self._store.stream(self._key, if_match=info.etag):
            digest.update(piece)
        if digest.hexdigest() != sha256:
            self._store.delete(self._key, if_match=info.etag)
            raise RestorationError(
                FailureReason.STORAGE_ERROR,
                f"{self._store.describe(self._key)} reads back with another content than was written; it was removed",
            )

    def _conflict(self, what: str) -> RestorationError:
        return RestorationError(
            FailureReason.OUTPUT_CONFLICT,
            f"output.uri: {self._store.describe(self._key)} {what}; name another object, remove that one, or set "
            "output.overwrite",
        )
