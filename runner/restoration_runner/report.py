"""How the runner speaks to the operator: HTTP while it works, the termination message at its end.

`/healthz` answers as soon as the process lives (the pod's startup probe), `/progress` with the contract's JSON,
`/metrics` for Prometheus. Nothing here can fail the work: a port that is taken, a file that cannot be written, cost a
line in the log.
"""

import contextlib
import os
import socket
import sys
import threading
from collections.abc import Iterable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import structlog
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from restoration_api.outcome import Outcome
from restoration_runner.progress import ProgressTracker

log = structlog.get_logger()

TERMINATION_LOG = Path("/dev/termination-log")
CLOSING_SECONDS = 0.1
"""Longest wait for the server when the work is over; half a second, the default, is long for a cache hit."""
METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class _Server(ThreadingHTTPServer):
    """On every address of the pod, whichever family the cluster gives it."""

    daemon_threads = True
    address_family = socket.AF_INET6 if socket.has_dualstack_ipv6() else socket.AF_INET

    def server_bind(self) -> None:
        if self.address_family == socket.AF_INET6:
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        super().server_bind()

    def handle_error(self, request: object, client_address: object) -> None:
        """A line instead of the traceback that the base class prints: it would stand at the end of a killed runner's
        log, and so in the message that the user reads."""
        error = sys.exc_info()[1]
        if isinstance(error, (ConnectionError, TimeoutError)):
            log.debug("somebody asked and did not wait for the answer", cause=str(error))
        else:
            log.warning("a question was not answered", cause=str(error))


class ProgressServer:
    """Serves one tracker on a port until closed."""

    def __init__(self, tracker: ProgressTracker, *, port: int) -> None:
        registry = CollectorRegistry()
        registry.register(ProgressCollector(tracker))

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                path = self.path.partition("?")[0]
                if path == "/healthz":
                    self._answer(200, "text/plain", b"ok\n")
                elif path == "/progress":
                    self._answer(200, "application/json", tracker.snapshot().to_json().encode())
                elif path == "/metrics":
                    self._answer(200, METRICS_TYPE, generate_latest(registry))
                else:
                    self._answer(404, "text/plain", b"there are /healthz, /progress and /metrics\n")

            def _answer(self, status: int, kind: str, body: bytes) -> None:
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                """A poll every few seconds is no news."""

        self._server = _Server(("", port), Handler)
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": CLOSING_SECONDS}, name="http", daemon=True
        )

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@contextlib.contextmanager
def serving(tracker: ProgressTracker, *, port: int | None) -> Iterator[int | None]:
    """Serve while the body runs; yields the port, or None if there is no server."""
    if port is None:
        yield None
        return
    try:
        server = ProgressServer(tracker, port=port)
    except OSError as error:
        log.warning("progress cannot be served", port=port, cause=error.strerror)
        yield None
        return
    server.start()
    try:
        yield server.port
    finally:
        server.close()


class ProgressCollector(Collector):
    """Numbers of the tracker, read when Prometheus asks. `docs/operator-reference.md` is generated from them."""

    def __init__(self, tracker: ProgressTracker) -> None:
        self._tracker = tracker

    def collect(self) -> Iterable[Metric]:
        now = self._tracker.snapshot()
        yield _gauge("frames_done", "Frames finished, those of earlier executions included.", now.frames_done)
        yield _gauge("video_frames", "Frames of the whole video; absent while unknown.", now.frames_total)
        yield _gauge("segments_done", "Segments finished.", now.segments_done)
        # What is unknown is not zero: what is divided by it shall not exist either.
        yield _gauge("video_segments", "Segments of the plan; absent while unknown.", now.segments_total)
        rate = (now.milli_frames_per_second or 0) / 1000
        yield _gauge("frames_per_second", "Mean restoration rate of this execution; 0 while it does not restore.", rate)
        yield CounterMetricFamily(
            "vr_runner_restored_frames",
            "Frames that this execution has restored; its rate is the restoration rate of now.",
            value=self._tracker.restored_frames,
        )
        length = self._tracker.video_seconds
        yield _gauge("video_seconds", "Length of the whole video; absent while unknown.", length)
        yield _gauge(
            "last_progress_timestamp_seconds",
            "When anything last moved: a frame, a segment, a stage.",
            now.updated_at.timestamp(),
        )
        stage = GaugeMetricFamily("vr_runner_stage", "1 for the stage the work is in.", labels=["stage"])
        spent = CounterMetricFamily("vr_runner_stage_seconds", "Time in each stage so far.", labels=["stage"])
        for name, seconds in self._tracker.stage_seconds().items():
            stage.add_metric([name.value], 1.0 if name is now.stage else 0.0)
            spent.add_metric([name.value], seconds)
        yield stage
        yield spent


def _gauge(name: str, documentation: str, value: float | None) -> Metric:
    """A gauge; without a value, one that is described and not exported."""
    return GaugeMetricFamily(f"vr_runner_{name}", documentation, value=value)


def termination_log(path: Path | None) -> Path | None:
    """Where the termination message goes: an argument, `VR_TERMINATION_LOG`, or what Kubernetes mounts."""
    if path is None and "VR_TERMINATION_LOG" in os.environ:
        path = Path(os.environ["VR_TERMINATION_LOG"])
    if path is None and TERMINATION_LOG.exists():
        path = TERMINATION_LOG
    return path


def write_outcome(outcome: Outcome, path: Path | None) -> None:
    """Leave the termination message."""
    if path is None:
        return
    try:
        path.write_text(outcome.termination_message(), encoding="utf-8")
    except OSError as error:
        log.warning("the termination message cannot be written", path=str(path), cause=error.strerror)
