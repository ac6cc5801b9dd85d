"""What the cluster's own controllers do: Job controller, garbage collector, TTL controller, and a queue like Kueue."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from typing import Final

from restoration_api.outcome import PERMANENT_EXIT_CODES
from restoration_operator.cluster import ApiError
from restoration_operator.views import JOB_NAME_LABEL, JOB_UID_LABEL
from tests.builders.simulation.loop import noise
from tests.builders.simulation.server import NAMESPACE, RESTORATIONS, Change, Json, SimulatedServer, owner, text

QUEUE_LABEL: Final = "kueue.x-k8s.io/queue-name"
PASSES: Final = 20


class Controllers:
    """They look at the world a moment after something has changed in it, as controllers with a watch do."""

    def __init__(self, server: SimulatedServer, loop: asyncio.AbstractEventLoop, seed: int) -> None:
        self._server = server
        self._loop = loop
        self._seed = seed
        self._planned: asyncio.TimerHandle | None = None
        self.slow = False
        """The Job controller takes minutes."""
        self.refuse_jobs = False
        """A quota allows no further Job."""
        self.refuse_pods = False
        """A quota allows no further pod: only an Event tells."""
        self.hold = False
        """The queue admits nothing and takes back what it has admitted."""
        server.listeners.append(self._wake)
        server.admission.append(self._admit)

    def _wake(self, change: Change) -> None:
        # What a user asks for changes nothing here; that an object is gone does, and so does every Job and pod.
        concerned = change.resource in ("jobs", "pods") or change.type == "DELETED"
        if concerned and self._planned is None:
            pause = noise(self._seed, "controllers", change.version)
            self._planned = self._loop.call_later(pause * (200 if self.slow else 0.4), self.run)

    def run(self) -> None:
        """Everything that is to do now."""
        self._planned = None
        for _ in range(PASSES):
            before = self._server.version
            self._collect_garbage()
            self._run_queue()
            for job in list(self._server.objects["jobs"].values()):
                self._step(job)
            if self._server.version == before:
                return

    def expire(self, now: datetime) -> None:
        """The TTL controller: finished Jobs whose time has come."""
        for job in list(self._server.objects["jobs"].values()):
            ttl, ended = job["spec"].get("ttlSecondsAfterFinished"), job_end(job)
            if ttl is None or ended is None:
                continue
            if datetime.fromisoformat(ended["lastTransitionTime"]) + timedelta(seconds=ttl) <= now:
                self._server.delete_job(job, "Background")

    # Admission.

    def _admit(self, resource: str, body: Json) -> Json:
        if resource != "jobs":
            return body
        if self.refuse_jobs:
            raise ApiError(403, "Forbidden", "exceeded quota: count/jobs.batch")
        if QUEUE_LABEL in (body["metadata"].get("labels") or {}):
            return {**body, "spec": {**body["spec"], "suspend": True}}
        return body

    def _run_queue(self) -> None:
        for job in list(self._server.objects["jobs"].values()):
            if QUEUE_LABEL not in (job["metadata"].get("labels") or {}) or job_end(job):
                continue
            if bool(job["spec"].get("suspend")) is not self.hold:
                flavour = {} if self.hold else {"nodeSelector": {"gpu": "l40s"}}
                self._server.put("jobs", {**job, "spec": {**job["spec"], "suspend": self.hold, **flavour}})

    # Garbage collection.

    def _collect_garbage(self) -> None:
        objects = self._server.objects
        alive = {body["metadata"]["uid"] for body in objects[RESTORATIONS].values()}
        for job in list(objects["jobs"].values()):
            if owner(job) and owner(job) not in alive:
                self._server.delete_job(job, "Background")
        for body in list(objects["configmaps"].values()):
            if owner(body) and owner(body) not in alive:
                self._server.remove("configmaps", body["metadata"]["name"])
        jobs = {job["metadata"]["uid"]: job for job in objects["jobs"].values()}
        for pod in list(objects["pods"].values()):
            job = jobs.get(owner(pod))
            if owner(pod) and (job is None or "deletionTimestamp" in job["metadata"]):
                delete_pod(self._server, pod)
        for job in list(objects["jobs"].values()):
            if "deletionTimestamp" in job["metadata"] and not self._server.owned("pods", job["metadata"]["uid"]):
                self._server.remove("jobs", job["metadata"]["name"])

    # The Job controller.

    def _step(self, job: Json) -> None:
        meta = job["metadata"]
        if meta["name"] not in self._server.objects["jobs"] or job_end(job) or "deletionTimestamp" in meta:
            return
        pods = self._server.owned("pods", meta["uid"])
        made = job["status"].get("pods", ())
        if job["spec"].get("suspend"):
            self._suspend(job, pods)
            return
        disrupted = tuple(pod["metadata"]["uid"] for pod in pods if is_disrupted(pod))
        if set(disrupted) - set(_forgiven(job)):
            self._server.patch_status("jobs", job, forgiven=tuple(dict.fromkeys((*_forgiven(job), *disrupted))))
            return
        counted = [pod for pod in pods if pod["metadata"]["uid"] not in _forgiven(job)]
        vanished = set(made) - {pod["metadata"]["uid"] for pod in pods} - set(_forgiven(job))
        if vanished:
            self._end(job, "Failed", "BackoffLimitExceeded")
        elif not counted:
            self._make_pod(job)
        else:
            self._judge(job, counted[-1])

    def _judge(self, job: Json, pod: Json) -> None:
        phase = pod["status"]["phase"]
        if phase == "Succeeded":
            self._end(job, "Complete", "CompletionsReached")
        elif phase == "Failed":
            state = (pod["status"].get("containerStatuses") or [{}])[0].get("state", {}).get("terminated", {})
            code = state.get("exitCode")
            if code in PERMANENT_EXIT_CODES:
                message = f"Container runner for pod p failed with exit code {code} matching FailJob rule at index 0"
                self._end(job, "Failed", "PodFailurePolicy", message)
            else:
                self._end(job, "Failed", "BackoffLimitExceeded")

    def _suspend(self, job: Json, pods: list[Json]) -> None:
        """A suspended Job's pods are deleted, and that does not count as their failure."""
        for pod in pods:
            delete_pod(self._server, pod)
        forgiven = tuple(job["status"].get("pods", ()))
        if forgiven != _forgiven(job) or "startTime" in job["status"]:
            status = {**job["status"], "forgiven": forgiven}
            status.pop("startTime", None)
            self._server.put("jobs", {**job, "status": status})

    def _make_pod(self, job: Json) -> None:
        meta = job["metadata"]
        made = tuple(job["status"].get("pods", ()))
        if self.refuse_pods:
            self._tell_why(job)
            if "startTime" not in job["status"]:
                self._server.patch_status("jobs", job, startTime=text(self._server.clock()))
            return
        phases = {pod["status"]["phase"] for pod in self._server.owned("pods", meta["uid"])}
        if phases - {"Succeeded", "Failed"}:
            return  # podReplacementPolicy: Failed
        labels = {
            **job["spec"]["template"]["metadata"]["labels"],
            JOB_NAME_LABEL: meta["name"],
            JOB_UID_LABEL: meta["uid"],
        }
        reference = {"kind": "Job", "name": meta["name"], "uid": meta["uid"], "controller": True}
        metadata = {
            "name": f"{meta['name']}-{self._server.version}",
            "namespace": NAMESPACE,
            "labels": labels,
            "ownerReferences": [reference],
        }
        pod = self._server.create("pods", {"metadata": metadata, "spec": {}, "status": {"phase": "Pending"}})
        since = job["status"].get("startTime") or text(self._server.clock())
        self._server.patch_status("jobs", job, pods=(*made, pod["metadata"]["uid"]), startTime=since)

    def _tell_why(self, job: Json) -> None:
        uid = job["metadata"]["uid"]
        if any(event.get("involvedObject", {}).get("uid") == uid for event in self._server.objects["events"].values()):
            return
        event = {
            "metadata": {"name": f"{job['metadata']['name']}.{self._server.version}", "namespace": NAMESPACE},
            "involvedObject": {"uid": uid},
            "type": "Warning",
            "reason": "FailedCreate",
            "message": "pods is forbidden: exceeded quota",
            "lastTimestamp": text(self._server.clock()),
        }
        self._server.create("events", event)

    def _end(self, job: Json, kind: str, reason: str, message: str = "") -> None:
        verdict = {"type": kind, "status": "True", "reason": reason, "message": message}
        ended = verdict | {"lastTransitionTime": text(self._server.clock())}
        self._server.patch_status("jobs", job, conditions=[ended])


def job_end(job: Json) -> Json | None:
    """The condition that ended a Job."""
    for condition in (job.get("status") or {}).get("conditions", ()):
        if condition["type"] in ("Complete", "Failed"):
            found: Json = condition
            return found
    return None


def is_disrupted(pod: Json) -> bool:
    """Whether the Job's rule for `DisruptionTarget` ignores the pod's failure."""
    conditions = pod["status"].get("conditions", ())
    return pod["status"]["phase"] == "Failed" and any(item["type"] == "DisruptionTarget" for item in conditions)


def delete_pod(server: SimulatedServer, pod: Json, grace_seconds: int = 30) -> None:
    """`kubectl delete pod`: the kubelet ends it within its grace period; a pod that no kubelet has goes at once."""
    if pod["metadata"]["name"] not in server.objects["pods"] or "deletionTimestamp" in pod["metadata"]:
        return
    if "nodeName" not in pod["spec"]:
        server.remove("pods", pod["metadata"]["name"])
        return
    due = server.clock() + timedelta(seconds=grace_seconds)
    server.patch_metadata("pods", pod, deletionTimestamp=text(due), deletionGracePeriodSeconds=grace_seconds)


def _forgiven(job: Json) -> tuple[str, ...]:
    return tuple(job["status"].get("forgiven", ()))
