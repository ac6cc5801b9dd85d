"""A server that speaks the protocol of the Hugging Face hub as its own client needs it, and fails on purpose.

What it knows of the protocol: `GET /api/models/ID/revision/REV` (the commit), `GET /api/models/ID/tree/COMMIT` (files
with sizes and digests, in pages), `HEAD` and `GET /ID/resolve/COMMIT/FILE` (`ETag`, `X-Repo-Commit`; for large files
`X-Linked-Etag`, `X-Linked-Size` and a redirect to a signed address of another host), ranges, and the hub's errors.
"""

import contextlib
import hashlib
import json
import re
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar
from urllib.parse import parse_qs, urlsplit

TOKEN = "hf_test_token_0123456789"
SIGNATURE = "Signature=not-for-logs"
LARGE_BYTES = 2000
"""Files from here on are kept as the hub keeps large ones: by SHA-256, at another host."""
COMMIT = "1234567890abcdef1234567890abcdef12345678"


@dataclass
class Repository:
    """files: path to content. token: who reads needs one. gated: even with a token, terms are not accepted."""

    files: dict[str, bytes]
    commit: str = COMMIT
    branch: str = "main"
    token: bool = False
    gated: bool = False


@dataclass
class Faults:
    """statuses: answers given first, one a request, to paths that contain `path`. retry_after goes with them.

    cut_after: bodies of large files end after so many bytes, `cuts` times. other_bytes: the last byte of large files is
    changed on the way. pages: tree listings come in pages of so many files.
    """

    statuses: list[int] = field(default_factory=list)
    path: str = ""
    retry_after: str | None = None
    cut_after: int | None = None
    cuts: int = 0
    other_bytes: bool = False
    pages: int = 2


@dataclass
class Seen:
    """One request. sent: bytes of the answer's body."""

    method: str
    host: str
    path: str
    range: str | None
    authorized: bool
    sent: int = 0


@dataclass
class HubServer:
    """endpoint is what `HF_ENDPOINT` must be; large files come from `cdn`, another host of the same server."""

    endpoint: str
    cdn: str
    repositories: Mapping[str, Repository]
    faults: Faults
    seen: list[Seen] = field(default_factory=list)

    def bodies(self, file: str) -> list[Seen]:
        """Requests that got content of one file."""
        return [one for one in self.seen if one.method == "GET" and one.path.endswith("/" + file) and one.sent]


@contextlib.contextmanager
def hub(repositories: Mapping[str, Repository], faults: Faults | None = None) -> Iterator[HubServer]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    port = server.server_address[1]
    state = HubServer(f"http://127.0.0.1:{port}", f"http://localhost:{port}", repositories, faults or Faults())
    _Handler.states[port] = state
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    states: ClassVar[dict[int, HubServer]] = {}

    @property
    def hub(self) -> HubServer:
        return self.states[self.server.server_address[1]]  # type: ignore[index,return-value]

    def do_GET(self) -> None:
        self.body = self.command == "GET"
        parts = urlsplit(self.path)
        host = (self.headers.get("Host") or "").partition(":")[0]
        authorized = self.headers.get("Authorization") == f"Bearer {TOKEN}"
        self.note = Seen(self.command, host, parts.path, self.headers.get("Range"), authorized)
        self.hub.seen.append(self.note)
        faults = self.hub.faults
        if faults.statuses and faults.path in self.path:
            again = {"Retry-After": faults.retry_after} if faults.retry_after else {}
            self._answer(faults.statuses.pop(0), again)
        elif parts.path.startswith("/cdn/"):
            self._large(parts.path, parts.query)
        else:
            self._of_repository(parts.path, parse_qs(parts.query))

    def do_HEAD(self) -> None:
        self.do_GET()

    def _of_repository(self, path: str, query: dict[str, list[str]]) -> None:
        for pattern in (r"/api/models/([^/]+/[^/]+)/(revision|tree)/([^/]+)", r"/([^/]+/[^/]+)/(resolve)/([^/]+)/(.+)"):
            if match := re.fullmatch(pattern, path):
                break
        else:
            self._answer(404, {})
            return
        repository = self.hub.repositories.get(match[1])
        if repository is None or (repository.token and not self.note.authorized):
            code = 404 if self.note.authorized else 401
            self._answer(code, {"X-Error-Code": "RepoNotFound"})
        elif repository.gated:
            self._answer(403, {"X-Error-Code": "GatedRepo"})
        elif match[3] not in (repository.commit, repository.branch):
            self._answer(404, {"X-Error-Code": "RevisionNotFound"})
        elif match[2] == "revision":
            self._json({"id": match[1], "modelId": match[1], "sha": repository.commit, "siblings": []})
        elif match[2] == "tree":
            self._tree(repository, path, int(query.get("cursor", ["0"])[0]))
        else:
            self._file(repository, match[4])

    def _tree(self, repository: Repository, path: str, first: int) -> None:
        names = sorted(repository.files)
        page = names[first : first + self.hub.faults.pages]
        entries = [_entry(name, repository.files[name]) for name in page]
        after = first + len(page)
        link = {"Link": f'<{self.hub.endpoint}{path}?recursive=true&cursor={after}>; rel="next"'}
        self._json(entries, link if after < len(names) else {})

    def _file(self, repository: Repository, name: str) -> None:
        content = repository.files.get(name)
        commit = {"X-Repo-Commit": repository.commit}
        if content is None:
            self._answer(404, {**commit, "X-Error-Code": "EntryNotFound"})
        elif len(content) < LARGE_BYTES:
            self._content(content, {**commit, "ETag": f'"{git_hash(content)}"'})
        else:
            digest = hashlib.sha256(content).hexdigest()
            linked = {"X-Linked-Etag": f'"{digest}"', "X-Linked-Size": str(len(content))}
            self._answer(302, {**commit, **linked, "Location": f"{self.hub.cdn}/cdn/{digest}/{name}?{SIGNATURE}"})

    def _large(self, path: str, query: str) -> None:
        digest, name = path.removeprefix("/cdn/").split("/", 1)
        for repository in self.hub.repositories.values():
            content = repository.files.get(name)
            if content is not None and hashlib.sha256(content).hexdigest() == digest and query == SIGNATURE:
                changed = content[:-1] + bytes([content[-1] ^ 1]) if self.hub.faults.other_bytes else content
                self._content(changed, {"ETag": f'"{digest}"'})
                return
        self._answer(403, {})

    def _content(self, content: bytes, headers: dict[str, str]) -> None:
        first = int(self.note.range.removeprefix("bytes=").split("-")[0]) if self.note.range else 0
        rest = content[first:]
        if self.note.range:
            headers["Content-Range"] = f"bytes {first}-{len(content) - 1}/{len(content)}"
        faults = self.hub.faults
        cut = self.note.path.startswith("/cdn/") and faults.cut_after is not None and faults.cuts > 0 and self.body
        part = rest[: faults.cut_after] if cut else rest
        self.send_response(206 if self.note.range else 200)
        for key, value in {**headers, "Content-Length": str(len(rest))}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.body:
            self.note.sent = len(part)
            self.wfile.write(part)
        if cut:
            faults.cuts -= 1
            self.close_connection = True

    def _json(self, value: object, headers: dict[str, str] | None = None) -> None:
        self._answer(200, {"Content-Type": "application/json", **(headers or {})}, json.dumps(value).encode())

    def _answer(self, status: int, headers: dict[str, str], content: bytes = b"") -> None:
        self.send_response(status)
        for key, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.body:
            self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: tests look at `seen`."""


def _entry(name: str, content: bytes) -> dict[str, object]:
    entry: dict[str, object] = {"type": "file", "path": name, "size": len(content), "oid": git_hash(content)}
    if len(content) >= LARGE_BYTES:
        pointer = {"oid": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 130}
        entry["lfs"] = pointer
    return entry


def git_hash(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
