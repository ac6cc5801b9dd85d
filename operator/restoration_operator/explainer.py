"""Reads other programs' Events where a wait needs explaining: seldom, and never in the way of anything.

A LIST of Events by object is a scan of the namespace's Events for the API server, so a thousand restorations that wait
for one quota must not ask for it a thousand times a minute. What cannot be read now leaves the last answer standing.
"""

import zlib
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

import structlog

from restoration_operator import metrics
from restoration_operator.cluster import ApiError, Cluster, UnreachableError
from restoration_operator.pace import Pace
from restoration_operator.views import WarningEvent

READS_PER_SECOND: Final = 5.0
FIRST_PAUSE: Final = timedelta(seconds=30)
LONGEST_PAUSE: Final = timedelta(minutes=5)
"""A cause that stays the same is asked for less and less often; a pod that appears or changes needs no Event."""
TURN_SECONDS: Final = (3, 8)
"""Until the next try of one whose turn it was not; spread by uid, so that they do not come together again."""

log = structlog.get_logger()


class Explainer:
    """What Events say about the wait of one object, and when to ask again."""

    def __init__(self, cluster: Cluster, *, pace: Pace | None = None) -> None:
        """Without `pace` (`READS_PER_SECOND`) every question is asked."""
        self._cluster = cluster
        self._pace = pace

    async def explain(self, namespace: str, uid: str, known: WarningEvent | None, now: datetime) -> WarningEvent:
        """Ask, if it is this object's turn; `known` is the last answer."""
        if self._pace is not None and not self._pace.try_claim():
            metrics.EVENT_READS.labels("postponed").inc()
            first, last = TURN_SECONDS
            return _unread(known, now + timedelta(seconds=first + zlib.crc32(uid.encode()) % (last - first + 1)), now)
        try:
            fresh = await self._cluster.newest_warning(namespace, uid, now)
        except (ApiError, UnreachableError) as error:
            metrics.EVENT_READS.labels("failed").inc()
            log.warning("events cannot be read", namespace=namespace, about=uid, error=str(error))
            return _unread(known, now + FIRST_PAUSE, now)
        metrics.EVENT_READS.labels("ok").inc()
        return _due(fresh, known)


def _due(fresh: WarningEvent, known: WarningEvent | None) -> WarningEvent:
    pause = FIRST_PAUSE
    if known is not None and known.read and (known.reason, known.message) == (fresh.reason, fresh.message):
        pause = min(2 * ((known.again_at or known.read_at) - known.read_at), LONGEST_PAUSE)
    return replace(fresh, again_at=fresh.read_at + max(pause, FIRST_PAUSE))


def _unread(known: WarningEvent | None, again_at: datetime, now: datetime) -> WarningEvent:
    if known is not None and known.read:
        return replace(known, again_at=again_at)
    return WarningEvent(reason="", message="", read_at=now, again_at=again_at, read=False)
