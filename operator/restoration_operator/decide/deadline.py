"""How long a restoration may wait for its first pod, and how long its executions may run together.

Running time is counted by the kubelet (`activeDeadlineSeconds` on the pod), so waiting for a GPU is free; each
execution is given what the earlier ones left over. The start deadline counts from the moment the Job controller began
to work on the Job, which leaves out suspension, Kueue's queue and waiting for a slot of the profile.
"""

from datetime import datetime, timedelta
from typing import Final

from restoration_api.resources import ProfileSpec, VideoRestorationSpec, VideoRestorationStatus
from restoration_api.resources.status import Attempt
from restoration_operator.views import JobView

START_DEADLINE_EXCEEDED: Final = "StartDeadlineExceeded"

KUBELET_GRACE: Final = timedelta(seconds=60)
"""The kubelet is first where it can be: it needs no operator, and its pod's last words are the better record."""


def active_seconds_left(spec: VideoRestorationSpec, profile: ProfileSpec, status: VideoRestorationStatus) -> int | None:
    """Seconds that the next execution may run; None without a deadline, 0 or less when they are used up."""
    default = profile.defaults.active_deadline_seconds if profile.defaults else None
    whole = spec.active_deadline_seconds or default
    if whole is None:
        return None
    return whole - status.attempts.running_seconds


def start_deadline(spec: VideoRestorationSpec, status: VideoRestorationStatus, job: JobView) -> datetime | None:
    """When the first pod must run; None without a deadline, or once one has run."""
    seconds = spec.start_deadline_seconds or job.start_deadline_seconds
    began = job.started or job.created
    if seconds is None or began is None or status.start_time is not None or job.suspended:
        return None
    return began + timedelta(seconds=seconds)


def overdue_at(attempt: Attempt, job: JobView) -> datetime | None:
    """When the operator ends an execution that its kubelet does not end: a pod that took another's place is given the
    whole time again by its template. Where the kubelet's clock is right, nothing depends on the operator's."""
    left, given = attempt.active_deadline_seconds, job.active_deadline_seconds
    if attempt.start_time is None or left is None or given is None or left >= given:
        return None
    return attempt.start_time + timedelta(seconds=left) + KUBELET_GRACE
