"""A Job that something else holds back: `spec.suspend`, which the operator never sets.

Kueue, or whoever it is, suspends a Job until there is room, and again when it takes the room away. The first is
waiting; the second, once a pod has run, is a disruption and no failure: its pods end as plain deletions, the Job
controller does not count them, and the same Job goes on when it is let go. So the execution stays and keeps its place;
the disruption is counted at once, for a restart may come before the Job goes on and would not know of it any more.

Why it waits is told only by Kueue's Workload, which is read where the operator may (`VR_KUEUE_WORKLOADS`).
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from restoration_api.outcome import FailureReason
from restoration_api.resources import Phase, VideoRestorationStatus
from restoration_operator.decide import attempts, replacement
from restoration_operator.decide.conclusion import conclude, with_status
from restoration_operator.decide.conditions import ACCEPTED, Facts, State, report
from restoration_operator.decide.execution import Active, Ended
from restoration_operator.decide.types import Decision, Ending, LookAtQueue, Observation
from restoration_operator.views import JobView

QUEUED: Final = "Queued"
LOOK_AGAIN: Final = timedelta(seconds=30)
SELDOM: Final = timedelta(minutes=10)
SHARE_OF_WAIT: Final = 0.1
"""Who has waited for an hour is looked at every six minutes: a thousand in line must not ask all the time."""


@dataclass(frozen=True, kw_only=True)
class Words:
    """Why the Job is held back."""

    message: str
    look: LookAtQueue | None = None
    """The message is to be read first."""
    wake_at: datetime | None = None


def follow(seen: Observation, active: Active, now: datetime) -> Decision:
    """What is to be stored while the Job is suspended."""
    words = _words(seen, active.job, now)
    if words.look is not None:
        return Decision(status=seen.restoration.status, looks=(words.look,))
    status = _noted(seen, active, words.message, now)
    if isinstance(status, Ending):
        return conclude(seen, Ended(number=active.number, ending=status), now)
    facts = Facts(phase=Phase.QUEUED, accepted=ACCEPTED, scheduled=State("False", QUEUED, words.message))
    return Decision(status=report(with_status(seen, status), facts, now), wake_at=words.wake_at)


def _noted(seen: Observation, active: Active, message: str, now: datetime) -> VideoRestorationStatus | Ending:
    """The status with the execution begun, or with what ran of it until now counted."""
    status, job, pod = seen.restoration.status, active.job, active.pod
    entry = attempts.entry(status, active.number)
    if entry is None or entry.job_name != job.name:
        return attempts.begin(status, active.number, job)
    if entry.start_time is None:
        return status
    until = min(job.suspended_at or now, now)
    said = f"pod {entry.pod_name} lost its place on node {entry.node_name}: {message}"
    ending = Ending(succeeded=False, reason=FailureReason.PREEMPTED, message=said, pod=pod, at=until)
    facts = {"reason": FailureReason.PREEMPTED.value, "message": attempts.short(said), "start_time": None}
    return replacement.count(seen, status, active.number, ending, **facts)


def _words(seen: Observation, job: JobView, now: datetime) -> Words:
    own = f"Job {job.name} is held back by its queue (spec.suspend is true)"
    own += f": {job.suspension}" if job.suspension else ""
    if not seen.queue_readable:
        return Words(message=own)
    word, began = seen.queue, job.suspended_at or job.created or now
    if word is None or word.job_uid != job.uid or word.read_at < began:
        return Words(message=own, look=LookAtQueue(job.uid))
    due = word.read_at + max(LOOK_AGAIN, min(SELDOM, (word.read_at - began) * SHARE_OF_WAIT))
    if now >= due:
        return Words(message=own, look=LookAtQueue(job.uid))
    return Words(message=word.message or own, wake_at=due)
