"""Watches as kopf keeps them: a listing, then changes, and after an expired one a listing again; on bad days worse."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, Protocol

from restoration_operator.watch import Feed
from tests.builders.simulation.loop import noise
from tests.builders.simulation.server import PROFILES, RESTORATIONS, Change, Json, SimulatedServer

WATCHED: Final = (PROFILES, "pods", "jobs", RESTORATIONS)
KINDS: Final = {PROFILES: "ClusterRestorationProfile", RESTORATIONS: "VideoRestoration"}
LOST, TWICE, EXPIRED = 0.1, 0.2, 0.25
"""Of all events on a bad day a tenth is lost, a tenth comes twice, a twentieth comes as `410 Gone`."""


class Conditions(Protocol):
    """What a watch suffers from."""

    watch_lag_seconds: float
    jumbled: bool
    deaf: set[str]


class Watch:
    """One resource's watch of one process."""

    def __init__(
        self,
        server: SimulatedServer,
        feed: Feed,
        resource: str,
        *,
        weather: Callable[[], Conditions],
        stopped: asyncio.Event,
        salt: int,
    ) -> None:
        """`stopped` is cleared while the process is frozen."""
        self._server = server
        self._resource = resource
        self._weather = weather
        self._running = stopped
        self._salt = salt
        handlers = {RESTORATIONS: feed.restoration, "jobs": feed.job, "pods": feed.pod, PROFILES: feed.profile}
        self._take = handlers[resource]
        self._pending: list[Change] = []
        self._news = asyncio.Event()

    async def run(self) -> None:
        """Until cancelled."""
        self._server.listeners.append(self._hear)
        try:
            await self._list()
            while True:
                await self._news.wait()
                self._news.clear()
                await asyncio.sleep(self._weather().watch_lag_seconds * noise(self._salt, self._server.version))
                await self._running.wait()
                if self._resource not in self._weather().deaf:
                    await self._deliver()
        finally:
            self._server.listeners.remove(self._hear)

    def _hear(self, change: Change) -> None:
        if change.resource == self._resource:
            self._pending.append(change)
            self._news.set()

    async def _list(self) -> None:
        """What exists. What has vanished since the last time is not told."""
        self._pending.clear()
        for body in list(self._server.objects[self._resource].values()):
            await self._feed(None, body)

    async def _deliver(self) -> None:
        while self._pending:
            if not self._weather().jumbled:
                change = self._pending.pop(0)
                await self._feed(change.type, change.body)
                continue
            chance = noise(self._salt, self._server.version, len(self._pending))
            change = self._pending.pop(int(chance * 1000) % len(self._pending))
            if TWICE <= chance < EXPIRED:
                await self._list()
                return
            for _ in range(0 if chance < LOST else 2 if chance < TWICE else 1):
                await self._feed(change.type, change.body)

    async def _feed(self, kind: str | None, body: Json) -> None:
        if self._resource in KINDS:
            body = {"kind": KINDS[self._resource], **body}
        await self._take(event={"type": kind, "object": body})
