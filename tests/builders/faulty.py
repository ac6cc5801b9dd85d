"""A proxy before an S3 server that fails as networks and services do: on purpose, and countably."""

import contextlib
import http.client
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

REFUSAL = '<?xml version="1.0"?><Error><Code>{code}</Code><Message>no</Message></Error>'


@dataclass
class Faults:
    """What to do to requests. `seen` are (method, path) of all that arrived.

    unavailable: so many matching requests get `refusal`. torn: of so many, the server gets half of the body and then
    nothing. lost: so many are carried out, but their answer is lost. slow: so many are carried out, and their answer
    does not come before the client has given up. cut: so many answers to GET end after half of their body; halved: the
    same for any method. blind: conditions are taken out, as if the server ignored them.
    """

    matches: Callable[[str, str], bool] = lambda method, path: True
    refusal: tuple[int, str] = (503, "SlowDown")
    unavailable: int = 0
    torn: int = 0
    lost: int = 0
    slow: int = 0
    cut: int = 0
    halved: int = 0
    blind: bool = False
    seen: list[tuple[str, str]] = field(default_factory=list)
    signed: list[str] = field(default_factory=list)
    """`Authorization` of all that arrived."""

    def plan(self, where: Callable[[str, str], bool], **faults: Any) -> None:
        """What happens to the next requests that match."""
        self.matches = where
        for name, value in faults.items():
            setattr(self, name, value)

    @property
    def used_up(self) -> bool:
        """Whether everything that was planned has happened."""
        return not any((self.unavailable, self.torn, self.lost, self.slow, self.cut, self.halved))

    def take(self, name: str, method: str, path: str) -> bool:
        if getattr(self, name) > 0 and self.matches(method, path):
            setattr(self, name, getattr(self, name) - 1)
            return True
        return False


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that hang up, or do not believe a certificate, are what tests are about."""


@contextlib.contextmanager
def faulty(endpoint: str, faults: Faults, *, tls: ssl.SSLContext | None = None) -> Iterator[str]:
    """Endpoint of the proxy; with `tls`, one that speaks it."""
    target = urlsplit(endpoint).netloc

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _serve(self) -> None:
            faults.seen.append((self.command, self.path))
            faults.signed.append(self.headers.get("Authorization", ""))
            body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
            if faults.take("unavailable", self.command, self.path):
                status, code = faults.refusal
                self._answer(status, {"Content-Type": "application/xml"}, REFUSAL.format(code=code).encode())
                return
            headers = {k: v for k, v in self.headers.items() if not (faults.blind and k.lower().startswith("if-"))}
            connection = http.client.HTTPConnection(target, timeout=30)
            if faults.take("torn", self.command, self.path):
                self._tear(connection, headers, body)
                return
            try:
                connection.request(self.command, self.path, body=body, headers=headers)
                answer = connection.getresponse()
                content = answer.read()
            finally:
                connection.close()
            if faults.take("lost", self.command, self.path):
                self.close_connection = True
                return
            if faults.take("slow", self.command, self.path):
                self.connection.settimeout(60)
                self.connection.recv(1, socket.MSG_PEEK)  # returns when the client has hung up
                self.close_connection = True
                return
            cut = self.command == "GET" and faults.take("cut", self.command, self.path)
            cut = cut or faults.take("halved", self.command, self.path)
            skipped = ("transfer-encoding", "connection", "date", "server")
            sent = {k: v for k, v in answer.getheaders() if k.lower() not in skipped}
            self._answer(answer.status, sent, content, keep=len(content) // 2 if cut else None)

        def _tear(self, connection: http.client.HTTPConnection, headers: dict[str, str], body: bytes) -> None:
            connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in headers.items():
                connection.putheader(name, value)
            connection.endheaders(body[: len(body) // 2])
            connection.close()
            self.close_connection = True

        def _answer(self, status: int, headers: dict[str, str], body: bytes, *, keep: int | None = None) -> None:
            self.send_response(status)
            for name, value in headers.items():
                if name.lower() != "content-length" or self.command == "HEAD":
                    self.send_header(name, value)
            if self.command != "HEAD":
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body[:keep])
            if keep is not None:
                self.close_connection = True

        do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _serve  # noqa: N815  # names that the base class looks for

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = _Server(("127.0.0.1", 0), Handler)
    if tls is not None:
        # The handshake is the handler's, so that one that fails harms nobody else.
        server.socket = tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"{'https' if tls else 'http'}://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
