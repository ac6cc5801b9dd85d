"""A stand-in for an OpenTelemetry collector: takes OTLP over HTTP, and keeps what its protobuf says."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.builders.loopback import serving


@dataclass(frozen=True)
class Seen:
    """One span as it arrived; numbers in hexadecimal, `parent` empty for the first of a trace."""

    service: str
    name: str
    trace: str
    span: str
    parent: str
    begun_ns: int
    ended_ns: int
    failed: str | None
    attributes: dict[str, Any] = field(hash=False)


@dataclass
class Collector:
    """Where it is, and what it got. While `open` is not set, requests get no answer."""

    address: str = ""
    spans: list[Seen] = field(default_factory=list)
    open: threading.Event = field(default_factory=threading.Event)
    asked: threading.Event = field(default_factory=threading.Event)

    def named(self, name: str) -> list[Seen]:
        """The spans of this name, in the order of their beginnings."""
        return sorted((one for one in self.spans if one.name == name), key=lambda one: one.begun_ns)


@contextmanager
def collector() -> Iterator[Collector]:
    """A running one, open."""
    state = Collector()
    state.open.set()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            state.asked.set()
            state.open.wait()
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            assert self.path == "/v1/traces"
            state.spans += _spans(body)
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

    with serving(Handler) as state.address:
        try:
            yield state
        finally:
            state.open.set()


def _spans(body: bytes) -> Iterator[Seen]:
    request = ExportTraceServiceRequest()
    request.ParseFromString(body)
    for group in request.resource_spans:
        service = _attributes(group.resource.attributes)["service.name"]
        for scope in group.scope_spans:
            for span in scope.spans:
                yield Seen(
                    service=service,
                    name=span.name,
                    trace=span.trace_id.hex(),
                    span=span.span_id.hex(),
                    parent=span.parent_span_id.hex(),
                    begun_ns=span.start_time_unix_nano,
                    ended_ns=span.end_time_unix_nano,
                    failed=span.status.message if span.status.code == 2 else None,
                    attributes=_attributes(span.attributes),
                )


def _attributes(pairs: Any) -> dict[str, Any]:
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in pairs}
