"""A model folder below a prefix of a bucket.

One connection to object storage is slow, and a hash needs its bytes in order: parts are fetched by several threads and
handed on one after another, so memory holds a few parts whatever the size of the file.
"""

import contextlib
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from restoration_api.outcome import FailureReason
from restoration_runner.errors import RestorationError
from restoration_runner.storage.store import ObjectInfo, ObjectMissingError, PreconditionError, Store
from restoration_runner.weights.digest import invalid
from restoration_runner.weights.shelf import Item, OnBytes, missing, receive, small_size, unavailable

PART_BYTES = 16 << 20
PARTS_AT_ONCE = 8
"""Up to 128 MiB in memory; on one connection S3 gives some 90 MB/s, so eight fill what a node writes to its disk."""


class BucketShelf:
    """prefix: of the keys, ending in a slash, or empty."""

    def __init__(self, store: Store, prefix: str) -> None:
        self._store = store
        self._prefix = prefix
        self._seen: dict[str, ObjectInfo] = {}

    def describe(self, name: str) -> str:
        return self._store.describe(self._prefix + name)

    def read(self, name: str, *, most_bytes: int) -> bytes:
        return self._part(name, 0, small_size(self, name, most_bytes=most_bytes))

    def size_bytes(self, name: str) -> int:
        if name not in self._seen:
            with self._saying(name):
                info = self._store.head(self._prefix + name)
            if info is None:
                raise missing(self.describe(name))
            self._seen[name] = info
        return self._seen[name].size_bytes

    def fetch(self, item: Item, target: Path, *, on_bytes: OnBytes) -> None:
        with ThreadPoolExecutor(PARTS_AT_ONCE, thread_name_prefix="weights") as pool:
            try:
                receive(
                    item,
                    target,
                    lambda start: self._pieces(pool, item, start),
                    where=self.describe(item.name),
                    on_bytes=on_bytes,
                )
            finally:
                pool.shutdown(wait=False, cancel_futures=True)

    def _pieces(self, pool: ThreadPoolExecutor, item: Item, start: int) -> Iterator[bytes]:
        ahead: deque[Future[bytes]] = deque()
        for at in range(start, item.size_bytes, PART_BYTES):
            ahead.append(pool.submit(self._part, item.name, at, min(PART_BYTES, item.size_bytes - at)))
            if len(ahead) >= PARTS_AT_ONCE:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()

    def _part(self, name: str, start: int, size_bytes: int) -> bytes:
        with self._saying(name):
            etag = self._seen[name].etag
            return self._store.part(self._prefix + name, start=start, size_bytes=size_bytes, if_match=etag)

    @contextlib.contextmanager
    def _saying(self, name: str) -> Iterator[None]:
        """What went wrong, in the words of a model: nothing here is the input's or the output's fault."""
        try:
            yield
        except ObjectMissingError as error:
            raise invalid(f"model.source.download.uri: {error.message}") from error
        except PreconditionError as error:
            raise unavailable(f"{self.describe(name)} was replaced while it was fetched; try again") from error
        except RestorationError as error:
            if error.reason is FailureReason.STORAGE_ERROR:
                raise unavailable(f"model.source.download.uri: {error.message}") from error
            raise
