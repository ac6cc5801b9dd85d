"""Lists what the watches should have told: once before the first decision, then from time to time.

Two holes are closed by it. kopf's listing after an expired watch tells what exists, not what vanished meanwhile. And a
dead watch looks like a quiet cluster: an object that a listing shows newer than the store knows it, and which a minute
later still exists and is still not delivered, means that a watch is dead; the process then ends, and its successor
starts afresh.
"""

import asyncio
import random
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final

import structlog
from pydantic import ValidationError

from restoration_operator import metrics
from restoration_operator.cluster import (
    OURS,
    ApiError,
    Cluster,
    UnreachableError,
    collection,
    identity,
    jobs_path,
    pods_path,
)
from restoration_operator.scope import Scope
from restoration_operator.settings import Settings
from restoration_operator.store import Store
from restoration_operator.views import Listing
from restoration_operator.workqueue import WorkQueue

UNFINISHED: Final = "status.phase!=Succeeded,status.phase!=Failed"
"""Narrows a listing; no decision depends on the phase."""
FIRST_RESYNC_SECONDS: Final = 60.0
"""What vanished between the first listing and the start of the watches."""
LOOKED_AT_WITHIN: Final = 0.1
"""Share of the time between two listings: thousands that are well must not stand before one that has just come."""
RETRY_SECONDS: Final = 5.0

Json = dict[str, Any]

log = structlog.get_logger()


class StaleWatchError(Exception):
    """A watch is alive in appearance only."""


class Resync:
    """Compares the store with the API server."""

    def __init__(
        self, store: Store, cluster: Cluster, queue: WorkQueue, settings: Settings, scope: Scope | None = None
    ) -> None:
        self._store = store
        self._cluster = cluster
        self._queue = queue
        self._settings = settings
        self._scope = scope or Scope(settings.watch_namespaces)

    async def prime(self) -> None:
        """Fill the store before the first decision; waits as long as it takes for API server, CRDs and rights."""
        while True:
            try:
                await self._fill()
                break
            except (ApiError, UnreachableError) as error:
                log.warning("waiting for the API server", error=str(error), retry_seconds=RETRY_SECONDS)
                await asyncio.sleep(RETRY_SECONDS)

    async def run(self) -> None:
        """Compare until cancelled.

        Raises:
            StaleWatchError: the process should end.
        """
        await asyncio.sleep(min(FIRST_RESYNC_SECONDS, self._settings.resync_seconds))
        while True:
            try:
                await self._insist_on(await self.compare())
            except (ApiError, UnreachableError) as error:
                log.warning("resync failed", error=str(error))
            await asyncio.sleep(self._settings.resync_seconds * random.uniform(0.9, 1.1))

    async def follow_scope(self) -> None:
        """Take in what lies in namespaces that have begun to match; until cancelled."""
        while True:
            await self._scope.grown.wait()
            await self.prime()
            for uid in self._store.uids():
                self._queue.add(uid)

    async def compare(self) -> dict[str, int]:
        """Forget what has vanished; returns the versions, by uid, of objects that the watches have yet to deliver."""
        behind: dict[str, int] = {}
        await self._look_at_namespaces()
        for kind, namespace in self._profile_kinds():
            behind.update(self._behind(await self._list(collection(kind, namespace))))
        for namespace in self._scope.places:
            restorations = await self._list(collection("VideoRestoration", namespace), fields=UNFINISHED)
            jobs = await self._list(jobs_path(namespace), selector=OURS)
            pods = await self._list(pods_path(namespace), selector=OURS)
            await self._forget_restorations(namespace, restorations)
            self._forget_children(namespace, jobs, pods)
            for listing in (restorations, jobs, pods):
                behind.update(self._behind(listing))
        within_seconds = self._settings.resync_seconds * LOOKED_AT_WITHIN
        for item in self._store.unfinished():
            self._queue.add_after(item.metadata.uid, random.uniform(0, within_seconds))
        metrics.RESYNC_BEHIND.set(len(behind))
        return behind

    async def _insist_on(self, behind: dict[str, int]) -> None:
        if not behind:
            return
        await asyncio.sleep(self._settings.stale_watch_seconds)
        # Asked again, because an object that is gone by now is as unknown as one that was never delivered.
        still = await self.compare()
        lost = [uid for uid, version in behind.items() if uid in still and self._store.version(uid) < version]
        if lost:
            metrics.STALE_WATCH.inc(len(lost))
            raise StaleWatchError(f"{len(lost)} changed objects were not delivered by a watch, one of them {lost[0]}")

    def _behind(self, listing: Listing) -> dict[str, int]:
        versions = {body["metadata"]["uid"]: int(body["metadata"]["resourceVersion"]) for body in listing.items}
        return {uid: version for uid, version in versions.items() if self._store.version(uid) < version}

    async def _forget_restorations(self, namespace: str | None, listing: Listing) -> None:
        """A restoration that is gone would hold its output and its slot for ever."""
        listed = {body["metadata"]["uid"] for body in listing.items}
        here = (item for item in self._store.unfinished() if namespace in (None, item.metadata.namespace))
        for meta in [item.metadata for item in here if item.metadata.uid not in listed]:
            # The listing leaves out what has finished since: only a GET tells that from what is gone.
            found = await self._cluster.restoration(meta.namespace or "", meta.name)
            if found is None or found["metadata"]["uid"] != meta.uid:
                self._store.drop_restoration(meta.uid)
            else:
                self._take(self._store.put_restoration, found)
                self._queue.add(meta.uid)  # what it has left behind is to be released

    def _forget_children(self, namespace: str | None, jobs: Listing, pods: Listing) -> None:
        known_jobs = [job for job in self._store.all_jobs() if namespace in (None, job.namespace)]
        known_pods = [pod for pod in self._store.all_pods() if namespace in (None, pod.namespace)]
        for uid in [*self._store.prune_jobs(known_jobs, jobs), *self._store.prune_pods(known_pods, pods)]:
            self._queue.add(uid)

    def _profile_kinds(self) -> list[tuple[str, str | None]]:
        kinds: list[tuple[str, str | None]] = [("RestorationProfile", namespace) for namespace in self._scope.places]
        if self._settings.cluster_profiles:
            kinds.append(("ClusterRestorationProfile", None))
        return kinds

    async def _look_at_namespaces(self) -> None:
        if self._scope.selector is None:
            return
        matching = await self._cluster.list_all("/api/v1/namespaces", selector=self._scope.selector)
        for name in self._scope.replace(body["metadata"]["name"] for body in matching.items):
            self._store.drop_namespace(name)

    async def _list(
        self,
        path: str,
        *,
        selector: str | None = None,
        fields: str | None = None,
        take: Callable[[Json], object] = lambda body: None,
    ) -> Listing:
        """Hand `take` what of a collection concerns this operator, as its pages arrive; returns the identities."""

        def keep(body: Json) -> Json | None:
            if self._scope.selector is not None and not self._scope.serves(body["metadata"].get("namespace")):
                return None
            take(body)
            return identity(body)

        return await self._cluster.list_all(path, selector=selector, fields=fields, keep=keep)

    async def _fill(self) -> None:
        await self._look_at_namespaces()
        self._scope.grown.clear()
        for kind, namespace in self._profile_kinds():
            await self._list(collection(kind, namespace), take=partial(self._take_profile, kind))
        for namespace in self._scope.places:
            # Children before parents: a restoration without its Job would look as if the Job was gone.
            await self._list(pods_path(namespace), selector=OURS, take=self._store.put_pod)
            await self._list(jobs_path(namespace), selector=OURS, take=self._store.put_job)
            restorations = collection("VideoRestoration", namespace)
            await self._list(restorations, take=partial(self._take, self._store.put_restoration))

    def _take_profile(self, kind: str, body: Json) -> None:
        """Items of a listing do not say their kind."""
        self._take(self._store.put_profile, {"kind": kind, **body})

    def _take(self, put: Any, body: Mapping[str, Any]) -> None:
        try:
            put(body)
        except ValidationError as error:
            log.error("unreadable object", name=body["metadata"]["name"], error=str(error))
