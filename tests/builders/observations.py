"""What the operator sees, one line per object: `observe(restoration(), jobs=[job()], pods=[pod(running())])`.

All builders tell the same story unless told otherwise: restoration `clip` made at `T0`, its first Job two seconds
later, its pod placed and started shortly after.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from restoration_api.resources import ProfileSpec, VideoRestoration
from restoration_operator.build.names import job_name
from restoration_operator.decide.decision import decide
from restoration_operator.decide.types import (
    CreateJob,
    Decision,
    DeleteJob,
    EnsureSnapshot,
    Observation,
    Profile,
    StoredSnapshot,
)
from restoration_operator.views import STARTING_REASONS, JobEnd, JobView, PodView, Running, Terminated, Waiting
from tests.builders.resources import make_profile, make_vr

T0: Final = datetime(2026, 1, 1, 12, 0, 0, tzinfo=UTC)
UID: Final = "0b6f6a3e-3a55-4b0e-9d6e-6f6f7f3c9a1b"
JOB_UID: Final = "11111111-1111-4111-8111-111111111111"
POD_UID: Final = "22222222-2222-4222-8222-222222222222"


def at(seconds: float) -> datetime:
    """So long after the restoration was made."""
    return T0 + timedelta(seconds=seconds)


def restoration(
    changes: Mapping[str, Any] | None = None,
    *,
    status: Mapping[str, Any] | None = None,
    labels: Mapping[str, str] | None = None,
    name: str = "clip",
    uid: str = UID,
    created: datetime = T0,
    generation: int = 1,
) -> VideoRestoration:
    """A restoration as the API server returns it, by default before the operator's first visit."""
    body = make_vr(changes, name=name, labels=labels)
    body["metadata"] |= {
        "uid": uid,
        "generation": generation,
        "resourceVersion": "1",
        "creationTimestamp": created.isoformat(),
    }
    return VideoRestoration.model_validate(body | {"status": dict(status or {})})


def profile(changes: Mapping[str, Any] | None = None, *, kind: str = "ClusterRestorationProfile") -> Profile:
    """A profile with its image filled in."""
    spec = ProfileSpec.model_validate({"image": "runner:1", **make_profile(changes)["spec"]})
    name, generation = ("default", None) if kind == "Builtin" else ("default", 1)
    return Profile(kind=kind, name=name, generation=generation, spec=spec)  # type: ignore[arg-type]


def job(execution: int = 1, **changes: Any) -> JobView:
    """A Job that has just been made."""
    view = JobView(
        namespace="default",
        name=job_name("clip", UID, execution=execution),
        uid=JOB_UID[:-1] + str(execution),
        owner_uid=UID,
        execution=execution,
        role="run",
        created=at(2),
        started=at(2),
        deleting=False,
        suspended=False,
        ttl_seconds=None,
        end=None,
    )
    return replace(view, **changes)


def complete(execution: int = 1, **changes: Any) -> JobView:
    """A Job that has succeeded."""
    end = JobEnd(succeeded=True, reason="CompletionsReached", message="", at=at(60))
    return job(execution, end=end, **changes)


def broken(reason: str = "BackoffLimitExceeded", message: str = "", **changes: Any) -> JobView:
    """A Job that has failed."""
    return job(end=JobEnd(succeeded=False, reason=reason, message=message, at=at(60)), **changes)


def pod(container: Running | Waiting | Terminated | None = None, **changes: Any) -> PodView:
    """The pod of the first execution, on a node, with its container in this state."""
    phase = {Running: "Running", Waiting: "Pending"}.get(type(container), "Pending")
    if isinstance(container, Terminated):
        phase = "Succeeded" if container.exit_code == 0 else "Failed"
    view = PodView(
        namespace="default",
        name="clip-pod",
        uid=POD_UID,
        restoration_uid=UID,
        execution=1,
        job_name=job_name("clip", UID, execution=1),
        job_uid=JOB_UID,
        phase=phase,
        reason="",
        message="",
        ip="10.0.0.1",
        node="node-1",
        created=at(2),
        taken=at(3),
        deletion_requested=None,
        deletion_due=None,
        scheduled=True,
        scheduled_at=at(3),
        scheduling_message="",
        ready=isinstance(container, Running),
        ready_at=at(8) if isinstance(container, Running) else None,
        disruption=None,
        container=container,
        trouble=container if isinstance(container, Waiting) and container.reason not in STARTING_REASONS else None,
    )
    return replace(view, **changes)


def running() -> Running:
    """The runner works."""
    return Running(since=at(7))


def waiting(reason: str, message: str = "") -> Waiting:
    """The container is not there yet."""
    return Waiting(reason=reason, message=message)


def ended(exit_code: int, message: str = "", *, reason: str = "Error", finished: datetime | None = None) -> Terminated:
    """The container has ended."""
    return Terminated(exit_code=exit_code, reason=reason, message=message, started=at(7), finished=finished or at(59))


def observe(
    seen: VideoRestoration, *, jobs: Iterable[JobView] = (), pods: Iterable[PodView] = (), **rest: Any
) -> Observation:
    """All that there is to see; the profile is the one of `profile()` and no Job of its own plans, unless given."""
    usual = {"profile": profile(), "plan_jobs": "Never"}
    return Observation(restoration=seen, jobs=tuple(jobs), pods=tuple(pods), **(usual | rest))


def settle(seen: Observation, now: datetime = T0) -> tuple[Observation, Decision]:
    """Store what is decided until the status stands, as the API server would; actions are left to the caller."""
    for _ in range(10):
        decision = decide(seen, now)
        if decision.looks or decision.status.to_json() == seen.restoration.status.to_json():
            return seen, decision
        seen = replace(seen, restoration=seen.restoration.model_copy(update={"status": decision.status}))
    raise AssertionError("the decision does not come to rest")


def started(changes: Mapping[str, Any] | None = None, **rest: Any) -> VideoRestoration:
    """A restoration whose first Job has been created and seen."""
    seen, _ = settle(observe(restoration(changes), **rest))
    limit = (changes or {}).get("activeDeadlineSeconds")
    seen, _ = settle(replace(seen, jobs=(job(active_deadline_seconds=limit),)), at(2))
    return seen.restoration


def at_work(changes: Mapping[str, Any] | None = None, **rest: Any) -> VideoRestoration:
    """A restoration whose runner runs."""
    seen, _ = settle(observe(started(changes, **rest), jobs=[job()], pods=[pod(running())], **rest), at(8))
    return seen.restoration


def wishing(seen: Observation, **changes: Any) -> Observation:
    """The same with a changed spec: `wishing(seen, suspend=True)`."""
    spec = seen.restoration.spec.model_copy(update=changes)
    return replace(seen, restoration=seen.restoration.model_copy(update={"spec": spec}))


def suspended(changes: Mapping[str, Any] | None = None) -> Observation:
    """A restoration that ran and was suspended: its Job is about to be deleted."""
    seen = observe(at_work(changes), jobs=[job()], pods=[pod(running())])
    seen, _ = settle(wishing(seen, suspend=True), at(20))
    return seen


def created_jobs(decision: Decision) -> list[str]:
    """Names of the Jobs that a decision creates."""
    return [action.manifest["metadata"]["name"] for action in decision.actions if isinstance(action, CreateJob)]


def deleted_jobs(decision: Decision) -> list[tuple[str, str]]:
    """Name and propagation of the Jobs that a decision deletes."""
    return [(action.job.name, action.propagation.value) for action in decision.actions if isinstance(action, DeleteJob)]


def ensured(decision: Decision) -> StoredSnapshot | None:
    """The snapshot that a decision asks for."""
    for action in decision.actions:
        if isinstance(action, EnsureSnapshot):
            return StoredSnapshot(name=action.name, content=action.snapshot)
    return None


def condition(seen: Observation, kind: str) -> tuple[str, str]:
    """Status and reason of a stored condition."""
    found = next(item for item in seen.restoration.status.conditions if item.type == kind)
    return found.status, found.reason
