"""The API server: REST over dictionaries, with the semantics that decide races.

Resource versions, `AlreadyExists`, uid preconditions, the `resourceVersion` precondition of an apply (and what happens
without it), applies that change nothing, foreground, background and orphaning deletes, dry runs, selectors.

Bodies are never changed in place, so they are handed out without copying.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from restoration_api.resources.common import rfc3339
from restoration_operator.cluster import ApiError

Json = dict[str, Any]
RESTORATIONS: Final = "videorestorations"
PROFILES: Final = "clusterrestorationprofiles"
OTHERS: Final = ("restorationprofiles", "jobs", "pods", "configmaps", "events", "nodes", "leases")
RESOURCES: Final = (RESTORATIONS, PROFILES, *OTHERS)
NAMESPACE: Final = "default"


@dataclass(frozen=True)
class Change:
    """One watch event."""

    version: int
    resource: str
    type: str
    body: Json


@dataclass(frozen=True)
class Target:
    """What a URL path names."""

    resource: str
    name: str
    subresource: str


class Watchman:
    """Told of every write that the API server accepts from the operator; raises nothing, remembers what is wrong."""

    def asked_to_write(self) -> None: ...
    def wrote_status(self, before: Json, after: Json, sent: Json) -> None: ...
    def creates_job(self, job: Json) -> None: ...
    def patches_job(self, job: Json) -> None: ...
    def deletes(self, resource: str, body: Json, options: Json) -> None: ...


class SimulatedServer:
    """All objects of all kinds, in one namespace."""

    def __init__(self, clock: Callable[[], datetime], watchman: Watchman) -> None:
        self.clock = clock
        self.watchman = watchman
        self.objects: dict[str, dict[str, Json]] = {resource: {} for resource in RESOURCES}
        """By resource and name."""
        self.version = 0
        self.asked_by = ""
        """Who sends the request that is being handled."""
        self.asked_at = 0
        """The version that the objects had when that request left its sender."""
        self.listeners: list[Callable[[Change], None]] = []
        self.admission: list[Callable[[str, Json], Json]] = []
        """Given resource and body of a create: the body as it shall be stored. Raises ApiError to refuse."""
        self._uids = 0

    # What the cluster itself and the people in it do.

    def create(self, resource: str, body: Json) -> Json:
        """Store a new object as the API server would."""
        self._uids += 1
        metadata = {
            **body["metadata"],
            "uid": f"00000000-0000-4000-8000-{self._uids:012x}",
            "generation": 1,
            "creationTimestamp": text(self.clock()),
        }
        return self._store(resource, {**body, "metadata": metadata}, "ADDED")

    def put(self, resource: str, body: Json) -> Json:
        """Store another state of an object that exists."""
        return self._store(resource, body, "MODIFIED")

    def patch_status(self, resource: str, body: Json, **status: Any) -> Json:
        """Store an object with these fields of its status replaced."""
        return self.put(resource, {**body, "status": {**body.get("status", {}), **status}})

    def patch_spec(self, resource: str, body: Json, **spec: Any) -> Json:
        """Store an object with these fields of its spec replaced, as a new generation."""
        metadata = {**body["metadata"], "generation": body["metadata"]["generation"] + 1}
        return self.put(resource, {**body, "metadata": metadata, "spec": {**body["spec"], **spec}})

    def patch_metadata(self, resource: str, body: Json, **metadata: Any) -> Json:
        """Store an object with these fields of its metadata replaced."""
        return self.put(resource, {**body, "metadata": {**body["metadata"], **metadata}})

    def remove(self, resource: str, name: str) -> None:
        """The object is gone."""
        body = self.objects[resource].pop(name)
        self.version += 1
        last = {**body, "metadata": {**body["metadata"], "resourceVersion": str(self.version)}}
        self._tell(Change(self.version, resource, "DELETED", last))

    def delete_job(self, job: Json, propagation: str) -> None:
        """What a DELETE of a Job does at once; garbage collection does the rest."""
        meta = job["metadata"]
        if propagation == "Foreground":
            if "deletionTimestamp" not in meta:
                self.patch_metadata("jobs", job, deletionTimestamp=text(self.clock()))
            return
        if propagation == "Orphan":
            for pod in self.owned("pods", meta["uid"]):
                self.patch_metadata("pods", pod, ownerReferences=[])
        self.remove("jobs", meta["name"])

    def owned(self, resource: str, uid: str) -> list[Json]:
        """Objects whose controller has this uid."""
        return [body for body in self.objects[resource].values() if owner(body) == uid]

    # What the operator asks for.

    def handle(self, method: str, path: str, query: Mapping[str, Any], body: Json | None, content_type: str) -> Json:
        """One request.

        Raises:
            ApiError: every answer but 200 and 201.
        """
        target = parse(path)
        objects = self.objects.get(target.resource)
        if objects is None:
            raise ApiError(404, "NotFound", "the server could not find the requested resource")
        if method != "GET" and target.resource != "leases" and "dryRun" not in query:
            self.watchman.asked_to_write()
        match method:
            case "GET" if not target.name:
                return self._list(target.resource, query)
            case "GET":
                return _found(objects, target)
            case "POST":
                assert body is not None
                return self._post(target, query, body)
            case "PUT":
                assert body is not None
                return self._put(target, body)
            case "PATCH":
                assert body is not None
                return self._patch(target, body, content_type)
            case "DELETE":
                return self._delete(target, body or {})
        raise ApiError(405, "MethodNotAllowed", method)

    def _list(self, resource: str, query: Mapping[str, Any]) -> Json:
        labels = _selector(query.get("labelSelector", ""))
        fields = _selector(query.get("fieldSelector", ""))
        items = [body for body in self.objects[resource].values() if _selected(body, labels, fields)]
        return {"items": items, "metadata": {"resourceVersion": str(self.version)}}

    def _post(self, target: Target, query: Mapping[str, Any], body: Json) -> Json:
        name = body["metadata"].get("name") or f"{body['metadata']['generateName']}{self.version}"
        body = {**body, "metadata": {**body["metadata"], "name": name}}
        for admit in self.admission:
            body = admit(target.resource, body)
        if name in self.objects[target.resource]:
            raise ApiError(409, "AlreadyExists", f"{target.resource} {name!r} already exists")
        if "dryRun" in query:
            return body
        if target.resource == "jobs":
            self.watchman.creates_job(body)
            body = {**body, "status": {}}
        return self.create(target.resource, body)

    def _put(self, target: Target, body: Json) -> Json:
        found = _found(self.objects[target.resource], target)
        sent = body["metadata"].get("resourceVersion")
        if sent and sent != found["metadata"]["resourceVersion"]:
            raise _conflict(target)
        return self.put(target.resource, {**body, "metadata": {**found["metadata"], **body["metadata"]}})

    def _patch(self, target: Target, body: Json, content_type: str) -> Json:
        found = self.objects[target.resource].get(target.name)
        if found is None and "apply" in content_type and not target.subresource:
            return self._post(target, {}, body)
        found = _found(self.objects[target.resource], target)
        sent = body.get("metadata", {})
        if sent.get("resourceVersion", found["metadata"]["resourceVersion"]) != found["metadata"]["resourceVersion"]:
            raise _conflict(target)
        if "apply" in content_type:
            return self._apply(target, found, body)
        if sent.get("uid", found["metadata"]["uid"]) != found["metadata"]["uid"]:
            raise _conflict(target)
        merged = merge(found, body)
        if target.resource == "jobs":
            self.watchman.patches_job(merged)
        return merged if merged == found else self.put(target.resource, merged)

    def _apply(self, target: Target, found: Json, body: Json) -> Json:
        if target.subresource == "status":
            # One manager owns the whole status: what it leaves out is removed.
            after = {**found, "status": body["status"]}
            if target.resource == RESTORATIONS:
                self.watchman.wrote_status(found, after, body)
            return found if found.get("status") == body["status"] else self.put(target.resource, after)
        merged = merge(found, body)
        return found if merged == found else self.put(target.resource, merged)

    def _delete(self, target: Target, options: Json) -> Json:
        found = _found(self.objects[target.resource], target)
        wanted = options.get("preconditions", {}).get("uid", found["metadata"]["uid"])
        if wanted != found["metadata"]["uid"]:
            raise _conflict(target)
        self.watchman.deletes(target.resource, found, options)
        if target.resource == "jobs":
            self.delete_job(found, options.get("propagationPolicy", "Orphan"))
        else:
            self.remove(target.resource, target.name)
        return self.objects[target.resource].get(target.name) or {"kind": "Status", "status": "Success"}

    # How.

    def _store(self, resource: str, body: Json, change: str) -> Json:
        self.version += 1
        stored = {**body, "metadata": {**body["metadata"], "resourceVersion": str(self.version)}}
        self.objects[resource][body["metadata"]["name"]] = stored
        self._tell(Change(self.version, resource, change, stored))
        return stored

    def _tell(self, change: Change) -> None:
        for listener in self.listeners:
            listener(change)


@functools.lru_cache(maxsize=4096)
def parse(path: str) -> Target:
    """The parts of a URL path: `/apis/GROUP/VERSION/[namespaces/NS/]RESOURCE[/NAME[/SUBRESOURCE]]`."""
    parts = path.strip("/").split("/")
    rest = parts[2:] if parts[0] == "api" else parts[3:]
    if len(rest) > 2 and rest[0] == "namespaces":
        rest = rest[2:]
    resource, name, subresource = (*rest, "", "")[:3]
    return Target(resource, name, subresource)


def merge(body: Any, patch: Json) -> Json:
    """A JSON merge patch (RFC 7396)."""
    result = dict(body) if isinstance(body, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        elif isinstance(value, dict):
            result[key] = merge(result.get(key), value)
        else:
            result[key] = value
    return result


def owner(body: Json) -> str:
    """Uid of the controlling owner; empty if there is none."""
    return next((str(one["uid"]) for one in body["metadata"].get("ownerReferences") or () if one.get("controller")), "")


def text(moment: datetime) -> str:
    """As Kubernetes writes it."""
    return rfc3339(moment)


_TERM = re.compile(r"([^!=]+)(!?)=+(.*)")


@functools.lru_cache(maxsize=4096)
def _selector(selector: str) -> tuple[tuple[str, bool, str], ...]:
    found = (_TERM.fullmatch(term) for term in selector.split(",") if term)
    return tuple((term[1], not term[2], term[3]) for term in found if term)


def _selected(body: Json, labels: Iterable[tuple[str, bool, str]], fields: Iterable[tuple[str, bool, str]]) -> bool:
    own = body["metadata"].get("labels") or {}
    return all((own.get(key) == value) is equal for key, equal, value in labels) and all(
        (_field(body, key) == value) is equal for key, equal, value in fields
    )


def _field(body: Json, path: str) -> Any:
    value: Any = body
    for step in path.split("."):
        value = value.get(step) or {} if isinstance(value, dict) else {}
    return value


def _found(objects: Mapping[str, Json], target: Target) -> Json:
    try:
        return objects[target.name]
    except KeyError:
        raise ApiError(404, "NotFound", f"{target.resource} {target.name!r} not found") from None


def _conflict(target: Target) -> ApiError:
    return ApiError(409, "Conflict", f"Operation cannot be fulfilled on {target.resource} {target.name!r}")
