"""The storage protocol: few operations, each atomic, each with the preconditions that resume and commit rest on.

A key is a path inside one bucket (or below one root folder). A reader sees an object whole or not at all. Writes may
carry a condition, and the condition is checked by the storage itself in the same step: that is what makes "the first
marker wins" and "nothing of somebody else's is overwritten" true with any number of runners.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Protocol

from restoration_api.outcome import FailureReason
from restoration_runner.errors import RestorationError

OnBytes = Callable[[int], None]
"""Called with the number of bytes just moved: progress, and the place where an upload can be stopped."""


@dataclass(frozen=True, kw_only=True)
class ObjectInfo:
    """What a store says of an object without reading it."""

    key: str
    size_bytes: int
    etag: str
    """Opaque; changes whenever the content does."""
    version_id: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    """User metadata, lower-case names without the `x-amz-meta-` prefix."""
    modified: datetime | None = None


@dataclass(frozen=True)
class Absent:
    """Write only if no object has this key (`If-None-Match: *`)."""


@dataclass(frozen=True)
class Unchanged:
    """Write only if the object still has this etag (`If-Match`)."""

    etag: str


When = Absent | Unchanged


class ObjectMissingError(RestorationError):
    """There is no such object (or bucket)."""

    def __init__(self, message: str) -> None:
        super().__init__(FailureReason.INPUT_NOT_FOUND, message)


class PreconditionError(RestorationError):
    """The condition of a read or a write did not hold; nothing was read or written."""

    def __init__(self, message: str) -> None:
        super().__init__(FailureReason.OUTPUT_CONFLICT, message)


class Store(Protocol):
    """One bucket, or one root folder.

    Every method raises `RestorationError` with a sentence that names object and endpoint: `AccessDenied`, or
    `StorageError` after the client's own retries; the two subclasses above where they apply.
    """

    def uri(self, key: str) -> str:
        """How a user would write this key."""
        ...

    def describe(self, key: str) -> str:
        """The same, with the endpoint, for messages."""
        ...

    def local_path(self, key: str) -> Path | None:
        """The file itself, where a key is one: it can be read in place."""
        ...

    def head(self, key: str, *, version_id: str | None = None) -> ObjectInfo | None:
        """None if there is no such object."""
        ...

    def stream(self, key: str, *, if_match: str | None = None, version_id: str | None = None) -> Iterator[bytes]:
        """The content in pieces; a broken connection is resumed where it broke, on the same etag.

        Raises:
            ObjectMissingError, PreconditionError: no such object; another etag.
        """
        ...

    def part(self, key: str, *, start: int, size_bytes: int, if_match: str | None = None) -> bytes:
        """`size_bytes` of the content from `start` on, whole: for reading a large object in several places at once.

        Raises:
            ObjectMissingError, PreconditionError: as `stream`; also if the object ends before.
        """
        ...

    def put(
        self, key: str, data: bytes, *, when: When | None = None, metadata: Mapping[str, str] | None = None
    ) -> ObjectInfo:
        """Write a small object whole.

        Raises:
            PreconditionError: `when` did not hold.
        """
        ...

    def upload(
        self,
        key: str,
        path: Path,
        *,
        when: When | None = None,
        metadata: Mapping[str, str] | None = None,
        on_bytes: OnBytes | None = None,
    ) -> ObjectInfo:
        """Write a file of any size; nothing is visible before the last step, which carries the condition.

        Raises:
            PreconditionError: `when` did not hold.
        """
        ...

    def list_objects(self, prefix: str) -> Iterator[ObjectInfo]:
        """All objects whose keys begin so, without metadata."""
        ...

    def delete(self, key: str, *, if_match: str | None = None) -> None:
        """Remove it if it is there (and, if asked, if it still has this etag); no error if not."""
        ...

    def abort_uploads(self, key: str, *, older_than: timedelta) -> int:
        """Give up unfinished uploads to this key, or to all below it if it ends in a slash, that began so long ago.

        Says how many. Whoever is still at one gets a `PreconditionError`. Not every endpoint can list by folder.
        """
        ...

    def conditional(self, probe_prefix: str) -> bool:
        """Whether this endpoint checks conditions itself; found out once with a tiny object below `probe_prefix`.

        Where it does not, conditions are checked before and after the write: enough for a single writer only.
        """
        ...


MOST_DOCUMENT_BYTES = 256 << 20
"""Of a plan, a marker, a manifest: the times of ten million frames, each of another length, take a third of it."""


class TooLongError(ValueError):
    """An object is longer than any document of ours."""


def read_whole(store: Store, key: str, *, if_match: str | None = None, most_bytes: int = MOST_DOCUMENT_BYTES) -> bytes:
    """A small object's content (plans, markers). Whoever may write there must not be able to fill our memory.

    Raises:
        TooLongError: it is not small.
    """
    pieces, size = [], 0
    for piece in store.stream(key, if_match=if_match):
        pieces.append(piece)
        size += len(piece)
        if size > most_bytes:
            raise TooLongError(f"{store.uri(key)} has more than {most_bytes} bytes")
    return b"".join(pieces)
