"""Reads other programs' Events where a wait needs explaining: seldom, and never in the way of anything.

A LIST of Events by object is a scan of the namespace's Events for the API server, so a thousand restorations that wait
for one quota must not ask for it a thousand times a minute. What cannot be read now leaves the last answer standing.
"""

import time
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import islice
from math import ceil
from typing import Final

import structlog

from restoration_operator import metrics
from restoration_operator.cluster import ApiError, Cluster, UnreachableError
from restoration_operator.pace import Pace
from restoration_operator.views import WarningEvent

READS_PER_SECOND: Final = 2.0
"""Each costs the API server 40 ms of CPU time where the namespace has 4,000 Events."""
FIRST_PAUSE: Final = timedelta(seconds=30)
LONGEST_PAUSE: Final = timedelta(minutes=5)
"""A cause that stays the same is asked for less and less often; a pod that appears or changes needs no Event."""
MISSED: Final = timedelta(minutes=1)
"""After that long nobody comes for a place any more: the wait has ended by itself."""

log = structlog.get_logger()


class Explainer:
    """What Events say about the wait of one object, and when to ask again."""

    def __init__(
        self, cluster: Cluster, *, per_second: float = READS_PER_SECOND, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """At most `per_second` questions are asked. Whoever asks too early gets a place in the line, and need not come
        again before: that a thousand wait costs no more than that five do."""
        self._cluster = cluster
        self._reads = Pace(per_second=per_second, clock=clock)
        self._line = Pace(per_second=per_second, clock=clock)
        self._places: dict[str, datetime] = {}
        """When it is whose turn, in that order."""

    async def explain(self, namespace: str, uid: str, known: WarningEvent | None, now: datetime) -> WarningEvent:
        """Ask, if it is this object's turn; `known` is the last answer."""
        turn = self._turn(uid, now)
        if turn > now:
            metrics.EVENT_READS.labels("postponed").inc()
            return _unread(known, turn, now)
        try:
            fresh = await self._cluster.newest_warning(namespace, uid, now)
        except (ApiError, UnreachableError) as error:
            metrics.EVENT_READS.labels("failed").inc()
            log.warning("events cannot be read", namespace=namespace, about=uid, error=str(error))
            return _unread(known, now + FIRST_PAUSE, now)
        metrics.EVENT_READS.labels("ok").inc()
        return _due(fresh, known)

    def _turn(self, uid: str, now: datetime) -> datetime:
        """When this object may ask."""
        self._forget_missed(now)
        place = self._places.get(uid)
        if place is None:
            # The place of one whose wait is over is free for whoever comes at that moment.
            if self._reads.try_claim():
                return now
            place = self._places[uid] = now + timedelta(seconds=ceil(self._line.claim()) + 1)
        elif place <= now:
            del self._places[uid]
            self._reads.claim()
        return place

    def _forget_missed(self, now: datetime) -> None:
        for uid, place in list(islice(self._places.items(), 2)):
            if place + MISSED < now:
                del self._places[uid]


def _due(fresh: WarningEvent, known: WarningEvent | None) -> WarningEvent:
    pause = FIRST_PAUSE
    if known is not None and known.read and (known.reason, known.message) == (fresh.reason, fresh.message):
        pause = min(2 * ((known.again_at or known.read_at) - known.read_at), LONGEST_PAUSE)
    return replace(fresh, again_at=fresh.read_at + max(pause, FIRST_PAUSE))


def _unread(known: WarningEvent | None, again_at: datetime, now: datetime) -> WarningEvent:
    if known is not None and known.read:
        return replace(known, again_at=again_at)
    return WarningEvent(reason="", message="", read_at=now, again_at=again_at, read=False)
