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
        self._lag_seconds = 0.0
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

    async def _beat(self) -> None:
        while True:
            before = time.monotonic()
            await asyncio.sleep(BEAT_SECONDS)
            self._lag_seconds = time.monotonic() - before - BEAT_SECONDS

    async def _healthz(self, request: web.Request) -> web.Response:
        del request
        if self._lag_seconds > LONGEST_LAG_SECONDS:
            return web.Response(status=503, text=f"the event loop lags by {self._lag_seconds:.1f} s\n")
        return web.Response(text="ok\n")

    async def _readyz(self, request: web.Request) -> web.Response:
        del request
        return web.Response(text="ok\n") if self.ready else web.Response(status=503, text="not synced\n")

    async def _metrics(self, request: web.Request) -> web.Response:
        del request
        self._refresh()
        return web.Response(body=generate_latest(), headers={"Content-Type": CONTENT_TYPE_LATEST})
