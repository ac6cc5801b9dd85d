"""Every call to the Kubernetes API that the operator makes itself; its watches are kopf's.

Three rules live here, so that no caller can forget them:

* one status apply: server-side, on `/status`, one field manager, always with the `resourceVersion` that was decided on.
  A stale apply without it answers 200 and un-finishes a finished object, and meets a namesake (measured);
* one delete: always with a propagation policy and a uid precondition. A raw DELETE of a Job leaves its pod running;
* a fence before every write: a leader whose lease is overdue must not write. It is asked twice: before a write begins,
  and again when its bytes are about to leave, for connecting takes time in which a process can be frozen.

What it needs to be allowed (watches of kopf included; the chart's roles say the same, and a test compares them):

    videorestoration.dev  videorestorations             get list watch delete
    videorestoration.dev  videorestorations/status      patch
    videorestoration.dev  restorationprofiles           list watch
    videorestoration.dev  restorationprofiles/status    patch
    videorestoration.dev  clusterrestorationprofiles    list watch           cluster-wide, optional (`cluster_profiles`)
    videorestoration.dev  clusterrestorationprofiles/status  patch           cluster-wide, optional (`cluster_profiles`)
    batch                 jobs                          get list watch create delete patch
    (core)                pods                          list watch
    (core)                configmaps                    get create
    (core)                events                        list
    events.k8s.io         events                        create patch
    (core)                nodes                         get                  not with a list of namespaces
    (core)                namespaces                    list watch           optional (`namespace_selector`)
    kueue.x-k8s.io        workloads                     list                 optional (`kueue_workloads`)
    coordination.k8s.io   leases                        get create update    own namespace

`jobs create` is used in its own namespace too, for the dry run that judges profiles.
"""

import asyncio
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Any, Final
from urllib.parse import quote, urlencode

import aiohttp
from kubernetes.aio import client

from restoration_api.resources import API_VERSION, ClusterRestorationProfile, RestorationProfile, VideoRestoration
from restoration_operator import metrics
from restoration_operator.decide.explanation import explain
from restoration_operator.decide.types import Propagation
from restoration_operator.decide.workload import waits_for
from restoration_operator.views import MANAGED_BY_LABEL, MANAGER, UID_LABEL, JobView, Listing, WarningEvent

Json = dict[str, Any]

OURS: Final = f"{MANAGED_BY_LABEL}={MANAGER}"
"""Label selector of the Jobs and pods that the operator watches."""
CRD_PATH: Final = f"/apis/{API_VERSION}"
EVENTS_PATH: Final = "/apis/events.k8s.io/v1"
PAGE_OBJECTS: Final = 200
"""Of one answer to a listing, which is in memory as a whole: 5 to 8 MB of Python objects."""
KUEUE_VERSIONS: Final = ("v1beta2", "v1beta1")
"""Newest first; Kueue serves the older one to clients of before 0.14."""
UNPROCESSABLE: Final = 422
REJECTIONS: Final = (400, 403, 405, 413, 422)
"""Answers that mean "this object will not do", as opposed to "not now"."""
KINDS: Final = {
    "VideoRestoration": "videorestorations",
    "RestorationProfile": "restorationprofiles",
    "ClusterRestorationProfile": "clusterrestorationprofiles",
}


class ApiError(Exception):
    """The API server answered with an error; `message` is its own sentence."""

    def __init__(self, status: int, reason: str, message: str, *, retry_after_seconds: float | None = None) -> None:
        super().__init__(f"{status} {reason}: {message}")
        self.status = status
        self.reason = reason
        self.message = message
        self.retry_after_seconds = retry_after_seconds

    @property
    def rejected(self) -> bool:
        """Whether the API server understood and refused: policy, quota, schema."""
        return self.status in REJECTIONS


class UnreachableError(Exception):
    """No answer: refused, reset or timed out. A write may or may not have happened."""


class Stored(Enum):
    """What became of a status apply."""

    CONFLICT = "the object has changed since it was read"
    GONE = "the object does not exist any more"


@dataclass(frozen=True)
class Created:
    """What lies at a name after a create: ours, or what was there before."""

    body: Json
    existed: bool


class Cluster:
    """One connection pool to the API server."""

    def __init__(
        self,
        api: client.ApiClient,
        *,
        timeout_seconds: float = 30,
        fence: Callable[[], None] = lambda: None,
        reads_nodes: bool = True,
    ) -> None:
        """`reads_nodes`: False where the operator has rights in some namespaces only, and does not ask."""
        self._api = api
        self._timeout = aiohttp.ClientTimeout(total=timeout_seconds)
        self._fence = fence
        self._reads_nodes = reads_nodes
        self._writing: set[asyncio.Task[Json]] = set()
        self._abandoned = False
        """A write was cancelled: nobody knows whether it will be carried out."""

    # Reading.

    async def list_all(
        self,
        path: str,
        *,
        selector: str | None = None,
        fields: str | None = None,
        keep: Callable[[Json], Json | None] = lambda body: body,
    ) -> Listing:
        """Every object under a collection's path, read page by page.

        `keep` says what of an object stays in the listing, if anything, as its page arrives: all pages together may be
        more than the operator's whole memory.

        Raises:
            ApiError: 404 where the resource itself does not exist.
        """
        query: dict[str, Any] = {"limit": PAGE_OBJECTS}
        query.update({"labelSelector": selector} if selector else {})
        query.update({"fieldSelector": fields} if fields else {})
        items: list[Json] = []
        while True:
            page = await self._call("GET", path, query=query)
            items.extend(kept for body in page["items"] if (kept := keep(body)) is not None)
            if not page["metadata"].get("continue"):
                return Listing(items=items, version=int(page["metadata"]["resourceVersion"]))
            query["continue"] = page["metadata"]["continue"]

    async def restoration(self, namespace: str, name: str) -> Json | None:
        """A VideoRestoration."""
        return await self._get(f"{collection('VideoRestoration', namespace)}/{quote(name)}")

    async def job(self, namespace: str, name: str) -> Json | None:
        """A Job."""
        return await self._get(f"{jobs_path(namespace)}/{quote(name)}")

    async def children(self, namespace: str, uid: str) -> tuple[Listing, Listing]:
        """Jobs and pods of one restoration, Jobs first: a Job that has ended then shows its ended pod."""
        selector = f"{OURS},{UID_LABEL}={uid}"
        jobs = await self.list_all(jobs_path(namespace), selector=selector)
        return jobs, await self.list_all(pods_path(namespace), selector=selector)

    async def config_map(self, namespace: str, name: str) -> Json | None:
        """A ConfigMap."""
        return await self._get(f"/api/v1/namespaces/{quote(namespace)}/configmaps/{quote(name)}")

    async def newest_warning(self, namespace: str, uid: str, now: datetime) -> WarningEvent:
        """What the core Events about one object say about its wait."""
        query = {"fieldSelector": f"involvedObject.uid={uid}", "limit": PAGE_OBJECTS}
        page = await self._call("GET", f"/api/v1/namespaces/{quote(namespace)}/events", query=query)
        found = explain(page["items"], now)
        return WarningEvent(reason=found.reason, message=found.message, read_at=now, happened_at=found.happened_at)

    async def node_is_ready(self, name: str) -> bool | None:
        """Whether a node is ready; False if it does not exist, None where the operator may not read nodes."""
        if not self._reads_nodes:
            return None
        try:
            node = await self._get(f"/api/v1/nodes/{quote(name)}")
        except ApiError as error:
            if error.status == 403:
                return None
            raise
        conditions = (node or {}).get("status", {}).get("conditions") or ()
        return any(item["type"] == "Ready" and item["status"] == "True" for item in conditions)

    async def lease(self, namespace: str, name: str) -> Json | None:
        """A Lease."""
        return await self._get(f"{_leases_path(namespace)}/{quote(name)}")

    async def queue_message(self, namespace: str, job_uid: str) -> str:
        """What Kueue says about the wait of a Job; empty if it says nothing or does not know the Job."""
        for version in KUEUE_VERSIONS:
            path = f"/apis/kueue.x-k8s.io/{version}/namespaces/{quote(namespace)}/workloads"
            try:
                page = await self._call("GET", path, query={"labelSelector": f"kueue.x-k8s.io/job-uid={job_uid}"})
            except ApiError as error:
                if error.status != 404:
                    raise
            else:
                return waits_for(page["items"][0]) if page["items"] else ""
        return ""

    # Writing.

    async def apply_status(self, restoration: VideoRestoration, status: Json) -> Json | Stored:
        """Store the whole status of a restoration, if the object is still the one that was decided on.

        Where somebody else has written to the status (a restore from a backup, a hand), what is applied is not all that
        is there afterwards: fields that are left out stay, lists that are shortened do not fit. Then it is replaced.
        """
        meta = restoration.metadata
        path = f"{collection('VideoRestoration', meta.namespace)}/{quote(meta.name)}/status"
        try:
            stored = await self._apply(
                "VideoRestoration", path, meta.namespace, meta.name, meta.resource_version, status
            )
        except ApiError as error:
            if error.status != UNPROCESSABLE:
                raise
            return await self._replace_status(path, meta.resource_version, status)
        if isinstance(stored, Stored) or not holds_more(stored.get("status"), status):
            return stored
        return await self._replace_status(path, stored["metadata"]["resourceVersion"], status)

    async def apply_profile_status(
        self, profile: ClusterRestorationProfile | RestorationProfile, status: Json
    ) -> Json | Stored:
        """The same for a profile of either kind."""
        meta = profile.metadata
        path = f"{collection(profile.kind, meta.namespace)}/{quote(meta.name)}/status"
        return await self._apply(profile.kind, path, meta.namespace, meta.name, meta.resource_version, status)

    async def create_config_map(self, manifest: Json) -> Created:
        """Create a ConfigMap, or read the one that lies at its name.

        Raises:
            ApiError: `rejected` where policy or quota does not allow it.
        """
        namespace = manifest["metadata"]["namespace"]
        path = f"/api/v1/namespaces/{quote(namespace)}/configmaps"
        return await self._create(path, manifest, "create_config_map")

    async def create_job(self, manifest: Json) -> Created:
        """Create a Job, or read the one that lies at its name.

        Raises:
            ApiError: `rejected` where policy, quota or schema does not allow it.
        """
        return await self._create(jobs_path(manifest["metadata"]["namespace"]), manifest, "create_job")

    async def try_job(self, manifest: Json) -> None:
        """Have a Job judged by the API server without creating it.

        Raises:
            ApiError: `rejected` where it would not do.
        """
        path = jobs_path(manifest["metadata"]["namespace"])
        await self._call("POST", path, query={"dryRun": "All"}, body=manifest)

    async def delete_job(self, job: JobView, propagation: Propagation) -> Json | None:
        """Delete a Job and its pods; returns it while it waits for them, None once it is gone."""
        return await self._delete(f"{jobs_path(job.namespace)}/{quote(job.name)}", job.uid, propagation, "delete_job")

    async def delete_restoration(self, namespace: str, name: str, uid: str) -> None:
        """Delete a VideoRestoration whose own time has come, and what it owns."""
        path = f"{collection('VideoRestoration', namespace)}/{quote(name)}"
        await self._delete(path, uid, Propagation.BACKGROUND, "delete_restoration")

    async def set_job_ttl(self, job: JobView, seconds: int) -> Json | None:
        """Let the TTL controller remove a finished Job; None if it is gone or another has its name."""
        patch = {"metadata": {"uid": job.uid}, "spec": {"ttlSecondsAfterFinished": seconds}}
        path = f"{jobs_path(job.namespace)}/{quote(job.name)}"
        try:
            return await self._write(
                "PATCH", path, patch, verb="set_job_ttl", content_type="application/merge-patch+json"
            )
        except ApiError as error:
            if error.status in (404, 409):
                return None
            raise

    async def create_lease(self, body: Json) -> Json:
        """Create a Lease.

        Raises:
            ApiError: 409 where there is one.
        """
        return await self._write("POST", _leases_path(body["metadata"]["namespace"]), body, verb="create_lease")

    async def replace_lease(self, body: Json) -> Json:
        """Replace a Lease of the resource version in `body`.

        Raises:
            ApiError: 409 where it has changed since, 404 where it is gone.
        """
        meta = body["metadata"]
        return await self._write(
            "PUT", f"{_leases_path(meta['namespace'])}/{quote(meta['name'])}", body, verb="replace_lease"
        )

    async def settled(self, *, patience_seconds: float) -> bool:
        """Wait for the answers of writes whose callers were cancelled; whether all of them came."""
        if self._writing:
            await asyncio.wait(self._writing, timeout=patience_seconds)
        return not self._writing and not self._abandoned

    async def create_event(self, body: Json) -> None:
        """Post an `events.k8s.io` Event."""
        path = f"{EVENTS_PATH}/namespaces/{quote(body['metadata']['namespace'])}/events"
        await self._write("POST", path, body, verb="create_event")

    async def repeat_event(self, namespace: str, name: str, count: int, last: str) -> bool:
        """Count an Event that exists once more; False if it has expired."""
        path = f"{EVENTS_PATH}/namespaces/{quote(namespace)}/events/{quote(name)}"
        patch = {"series": {"count": count, "lastObservedTime": last}}
        try:
            await self._write("PATCH", path, patch, verb="repeat_event", content_type="application/merge-patch+json")
        except ApiError as error:
            if error.status == 404:
                return False
            raise
        return True

    # How.

    async def _apply(
        self, kind: str, path: str, namespace: str | None, name: str, resource_version: str, status: Json
    ) -> Json | Stored:
        if not resource_version:
            raise ValueError(f"status apply of {kind} {name} without a resourceVersion")
        metadata = {
            "name": name,
            "resourceVersion": resource_version,
            **({"namespace": namespace} if namespace else {}),
        }
        body = {"apiVersion": API_VERSION, "kind": kind, "metadata": metadata, "status": status}
        return await self._store_status(
            path,
            body,
            # The alert on a silent watch compares writes of restorations with what their watch delivers.
            verb="apply_status" if kind == "VideoRestoration" else "apply_profile_status",
            query={"force": "true"},
            content_type="application/apply-patch+yaml",
        )

    async def _store_status(
        self, path: str, body: Json | list[Json], *, verb: str, query: Json, content_type: str
    ) -> Json | Stored:
        query = {"fieldManager": MANAGER, **query}
        try:
            return await self._write("PATCH", path, body, verb=verb, query=query, content_type=content_type)
        except ApiError as error:
            if error.status == 409:
                return Stored.CONFLICT
            if error.status == 404:
                return Stored.GONE
            raise

    async def _replace_status(self, path: str, resource_version: str, status: Json) -> Json | Stored:
        """What is removed from an object belongs to no field manager any more."""
        patch: list[Json] = [
            {"op": "replace", "path": "/metadata/resourceVersion", "value": resource_version},
            {"op": "replace", "path": "/status", "value": status},
        ]
        return await self._store_status(
            path, patch, verb="replace_status", query={}, content_type="application/json-patch+json"
        )

    async def _create(self, path: str, manifest: Json, verb: str) -> Created:
        query = {"fieldManager": MANAGER}
        try:
            return Created(await self._write("POST", path, manifest, verb=verb, query=query), existed=False)
        except ApiError as error:
            if error.status != 409:
                raise
        found = await self._get(f"{path}/{quote(manifest['metadata']['name'])}")
        if found is None:
            raise ApiError(409, "AlreadyExists", "an object of this name was just removed")
        return Created(found, existed=True)

    async def _delete(self, path: str, uid: str, propagation: Propagation, verb: str) -> Json | None:
        """The only delete of the operator. An object that is gone, or whose name another has, is no error."""
        options = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "propagationPolicy": propagation.value,
            "preconditions": {"uid": uid},
        }
        try:
            answer = await self._write("DELETE", path, options, verb=verb)
        except ApiError as error:
            if error.status not in (404, 409):
                raise
            return None
        return answer if answer.get("metadata", {}).get("deletionTimestamp") else None

    async def _get(self, path: str) -> Json | None:
        try:
            return await self._call("GET", path)
        except ApiError as error:
            if error.status == 404:
                return None
            raise

    async def _write(
        self,
        method: str,
        path: str,
        body: Json | list[Json],
        *,
        verb: str,
        query: Mapping[str, Any] | None = None,
        content_type: str = "application/json",
    ) -> Json:
        self._fence()
        outcome = "error"
        # A task of its own: who is cancelled at the end of the process must not leave a write behind unanswered.
        writing = asyncio.create_task(self._call(method, path, query=query, body=body, content_type=content_type))
        self._writing.add(writing)
        writing.add_done_callback(self._written)
        try:
            answer = await asyncio.shield(writing)
            outcome = "ok"
            return answer
        except ApiError as error:
            outcome = str(error.status)
            raise
        finally:
            metrics.WRITES.labels(verb, outcome).inc()

    def _written(self, writing: asyncio.Task[Json]) -> None:
        self._writing.discard(writing)
        if writing.cancelled():
            self._abandoned = True
        else:
            writing.exception()  # looked at, for nobody may wait for it any more

    async def _call(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, Any] | None = None,
        body: Json | list[Json] | None = None,
        content_type: str = "application/json",
    ) -> Json:
        url = f"{path}?{urlencode(query)}" if query else path
        headers = {"Accept": "application/json", "Content-Type": content_type}
        request = await self._api.param_serialize(
            method=method, resource_path=url, header_params=headers, body=body, auth_settings=["BearerToken"]
        )
        try:
            answer = await self._api.call_api(*request, _request_timeout=self._timeout)
            text: bytes = await answer.read()  # type: ignore[no-untyped-call]
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise UnreachableError(f"{method} {path}: {error!r}") from error
        if answer.status >= 400:
            raise _error(answer.status, text, answer.headers)
        parsed: Json = json.loads(text)
        return parsed


def collection(kind: str, namespace: str | None) -> str:
    """Path of our objects of a kind, in one namespace or in all."""
    place = f"/namespaces/{quote(namespace)}" if namespace else ""
    return f"{CRD_PATH}{place}/{KINDS[kind]}"


def jobs_path(namespace: str | None) -> str:
    """Path of Jobs, in one namespace or in all."""
    return "/apis/batch/v1/jobs" if namespace is None else f"/apis/batch/v1/namespaces/{quote(namespace)}/jobs"


def pods_path(namespace: str | None) -> str:
    """Path of pods, in one namespace or in all."""
    return "/api/v1/pods" if namespace is None else f"/api/v1/namespaces/{quote(namespace)}/pods"


def _leases_path(namespace: str) -> str:
    return f"/apis/coordination.k8s.io/v1/namespaces/{quote(namespace)}/leases"


def holds_more(stored: Any, applied: Any) -> bool:
    """Whether something is stored that was not applied."""
    if isinstance(stored, dict) and isinstance(applied, dict):
        return any(key not in applied or holds_more(value, applied[key]) for key, value in stored.items())
    if isinstance(stored, list) and isinstance(applied, list):
        return len(stored) > len(applied) or any(map(holds_more, stored, applied))
    return False


def identity(body: Json) -> Json:
    """What tells an object and its version: enough to see what is missing."""
    meta = body["metadata"]
    return {"metadata": {"uid": meta["uid"], "resourceVersion": meta["resourceVersion"], "name": meta["name"]}}


def _error(status: int, text: bytes, headers: Mapping[str, str]) -> ApiError:
    try:
        answer = json.loads(text)
    except ValueError:
        answer = {}
    if not isinstance(answer, dict):
        answer = {}
    pause = headers.get("Retry-After", "")
    return ApiError(
        status,
        answer.get("reason") or "Unknown",
        answer.get("message") or text[:1024].decode(errors="replace"),
        retry_after_seconds=float(pause) if pause.isdecimal() else None,
    )
