"""A real Prometheus that knows one recording and nothing else: it scrapes nobody and has no pages."""

from __future__ import annotations

import json
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from hack.cluster.binaries import PROMETHEUS, PROMTOOL

START_SECONDS: Final = 120.0
"""Patience with a busy machine; it takes one."""
LOOKBACK_SECONDS: Final = 30
"""Six scrapes of a recording."""
Series = dict[str, Any]


class PrometheusError(Exception):
    """What promtool or Prometheus said."""


@dataclass(frozen=True)
class Prometheus:
    """A server at an address."""

    url: str

    def query(self, expr: str, *, at_seconds: float) -> list[Series]:
        """An instant vector. Raises PrometheusError with the server's own words."""
        return self._ask("query", query=expr, time=str(at_seconds))

    def query_range(self, expr: str, *, start: float, end: float, step_seconds: float) -> list[Series]:
        """A matrix. Raises PrometheusError with the server's own words."""
        return self._ask("query_range", query=expr, start=str(start), end=str(end), step=str(step_seconds))

    def _ask(self, what: str, **parameters: str) -> list[Series]:
        body = urllib.parse.urlencode(parameters).encode()
        try:
            with urllib.request.urlopen(f"{self.url}/api/v1/{what}", data=body, timeout=60) as answer:
                found: list[Series] = json.loads(answer.read())["data"]["result"]
                return found
        except urllib.error.HTTPError as error:
            raise PrometheusError(f"{parameters['query']}: {json.loads(error.read())['error']}") from error


@contextmanager
def prometheus(recording: str, folder: Path) -> Iterator[Prometheus]:
    """Load OpenMetrics text and serve it, as long as the context lasts. `folder` is for its database.

    Raises:
        PrometheusError: the text cannot be loaded, or the server does not come up.
    """
    text, data = folder / "recording.om", folder / "data"
    text.write_text(recording, encoding="utf-8")
    _run(PROMTOOL.path, "tsdb", "create-blocks-from", "openmetrics", text, data)
    (folder / "prometheus.yml").write_text("{}\n")
    with socket.create_server(("127.0.0.1", 0)) as probe:
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    command = [
        str(PROMETHEUS.path),
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={data}",
        "--storage.tsdb.retention.time=100y",  # the recording is as old as it is
        f"--web.listen-address={address}",
        # Where a real server scrapes, it notes when a pod is gone; here a silence has to tell.
        f"--query.lookback-delta={LOOKBACK_SECONDS}s",
        "--log.level=warn",
    ]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        _wait_until_ready(f"http://{address}", process, folder / "log")
        yield Prometheus(f"http://{address}")
    finally:
        process.terminate()
        process.wait()


def _wait_until_ready(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until:
        if process.poll() is not None:
            break
        try:
            with urllib.request.urlopen(f"{url}/-/ready", timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    raise PrometheusError(f"Prometheus does not come up: {log.read_text()[-2000:]}")


def _run(*command: str | Path) -> None:
    result = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    if result.returncode:
        raise PrometheusError(f"{command[0]}: {(result.stderr or result.stdout).strip()}")
