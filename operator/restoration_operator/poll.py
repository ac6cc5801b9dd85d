"""Asks every runner how far it is: `GET /progress` at the pod's address.

Pulling needs no token in the pod and no server here. A mesh or a NetworkPolicy may block it, and then nothing but the
percentage is missing: a failed poll is a metric and a debug line, never a condition.
"""

import asyncio
import random
from typing import Final

import aiohttp
import structlog
from pydantic import ValidationError

from restoration_api.outcome import HTTP_PORT, Progress
from restoration_api.resources import VideoRestoration
from restoration_operator import metrics
from restoration_operator.decide.types import PolledProgress
from restoration_operator.store import Store
from restoration_operator.views import PodView
from restoration_operator.workqueue import WorkQueue

WRITES_PER_SECOND: Final = 20
"""Every poll may become a status write; SIG Scalability calls this the steady churn that a cluster bears."""
TIMEOUT_SECONDS: Final = 3.0
LONGEST_ANSWER_BYTES: Final = 64 * 1024
AT_ONCE: Final = 16

log = structlog.get_logger()


class Poller:
    """Polls all running pods in rounds."""

    def __init__(self, store: Store, queue: WorkQueue, *, poll_seconds: float, port: int = HTTP_PORT) -> None:
        self._store = store
        self._queue = queue
        self._poll_seconds = poll_seconds
        self._port = port

    async def run(self) -> None:
        """Poll until cancelled."""
        timeout = aiohttp.ClientTimeout(total=TIMEOUT_SECONDS)
        async with aiohttp.ClientSession(timeout=timeout, auto_decompress=False) as session:
            while True:
                pods = self._store.running_pods()
                pause = max(self._poll_seconds, len(pods) / WRITES_PER_SECOND)
                await asyncio.sleep(pause * random.uniform(0.9, 1.1))
                limit = asyncio.Semaphore(AT_ONCE)
                await asyncio.gather(*(self._poll(session, limit, pod) for pod in self._store.running_pods()))

    async def _poll(self, session: aiohttp.ClientSession, limit: asyncio.Semaphore, pod: PodView) -> None:
        async with limit:
            try:
                said = await self.ask(session, pod)
            except (aiohttp.ClientError, TimeoutError, OSError, ValidationError, ValueError) as error:
                metrics.POLLS.labels("failed").inc()
                log.debug("no progress", namespace=pod.namespace, pod=pod.name, error=repr(error))
                return
        metrics.POLLS.labels("ok").inc()
        if not isinstance(self._store.restoration(pod.restoration_uid), VideoRestoration):
            return  # it ended while the question was on its way
        self._store.memory(pod.restoration_uid).polled = PolledProgress(pod_uid=pod.uid, progress=said)
        self._queue.add(pod.restoration_uid)

    async def ask(self, session: aiohttp.ClientSession, pod: PodView) -> Progress:
        """One question.

        Raises:
            aiohttp.ClientError, TimeoutError: no answer.
            ValueError: an answer that is no `Progress`, or a longer one than any.
        """
        host = f"[{pod.ip}]" if pod.ip and ":" in pod.ip else pod.ip
        # Not following redirects: whatever listens there must not send the operator elsewhere.
        async with session.get(f"http://{host}:{self._port}/progress", allow_redirects=False) as answer:
            if answer.status != 200:
                raise ValueError(f"status {answer.status}")
            text = await answer.content.read(LONGEST_ANSWER_BYTES + 1)
            if len(text) > LONGEST_ANSWER_BYTES:
                raise ValueError(f"more than {LONGEST_ANSWER_BYTES} bytes")
            return Progress.from_json(text)
