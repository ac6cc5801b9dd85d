"""A front proxy between the operator and the API server: counts writes, holds them, loses answers, injects errors.

Crashes are tested with it instead of with hooks in the product: a write is held before it reaches the API server, or
its answer is held after, and the operator is killed while it waits.
"""

from __future__ import annotations

import asyncio
import base64
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

import aiohttp
import yaml
from aiohttp import web

from tests.builders.live_api import ApiServer

WRITES: Final = ("POST", "PUT", "PATCH", "DELETE")
_NOT_FORWARDED: Final = ("host", "transfer-encoding", "content-length", "connection", "content-encoding")


@dataclass(frozen=True)
class Write:
    """One write that the operator asked for."""

    method: str
    path: str
    status: int
    """Answer of the API server; 0 if it never got there."""
    body: bytes = b""


Fault = Callable[[web.Request, int], Any]
"""Given a request and the number of writes before it: an answer to give instead, or None."""


class Proxy:
    """Listens on loopback without TLS and speaks to the API server as the service account of a kubeconfig."""

    def __init__(self, api: ApiServer, rights: Path) -> None:
        """`rights`: a kubeconfig with a token; whoever comes through here may do what that may do."""
        self._api = api
        document = yaml.safe_load(rights.read_text())
        [cluster], [user] = document["clusters"], document["users"]
        authority = base64.b64decode(cluster["cluster"]["certificate-authority-data"]).decode()
        self._tls = ssl.create_default_context(cadata=authority)
        self._token = user["user"]["token"]
        self.writes: list[Write] = []
        self.requests: list[tuple[str, str, int]] = []
        """Method, path and status of every request, watches included."""
        self.hold_before: int | None = None
        """Number of the write (from 0) that must not reach the API server."""
        self.hold_after: int | None = None
        """Number of the write whose answer must not reach the operator."""
        self.held = asyncio.Event()
        self.fault: Fault | None = None
        self.before_forwarding: Callable[[web.Request, bytes], Awaitable[None]] | None = None
        """Called with every request that is about to be forwarded."""
        self.cut_off = False
        """No request gets through: connections are closed without an answer."""
        self.watches_cut = 0
        self.expired = 0
        """Watches that were answered `410 Gone`, at once or in the stream."""
        self.url = ""
        self._started = 0
        self._watches: set[asyncio.Transport] = set()

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=self._tls, limit=0),
            timeout=aiohttp.ClientTimeout(total=None),
            auto_decompress=True,
        )
        app = web.Application(client_max_size=64 * 2**20)
        app.router.add_route("*", "/{path:.*}", self._forward)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        host, port = self._runner.addresses[0][:2]
        self.url = f"http://{host}:{port}"
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self._session.close()
        await self._runner.cleanup()

    def release(self) -> None:
        """Hold nothing from now on."""
        self.hold_before = self.hold_after = None
        self.held = asyncio.Event()

    def cut_watches(self) -> None:
        """End every watch in the middle, as a network does."""
        for transport in list(self._watches):
            self.watches_cut += 1
            transport.abort()

    async def _forward(self, request: web.Request) -> web.StreamResponse:
        try:
            if not self.cut_off:
                return await self._pass_on(request)
        except (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError):
            pass  # the API server is away
        if request.transport is not None:
            request.transport.abort()
        return web.Response(status=503)

    async def _pass_on(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        number: int | None = None
        if request.method in WRITES and "dryRun" not in request.query:
            number = self._started
            self._started += 1
            if number == self.hold_before:
                self.writes.append(Write(request.method, request.path, 0, body))
                await self._hold()
        if self.fault is not None:
            answer = self.fault(request, self._started if number is None else number)
            if answer is not None:
                return await answer if asyncio.iscoroutine(answer) else answer
        if self.before_forwarding is not None:
            await self.before_forwarding(request, body)
        headers = {key: value for key, value in request.headers.items() if key.lower() not in _NOT_FORWARDED}
        headers["Authorization"] = f"Bearer {self._token}"
        async with self._session.request(
            request.method, f"{self._api.url}{request.rel_url}", data=body or None, headers=headers
        ) as answer:
            self.requests.append((request.method, str(request.rel_url), answer.status))
            if number is not None:
                self.writes.append(Write(request.method, request.path, answer.status, body))
            if number is not None and number == self.hold_after:
                await answer.read()
                await self._hold()
            return await self._answer(request, answer)

    async def _hold(self) -> None:
        self.held.set()
        await asyncio.Event().wait()

    async def _answer(self, request: web.Request, answer: aiohttp.ClientResponse) -> web.StreamResponse:
        headers = {key: value for key, value in answer.headers.items() if key.lower() not in _NOT_FORWARDED}
        response = web.StreamResponse(status=answer.status, headers=headers)
        await response.prepare(request)
        watch = request.transport if "watch" in request.query else None
        self.expired += answer.status == 410
        if watch is not None:
            self._watches.add(watch)
        try:
            async for chunk in answer.content.iter_any():
                self.expired += watch is not None and b'"code":410' in chunk
                await response.write(chunk)
            await response.write_eof()
        finally:
            if watch is not None:
                self._watches.discard(watch)
        return response
