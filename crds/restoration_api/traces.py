"""The trace of a restoration: how its spans are numbered, and where they are sent.

Both programs add to one trace without asking each other: its number, and those of the spans that others hang below,
follow from the restoration's uid. The operator hands them to a runner as `TRACEPARENT` (W3C Trace Context).

Traces are for looking at, never needed: without an address (`OTEL_EXPORTER_OTLP_ENDPOINT`) or without the packages of
the extra `tracing` nothing is recorded. A collector that is slow or away costs a bounded queue and at most
`LAST_SPANS_SECONDS` at the end of a process.
"""

from __future__ import annotations

import hashlib
import logging
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

TRACEPARENT: Final = "TRACEPARENT"
LAST_SPANS_SECONDS: Final = 1.0
"""How long a process that ends waits for a collector to take what is left."""
EXPORT_SECONDS: Final = 3.0
"""Of one request to the collector with all its repetitions, where `OTEL_EXPORTER_OTLP_TIMEOUT` says nothing."""
_ADDRESSES: Final = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS: Final = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")

log = logging.getLogger(__name__)


def trace_id(uid: str) -> int:
    """128 bits; the same for everything that happens to a restoration."""
    return _number(f"trace/{uid}", 16)


def restoration_span_id(uid: str) -> int:
    """64 bits: the span from creation to the end, above all others."""
    return _number(f"restoration/{uid}", 8)


def execution_span_id(uid: str, execution: int) -> int:
    """64 bits: the span of one execution, whatever roles and pods it had."""
    return _number(f"execution/{uid}/{execution}", 8)


def traceparent(uid: str, execution: int, *, sampled: bool) -> str:
    """What a runner hangs its spans below."""
    return f"00-{trace_id(uid):032x}-{execution_span_id(uid, execution):016x}-{int(sampled):02x}"


def wanted(environment: Mapping[str, str]) -> bool:
    """Whether spans are to be sent, by OpenTelemetry's own variables."""
    if environment.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return False
    if environment.get("OTEL_TRACES_EXPORTER", "otlp").lower() != "otlp":
        return False
    return any(environment.get(name) for name in _ADDRESSES)


def provider(environment: Mapping[str, str], *, service: str, ids: Any = None) -> TracerProvider | None:
    """What records spans and sends them over OTLP/HTTP; None where nothing is to be sent.

    `environment` is the process's own. `ids` numbers new spans, in the SDK's way (`IdGenerator`); without it they are
    numbered at random. The SDK reads its other variables itself (headers, timeout, certificate, queue, sampler).
    """
    if not wanted(environment):
        return None
    protocol = next((environment[name] for name in _PROTOCOLS if environment.get(name)), "http/protobuf")
    if protocol != "http/protobuf":
        log.warning("no traces: the protocol %s is not spoken here, only http/protobuf", protocol)
        return None
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        log.warning("no traces: %s is missing; install the extra 'tracing'", error.name)
        return None
    named = {} if environment.get("OTEL_SERVICE_NAME") else {"service.name": service}
    own = None if environment.get("OTEL_EXPORTER_OTLP_TIMEOUT") else EXPORT_SECONDS
    made = TracerProvider(resource=Resource.create(named), id_generator=ids, shutdown_on_exit=False)
    made.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(timeout=own)))
    return made


def send_the_rest(sender: TracerProvider, *, within_seconds: float = LAST_SPANS_SECONDS) -> None:
    """Give a collector a moment to take what was recorded; whatever it does, this returns."""
    thread = threading.Thread(target=sender.force_flush, name="last-spans", daemon=True)
    thread.start()
    thread.join(within_seconds)


def _number(text: str, size_bytes: int) -> int:
    """Never 0, which stands for no number."""
    digest = hashlib.sha256(f"videorestoration.dev/{text}".encode()).digest()
    return int.from_bytes(digest[:size_bytes], "big") or 1
