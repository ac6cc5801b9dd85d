"""What the operator keeps of Jobs and pods: the few facts that decisions are made from, as frozen values.

A view is made from the API server's JSON once, when an event arrives. Everything else (templates, managed fields,
probes) is dropped there, so that memory follows the number of restorations and not the size of their pods.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Self

from restoration_api.outcome import LARGEST_COUNT

UID_LABEL = "videorestoration.dev/uid"
EXECUTION_LABEL = "videorestoration.dev/execution"
ROLE_LABEL = "videorestoration.dev/role"
JOB_NAME_LABEL = "batch.kubernetes.io/job-name"
JOB_UID_LABEL = "batch.kubernetes.io/controller-uid"
"""Both set on every pod by the Job controller; they outlive an orphaning delete of the Job, the owner does not."""
START_DEADLINE_ANNOTATION = "videorestoration.dev/start-deadline-seconds"
"""On a Job: the profile's default when the restoration was accepted."""
MANAGED_BY_LABEL = "app.kubernetes.io/managed-by"
MANAGER = "vr-operator"
"""Value of the managed-by label, and the field manager of every status apply."""
RUNNER_CONTAINER = "runner"
MEMORY_HINT_ARGUMENT = "--memory-hint-mib="
EARLIEST, LATEST = datetime(1970, 1, 1, tzinfo=UTC), datetime(2200, 1, 1, tzinfo=UTC)
"""Between them times can be added to and subtracted from; no object of Kubernetes is older or younger."""
_MOST_DIGITS = 10
_LONGEST_GRACE = timedelta(days=3650)

Json = Mapping[str, Any]


def parse_time(text: str | None) -> datetime | None:
    """An RFC 3339 time of the API server (whole or fractional seconds, `Z`); None for none."""
    return None if not text else min(max(datetime.fromisoformat(text), EARLIEST), LATEST)


@dataclass(frozen=True, kw_only=True)
class JobEnd:
    """The Job controller's verdict; it is given only after every pod of the Job has ended."""

    succeeded: bool
    reason: str
    message: str
    at: datetime | None


@dataclass(frozen=True, kw_only=True)
class JobView:
    """One Job of a restoration."""

    namespace: str
    name: str
    uid: str
    owner_uid: str
    """Uid of the controlling owner; empty if there is none."""
    execution: int
    role: str
    created: datetime | None
    started: datetime | None
    """When the Job controller began to work on it, not counting time suspended."""
    deleting: bool
    suspended: bool
    """`spec.suspend`: a queue (Kueue) holds it back or has taken its place away."""
    ttl_seconds: int | None
    end: JobEnd | None
    active_deadline_seconds: int | None = None
    memory_hint_mib: int | None = None
    excluded_nodes: tuple[str, ...] = ()
    """These three differ from one execution to the next, and are copied into its record."""
    start_deadline_seconds: int | None = None
    """The profile's default; what the restoration says itself comes first."""
    suspended_at: datetime | None = None
    suspension: str = ""
    """Since when, and in what words, the Job's own condition says that it is suspended."""

    @classmethod
    def of(cls, job: Json) -> Self:
        """Read a `batch/v1` Job."""
        meta, spec, status = job["metadata"], job.get("spec") or {}, job.get("status") or {}
        labels, pod = meta.get("labels") or {}, (spec.get("template") or {}).get("spec") or {}
        suspension = _condition(status, "Suspended")
        return cls(
            namespace=meta["namespace"],
            name=meta["name"],
            uid=meta["uid"],
            owner_uid=_controller(meta).get("uid", ""),
            execution=_number(labels.get(EXECUTION_LABEL)),
            role=labels.get(ROLE_LABEL, ""),
            created=parse_time(meta.get("creationTimestamp")),
            started=parse_time(status.get("startTime")),
            deleting=bool(meta.get("deletionTimestamp")),
            suspended=bool(spec.get("suspend")),
            ttl_seconds=spec.get("ttlSecondsAfterFinished"),
            end=_job_end(status),
            active_deadline_seconds=pod.get("activeDeadlineSeconds"),
            memory_hint_mib=_memory_hint_mib(pod),
            excluded_nodes=tuple(_excluded_nodes(pod)),
            start_deadline_seconds=_number((meta.get("annotations") or {}).get(START_DEADLINE_ANNOTATION)) or None,
            suspended_at=parse_time(suspension.get("lastTransitionTime")),
            suspension=suspension.get("message", ""),
        )

    @property
    def unfinished(self) -> bool:
        """Whether a pod of it may run now or later."""
        return self.end is None


@dataclass(frozen=True, kw_only=True)
class Waiting:
    """The container has not started, or waits to be started again."""

    reason: str
    message: str


@dataclass(frozen=True, kw_only=True)
class Running:
    """The container runs."""

    since: datetime | None


@dataclass(frozen=True, kw_only=True)
class Terminated:
    """The container has ended."""

    exit_code: int
    reason: str
    message: str
    started: datetime | None
    finished: datetime | None


@dataclass(frozen=True, kw_only=True)
class PodView:
    """One runner pod, or what was last seen of it."""

    namespace: str
    name: str
    uid: str
    restoration_uid: str
    execution: int
    job_name: str
    job_uid: str
    phase: str
    reason: str
    message: str
    ip: str | None
    node: str | None
    created: datetime | None
    taken: datetime | None
    """When a kubelet took it (`status.startTime`)."""
    deletion_requested: datetime | None
    deletion_due: datetime | None
    """When its grace period ends or ended."""
    scheduled: bool | None
    scheduled_at: datetime | None
    scheduling_message: str
    ready: bool
    ready_at: datetime | None
    disruption: str | None
    """Reason of the condition `DisruptionTarget`, if it is True."""
    container: Waiting | Running | Terminated | None
    """State of the runner's container."""
    trouble: Waiting | None = None
    """Why a container cannot start, of the first one that says so: the runner, a sidecar or an init container."""
    gone: bool = False
    """The API server no longer has it; this is what was seen last."""

    @classmethod
    def of(cls, pod: Json, *, gone: bool = False) -> Self:
        """Read a `v1` Pod."""
        meta, spec, status = pod["metadata"], pod.get("spec") or {}, pod.get("status") or {}
        labels = meta.get("labels") or {}
        conditions = {item["type"]: item for item in status.get("conditions") or ()}
        placed, ready = conditions.get("PodScheduled", {}), conditions.get("Ready", {})
        due = parse_time(meta.get("deletionTimestamp"))
        grace = _seconds(meta.get("deletionGracePeriodSeconds") or 0)
        return cls(
            namespace=meta["namespace"],
            name=meta["name"],
            uid=meta["uid"],
            restoration_uid=labels.get(UID_LABEL, ""),
            execution=_number(labels.get(EXECUTION_LABEL)),
            job_name=labels.get(JOB_NAME_LABEL) or _controller(meta).get("name", ""),
            job_uid=labels.get(JOB_UID_LABEL) or _controller(meta).get("uid", ""),
            phase=status.get("phase", ""),
            reason=status.get("reason", ""),
            message=status.get("message", ""),
            ip=status.get("podIP"),
            node=spec.get("nodeName"),
            created=parse_time(meta.get("creationTimestamp")),
            taken=parse_time(status.get("startTime")),
            deletion_requested=None if due is None else due - grace,
            deletion_due=due,
            scheduled={"True": True, "False": False}.get(placed.get("status", "")),
            scheduled_at=parse_time(placed.get("lastTransitionTime")),
            scheduling_message=placed.get("message", ""),
            ready=ready.get("status") == "True",
            ready_at=parse_time(ready.get("lastTransitionTime")),
            disruption=_disruption(conditions),
            container=_container(status),
            trouble=_trouble(status),
            gone=gone,
        )

    @property
    def made(self) -> datetime:
        """When it was created; before all others if that is not known."""
        return self.created or EARLIEST

    @property
    def terminal(self) -> bool:
        """Whether no process of it can write any more."""
        return self.gone or self.phase in ("Succeeded", "Failed")


@dataclass(frozen=True, kw_only=True)
class WarningEvent:
    """What Events say about the wait of one object; `reason` is empty if nothing holds it up."""

    reason: str
    message: str
    read_at: datetime
    happened_at: datetime | None = None
    """By the clock of whoever told it."""
    again_at: datetime | None = None
    """When it is worth reading again."""
    read: bool = True
    """False: it was not this object's turn, or the API server did not answer; nothing is known."""


@dataclass(frozen=True, kw_only=True)
class Listing:
    """Everything that existed at one moment of the API server."""

    items: Sequence[Json]
    version: int
    """Its resource version: an object with a higher one was made or changed later."""


def _controller(meta: Json) -> Json:
    return next((owner for owner in meta.get("ownerReferences") or () if owner.get("controller")), {})


def _number(text: str | None) -> int:
    """A number in a label or an argument, which anybody may write; 0 for what is none that the status could hold."""
    number = int(text) if text and text.isdecimal() and len(text) <= _MOST_DIGITS else 0
    return number if number <= LARGEST_COUNT else 0


def _seconds(count: int) -> timedelta:
    """The API admits any number of 64 bits as a grace period, more than a `timedelta` holds."""
    return min(timedelta(seconds=min(count, LARGEST_COUNT)), _LONGEST_GRACE)


def _condition(status: Json, kind: str) -> Json:
    """A condition of a Job that is True; empty if it is not."""
    found = (item for item in status.get("conditions") or () if item["type"] == kind and item["status"] == "True")
    return next(found, {})


def _job_end(status: Json) -> JobEnd | None:
    for condition in status.get("conditions") or ():
        if condition["type"] in ("Complete", "Failed") and condition["status"] == "True":
            return JobEnd(
                succeeded=condition["type"] == "Complete",
                reason=condition.get("reason", ""),
                message=condition.get("message", ""),
                at=parse_time(condition.get("lastTransitionTime")),
            )
    return None


def _memory_hint_mib(pod: Json) -> int | None:
    for container in pod.get("containers") or ():
        for argument in container.get("args") or () if container.get("name") == RUNNER_CONTAINER else ():
            if argument.startswith(MEMORY_HINT_ARGUMENT):
                return _number(argument.removeprefix(MEMORY_HINT_ARGUMENT)) or None
    return None


def _excluded_nodes(pod: Json) -> Iterator[str]:
    affinity = (pod.get("affinity") or {}).get("nodeAffinity") or {}
    required = affinity.get("requiredDuringSchedulingIgnoredDuringExecution") or {}
    for term in required.get("nodeSelectorTerms") or ():
        for field in term.get("matchFields") or ():
            if (field.get("key"), field.get("operator")) == ("metadata.name", "NotIn"):
                yield from field.get("values") or ()


def _disruption(conditions: Mapping[str, Json]) -> str | None:
    condition = conditions.get("DisruptionTarget", {})
    return condition.get("reason", "") if condition.get("status") == "True" else None


STARTING_REASONS = frozenset({"ContainerCreating", "PodInitializing"})
"""Reasons of waiting containers that say only that the time has not come."""


def _trouble(status: Json) -> Waiting | None:
    for one in (*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())):
        waiting = (one.get("state") or {}).get("waiting") or {}
        reason, message = waiting.get("reason", ""), waiting.get("message", "")
        if reason and reason not in STARTING_REASONS:
            name = one.get("name", "")
            return Waiting(
                reason=reason, message=message if name == RUNNER_CONTAINER else f"container {name}: {message}"
            )
    return None


def _container(status: Json) -> Waiting | Running | Terminated | None:
    containers = status.get("containerStatuses") or ()
    state = next((one.get("state") or {} for one in containers if one.get("name") == RUNNER_CONTAINER), {})
    if "terminated" in state:
        ended = state["terminated"]
        return Terminated(
            exit_code=ended["exitCode"],
            reason=ended.get("reason", ""),
            message=ended.get("message", ""),
            started=parse_time(ended.get("startedAt")),
            finished=parse_time(ended.get("finishedAt")),
        )
    if "running" in state:
        return Running(since=parse_time(state["running"].get("startedAt")))
    if "waiting" in state:
        return Waiting(reason=state["waiting"].get("reason", ""), message=state["waiting"].get("message", ""))
    return None
