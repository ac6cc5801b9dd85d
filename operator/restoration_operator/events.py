"""Events of our own, posted after the status that they tell of is stored.

Nothing waits for them and nothing needs them: what cannot be posted is dropped and counted. The same one again counts
up a series, as client-go's recorder does, so that `kubectl describe` shows `x5 over 10m` instead of five lines.
"""

import asyncio
import hashlib
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import structlog

from restoration_api.resources import API_VERSION, GROUP, VideoRestoration, VideoRestorationStatus
from restoration_operator import metrics
from restoration_operator.cluster import ApiError, Cluster, UnreachableError
from restoration_operator.decide.announcements import REASONS, Announcement, announcements
from restoration_operator.pace import Pace

NOTE_CHARACTERS: Final = 1024
"""The API server refuses longer notes, counted in bytes: `_note` cuts bytes."""
WAITING_EVENTS: Final = 1000
"""Of each type. A burst longer than that loses its oldest: status has it all, and nothing waits for an Event."""
KNOWN_EVENTS: Final = 4096
"""Remembered for series; a few hundred bytes each."""
SERIES_LASTS_SECONDS: Final = 30 * 60
"""The API server keeps an Event for an hour after its last change (kube-apiserver --event-ttl): half of it is safe."""
CONTROLLER: Final = f"{GROUP}/operator"

log = structlog.get_logger()


@dataclass
class _Series:
    """An Event that exists, and how often it has happened."""

    name: str
    last: float
    count: int = 1


@dataclass(frozen=True)
class _Posting:
    restoration: VideoRestoration
    announcement: Announcement


class Announcer:
    """Posts our own Events, in the background and at a limited rate; the same one again counts up a series."""

    def __init__(
        self,
        cluster: Cluster,
        *,
        instance: str,
        per_second: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`instance` is the name of this process (its pod), as `reportingInstance`."""
        self._cluster = cluster
        self._instance = instance[:128] or "unknown"
        self._pace = Pace(per_second=per_second, clock=clock)
        self._clock = clock
        self._warnings: deque[_Posting] = deque()
        self._others: deque[_Posting] = deque()
        self._arrived = asyncio.Event()
        self._known: OrderedDict[tuple[str, Announcement], _Series] = OrderedDict()

    def recorded(self, before: VideoRestoration, after: VideoRestorationStatus) -> None:
        """A status was stored: take in what is worth an Event. Returns at once."""
        for announcement in announcements(before.status, after):
            warning = REASONS[announcement.reason].type == "Warning"
            line = self._warnings if warning else self._others
            line.append(_Posting(before, announcement))
            if len(line) > WAITING_EVENTS:
                line.popleft()
                metrics.EVENTS_POSTED.labels("dropped").inc()
            self._arrived.set()

    async def run(self) -> None:
        """Post until cancelled; Warnings first."""
        while True:
            self._arrived.clear()
            line = self._warnings or self._others
            if not line:
                await self._arrived.wait()
                continue
            posting = line.popleft()
            await asyncio.sleep(self._pace.claim())
            metrics.EVENTS_POSTED.labels(await self._try(posting)).inc()

    async def _try(self, posting: _Posting) -> str:
        try:
            return await self._post(posting)
        except (ApiError, UnreachableError) as error:
            meta = posting.restoration.metadata
            reason = posting.announcement.reason
            log.debug("event lost", namespace=meta.namespace, name=meta.name, reason=reason, error=str(error))
            return "failed"

    async def _post(self, posting: _Posting) -> str:
        meta, now = posting.restoration.metadata, self._clock()
        key = (meta.uid, posting.announcement)
        series = self._known.get(key)
        if series is not None and now - series.last < SERIES_LASTS_SECONDS:
            series.count, series.last = series.count + 1, now
            if await self._cluster.repeat_event(meta.namespace or "", series.name, series.count, _micro_time()):
                return "repeated"
        body = event_body(posting.restoration, posting.announcement, self._instance)
        await self._cluster.create_event(body)
        self._known[key] = _Series(body["metadata"]["name"], now)
        self._known.move_to_end(key)
        if len(self._known) > KNOWN_EVENTS:
            self._known.popitem(last=False)
        return "posted"


def event_body(restoration: VideoRestoration, announcement: Announcement, instance: str) -> dict[str, Any]:
    """An `events.k8s.io/v1` Event. Its name is as unique as restoration, reason, note and microsecond are together."""
    meta, kind, happened = restoration.metadata, REASONS[announcement.reason], _micro_time()
    digest = hashlib.sha256("\n".join((meta.uid, *_words(announcement), happened, instance)).encode()).hexdigest()[:16]
    return {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {"namespace": meta.namespace, "name": f"{meta.name[:236].rstrip('.-')}.{digest}"},
        "eventTime": happened,
        "reportingController": CONTROLLER,
        "reportingInstance": instance,
        "type": kind.type,
        "action": kind.action,
        "reason": announcement.reason.value,
        "note": _note(announcement.note),
        "regarding": {
            "apiVersion": API_VERSION,
            "kind": "VideoRestoration",
            "namespace": meta.namespace,
            "name": meta.name,
            "uid": meta.uid,
            "resourceVersion": meta.resource_version,
        },
    }


def _words(announcement: Announcement) -> tuple[str, str]:
    return announcement.reason.value, announcement.note


def _note(text: str) -> str:
    encoded = text.encode()
    if len(encoded) <= NOTE_CHARACTERS:
        return text
    return encoded[: NOTE_CHARACTERS - 3].decode(errors="ignore") + "…"


def _micro_time() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
