"""The process: settings, logging, and the tasks that together are the operator.

kopf is embedded rather than run by its own command, because arguments, logging, the HTTP server and the order of start
and stop belong to this program: the store is filled first, then workers and watches start, and whichever task ends
first ends the process.
"""

import asyncio
import sys
from collections import Counter

import kopf
import structlog
from kubernetes.aio.config import ConfigException
from pydantic import ValidationError

from restoration_operator import metrics
from restoration_operator.cluster import Cluster, connect
from restoration_operator.health import Health
from restoration_operator.logs import configure_logging
from restoration_operator.poll import Poller
from restoration_operator.profile_file import BuiltinProfile, ImageFiller
from restoration_operator.profiles import ProfileChecker
from restoration_operator.reconcile import Reconciler
from restoration_operator.resync import Resync, StaleWatchError
from restoration_operator.settings import Settings, environment_variable, flag
from restoration_operator.store import Store
from restoration_operator.watch import handlers
from restoration_operator.worker import Worker
from restoration_operator.workqueue import WorkQueue

log = structlog.get_logger()


def main() -> int | str:
    """Run until told to stop; returns the exit status, or the sentence that explains why it did not start."""
    try:
        settings = Settings.from_arguments(sys.argv[1:])
    except ValidationError as error:
        return "\n".join(_explain(problem) for problem in error.errors(include_url=False))
    configure_logging(form=settings.log_format, level=settings.log_level)
    try:
        return asyncio.run(run(settings))
    except ConfigException as error:
        return f"no Kubernetes cluster: {error}; set KUBECONFIG, or run in a pod with a service account"


async def run(settings: Settings) -> int:
    """The operator, until SIGTERM or SIGINT; returns the exit status.

    Raises:
        ConfigException: no cluster is configured.
        ExceptionGroup: a task failed that must not.
    """
    api = await connect()
    status = 0
    try:
        cluster = Cluster(api, timeout_seconds=settings.request_timeout_seconds)
        await Operator(settings, cluster).run()
    except* StaleWatchError as stale:
        log.error("ending, to start afresh", reason=str(stale.exceptions[0]))
        status = 1
    finally:
        await api.close()  # type: ignore[no-untyped-call]
    return status


class Operator:
    """All parts, wired."""

    def __init__(self, settings: Settings, cluster: Cluster) -> None:
        fill = ImageFiller(settings.runner_image, settings.runner_image_pull_policy)
        self._settings = settings
        self._queue = WorkQueue(
            on_add=metrics.QUEUE_ADDS.labels(metrics.NAME).inc,
            on_take=metrics.QUEUE_SECONDS.labels(metrics.NAME).observe,
        )
        self._store = Store(
            builtin_profile=BuiltinProfile(settings.default_profile_file, fill), complete=fill, wake=self._queue.add
        )
        self._reconciler = Reconciler(self._store, cluster, lost_node_seconds=settings.lost_node_seconds)
        self._worker = Worker(self._queue, self._reconciler)
        self._resync = Resync(self._store, cluster, self._queue, settings)
        self._poller = Poller(self._store, self._queue, poll_seconds=settings.poll_seconds)
        self._profiles = ProfileChecker(cluster, fill, namespace=settings.namespace)
        self._health = Health(host=settings.http_host, port=settings.http_port, refresh=self._refresh)

    async def run(self) -> None:
        """Fill the store, then work until kopf is told to stop."""
        async with asyncio.TaskGroup() as group:
            helpers = [group.create_task(self._health.run(), name="health")]
            await self._resync.prime()
            self._health.ready = True
            log.info("synced", restorations=len(self._store.uids()))
            helpers += [
                group.create_task(self._resync.run(), name="resync"),
                group.create_task(self._poller.run(), name="poll"),
                group.create_task(self._profiles.run(), name="profiles"),
                *(group.create_task(self._worker.run(), name=f"worker-{n}") for n in range(self._settings.workers)),
            ]
            await self._watch()
            for helper in helpers:
                helper.cancel()

    async def _watch(self) -> None:
        registry = handlers(self._store, self._queue, self._settings, profile_changed=self._profiles.add)
        await kopf.operator(
            registry=registry,
            clusterwide=self._settings.cluster_wide,
            namespaces=self._settings.watch_namespaces,
            standalone=True,
        )

    def _refresh(self) -> None:
        metrics.QUEUE_DEPTH.labels(metrics.NAME).set(len(self._queue))
        working = self._queue.working_seconds
        metrics.QUEUE_UNFINISHED.labels(metrics.NAME).set(sum(working))
        metrics.QUEUE_LONGEST.labels(metrics.NAME).set(max(working, default=0.0))
        phases = Counter(self._store.phases())
        metrics.RESTORATIONS.clear()
        for phase, count in phases.items():
            metrics.RESTORATIONS.labels(phase).set(count)


def _explain(problem: object) -> str:
    assert isinstance(problem, dict)
    name = str(problem["loc"][0])
    setting = f"{environment_variable(name)} ({flag(name)})"
    return f"{setting} is required" if problem["type"] == "missing" else f"{setting} is wrong: {problem['msg']}"
