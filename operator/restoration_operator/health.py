"""`/healthz`, `/readyz` and `/metrics`.

Healthy means that the event loop runs: a lag of five seconds is a process that cannot do its work. Ready means that the
store knows the cluster; a standby is ready too, or a rollout of two replicas would never end. A dead watch ends the
process instead (see `resync`).
"""

import asyncio
import time
from collections.abc import Callable
from typing import Final

import structlog
from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from restoration_operator import metrics

LONGEST_LAG_SECONDS: Final = 5.0
BEAT_SECONDS: Final = 1.0

log = structlog.get_logger()


class Health:
    """The HTTP server and what it reports."""

    def __init__(self, *, host: str, port: int, refresh: Callable[[], None]) -> None:
        """`refresh` brings gauges up to date before they are read."""
        self._host = host
        self._port = port
        self._refresh = refresh
        self._beat_due = time.monotonic()
        self._last_lag_seconds = 0.0
        self.ready = False

    async def run(self) -> None:
        """Serve until cancelled."""
        app = web.Application()
        app.add_routes(
            [
                web.get("/healthz", self._healthz),
                web.get("/readyz", self._readyz),
                web.get("/metrics", self._metrics),
            ]
        )
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        try:
            site = web.TCPSite(runner, self._host, self._port)
            await site.start()
            log.info("serving", addresses=[f"{address[0]}:{address[1]}" for address in runner.addresses])
            await self._beat()
        finally:
            await runner.cleanup()

    @property
    def lag_seconds(self) -> float:
        """How late the event loop is: by its last beat, or by one that is overdue now."""
        return max(self._last_lag_seconds, time.monotonic() - self._beat_due, 0.0)

    async def _beat(self) -> None:
        while True:
            self._beat_due = time.monotonic() + BEAT_SECONDS
            await asyncio.sleep(BEAT_SECONDS)
            self._last_lag_seconds = time.monotonic() - self._beat_due

    async def _healthz(self, request: web.Request) -> web.Response:
        del request
        # Read once: the request that was answered late may be the one that finds the beat overdue.
        lag_seconds = self.lag_seconds
        if lag_seconds > LONGEST_LAG_SECONDS:
            return web.Response(status=503, text=f"the event loop lags by {lag_seconds:.1f} s\n")
        return web.Response(text="ok\n")

    async def _readyz(self, request: web.Request) -> web.Response:
        del request
        return web.Response(text="ok\n") if self.ready else web.Response(status=503, text="not synced\n")

    async def _metrics(self, request: web.Request) -> web.Response:
        del request
        metrics.LOOP_LAG.set(self.lag_seconds)
        self._refresh()
        return web.Response(body=generate_latest(), headers={"Content-Type": CONTENT_TYPE_LATEST})
