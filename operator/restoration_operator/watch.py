"""From kopf's events to the store and the queue.

Only `@kopf.on.event` handlers: they write nothing by themselves, no finalizer, no annotation. What they cost is that a
failing one is never repeated, so they do nothing but take an object in and name the restoration that it concerns.
Selectors are the server's: Jobs and pods of others never reach this process.
"""

from collections.abc import Callable
from typing import Any

import kopf
import structlog
from pydantic import ValidationError

from restoration_api.resources import GROUP, VERSION
from restoration_operator import metrics
from restoration_operator.cluster import OURS, PAGE_OBJECTS
from restoration_operator.scope import Scope
from restoration_operator.settings import Settings
from restoration_operator.store import Store
from restoration_operator.workqueue import WorkQueue

Event = Any
"""`kopf.RawEvent`: `{"type": None | "ADDED" | "MODIFIED" | "DELETED", "object": {...}}`; None while kopf lists."""

Json = dict[str, Any]

log = structlog.get_logger()


def handlers(
    store: Store, queue: WorkQueue, settings: Settings, *, scope: Scope, profile_changed: Callable[[Json], None]
) -> kopf.OperatorRegistry:
    """The registry that `kopf.operator` runs. `profile_changed` is told the profiles that exist."""
    registry = kopf.OperatorRegistry()
    feed = Feed(store, queue, profile_changed, scope)

    async def configure(settings: kopf.OperatorSettings, **_: Any) -> None:
        _configure(settings, scope)

    kopf.on.startup(registry=registry)(configure)
    kopf.on.login(registry=registry)(_login)
    kopf.on.event(GROUP, VERSION, "videorestorations", registry=registry)(feed.restoration)
    kopf.on.event("batch", "v1", "jobs", registry=registry)(feed.job)
    kopf.on.event("", "v1", "pods", registry=registry)(feed.pod)
    kopf.on.event(GROUP, VERSION, "restorationprofiles", registry=registry)(feed.profile)
    if settings.cluster_profiles:
        kopf.on.event(GROUP, VERSION, "clusterrestorationprofiles", registry=registry)(feed.profile)
    if scope.selector is not None:
        kopf.on.event("", "v1", "namespaces", registry=registry)(feed.namespace)
    return registry


class Feed:
    """One method per kind; each returns None, for kopf would write anything else into the object."""

    def __init__(
        self, store: Store, queue: WorkQueue, profile_changed: Callable[[Json], None], scope: Scope | None = None
    ) -> None:
        self._store = store
        self._queue = queue
        self._scope = scope or Scope()
        self._profile_changed = profile_changed

    async def restoration(self, *, event: Event, **_: Any) -> None:
        """A VideoRestoration was made, changed or deleted."""
        metrics.watched("videorestorations")
        body = event["object"]
        if not self._concerns_us(body):
            return
        uid = body["metadata"]["uid"]
        if event["type"] == "DELETED":
            self._store.drop_restoration(uid)
            return
        if self._knows(body):
            return
        try:
            self._queue.add(self._store.put_restoration(body))
        except ValidationError as error:
            log.error("unreadable VideoRestoration", uid=uid, error=str(error))

    async def namespace(self, *, event: Event, **_: Any) -> None:
        """A namespace that matches the selector exists, or has ceased to match."""
        metrics.watched("namespaces")
        name = event["object"]["metadata"]["name"]
        if event["type"] == "DELETED":
            self._scope.dismiss(name)
            self._store.drop_namespace(name)
        else:
            self._scope.admit(name)

    async def job(self, *, event: Event, **_: Any) -> None:
        """A Job of ours was made, changed or deleted."""
        metrics.watched("jobs")
        body, deleted = event["object"], event["type"] == "DELETED"
        if not self._concerns_us(body) or (not deleted and self._knows(body)):
            return
        owner = self._store.put_job(body)
        if deleted:
            self._store.drop_job(body["metadata"]["uid"])
        self._wake(owner)

    async def pod(self, *, event: Event, **_: Any) -> None:
        """A pod of ours was made, changed or deleted."""
        metrics.watched("pods")
        body, deleted = event["object"], event["type"] == "DELETED"
        if not self._concerns_us(body) or (not deleted and self._knows(body)):
            return
        owner = self._store.put_pod(body)
        if deleted:
            self._store.drop_pod(body["metadata"]["uid"], body)
        self._wake(owner)

    async def profile(self, *, event: Event, **_: Any) -> None:
        """A profile was made, changed or deleted."""
        body = event["object"]
        metrics.watched(f"{body['kind'].lower()}s")
        key = (body["kind"], body["metadata"].get("namespace"), body["metadata"]["name"])
        if event["type"] == "DELETED":
            self._store.drop_profile(key)
        else:
            try:
                self._store.put_profile(body)
            except ValidationError as error:
                log.error("unreadable profile", kind=key[0], namespace=key[1], name=key[2], error=str(error))
                return
            self._profile_changed(body)
        for uid in self._store.dependants(key):
            self._queue.add(uid)

    def _knows(self, body: Json) -> bool:
        """Whether the store has this very version: of an own write, whose answer came first, or of the first listing.

        Whoever wrote has decided again since, so there is nothing to wake anybody for: 12.2 instead of 12.8 ms of CPU
        time between a restoration and its Job, and at a start nothing is read or decided twice.
        """
        meta = body["metadata"]
        return self._store.version(meta["uid"]) == int(meta["resourceVersion"])

    def _concerns_us(self, body: Json) -> bool:
        return self._scope.serves(body["metadata"].get("namespace"))

    def _wake(self, uid: str) -> None:
        if uid:
            self._queue.add(uid)


class NothingRemembered(kopf.DiffBaseStorage):
    """What kopf remembers about an object between two events: nothing, for no handler here asks what has changed.

    Its own storages copy every object several times for each event (a tenth of the operator's CPU time, measured), and
    would write what they remember into the object if a handler of the wrong kind were ever added. This one refuses.
    """

    def build(self, *, body: kopf.Body, extra_fields: Any = None) -> kopf.BodyEssence:
        """Nothing of the object."""
        del body, extra_fields
        return kopf.BodyEssence()

    def fetch(self, *, body: kopf.Body) -> kopf.BodyEssence | None:
        """Nothing was stored."""
        del body
        return None

    def store(self, *, body: kopf.Body, patch: kopf.Patch, essence: kopf.BodyEssence) -> None:
        """Never called: only handlers that track changes store anything."""
        raise AssertionError("the operator has no handlers that write into the objects they watch")


def _configure(settings: kopf.OperatorSettings, scope: Scope) -> None:
    # Any object `default` of another team's ClusterKopfPeering would else pause this operator.
    settings.peering.standalone = True
    settings.posting.enabled = False
    # Namespaces and CRDs are not watched: it would need rights that nothing else here needs.
    settings.scanning.disabled = True
    settings.persistence.finalizer = f"{GROUP}/finalizer"  # never added; named in case
    settings.persistence.diffbase_storage = NothingRemembered()
    settings.watching.server_timeout = 300
    settings.watching.client_timeout = 310
    settings.watching.connect_timeout = 30
    settings.watching.reconnect_backoff = 1.0  # the default of 0.1 hammers an API server that is ill
    settings.watching.inactivity_timeout = 70
    settings.watching.chunk_size = PAGE_OBJECTS
    settings.watching.label_selectors["batch", "jobs"] = OURS
    settings.watching.label_selectors["", "pods"] = OURS
    if scope.selector is not None:
        settings.watching.label_selectors["", "namespaces"] = scope.selector
    settings.networking.request_timeout = 30
    settings.networking.connect_timeout = 10
    settings.networking.enforce_retry_after = True
    settings.networking.error_backoffs = [1, 2, 3] + [4] * 20  # the default ends at 21 s: too late after an outage
    # A worker per object lives this long, and with it the whole JSON of what it has seen last: with half a second, a
    # start with 1,000 restorations takes 114 MiB instead of 91.
    settings.queueing.idle_timeout = 0.05
    settings.process.ultimate_exiting_timeout = 20  # below the pod's grace period


async def _login(**kwargs: Any) -> kopf.ConnectionInfo | None:
    # The same order as `connection.connect`.
    return kopf.login_with_kubeconfig(**kwargs) or kopf.login_with_service_account(**kwargs)
