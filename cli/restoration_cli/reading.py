"""An object in a bucket as a file that is read where it is needed: a moment of a long film is some megabytes of it.

Blocks are fetched when they are first read and the last few are kept, which is what a demuxer wants: it jumps to an
index at one end, then reads on from one place. Every request names the ETag that was there at the beginning, so that
halves of two objects are never taken for one.
"""

import io
import os
from collections import OrderedDict
from typing import Final

from minio import Minio
from minio.error import S3Error

from restoration_cli import store
from restoration_cli.errors import CommandError

BLOCK_BYTES: Final = 1 << 20
KEPT_BLOCKS: Final = 16


class RemoteFile(io.RawIOBase):
    """A seekable, read-only file. Reading raises CommandError where the store refuses."""

    def __init__(self, client: Minio, uri: str) -> None:
        """Ask how large the object is.

        Raises:
            CommandError: there is no such object, or the store refuses.
        """
        super().__init__()
        self.uri, self._client = uri, client
        self._bucket, self._key = store.parts(uri)
        with store.refusals(uri):
            found = client.stat_object(self._bucket, self._key)
        self.etag = str(found.etag or "").strip('"')
        self.size_bytes = int(found.size or 0)
        self.fetched_bytes = 0
        self._position = 0
        self._blocks: OrderedDict[int, bytes] = OrderedDict()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self.size_bytes}[whence]
        self._position = max(0, start + offset)
        return self._position

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """At most to the end of the block in which the position lies; 0 at the end of the object."""
        if self._position >= self.size_bytes or not len(buffer):
            return 0
        number, offset = divmod(self._position, BLOCK_BYTES)
        piece = self._block(number)[offset : offset + len(buffer)]
        buffer[: len(piece)] = piece
        self._position += len(piece)
        return len(piece)

    def _block(self, number: int) -> bytes:
        if number in self._blocks:
            self._blocks.move_to_end(number)
            return self._blocks[number]
        start = number * BLOCK_BYTES
        self._blocks[number] = self._fetch(start, min(BLOCK_BYTES, self.size_bytes - start))
        if len(self._blocks) > KEPT_BLOCKS:
            self._blocks.popitem(last=False)
        return self._blocks[number]

    def _fetch(self, start: int, length: int) -> bytes:
        with store.refusals(self.uri):
            try:
                answer = self._client.get_object(
                    self._bucket, self._key, start, length, request_headers={"If-Match": f'"{self.etag}"'}
                )
            except S3Error as error:
                if error.code == "PreconditionFailed":
                    raise CommandError(f"{self.uri} was replaced while it was read; try again") from error
                raise
            try:
                data: bytes = answer.read()
            finally:
                answer.close()
                answer.release_conn()
        if len(data) != length:
            raise CommandError(f"{self.uri}: the store sent {len(data)} of {length} bytes; try again")
        self.fetched_bytes += length
        return data
