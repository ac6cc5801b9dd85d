"""Asks every runner how far it is: `GET /progress` at the pod's address.

Pulling needs no token in the pod and no server here. A mesh or a NetworkPolicy may block it, and then nothing but the
percentage is missing: a failed poll is a metric and a debug line, never a condition. What listens at the address may be
anything, for addresses are given out again: an answer is bounded in time and size, checked, and counts only if it is
this pod's.

Two queues keep it fair and slow enough for the API server. Questions go out evenly spaced, whoever was not asked for
longest first. Answers that are worth a status write leave in the order in which they came, at no more than so many a
second for the whole fleet; a newer answer of the same runner takes the place of its older one.
"""

import asyncio
import random
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import aiohttp
import structlog
from pydantic import ValidationError

from restoration_api.outcome import HTTP_PORT, Progress
from restoration_api.resources import VideoRestoration
from restoration_operator import metrics
from restoration_operator.clock import utc_now
from restoration_operator.decide.types import PolledProgress
from restoration_operator.pace import Pace
from restoration_operator.store import Store
from restoration_operator.views import PodView
from restoration_operator.workqueue import WorkQueue

TIMEOUT_SECONDS: Final = 3.0
LONGEST_ANSWER_BYTES: Final = 64 * 1024
AT_ONCE: Final = 64
"""Twenty questions a second that are all answered by silence keep sixty connections: nobody else waits for them."""
LONGEST_PAUSE_SECONDS: Final = 60.0
"""Between two questions to a runner that does not answer."""
TICK_SECONDS: Final = 1.0

log = structlog.get_logger()


class ForeignAnswerError(Exception):
    """Somebody answered, but not the runner that was asked."""


@dataclass
class _Asked:
    """What is known of one runner."""

    due: float
    failures: int = 0
    said: PolledProgress | None = None
    asking: bool = False


class Poller:
    """Polls all running pods."""

    def __init__(
        self,
        store: Store,
        queue: WorkQueue,
        *,
        poll_seconds: float,
        worth_telling: Callable[[VideoRestoration, PolledProgress, datetime], bool],
        writes_per_second: float = 20,
        port: int = HTTP_PORT,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        """`worth_telling` says whether an answer is worth a status write."""
        self._store = store
        self._queue = queue
        self._poll_seconds = poll_seconds
        self._worth_telling = worth_telling
        self._questions = Pace(per_second=writes_per_second, clock=clock)
        self._answers = Pace(per_second=writes_per_second, clock=clock)
        self._port = port
        self._clock = clock
        self._now = now
        self._runners: dict[str, _Asked] = {}
        """By the pod's uid."""
        self._waiting: dict[str, PolledProgress] = {}
        """By the restoration's uid, in order."""
        self._arrived = asyncio.Event()

    async def run(self) -> None:
        """Poll until cancelled."""
        timeout = aiohttp.ClientTimeout(total=TIMEOUT_SECONDS)
        # Connections are not kept: a runner is asked every few seconds, and there may be thousands.
        connector = aiohttp.TCPConnector(limit=AT_ONCE, limit_per_host=1, force_close=True)
        async with (
            aiohttp.ClientSession(
                timeout=timeout, connector=connector, cookie_jar=aiohttp.DummyCookieJar(), auto_decompress=False
            ) as session,
            asyncio.TaskGroup() as group,
        ):
            group.create_task(self._deliver(), name="progress")
            await self._ask_all(session, group)

    # Questions.

    async def _ask_all(self, session: aiohttp.ClientSession, group: asyncio.TaskGroup) -> None:
        limit = asyncio.Semaphore(AT_ONCE)
        while True:
            for pod in self.due(self._store.running_pods()):
                await asyncio.sleep(self._questions.claim())
                await limit.acquire()
                self._runners[pod.uid].asking = True
                task = group.create_task(self._poll(session, pod), name=f"poll-{pod.name}")
                task.add_done_callback(lambda _: limit.release())
            now = self._clock()
            due = [asked.due - now for asked in self._runners.values() if not asked.asking]
            await asyncio.sleep(min([TICK_SECONDS, *(max(0.05, pause) for pause in due)]))

    def due(self, pods: Iterable[PodView]) -> list[PodView]:
        """Those of the running pods whose turn it is, longest overdue first; what is known of others is forgotten."""
        now, running = self._clock(), {pod.uid: pod for pod in pods}
        for uid in [uid for uid, asked in self._runners.items() if uid not in running and not asked.asking]:
            del self._runners[uid]
        for uid in running:
            # Spread from the start, so that a restarted operator does not ask a thousand at once.
            self._runners.setdefault(uid, _Asked(due=now + random.uniform(0, min(TICK_SECONDS, self._poll_seconds))))
        waiting = [(self._runners[uid], pod) for uid, pod in running.items() if not self._runners[uid].asking]
        return [pod for asked, pod in sorted(waiting, key=lambda pair: pair[0].due) if asked.due <= now]

    async def _poll(self, session: aiohttp.ClientSession, pod: PodView) -> None:
        asked = self._runners[pod.uid]
        try:
            said = self._check(pod, await self.ask(session, pod))
        except ForeignAnswerError as error:
            self._missed(asked, pod, "foreign", error)
        except Exception as error:  # a stranger may send what breaks any parser; it must not end the operator
            self._missed(asked, pod, "failed", error)
        else:
            metrics.POLLS.labels("ok").inc()
            asked.failures = 0
            self.heard(pod, said)
        finally:
            asked.asking = False
            pause = min(self._poll_seconds * 2.0 ** min(asked.failures, 10), LONGEST_PAUSE_SECONDS)
            asked.due = self._clock() + max(pause, self._poll_seconds) * random.uniform(0.9, 1.1)

    def _missed(self, asked: _Asked, pod: PodView, result: str, error: Exception) -> None:
        asked.failures += 1
        metrics.POLLS.labels(result).inc()
        log.debug("no progress", namespace=pod.namespace, pod=pod.name, error=repr(error))

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
            text = b""
            async for piece in answer.content.iter_any():
                text += piece
                if len(text) > LONGEST_ANSWER_BYTES:
                    raise ValueError(f"more than {LONGEST_ANSWER_BYTES} bytes")
            try:
                return Progress.from_json(text)
            except ValidationError as error:
                raise ValueError(f"no progress report: {error.error_count()} errors") from error

    def _check(self, pod: PodView, said: Progress) -> Progress:
        if said.execution != pod.execution:
            raise ForeignAnswerError(f"execution {said.execution}, asked was {pod.execution}")
        if said.restoration_uid is not None and said.restoration_uid != pod.restoration_uid:
            raise ForeignAnswerError(f"restoration {said.restoration_uid}, asked was {pod.restoration_uid}")
        return said

    # Answers.

    def heard(self, pod: PodView, said: Progress) -> None:
        """A runner has answered: if it is worth a write, put it in line."""
        asked, now = self._runners[pod.uid], self._now()
        before = asked.said
        unchanged = before is not None and before.progress.updated_at == said.updated_at
        since = before.unchanged_since if before is not None and unchanged else now
        asked.said = PolledProgress(pod_uid=pod.uid, progress=said, unchanged_since=since)
        restoration = self._store.restoration(pod.restoration_uid)
        if isinstance(restoration, VideoRestoration) and self._worth_telling(restoration, asked.said, now):
            self._waiting[pod.restoration_uid] = asked.said
            self._arrived.set()
            metrics.PROGRESS_WAITING.set(len(self._waiting))

    async def _deliver(self) -> None:
        while True:
            self._arrived.clear()
            if not self._waiting:
                await self._arrived.wait()
            await asyncio.sleep(self._answers.claim())
            self.deliver_next()

    def deliver_next(self) -> None:
        """Hand the answer that has waited longest to its restoration, if that still exists."""
        uid = next(iter(self._waiting))
        said = self._waiting.pop(uid)
        metrics.PROGRESS_WAITING.set(len(self._waiting))
        if isinstance(self._store.restoration(uid), VideoRestoration):
            self._store.memory(uid).polled = said
            self._queue.add(uid)
