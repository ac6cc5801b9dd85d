"""What of a change of status is worth an Event: for people who read `kubectl describe`, and for nobody's program.

An announcement is derived from two stored statuses and from nothing else, so it can only tell what is recorded. Losing
one harms nothing. The reasons are documented in `docs/operator-reference.md`, which is generated from `REASONS`.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Literal

from restoration_api.resources import Condition, ConditionType, Phase, VideoRestorationStatus
from restoration_operator.decide import attempts
from restoration_operator.decide.progress import STALE_WORDS


class Reason(StrEnum):
    """Reasons of Events. Those that are a condition's reason too mean the same there."""

    JOB_CREATED = "JobCreated"
    QUEUED = "Queued"
    RUNNING = "Running"
    SUSPENDED = "Suspended"
    RESUMED = "Resumed"
    RETRYING = "Retrying"
    COMPLETED = "Completed"
    CACHE_HIT = "CacheHit"
    REFUSED = "Refused"
    UNSCHEDULABLE = "Unschedulable"
    POD_REJECTED = "PodRejected"
    MOUNT_FAILED = "MountFailed"
    IMAGE_PULL_ERROR = "ImagePullError"
    EXECUTION_FAILED = "ExecutionFailed"
    PROGRESS_STALE = "ProgressStale"
    FAILED = "Failed"


EventType = Literal["Normal", "Warning"]


@dataclass(frozen=True)
class Kind:
    """One row of the table of reasons."""

    type: EventType
    action: str
    """What the operator was doing: `action` of the Event."""
    meaning: str


REASONS: Final[dict[Reason, Kind]] = {
    Reason.JOB_CREATED: Kind("Normal", "CreateJob", "An execution has its Job."),
    Reason.QUEUED: Kind("Normal", "Schedule", "It waits for a queue, or for a slot of its profile."),
    Reason.RUNNING: Kind("Normal", "Schedule", "The runner runs; the note names pod and node."),
    Reason.SUSPENDED: Kind("Normal", "Suspend", "`spec.suspend` is true: the Job goes, finished segments stay."),
    Reason.RESUMED: Kind("Normal", "Suspend", "`spec.suspend` is false again."),
    Reason.RETRYING: Kind("Normal", "Retry", "Another execution follows, after a pause."),
    Reason.COMPLETED: Kind("Normal", "Finish", "The verified output is published."),
    Reason.CACHE_HIT: Kind("Normal", "Finish", "The same result had been computed before."),
    Reason.REFUSED: Kind(
        "Warning", "Accept", "It cannot start as it is: the note begins with the reason of `Accepted`."
    ),
    Reason.UNSCHEDULABLE: Kind("Warning", "Schedule", "No node fits the pod; the note is the scheduler's."),
    Reason.POD_REJECTED: Kind("Warning", "Schedule", "The pod or its container is refused: quota, policy, node."),
    Reason.MOUNT_FAILED: Kind(
        "Warning", "Schedule", "A volume of the pod cannot be mounted: Secret, ConfigMap, claim."
    ),
    Reason.IMAGE_PULL_ERROR: Kind("Warning", "Schedule", "An image of the pod cannot be pulled."),
    Reason.EXECUTION_FAILED: Kind(
        "Warning", "Execute", "An execution ended; the note begins with the class of failure."
    ),
    Reason.PROGRESS_STALE: Kind("Warning", "Poll", "The runner answers, but has said the same for long."),
    Reason.FAILED: Kind("Warning", "Finish", "The restoration failed; the note begins with the class of failure."),
}

_WAITS: Final = (
    Reason.QUEUED,
    Reason.UNSCHEDULABLE,
    Reason.POD_REJECTED,
    Reason.MOUNT_FAILED,
    Reason.IMAGE_PULL_ERROR,
)
"""Reasons of `Scheduled=False` that are announced under their own name."""


@dataclass(frozen=True)
class Announcement:
    """One Event to be."""

    reason: Reason
    note: str


def announcements(before: VideoRestorationStatus, after: VideoRestorationStatus) -> tuple[Announcement, ...]:
    """What is new in `after`, in the order in which it happened."""
    if after.condition(ConditionType.FINISHED) == before.condition(ConditionType.FINISHED) == "True":
        return ()
    return tuple(found for rule in _RULES for found in rule(before, after))


def _executions(before: VideoRestorationStatus, after: VideoRestorationStatus) -> Iterator[Announcement]:
    for now in after.attempt_history:
        then = attempts.entry(before, now.execution)
        if now.job_name is not None and (then is None or then.job_name != now.job_name):
            yield Announcement(Reason.JOB_CREATED, f"execution {now.execution}: Job {now.job_name}")
        ended = now.end_time is not None and (then is None or then.end_time is None)
        if ended and now.reason not in (attempts.SUSPENDED, Reason.COMPLETED, Reason.CACHE_HIT, None):
            note = f"{now.reason}: execution {now.execution}: {now.message or 'no message'}"
            yield Announcement(Reason.EXECUTION_FAILED, note)


def _acceptance(before: VideoRestorationStatus, after: VideoRestorationStatus) -> Iterator[Announcement]:
    now = _fresh(before, after, ConditionType.ACCEPTED)
    if now is not None and now.status == "False" and not _over(after):
        yield Announcement(Reason.REFUSED, f"{now.reason}: {now.message}")


def _suspension(before: VideoRestorationStatus, after: VideoRestorationStatus) -> Iterator[Announcement]:
    now = _fresh(before, after, ConditionType.SUSPENDED)
    if now is None or _over(after):
        return
    if now.status == "True":
        yield Announcement(Reason.SUSPENDED, "suspended by the user; finished segments are kept")
    elif before.condition(ConditionType.SUSPENDED) == "True":
        yield Announcement(Reason.RESUMED, "resumed; finished segments are not computed again")


def _retry(before: VideoRestorationStatus, after: VideoRestorationStatus) -> Iterator[Announcement]:
    if after.phase == Phase.RETRYING and before.phase != Phase.RETRYING:
        yield Announcement(Reason.RETRYING, f"execution {after.attempts.executions + 1} follows")


def _scheduling(before: VideoRestorationStatus, after: VideoRestorationStatus) -> Iterator[Announcement]:
    now = _find(after, ConditionType.SCHEDULED)
    if now is None or _over(after):
        return
    if _fresh(before, after, ConditionType.SCHEDULED) is not None:
        if now.status == "True" and now.reason == Reason.RUNNING:
            yield Announcement(Reason.RUNNING, now.message)
        elif now.status == "False" and now.reason in _WAITS:
            yield Announcement(Reason(now.reason), now.message)
    then = _find(before, ConditionType.SCHEDULED)
    if STALE_WORDS in now.message and (then is None or STALE_WORDS not in then.message):
        yield Announcement(Reason.PROGRESS_STALE, now.message)


def _end(before: VideoRestorationStatus, after: VideoRestorationStatus) -> Iterator[Announcement]:
    if not _over(after):
        return
    [finished] = [item for item in after.conditions if item.type == ConditionType.FINISHED]
    if after.condition(ConditionType.SUCCEEDED) == "True":
        hit = finished.reason == Reason.CACHE_HIT
        yield Announcement(Reason.CACHE_HIT if hit else Reason.COMPLETED, finished.message)
    else:
        yield Announcement(Reason.FAILED, f"{finished.reason}: {finished.message}")


_RULES: Final[tuple[Callable[[VideoRestorationStatus, VideoRestorationStatus], Iterable[Announcement]], ...]] = (
    _acceptance,
    _suspension,
    _executions,
    _scheduling,
    _retry,
    _end,
)


def _over(status: VideoRestorationStatus) -> bool:
    return status.condition(ConditionType.FINISHED) == "True"


def _find(status: VideoRestorationStatus, kind: ConditionType) -> Condition | None:
    return next((item for item in status.conditions if item.type == kind), None)


def _fresh(before: VideoRestorationStatus, after: VideoRestorationStatus, kind: ConditionType) -> Condition | None:
    """The condition, if its status or reason is another than before; a new wording is not worth an Event."""
    now, then = _find(after, kind), _find(before, kind)
    if now is None or (then is not None and (then.status, then.reason) == (now.status, now.reason)):
        return None
    return now
