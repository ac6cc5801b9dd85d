"""One operator process: the real parts, wired as they really are, under the simulated clock.

What is not real: the API server at the other end of its client, a network in which things get lost, the watches
(kopf's part), and the runners that it asks for their progress.
"""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, Final, cast

from restoration_api.outcome import Progress, Stage
from restoration_operator.clock import Clocks
from restoration_operator.cluster import ApiError, Cluster, UnreachableError
from restoration_operator.health import Health
from restoration_operator.lease import Leadership, Timing
from restoration_operator.main import Operator
from restoration_operator.reconcile import Reconciler
from restoration_operator.resync import StaleWatchError
from restoration_operator.settings import Settings
from restoration_operator.store import Store
from restoration_operator.views import PodView
from restoration_operator.watch import Feed
from tests.builders.simulation.client import SimulatedCluster
from tests.builders.simulation.loop import noise
from tests.builders.simulation.server import Json, SimulatedServer
from tests.builders.simulation.watches import WATCHED, Watch

SETTINGS: Final = Settings(
    runner_image="runner:1", default_profile_file=Path("/nonexistent"), workers=2, poll_seconds=60
)
TIMEOUT_SECONDS: Final = 30.0
WRITES: Final = ("POST", "PUT", "PATCH", "DELETE")
BOOT_SECONDS: Final = 2.0
TIMING: Final = Timing(duration_seconds=60, deadline_seconds=40, retry_seconds=10)
"""The proportions of the real one; at its own pace renewals would be most of what is simulated."""

POLLED_EVERY: Final = 5
"""In every fifth history runners are asked for their progress: it goes on every second, and decides little."""

TASKS: ContextVar[dict[asyncio.Task[Any], None] | None] = ContextVar("tasks", default=None)
"""All tasks of the process that a task belongs to, in the order of their beginning: SIGKILL spares none."""


@dataclass
class Weather:
    """What becomes of the operator's calls; everything at its default is a clear day."""

    trouble: float = 0.0
    """Share of the calls that something happens to."""
    slow: float = 0.3
    """Share of the calls that take long enough for others to come between."""
    outage: bool = False
    """No call gets an answer, until its timeout."""
    crash_in: int | None = None
    """So many writes from now the process is gone, before it or after it was carried out."""
    crash_after_write: bool = False
    watch_lag_seconds: float = 0.2
    jumbled: bool = False
    """Watch events are lost, repeated and put in another order."""
    deaf: set[str] = field(default_factory=set)
    """Watches that are silent until the process starts again."""


def track_tasks(loop: asyncio.AbstractEventLoop) -> None:
    """Let every task of `loop` be known to the process that it belongs to."""

    def factory(loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any) -> asyncio.Task[Any]:
        task: asyncio.Task[Any] = asyncio.Task(coroutine, loop=loop, **options)
        tasks = TASKS.get()
        if tasks is not None:
            tasks[task] = None
            task.add_done_callback(tasks.pop)
        return task

    loop.set_task_factory(factory)


class OperatorProcess:
    """Starts, is killed, and starts again. All its chance depends on the seed and on how much it has called."""

    def __init__(
        self,
        name: str,
        server: SimulatedServer,
        loop: asyncio.AbstractEventLoop,
        seed: int,
        *,
        failed: Callable[[str], None],
        say: Callable[[str], None],
    ) -> None:
        """`failed` is told what must not happen inside the process; `say` what it does, for the trace."""
        self.name = name
        self.weather = Weather()
        self.clock_offset = timedelta()
        """How far its clock is ahead of the API server's."""
        self.leased = False
        """Its next life works only while it holds the lease."""
        self.thawed = asyncio.Event()
        """Not set: it is stopped (SIGSTOP), and notices nothing of it."""
        self.thawed.set()
        self.store: Store | None = None
        self._life = 0
        self._calls = 0
        self._server = server
        self._loop = loop
        self._seed = seed
        self._failed = failed
        self._say = say
        self._tasks: dict[asyncio.Task[Any], None] = {}
        self._operator: Operator | None = None

    @property
    def alive(self) -> bool:
        return self._operator is not None

    def start(self) -> None:
        """A new process: nothing is remembered."""
        if self.alive:
            return
        self._life += 1
        self._say(f"{self.name}: starts")
        self.weather.deaf.clear()
        self._tasks = {}
        self._operator = operator = SimulatedOperator(self, self._life)
        self.store = operator.store
        before = TASKS.set(self._tasks)
        try:
            self._loop.create_task(self._live(operator, self._life))
        finally:
            TASKS.reset(before)

    def kill(self) -> None:
        """SIGKILL: what it was about to do does not happen."""
        if self.alive:
            self._say(f"{self.name}: is gone")
            self._life += 1  # calls of the process that was are refused from now on
            self._operator = None
            for task in list(self._tasks):
                task.cancel()

    def stop(self) -> None:
        """SIGTERM: it ends what it has begun."""
        if self._operator is not None:
            self._say(f"{self.name}: is told to stop")
            self._operator._told_to_stop.set()

    def now(self) -> datetime:
        """Its own clock, in whole seconds."""
        return (self._server.clock() + self.clock_offset).replace(microsecond=0)

    async def _live(self, operator: Operator, life: int) -> None:
        try:
            await operator.run()
        except* StaleWatchError as stale:
            self._say(f"{self.name}: {stale.exceptions[0]}")
        except* Exception as errors:
            self._failed("".join(traceback.format_exception(errors)))
        if life == self._life:
            self.kill()
            self._loop.call_later(BOOT_SECONDS, self.start)

    def leadership(self) -> Leadership | None:
        """Of a new life."""
        if not self.leased:
            return None
        life = self._life

        def die(why: str) -> None:
            self._say(f"{self.name}: {why}")
            if life == self._life:
                self.kill()
                self._loop.call_later(BOOT_SECONDS, self.start)
            raise asyncio.CancelledError

        return Leadership(
            SimulatedCluster(partial(self.call, life)),
            namespace="default",
            name="operator",
            identity=f"{self.name}-{life}",
            timing=TIMING,
            clock=self._loop.time,
            die=die,
        )

    # Its network.

    async def call(
        self,
        life: int,
        method: str,
        path: str,
        query: Mapping[str, Any],
        body: Json | None,
        content: str,
        *,
        fence: Callable[[], None] = lambda: None,
    ) -> Json:
        """One request of one life through the weather."""
        if life != self._life:
            raise asyncio.CancelledError  # what was killed tidies nothing up
        weather = self.weather
        writing = method in WRITES and "dryRun" not in query
        self._calls += 1
        number = self._calls
        left_at = self._server.version
        await self._travel(number)
        crash = writing and self._crash_is_due()
        if weather.outage:
            await asyncio.sleep(TIMEOUT_SECONDS)
            raise UnreachableError(f"{method} {path}: simulated outage")
        if crash and not weather.crash_after_write:
            await self._die()
        fault = self._fault(number)
        if fault == "lost request":
            raise UnreachableError(f"{method} {path}: simulated")
        if fault in REFUSALS:
            raise REFUSALS[fault]()
        if writing:
            fence()
        if life != self._life:
            raise asyncio.CancelledError  # it was killed while the request was about to leave
        self._server.asked_at = left_at
        answer = self._ask(method, path, query, body, content)
        if crash:
            await self._die()
        if fault == "late answer":
            await asyncio.sleep(3)
        await self.thawed.wait()
        if fault == "lost answer":
            raise UnreachableError(f"{method} {path}: simulated")
        return answer

    def _ask(self, method: str, path: str, query: Mapping[str, Any], body: Json | None, content: str) -> Json:
        # An Event's name has the real time in it, which no replay could show again.
        quiet = method not in WRITES or "leases" in path or "/events" in path
        self._server.asked_by = f"{self.name}-{self._life}"
        try:
            answer = self._server.handle(method, path, query, body, content)
        except ApiError as error:
            if not quiet:
                self._say(f"{self.name}: {_short(method, path, body)} -> {error}")
            raise
        if not quiet:
            self._say(f"{self.name}: {_short(method, path, body)}")
        return answer

    async def _travel(self, number: int) -> None:
        chance = noise(self._seed, self.name, number)
        if chance < self.weather.slow:
            await asyncio.sleep(2 * chance / self.weather.slow)
        await self.thawed.wait()

    def _fault(self, number: int) -> str:
        if noise(self._seed, self.name, "trouble", number) >= self.weather.trouble:
            return ""
        kinds = ("lost request", "lost answer", "late answer", *REFUSALS)
        return kinds[int(noise(self._seed, "kind", number) * len(kinds))]

    def _crash_is_due(self) -> bool:
        if self.weather.crash_in is None:
            return False
        self.weather.crash_in -= 1
        if self.weather.crash_in > 0:
            return False
        self.weather.crash_in = None
        return True

    async def _die(self) -> None:
        self._loop.call_soon(self.kill)
        self._loop.call_later(BOOT_SECONDS, self.start)
        await asyncio.Event().wait()


REFUSALS: Final[dict[str, Callable[[], ApiError]]] = {
    "busy": lambda: ApiError(429, "TooManyRequests", "simulated", retry_after_seconds=2),
    "broken": lambda: ApiError(500, "InternalError", "simulated"),
}


class SimulatedOperator(Operator):
    """The real one, with watches and runners that are none."""

    def __init__(self, process: OperatorProcess, life: int) -> None:
        leadership = process.leadership()
        fence = leadership.fence if leadership else lambda: None
        cluster = SimulatedCluster(
            partial(process.call, life, fence=fence), timeout_seconds=TIMEOUT_SECONDS, fence=fence
        )
        clocks = Clocks(now=process.now, seconds=process._loop.time)
        # Now and then somebody changes the settings under executions that are under way.
        settings = SETTINGS.model_copy(update={"plan_jobs": "Never"}) if life % 4 == 3 else SETTINGS
        super().__init__(settings, cast(Cluster, cluster), leadership, clocks)
        self.store = self._store
        self._process = process
        self._salt = int(noise(process._seed, process.name, life) * 2**32)
        self._health = cast(Health, _NoServer())
        self._worker._reconciler = cast(Reconciler, _Watched(self._reconciler, process._failed))
        self._poller.ask = self._progress  # type: ignore[method-assign]
        if process._seed % POLLED_EVERY:
            self._poller.run = asyncio.Event().wait  # type: ignore[assignment, method-assign]

    async def _watch(self, stop: asyncio.Event) -> None:
        await asyncio.sleep(noise(self._salt))
        feed = Feed(self._store, self._queue, self._profiles.add)
        async with asyncio.TaskGroup() as group:
            watches = [
                group.create_task(
                    Watch(
                        self._process._server,
                        feed,
                        resource,
                        weather=lambda: self._process.weather,
                        stopped=self._process.thawed,
                        salt=self._salt,
                    ).run()
                )
                for resource in WATCHED
            ]
            await stop.wait()
            for watch in watches:
                watch.cancel()

    async def _progress(self, session: object, pod: PodView) -> Progress:
        """What a runner says; some hang, some lie, some talk nonsense."""
        chance = noise(self._salt, pod.uid, int(self._process._loop.time()))
        if chance < 0.1:
            await asyncio.sleep(3)
            raise TimeoutError
        if chance < 0.2:
            raise ValueError("more than 65536 bytes")
        done = int(chance * 900)  # it falls as often as it rises
        now = self._process.now()
        return Progress(
            execution=pod.execution, stage=Stage.RESTORING, frames_done=done, frames_total=900, updated_at=now
        )


class _NoServer:
    ready = False

    async def run(self) -> None:
        await asyncio.Event().wait()


class _Watched:
    """The reconciler, and somebody who notices what the worker would only log."""

    def __init__(self, reconciler: Reconciler, failed: Callable[[str], None]) -> None:
        self._reconciler = reconciler
        self._failed = failed

    async def reconcile(self, uid: str) -> datetime | None:
        try:
            return await self._reconciler.reconcile(uid)
        except (ApiError, UnreachableError):
            raise
        except Exception:
            self._failed(traceback.format_exc())
            raise


def _short(method: str, path: str, body: Json | None) -> str:
    """A write in a few words, for people who read a trace."""
    place = path.split("/namespaces/")[-1].partition("/")[2] or path
    if method != "PATCH" or not body or "status" not in body:
        return f"{method} {place} {(body or {}).get('metadata', {}).get('name', '')}".rstrip()
    status = body["status"]
    reasons = [
        f"{item['type']}={item['status']}/{item['reason']}"
        for item in status.get("conditions", ())
        if item["type"] in ("Accepted", "Scheduled", "Succeeded")
    ]
    history = [(item["execution"], item.get("reason", "-")) for item in status.get("attemptHistory", ())]
    executions = status.get("attempts", {}).get("executions")
    return f"{method} {place} {status.get('phase')} e{executions} {' '.join(reasons)} {history}"
