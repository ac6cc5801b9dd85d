"""What a storage server answers, read with limits: it is told where to be asked by an administrator, not believed.

Bodies that are read whole are documents: listings of a thousand keys, errors. Each has a largest size, so that a server
that is not what it seems cannot fill the runner's memory.
"""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, Final
from xml.etree import ElementTree

import urllib3

from restoration_runner.storage.store import ObjectInfo
from restoration_runner.storage.tls import Trust

MOST_BYTES: Final = 16 << 20
"""A page of a listing: a thousand keys of 1024 characters, each of which XML may write with six bytes or more."""
MOST_ERROR_BYTES: Final = 256 << 10
"""minio-py parses errors itself, without limits."""
MOST_ELEMENTS: Final = 20_000
"""A thousand keys with a dozen facts each."""
MOST_DEPTH: Final = 32
"""Of elements inside elements; S3's own documents have five."""
_PIECE: Final = 64 << 10


class BoundedPool(urllib3.PoolManager):
    """Connections to whom `trust` believes; answers that are read whole have a largest size."""

    def __init__(self, trust: Trust, **given: Any) -> None:
        super().__init__(ssl_context=trust.context, **given)
        self._trust = trust

    def urlopen(self, method: str, url: str, redirect: bool = True, **given: Any) -> urllib3.BaseHTTPResponse:  # type: ignore[override]
        """As the base class; an answer that is an error is read whole in any case.

        Raises:
            urllib3.exceptions.HTTPError: also for an answer that is too long.
        """
        if self.connection_pool_kw["ssl_context"] is not self._trust.context:  # authorities were replaced
            self.connection_pool_kw["ssl_context"] = self._trust.context
            self.clear()
        whole = given.pop("preload_content", True)
        answer = super().urlopen(method, url, redirect, preload_content=False, **given)
        good = answer.status in (200, 204, 206)
        if good and not whole:
            return answer
        content = _read(answer, MOST_BYTES if good else MOST_ERROR_BYTES)
        return urllib3.HTTPResponse(
            body=content, headers=answer.headers, status=answer.status, reason=answer.reason, request_method=method
        )


def _read(answer: urllib3.BaseHTTPResponse, most_bytes: int) -> bytes:
    pieces, size = [], 0
    try:
        while piece := answer.read(_PIECE):
            pieces.append(piece)
            size += len(piece)
            if size > most_bytes:
                raise urllib3.exceptions.HTTPError(f"the answer is longer than {most_bytes} bytes")
    except BaseException:
        answer.close()
        raise
    answer.release_conn()
    return b"".join(pieces)


def parse_xml(data: bytes) -> ElementTree.Element:
    """The document's root.

    Raises:
        xml.etree.ElementTree.ParseError: it is not XML, too deep or too many elements, or declares a document type,
            which S3 never does and bombs are made of.
    """
    parser: Any = ElementTree.XMLPullParser(("start", "end"))
    depth, count = 0, 0
    root: ElementTree.Element | None = None
    for at in range(0, len(data) + 1, _PIECE):
        parser.feed(data[at : at + _PIECE])
        for event, element in parser.read_events():
            root = element if root is None else root
            depth += 1 if event == "start" else -1
            count += 1
            if depth > MOST_DEPTH or count > 2 * MOST_ELEMENTS:
                raise ElementTree.ParseError("more elements, or deeper ones, than any answer of a storage has")
    parser.close()
    if root is None:
        raise ElementTree.ParseError("no element")
    return root


def find_text(root: ElementTree.Element, name: str) -> str | None:
    """The text of the first element with this local name, at any depth."""
    return next((item.text for item in root.iter() if local_name(item.tag) == name), None)


def text_of(element: ElementTree.Element, name: str) -> str:
    """The text of a child with this local name; empty if there is none."""
    for child in element:
        if local_name(child.tag) == name:
            return child.text or ""
    return ""


def local_name(tag: str) -> str:
    return tag.rsplit("}", 1)[-1]


def unquoted(etag: str | None) -> str:
    return (etag or "").strip().strip('"')


def listing(data: bytes) -> tuple[list[ObjectInfo], str | None]:
    """One page of ListObjectsV2: (objects, token of the next page).

    Raises:
        xml.etree.ElementTree.ParseError, ValueError: it is none.
    """
    root = parse_xml(data)
    found = [
        ObjectInfo(
            key=text_of(item, "Key"), size_bytes=int(text_of(item, "Size") or 0), etag=unquoted(text_of(item, "ETag"))
        )
        for item in root
        if local_name(item.tag) == "Contents"
    ]
    more = text_of(root, "IsTruncated") == "true"
    return found, (text_of(root, "NextContinuationToken") or None) if more else None


def uploads(data: bytes) -> Iterator[tuple[str, str, datetime]]:
    """Unfinished uploads: (key, upload id, when begun).

    Raises:
        xml.etree.ElementTree.ParseError, ValueError: it is no such list.
    """
    for item in parse_xml(data):
        if local_name(item.tag) == "Upload":
            begun = datetime.fromisoformat(text_of(item, "Initiated").replace("Z", "+00:00"))
            yield text_of(item, "Key"), text_of(item, "UploadId"), begun if begun.tzinfo else begun.replace(tzinfo=UTC)
