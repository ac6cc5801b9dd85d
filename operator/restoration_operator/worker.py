"""Takes one restoration after the other from the queue, has it reconciled, and decides when to come again.

Apart from the process, so that simulated clusters can run it under their own clock.
"""

import random
import time
from collections.abc import Callable
from datetime import datetime
from typing import Final

import structlog

from restoration_operator import metrics
from restoration_operator.clock import utc_now
from restoration_operator.cluster import ApiError, UnreachableError
from restoration_operator.reconcile import Reconciler
from restoration_operator.workqueue import WorkQueue

UNREACHABLE_PAUSE_SECONDS: Final = 1.0

log = structlog.get_logger()


class Worker:
    """Several may share one queue: it never gives out a key twice at once."""

    def __init__(self, queue: WorkQueue, reconciler: Reconciler, *, clock: Callable[[], datetime] = utc_now) -> None:
        self._queue = queue
        self._reconciler = reconciler
        self._clock = clock

    async def run(self) -> None:
        """Work until cancelled."""
        while True:
            uid = await self._queue.take()
            began = time.monotonic()
            try:
                result = await self._reconcile(uid)
            finally:
                self._queue.done(uid)
            metrics.RECONCILES.labels(metrics.NAME, result).inc()
            if result == "error":
                metrics.RECONCILE_ERRORS.labels(metrics.NAME).inc()
            metrics.RECONCILE_SECONDS.labels(metrics.NAME).observe(time.monotonic() - began)

    async def _reconcile(self, uid: str) -> str:
        try:
            wake_at = await self._reconciler.reconcile(uid)
        except UnreachableError as error:
            # It says nothing about this restoration: no backoff, or an outage would leave hour-long waits behind.
            log.warning("API server unreachable", uid=uid, error=str(error))
            self._queue.add_after(uid, UNREACHABLE_PAUSE_SECONDS * random.uniform(0.5, 1.5))
            return "requeue"
        except ApiError as error:
            pause = self._queue.retry(uid, at_least=error.retry_after_seconds or 0.0)
            log.warning("API server refused", uid=uid, error=str(error), retry_seconds=round(pause, 1))
            metrics.QUEUE_RETRIES.labels(metrics.NAME).inc()
            return "error"
        except Exception:
            pause = self._queue.retry(uid)
            log.exception("reconciliation failed", uid=uid, retry_seconds=round(pause, 1))
            metrics.QUEUE_RETRIES.labels(metrics.NAME).inc()
            return "error"
        self._queue.forgive(uid)
        if wake_at is not None:
            self._queue.add_after(uid, (wake_at - self._clock()).total_seconds())
        return "success"
