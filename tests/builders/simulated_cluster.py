"""A Kubernetes cluster in memory: API server, Job controller, kubelet, and watches that may lose what they carry.

It offers the methods of `restoration_operator.cluster.Cluster` with the semantics that matter: resource versions,
preconditions, `AlreadyExists`, foreground, background and orphaning deletes, owner references. Nothing in it waits, so
a coroutine of the operator runs to its end when it is driven once, and a whole history takes milliseconds.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from restoration_api.outcome import FAILURES, PERMANENT_EXIT_CODES
from restoration_api.resources import VideoRestoration
from restoration_operator.cluster import ApiError, Created, Stored, UnreachableError
from restoration_operator.decide.types import Propagation
from restoration_operator.views import (
    EXECUTION_LABEL,
    JOB_NAME_LABEL,
    JOB_UID_LABEL,
    UID_LABEL,
    JobView,
    Listing,
    WarningEvent,
)

Json = dict[str, Any]
START: Final = datetime(2026, 1, 1, tzinfo=UTC)
KINDS: Final = ("restorations", "jobs", "pods", "config_maps", "profiles")


class CrashError(BaseException):
    """The operator's process is gone at this point."""


@dataclass(frozen=True)
class Change:
    """One watch event."""

    kind: str
    type: str
    body: Json


@dataclass
class Faults:
    """What happens to the next calls of the operator, in order; when it is used up, everything works."""

    plan: list[str] = field(default_factory=list)
    """Of: `ok`, `lost request`, `lost answer`, `crash before`, `crash after`, `busy`."""

    def next(self) -> str:
        return self.plan.pop(0) if self.plan else "ok"


class SimulatedCluster:
    """The state of everything, and the invariants that every write is checked against."""

    def __init__(self) -> None:
        self.now = START
        self.objects: dict[str, dict[str, Json]] = {kind: {} for kind in KINDS}
        """By kind and uid."""
        self.changes: list[Change] = []
        """Not yet delivered."""
        self.faults = Faults()
        self.node_ready = True
        self.refuse_jobs = False
        self.writes: list[str] = []
        self.created_jobs: list[tuple[str, int]] = []
        """(restoration's uid, execution) of every Job that was ever created."""
        self._version = 0
        self._uids = 0

    # What users and administrators do.

    def apply(self, kind: str, body: Json) -> Json:
        """Create an object as the API server would."""
        made = copy.deepcopy(body)
        self._uids += 1
        made["metadata"] |= {
            "uid": f"00000000-0000-4000-8000-{self._uids:012x}",
            "generation": 1,
            "creationTimestamp": _text(self.now),
        }
        return self._store(kind, made, "ADDED")

    def change_spec(self, kind: str, uid: str, **changes: Any) -> None:
        body = copy.deepcopy(self.objects[kind][uid])
        body["spec"] |= changes
        body["metadata"]["generation"] += 1
        self._store(kind, body, "MODIFIED")

    def remove(self, kind: str, uid: str) -> None:
        """The object is gone, and in time everything that it owns."""
        body = self.objects[kind].pop(uid)
        self._version += 1
        body["metadata"]["resourceVersion"] = str(self._version)
        self.changes.append(Change(kind, "DELETED", copy.deepcopy(body)))

    def delete_pod(self, uid: str) -> None:
        """`kubectl delete pod`: it ends within its grace period."""
        pod = self.objects["pods"].get(uid)
        if pod is not None and "deletionTimestamp" not in pod["metadata"]:
            pod = copy.deepcopy(pod)
            pod["metadata"]["deletionTimestamp"] = _text(self.now + timedelta(seconds=30))
            pod["metadata"]["deletionGracePeriodSeconds"] = 30
            self._store("pods", pod, "MODIFIED")

    def delete_job_as_stranger(self, uid: str, propagation: str) -> None:
        job = self.objects["jobs"].get(uid)
        if job is not None:
            self._delete_job(job, propagation)

    # What the cluster's own controllers do, one step at a time.

    def step_controllers(self) -> bool:
        """Garbage collection and the Job controller; returns whether anything happened."""
        return any([self._collect_garbage(), *[self._step_job(job) for job in list(self.objects["jobs"].values())]])

    def step_kubelet(self, pod_uid: str, exit_code: int = 0, message: str = "") -> bool:
        """Move one pod forward: placed, running, ended, or removed if it was deleted."""
        pod = self.objects["pods"].get(pod_uid)
        if pod is None or not self.node_ready:
            return False
        phase = pod["status"]["phase"]
        if phase in ("Succeeded", "Failed"):
            if "deletionTimestamp" in pod["metadata"]:
                self.remove("pods", pod_uid)
                return True
            return False
        if "deletionTimestamp" in pod["metadata"]:
            self._end_pod(pod, 143, "")
        elif phase == "Pending":
            self._run_pod(pod)
        else:
            self._end_pod(pod, exit_code, message)
        return True

    def disrupt(self, pod_uid: str) -> None:
        """A pod is evicted: its Job replaces it."""
        pod = self.objects["pods"].get(pod_uid)
        if pod is not None and pod["status"]["phase"] in ("Pending", "Running"):
            self._end_pod(pod, 143, "", disruption="EvictionByEvictionAPI")

    # The interface of `Cluster`.

    async def restoration(self, namespace: str, name: str) -> Json | None:
        self._fail(reading=True)
        return self._named("restorations", name)

    async def job(self, namespace: str, name: str) -> Json | None:
        self._fail(reading=True)
        return self._named("jobs", name)

    async def children(self, namespace: str, uid: str) -> tuple[Listing, Listing]:
        self._fail(reading=True)
        return self._listing("jobs", uid), self._listing("pods", uid)

    async def list_all(self, path: str, *, selector: str | None = None, fields: str | None = None) -> Listing:
        self._fail(reading=True)
        kind = {"videorestorations": "restorations", "clusterrestorationprofiles": "profiles"}.get(
            path.rsplit("/", 1)[-1], path.rsplit("/", 1)[-1]
        )
        if kind == "restorationprofiles":
            return Listing(items=[], version=self._version)
        listing = self._listing(kind)
        if fields is None:
            return listing
        over = ("Succeeded", "Failed")
        unfinished = [item for item in listing.items if item.get("status", {}).get("phase") not in over]
        return Listing(items=unfinished, version=listing.version)

    async def config_map(self, namespace: str, name: str) -> Json | None:
        self._fail(reading=True)
        return self._named("config_maps", name)

    async def newest_warning(self, namespace: str, uid: str, now: datetime) -> WarningEvent:
        self._fail(reading=True)
        return WarningEvent(reason="", message="", read_at=now)

    async def node_is_ready(self, name: str) -> bool | None:
        self._fail(reading=True)
        return self.node_ready

    async def apply_status(self, restoration: VideoRestoration, status: Json) -> Json | Stored:
        with_answer = self._fail()
        found = self._named("restorations", restoration.metadata.name)
        if found is None:
            return Stored.GONE
        if found["metadata"]["resourceVersion"] != restoration.metadata.resource_version:
            return Stored.CONFLICT
        before = copy.deepcopy(found)
        found["status"] = copy.deepcopy(status)
        self._check_status(before, found)
        self.writes.append(f"status of {found['metadata']['uid']}")
        return with_answer(self._store("restorations", found, "MODIFIED"))

    async def create_config_map(self, manifest: Json) -> Created:
        return self._create("config_maps", manifest)

    async def create_job(self, manifest: Json) -> Created:
        if self.refuse_jobs:
            self._fail()
            raise ApiError(403, "Forbidden", "exceeded quota: count/jobs.batch")
        return self._create("jobs", manifest)

    async def delete_job(self, job: JobView, propagation: Propagation) -> Json | None:
        with_answer = self._fail()
        found = self.objects["jobs"].get(job.uid)
        if found is None:
            return None
        self.writes.append(f"delete {job.name}")
        self._delete_job(found, propagation.value)
        left = self.objects["jobs"].get(job.uid)
        return with_answer(copy.deepcopy(left))

    async def set_job_ttl(self, job: JobView, seconds: int) -> Json | None:
        with_answer = self._fail()
        found = copy.deepcopy(self.objects["jobs"].get(job.uid))
        if found is None:
            return None
        found["spec"]["ttlSecondsAfterFinished"] = seconds
        self.writes.append(f"ttl of {job.name}")
        owner = _owner(found)
        restoration = self.objects["restorations"].get(owner)
        number = int(found["metadata"]["labels"][EXECUTION_LABEL])
        closed = restoration is None or _finished(restoration) or number in _closed(restoration)
        assert closed, "a Job was released before its end was stored"
        return with_answer(self._store("jobs", found, "MODIFIED"))

    async def delete_restoration(self, namespace: str, name: str, uid: str) -> None:
        with_answer = self._fail()
        if uid in self.objects["restorations"]:
            self.remove("restorations", uid)
        with_answer(None)

    # Invariants.

    def _check_status(self, before: Json, after: Json) -> None:
        old, new = before.get("status") or {}, after["status"]
        if _finished(before):
            same = {key: value for key, value in old.items() if key != "observedGeneration"}
            assert same == {key: value for key, value in new.items() if key != "observedGeneration"}, "not sticky"
        numbers = old.get("attempts", {}).get("executions", 0), new["attempts"]["executions"]
        assert numbers[0] <= numbers[1] <= numbers[0] + 1, f"execution numbers went from {numbers[0]} to {numbers[1]}"
        kept = {item["execution"] for item in old.get("attemptHistory", ())}
        forgotten = kept - {item["execution"] for item in new.get("attemptHistory", ())}
        assert not forgotten or len(new["attemptHistory"]) == 10, "an attempt was forgotten"
        self._check_budgets(after, old, new)
        assert len(new["conditions"]) == 7
        if kept:
            same = old["profile"]["hash"] == new["profile"]["hash"]
            assert same, "a restoration that has run was given another profile"
        if _finished(after) and not _finished(before):
            self._check_verdict(after)

    def _check_budgets(self, restoration: Json, old: Json, new: Json) -> None:
        """Counters never fall, and never rise above what the user allows; nor by more than a failure and a disruption
        that its Job survived, when both are noticed at once."""
        before, after = old.get("attempts", {}), new["attempts"]
        budgets = ("retries", "infrastructureRetries", "disruptions")
        rises = [after[name] - before.get(name, 0) for name in budgets]
        assert min(rises) >= 0, "a counter fell"
        assert sum(rises) <= 2, f"one failure was counted as {dict(zip(budgets, rises, strict=True))}"
        policy = restoration["spec"].get("retryPolicy") or {}
        most = {
            "retries": policy.get("maxRetries", 3),
            "infrastructureRetries": policy.get("maxInfrastructureRetries", 5),
            "disruptions": policy.get("maxDisruptions", after["disruptions"]),
        }
        assert all(after[name] <= limit for name, limit in most.items()), f"{after} is more than {most}"

    def _check_verdict(self, restoration: Json) -> None:
        """An end that the facts contradict is worse than none."""
        status, uid = restoration["status"], restoration["metadata"]["uid"]
        reason = next(item["reason"] for item in status["conditions"] if item["type"] == "Finished")
        jobs = [job for job in self.objects["jobs"].values() if job["metadata"]["name"] == status.get("jobName")]
        alive = [job for job in jobs if not _job_end(job) and "deletionTimestamp" not in job["metadata"]]
        lost = _lost(restoration)
        assert not alive or lost, f"{reason} while its Job lives"
        writing = [pod for pod in self._pods_of(uid) if pod["status"]["phase"] not in ("Succeeded", "Failed")]
        assert all(_number(pod) in lost for pod in writing), f"{reason} while its pod lives"
        complete = any(_job_end(job) and job["status"]["conditions"][0]["type"] == "Complete" for job in jobs)
        assert not complete or reason in ("Completed", "CacheHit"), f"{reason} although its Job is complete"
        if complete:
            # A runner whose report can still be read has its report read.
            reports = [_report(pod) for pod in self._pods_of(uid) if pod["status"]["phase"] == "Succeeded"]
            assert not any(reports) or "output" in status, "the runner's report was overlooked"

    def _check_job(self, job: Json) -> None:
        owner, number = _owner(job), int(job["metadata"]["labels"][EXECUTION_LABEL])
        restoration = self.objects["restorations"].get(owner)
        assert restoration is None or not _finished(restoration), "something was started for a finished restoration"
        if restoration is not None:
            assert restoration["status"]["attempts"]["executions"] >= number, "created before it was reserved"
            last = _attempt(restoration, number - 1)
            permanent = {reason.value for reason, row in FAILURES.items() if row.permanent}
            assert last.get("reason") not in permanent, f"another try after {last['reason']}"
        for other in self.objects["jobs"].values():
            alive = _owner(other) == owner and not _job_end(other) and "deletionTimestamp" not in other["metadata"]
            assert not alive, f"two live Jobs: {other['metadata']['name']} and {job['metadata']['name']}"
        if number > 1:
            lost = _lost(restoration or {})
            for pod in self._pods_of(owner):
                ended = pod["status"]["phase"] in ("Succeeded", "Failed") or _number(pod) in lost
                assert ended, f"{job['metadata']['name']} was created beside the live pod {pod['metadata']['name']}"
        self.created_jobs.append((owner, number))

    # How.

    def _create(self, kind: str, manifest: Json) -> Created:
        with_answer = self._fail()
        found = self._named(kind, manifest["metadata"]["name"])
        if found is not None:
            return Created(found, existed=True)
        if kind == "jobs":
            self._check_job(manifest)
        made = self.apply(kind, manifest | {"status": {}} if kind == "jobs" else manifest)
        self.writes.append(f"create {made['metadata']['name']}")
        return with_answer(Created(made, existed=False))

    def _fail(self, *, reading: bool = False) -> Callable[[Any], Any]:
        """Let the next planned fault happen; what comes after the write happens in the function returned."""
        fault = self.faults.next()
        if fault == "crash before":
            raise CrashError
        if fault == "lost request" or (reading and fault == "lost answer"):
            raise UnreachableError("simulated")
        if fault == "busy":
            raise ApiError(429, "TooManyRequests", "simulated")

        def after(answer: Any) -> Any:
            if fault == "crash after":
                raise CrashError
            if fault == "lost answer":
                raise UnreachableError("simulated")
            return answer

        return after

    def _store(self, kind: str, body: Json, change: str) -> Json:
        self._version += 1
        body["metadata"]["resourceVersion"] = str(self._version)
        self.objects[kind][body["metadata"]["uid"]] = body
        self.changes.append(Change(kind, change, copy.deepcopy(body)))
        return copy.deepcopy(body)

    def _named(self, kind: str, name: str) -> Json | None:
        found = (body for body in self.objects[kind].values() if body["metadata"]["name"] == name)
        return copy.deepcopy(next(found, None))

    def _listing(self, kind: str, uid: str | None = None) -> Listing:
        items = [
            copy.deepcopy(body)
            for body in self.objects[kind].values()
            if uid is None or (body["metadata"].get("labels") or {}).get(UID_LABEL) == uid
        ]
        return Listing(items=items, version=self._version)

    def _delete_job(self, job: Json, propagation: str) -> None:
        uid = job["metadata"]["uid"]
        if propagation == "Foreground":
            if "deletionTimestamp" not in job["metadata"]:
                leaving = copy.deepcopy(job)
                leaving["metadata"]["deletionTimestamp"] = _text(self.now)
                self._store("jobs", leaving, "MODIFIED")
            return
        for pod in list(self._pods_of_job(uid)):
            if propagation == "Orphan":
                orphan = copy.deepcopy(pod)
                orphan["metadata"]["ownerReferences"] = []
                self._store("pods", orphan, "MODIFIED")
        self.remove("jobs", uid)

    def _collect_garbage(self) -> bool:
        happened = False
        for kind in ("jobs", "config_maps"):
            for uid, body in list(self.objects[kind].items()):
                owner = _owner(body)
                if owner and owner not in self.objects["restorations"]:
                    if kind == "jobs":
                        self._delete_job(body, "Background")
                    else:
                        self.remove(kind, uid)
                    happened = True
        for uid, pod in list(self.objects["pods"].items()):
            owner = _owner(pod)
            job = self.objects["jobs"].get(owner)
            doomed = owner and (job is None or "deletionTimestamp" in job["metadata"])
            if doomed and "deletionTimestamp" not in pod["metadata"]:
                self.delete_pod(uid)
                happened = True
        for uid, job in list(self.objects["jobs"].items()):
            if "deletionTimestamp" in job["metadata"] and not list(self._pods_of_job(uid)):
                self.remove("jobs", uid)
                happened = True
        return happened

    def _step_job(self, job: Json) -> bool:
        uid = job["metadata"]["uid"]
        if uid not in self.objects["jobs"] or _job_end(job) or "deletionTimestamp" in job["metadata"]:
            return False
        pods = list(self._pods_of_job(uid))
        disrupted = [pod for pod in pods if _is_disrupted(pod)]
        rest = [pod for pod in pods if pod not in disrupted]
        if not rest:
            if job["status"].get("pods", 0) > len(disrupted):
                return self._end_job(job, "Failed", "BackoffLimitExceeded")  # a pod vanished: it counts as a failure
            self._make_pod(job)
            return True
        phase = rest[-1]["status"]["phase"]
        if phase == "Succeeded":
            return self._end_job(job, "Complete", "CompletionsReached")
        if phase == "Failed":
            state = rest[-1]["status"]["containerStatuses"][0]["state"]["terminated"]
            code = state["exitCode"]
            if code in PERMANENT_EXIT_CODES:
                message = f"Container runner for pod p failed with exit code {code} matching FailJob rule at index 0"
                return self._end_job(job, "Failed", "PodFailurePolicy", message)
            return self._end_job(job, "Failed", "BackoffLimitExceeded")
        return False

    def _make_pod(self, job: Json) -> None:
        count = job["status"].get("pods", 0) + 1
        meta = job["metadata"]
        labels = {
            **job["spec"]["template"]["metadata"]["labels"],
            JOB_NAME_LABEL: meta["name"],
            JOB_UID_LABEL: meta["uid"],
        }
        owner = {"kind": "Job", "name": meta["name"], "uid": meta["uid"], "controller": True}
        metadata = {"name": f"{meta['name']}-{count}", "namespace": meta["namespace"], "labels": labels}
        pod = {"metadata": metadata | {"ownerReferences": [owner]}, "spec": {}, "status": {"phase": "Pending"}}
        self.apply("pods", pod)
        counted = copy.deepcopy(job)
        counted["status"] |= {"pods": count, "startTime": job["status"].get("startTime") or _text(self.now)}
        self._store("jobs", counted, "MODIFIED")

    def _end_job(self, job: Json, kind: str, reason: str, message: str = "") -> bool:
        ended = copy.deepcopy(job)
        verdict = {"type": kind, "status": "True", "reason": reason, "message": message}
        ended["status"]["conditions"] = [verdict | {"lastTransitionTime": _text(self.now)}]
        self._store("jobs", ended, "MODIFIED")
        return True

    def _run_pod(self, pod: Json) -> None:
        running = copy.deepcopy(pod)
        running["spec"]["nodeName"] = "node-1"
        true = {"status": "True", "lastTransitionTime": _text(self.now)}
        running["status"] |= {
            "phase": "Running",
            "podIP": "10.0.0.1",
            "startTime": _text(self.now),
            "conditions": [{"type": "PodScheduled", **true}, {"type": "Ready", **true}],
            "containerStatuses": [{"name": "runner", "state": {"running": {"startedAt": _text(self.now)}}}],
        }
        self._store("pods", running, "MODIFIED")

    def _end_pod(self, pod: Json, exit_code: int, message: str, *, disruption: str | None = None) -> None:
        ended = copy.deepcopy(pod)
        state = {
            "exitCode": exit_code,
            "reason": "Completed" if exit_code == 0 else "Error",
            "message": message,
            "finishedAt": _text(self.now),
        }
        ended["status"] |= {
            "phase": "Succeeded" if exit_code == 0 else "Failed",
            "containerStatuses": [{"name": "runner", "state": {"terminated": state}}],
        }
        if disruption:
            ended["status"]["conditions"] = [{"type": "DisruptionTarget", "status": "True", "reason": disruption}]
        self._store("pods", ended, "MODIFIED")

    def _pods_of_job(self, uid: str) -> Iterator[Json]:
        return (pod for pod in self.objects["pods"].values() if _owner(pod) == uid)

    def _pods_of(self, uid: str) -> Iterator[Json]:
        return (pod for pod in self.objects["pods"].values() if pod["metadata"]["labels"].get(UID_LABEL) == uid)


def _owner(body: Json) -> str:
    owners = body["metadata"].get("ownerReferences") or ()
    return next((str(owner["uid"]) for owner in owners if owner.get("controller")), "")


def _finished(body: Json) -> bool:
    conditions = (body.get("status") or {}).get("conditions", ())
    return any(item["type"] == "Finished" and item["status"] == "True" for item in conditions)


def _attempt(restoration: Json, number: int) -> Json:
    history = (restoration.get("status") or {}).get("attemptHistory", ())
    return next((item for item in history if item["execution"] == number), {})


def _closed(restoration: Json) -> set[int]:
    """Executions whose end is stored."""
    history = (restoration.get("status") or {}).get("attemptHistory", ())
    return {item["execution"] for item in history if "endTime" in item}


def _lost(restoration: Json) -> set[int]:
    """Executions that were declared lost: their pods may outlive them. What the history has dropped counts as well."""
    history = (restoration.get("status") or {}).get("attemptHistory", ())
    dropped = range(1, min((item["execution"] for item in history), default=1))
    return {item["execution"] for item in history if item.get("reason") == "NodeLost"} | set(dropped)


def _number(child: Json) -> int:
    return int(child["metadata"]["labels"][EXECUTION_LABEL])


def _job_end(job: Json) -> bool:
    return bool((job.get("status") or {}).get("conditions"))


def _report(pod: Json) -> str:
    return str(pod["status"]["containerStatuses"][0]["state"]["terminated"]["message"])


def _is_disrupted(pod: Json) -> bool:
    conditions = pod["status"].get("conditions", ())
    return pod["status"]["phase"] == "Failed" and any(item["type"] == "DisruptionTarget" for item in conditions)


def _text(moment: datetime) -> str:
    return re.sub(r"\+00:00$", "Z", moment.isoformat())
