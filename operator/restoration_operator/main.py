"""The process: settings, logging, and the tasks that together are the operator.

kopf is embedded rather than run by its own command, because arguments, logging, the HTTP server and the order of start
and stop belong to this program: the store is filled first, then watches start, and workers when it is this replica's
turn; whichever task ends first ends the process.
"""

import asyncio
import os
import signal
import socket
import sys
import uuid
from collections.abc import Callable
from contextlib import AsyncExitStack
from datetime import timedelta
from functools import partial
from typing import Final

import kopf
import structlog
from kubernetes.aio.client import ApiClient
from kubernetes.aio.config import ConfigException
from pydantic import ValidationError

from restoration_api.resources import VideoRestoration, VideoRestorationStatus
from restoration_operator import metrics
from restoration_operator.clock import REAL, Clocks
from restoration_operator.cluster import Cluster
from restoration_operator.connection import connect, runner
from restoration_operator.decide.progress import worth_telling
from restoration_operator.events import Announcer
from restoration_operator.explainer import Explainer
from restoration_operator.health import Health
from restoration_operator.lease import Leadership, Timing
from restoration_operator.logs import configure_logging
from restoration_operator.poll import Poller
from restoration_operator.profile_file import BuiltinProfile, ImageFiller
from restoration_operator.profiles import ProfileChecker
from restoration_operator.reconcile import Reconciler
from restoration_operator.resync import Resync, StaleWatchError
from restoration_operator.scope import Scope
from restoration_operator.settings import Settings, environment_variable, flag
from restoration_operator.store import Store
from restoration_operator.survey import survey
from restoration_operator.traces import Traces
from restoration_operator.watch import handlers
from restoration_operator.worker import Worker
from restoration_operator.workqueue import WorkQueue

LAST_WRITES_SECONDS: Final = 5.0
"""How long a process that ends waits for answers before it leaves its lease to run out."""

log = structlog.get_logger()


def main() -> int | str:
    """Run until told to stop; returns the exit status, or the sentence that explains why it did not start."""
    try:
        settings = Settings.from_arguments(sys.argv[1:])
    except ValidationError as error:
        return "\n".join(_explain(problem) for problem in error.errors(include_url=False))
    configure_logging(form=settings.log_format, level=settings.log_level)
    try:
        with runner() as loop:
            return loop.run(run(settings))
    except ConfigException as error:
        return f"no Kubernetes cluster: {error}; set KUBECONFIG, or run in a pod with a service account"


async def run(settings: Settings) -> int:
    """The operator, until SIGTERM or SIGINT; returns the exit status.

    Raises:
        ConfigException: no cluster is configured.
        ExceptionGroup: a task failed that must not.
    """
    status = 0
    async with AsyncExitStack() as connections:
        leadership = None
        if settings.lease_name is not None:
            # A connection of its own: renewals do not wait behind a burst of work, and do not pass the fence.
            leases = await _connect(connections)
            leadership = _leadership(settings, settings.lease_name, Cluster(leases))
        fence = leadership.fence if leadership else None
        api = await _connect(connections, fence=fence)
        cluster = Cluster(
            api,
            timeout_seconds=settings.request_timeout_seconds,
            fence=fence or _no_fence,
            reads_nodes=settings.cluster_wide,
        )
        try:
            await Operator(settings, cluster, leadership).run()
        except* StaleWatchError as stale:
            log.error("ending, to start afresh", reason=str(stale.exceptions[0]))
            status = 1
    return status


async def _connect(connections: AsyncExitStack, *, fence: Callable[[], None] | None = None) -> ApiClient:
    api = await connect(fence=fence)
    connections.push_async_callback(api.close)
    return api


def _leadership(settings: Settings, name: str, leases: Cluster) -> Leadership:
    return Leadership(
        leases,
        namespace=settings.namespace,
        name=name,
        identity=settings.pod_name or f"{socket.gethostname()}-{uuid.uuid4().hex[:8]}",
        timing=Timing(
            duration_seconds=settings.lease_duration_seconds,
            deadline_seconds=settings.lease_renew_deadline_seconds,
            retry_seconds=settings.lease_retry_seconds,
        ),
    )


def _no_fence() -> None:
    """There is one process only."""


class Operator:
    """All parts, wired."""

    def __init__(
        self, settings: Settings, cluster: Cluster, leadership: Leadership | None = None, clocks: Clocks = REAL
    ) -> None:
        fill = ImageFiller(settings.runner_image, settings.runner_image_pull_policy)
        self._settings = settings
        self._cluster = cluster
        self._leadership = leadership
        self._told_to_stop = asyncio.Event()
        self._now = clocks.now
        self._queue = WorkQueue(
            clock=clocks.seconds,
            is_open=False,
            on_add=metrics.QUEUE_ADDS.labels(metrics.NAME).inc,
            on_take=metrics.QUEUE_SECONDS.labels(metrics.NAME).observe,
        )
        self._store = Store(
            builtin_profile=BuiltinProfile(settings.default_profile_file, fill), complete=fill, wake=self._queue.add
        )
        instance = settings.pod_name or socket.gethostname()
        self._announcer = Announcer(
            cluster, instance=instance, per_second=settings.events_per_second, clock=clocks.seconds
        )
        self._traces = Traces(os.environ)
        self._reconciler = Reconciler(
            self._store,
            cluster,
            clock=clocks.now,
            lost_node_seconds=settings.lost_node_seconds,
            stale_progress_seconds=settings.stale_progress_seconds,
            kueue_workloads=settings.kueue_workloads,
            plan_jobs=settings.plan_jobs,
            light=settings.light_resources,
            explainer=Explainer(cluster, clock=clocks.seconds),
            announce=self._recorded,
            equip=self._traces.equip,
        )
        self._worker = Worker(self._queue, self._reconciler, clock=clocks.now)
        self._scope = Scope(settings.watch_namespaces, selector=settings.namespace_selector)
        self._resync = Resync(self._store, cluster, self._queue, settings, self._scope)
        self._poller = Poller(
            self._store,
            self._queue,
            poll_seconds=settings.poll_seconds,
            writes_per_second=settings.progress_writes_per_second,
            clock=clocks.seconds,
            now=clocks.now,
            worth_telling=partial(worth_telling, stale_after=timedelta(seconds=settings.stale_progress_seconds)),
        )
        self._profiles = ProfileChecker(cluster, fill, namespace=settings.namespace)
        self._health = Health(host=settings.http_host, port=settings.http_port, refresh=self._refresh)

    async def run(self) -> None:
        """Fill the store, then follow the cluster until kopf is told to stop, and work while it is this one's turn."""
        async with asyncio.TaskGroup() as group:
            helpers = [group.create_task(self._health.run(), name="health")]
            await self._resync.prime()
            self._health.ready = True
            log.info("synced", restorations=len(self._store.uids()))
            metrics.watching("videorestorations")
            lead = group.create_task(self._lead(), name="lead")
            stop = asyncio.Event()
            helpers += [
                group.create_task(self._resync.run(), name="resync"),
                group.create_task(self._resync.follow_scope(), name="scope"),
                group.create_task(self._hand_over(lead, stop), name="hand over"),
            ]
            await self._watch(stop)
            for helper in (lead, *helpers):
                helper.cancel()
        await self._traces.close()

    def _recorded(self, restoration: VideoRestoration, status: VideoRestorationStatus) -> None:
        """A status was stored: what people read of it in Events and in traces."""
        self._announcer.recorded(restoration, status)
        self._traces.recorded(restoration, status)

    async def _hand_over(self, lead: asyncio.Task[None], stop: asyncio.Event) -> None:
        """When told to stop: first what writes ends and gives up the lease, then kopf, which takes its time."""
        await self._told_to_stop.wait()
        log.info("stopping")
        lead.cancel()
        await asyncio.wait({lead})
        stop.set()

    async def _lead(self) -> None:
        """Work: at once where there is no lease, else as soon and as long as it is this replica's turn."""
        if self._leadership is None:
            await self._serve()
            return
        await self._leadership.acquire()
        async with asyncio.TaskGroup() as group:
            keeping = group.create_task(self._leadership.keep(), name="lease")
            try:
                await self._serve()
            finally:
                # Released only when every write was answered: else the next leader could meet our last one.
                settled = await self._cluster.settled(patience_seconds=LAST_WRITES_SECONDS)
                keeping.cancel()
                if settled:
                    await self._leadership.release()

    async def _serve(self) -> None:
        """Everything that writes. What happened while only following is in the store: all of it is looked at once."""
        self._queue.open()
        for uid in self._store.uids():
            self._queue.add(uid)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._poller.run(), name="poll")
            group.create_task(self._announcer.run(), name="events")
            group.create_task(self._profiles.run(), name="profiles")
            for number in range(self._settings.workers):
                group.create_task(self._worker.run(), name=f"worker-{number}")

    async def _watch(self, stop: asyncio.Event) -> None:
        registry = handlers(
            self._store, self._queue, self._settings, scope=self._scope, profile_changed=self._profiles.add
        )
        ours = asyncio.all_tasks()
        tasks = await kopf.spawn_tasks(
            registry=registry,
            stop_flag=stop,
            clusterwide=self._settings.cluster_wide,
            namespaces=self._settings.watch_namespaces,
            standalone=True,
        )
        # kopf has just set handlers of its own, which would begin with the watches, and cancel what was started since.
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, self._told_to_stop.set)
        await kopf.run_tasks(tasks, ignored=ours)

    def _refresh(self) -> None:
        metrics.QUEUE_DEPTH.labels(metrics.NAME).set(len(self._queue))
        working = self._queue.working_seconds
        metrics.QUEUE_UNFINISHED.labels(metrics.NAME).set(sum(working))
        metrics.QUEUE_LONGEST.labels(metrics.NAME).set(max(working, default=0.0))
        metrics.surveyed(survey(self._store.phases(), self._store.unfinished(), self._now()))


def _explain(problem: object) -> str:
    assert isinstance(problem, dict)
    if not problem["loc"]:  # a rule over several settings names them itself
        return str(problem["msg"]).removeprefix("Value error, ")
    name = str(problem["loc"][0])
    setting = f"{environment_variable(name)} ({flag(name)})"
    return f"{setting} is required" if problem["type"] == "missing" else f"{setting} is wrong: {problem['msg']}"
