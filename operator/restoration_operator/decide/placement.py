"""The answer to "why is it pending": the condition `Scheduled`, from Job, pod and, where nothing else says it, Events.

A quota, Pod Security or a missing service account do not refuse the Job but its pod, and a missing Secret leaves the
pod in `ContainerCreating`: both are told only in Events, which are read when something takes suspiciously long and
never watched. Waiting is not failing: all of these may pass, and end a restoration only at its start deadline.
"""

import re
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from restoration_api.resources import ConditionType, Phase
from restoration_operator.decide import attempts
from restoration_operator.decide.conditions import NOT_SCHEDULED, PENDING, State, current, earliest
from restoration_operator.decide.execution import Active
from restoration_operator.decide.explanation import MOUNT_REASONS
from restoration_operator.decide.progress import STALE_WORDS, is_stale
from restoration_operator.decide.types import LookAtEvents, Observation
from restoration_operator.views import PodView, Running, Terminated, Waiting

POD_PATIENCE: Final = timedelta(seconds=5)
"""The Job controller usually takes a few hundred milliseconds to create a pod."""
CONTAINER_PATIENCE: Final = timedelta(seconds=20)
"""Volumes and sandbox take a few seconds; beyond this somebody wants to know."""
SILENCE: Final = timedelta(seconds=60)
"""A wait that nobody explains is reported as just that after so long."""
STALLED_AFTER: Final = timedelta(seconds=60)
"""A cause that lasts is somebody's turn; kstatus (Flux, helm --wait) then gives up, so it must not be a passing one."""
SAME_WORDING: Final = timedelta(seconds=30)
"""Other words for the same reason, such as the scheduler's count of nodes, are written no more often than this."""

IMAGE_REASONS: Final = frozenset(
    {
        "ErrImagePull",
        "ImagePullBackOff",
        "InvalidImageName",
        "ErrImageNeverPull",
        "ImageInspectError",
        "RegistryUnavailable",
    }
)
BACK_OFF: Final = "ImagePullBackOff"
CAUSE_OF_BACK_OFF: Final = re.compile(r"Back-off pulling image .*?: ErrImagePull: (.+)", re.DOTALL)
"""Since Kubernetes 1.32 the wording of the back-off ends in the error's own, which is what a user wants to read."""
FOR_SOMEBODY: Final = ("PodRejected", "MountFailed", "ImagePullError")
"""Reasons that do not pass by themselves; a node or a place in a queue does come free."""
PASSING_QUOTA: Final = "exceeded quota"
"""A quota that others use up comes free too."""


@dataclass(frozen=True, kw_only=True)
class Placement:
    """What is known about the pod's way to a node."""

    scheduled: State
    phase: Phase = Phase.STARTING
    hold: bool = False
    """Between two states that matter: leave phase and conditions as they are."""
    look: LookAtEvents | None = None
    wake_at: datetime | None = None
    since: datetime | None = None
    """When what is waited for began, where that is known."""
    blocked: State | None = None
    """The cause has lasted: somebody has to act."""

    @property
    def running(self) -> bool:
        """The runner runs."""
        return self.scheduled.status == "True"


def place(seen: Observation, active: Active, now: datetime) -> Placement:
    """Judge the newest pod of a Job that nothing holds back (`queue`), or its absence."""
    return _lasting(seen, _steady(seen, _judge(seen, active, now), now), now)


def _judge(seen: Observation, active: Active, now: datetime) -> Placement:
    job, pod = active.job, active.pod
    if pod is None:
        return _without_pod(seen, active, job.started or job.created or now, now)
    if _runs(seen, active.number, pod):
        return Placement(scheduled=State("True", "Running", _whereabouts(seen, pod, now)), phase=Phase.RUNNING)
    if pod.terminal and pod.disruption is not None:
        # The Job controller makes another pod, unless something keeps it from that.
        return _without_pod(seen, active, _ended_at(pod) or job.started or now, now)
    # The kubelet reports the container's end a moment before the pod's.
    if pod.terminal or pod.deletion_requested is not None or isinstance(pod.container, Terminated):
        return Placement(scheduled=NOT_SCHEDULED, hold=True)
    return _on_its_way(seen, pod, now)


def _on_its_way(seen: Observation, pod: PodView, now: datetime) -> Placement:
    """A pod exists and its runner does not run yet."""
    if pod.scheduled is False:
        return Placement(scheduled=State("False", "Unschedulable", pod.scheduling_message))
    began = pod.scheduled_at or pod.taken or pod.created
    if pod.trouble is not None and pod.trouble.reason in IMAGE_REASONS:
        return Placement(scheduled=_image_error(seen, pod.trouble), since=began)
    if pod.trouble is not None:
        message = f"{pod.trouble.reason}: {pod.trouble.message}" if pod.trouble.message else pod.trouble.reason
        return Placement(scheduled=State("False", "PodRejected", message), since=began)
    if pod.scheduled is None and pod.node is None:
        return _ignored(pod, now)
    if isinstance(pod.container, Running):
        return Placement(scheduled=NOT_SCHEDULED)
    began = pod.taken or pod.scheduled_at or pod.created or now
    nothing = f"node {pod.node} creates the container of pod {pod.name}; no Event says what takes long"
    return _ask(seen, pod.uid, now, began=began, patience=CONTAINER_PATIENCE, nothing=nothing)


def _runs(seen: Observation, number: int, pod: PodView) -> bool:
    if not isinstance(pod.container, Running) or pod.terminal:
        return False
    # Ready turns False again when a node goes silent; a runner that has run before is not "starting" then.
    entry = attempts.entry(seen.restoration.status, number)
    return pod.ready or (entry is not None and entry.pod_name == pod.name and entry.start_time is not None)


def _whereabouts(seen: Observation, pod: PodView, now: datetime) -> str:
    """Where the runner runs, and since when it has said the same, if that is long."""
    text = f"pod {pod.name} on node {pod.node}"
    said = seen.polled
    if said is None or said.pod_uid != pod.uid or not is_stale(said, now, seen.stale_progress):
        return text
    return f"{text}; {STALE_WORDS} {said.unchanged_since:%Y-%m-%dT%H:%M:%SZ}, in stage {said.progress.stage}"


def _image_error(seen: Observation, waiting: Waiting) -> State:
    # The kubelet alternates between the error and the wait for the next try; the error is what has happened.
    cause = CAUSE_OF_BACK_OFF.match(waiting.message) if waiting.reason == BACK_OFF else None
    if cause is not None:
        return State("False", "ImagePullError", cause[1])
    before = current(seen.restoration.status, ConditionType.SCHEDULED, NOT_SCHEDULED)
    if waiting.reason == BACK_OFF and before.reason == "ImagePullError":
        return before
    return State("False", "ImagePullError", waiting.message or waiting.reason)


def _without_pod(seen: Observation, active: Active, began: datetime, now: datetime) -> Placement:
    nothing = f"Job {active.job.name} has no pod, and no Event says why; is the Job controller at work?"
    return _ask(seen, active.job.uid, now, began=began, patience=POD_PATIENCE, nothing=nothing)


def _ignored(pod: PodView, now: datetime) -> Placement:
    """The scheduler says yes or no within moments; saying neither is told nowhere."""
    patience_ends = (pod.created or now) + SILENCE
    if now < patience_ends:
        return Placement(scheduled=NOT_SCHEDULED, wake_at=patience_ends)
    message = f"no scheduler has looked at pod {pod.name}; is there one of the name in its spec.schedulerName?"
    return Placement(scheduled=State("False", "Unschedulable", message))


def _ask(
    seen: Observation, uid: str, now: datetime, *, began: datetime, patience: timedelta, nothing: str
) -> Placement:
    """Wait for a while, then let the Events say why, and look again from time to time; `nothing` if they do not."""
    if now < began + patience:
        return Placement(scheduled=NOT_SCHEDULED, wake_at=began + patience)
    event = seen.warnings.get(uid)
    if event is None or now >= (event.again_at or event.read_at + SAME_WORDING):
        return Placement(scheduled=NOT_SCHEDULED, look=LookAtEvents(uid))
    again_at = event.again_at or event.read_at + SAME_WORDING
    if not event.read:
        before = current(seen.restoration.status, ConditionType.SCHEDULED, NOT_SCHEDULED)
        return Placement(scheduled=before if before.status != "True" else NOT_SCHEDULED, wake_at=again_at)
    # Event times are whole seconds, and one from before this wait began is about another.
    if event.reason and (event.happened_at is None or event.happened_at > began - timedelta(seconds=1)):
        reason = "MountFailed" if event.reason in MOUNT_REASONS else "PodRejected"
        return Placement(scheduled=State("False", reason, event.message), wake_at=again_at, since=began)
    silent = event.message if not event.reason else ""
    if not silent and now < began + SILENCE:
        return Placement(scheduled=NOT_SCHEDULED, wake_at=earliest((again_at, began + SILENCE)))
    return Placement(scheduled=State("Unknown", PENDING, silent or nothing), wake_at=again_at)


def _ended_at(pod: PodView) -> datetime | None:
    return pod.container.finished if isinstance(pod.container, Terminated) else pod.deletion_requested


def _steady(seen: Observation, placed: Placement, now: datetime) -> Placement:
    """The words that are stored, for a while, where only the words have changed."""
    before = current(seen.restoration.status, ConditionType.SCHEDULED, NOT_SCHEDULED)
    fresh = placed.scheduled
    same = (before.status, before.reason) == (fresh.status, fresh.reason) and fresh.status == "False"
    if placed.look is not None or placed.hold or not same or before == fresh or seen.worded_at is None:
        return placed
    until = seen.worded_at + SAME_WORDING
    return placed if now >= until else replace(placed, scheduled=before, wake_at=earliest((placed.wake_at, until)))


def _lasting(seen: Observation, placed: Placement, now: datetime) -> Placement:
    """Mark a cause that has lasted as somebody's turn."""
    state = placed.scheduled
    if placed.look is not None or state.reason not in FOR_SOMEBODY or PASSING_QUOTA in state.message:
        return placed
    stored = next((item for item in seen.restoration.status.conditions if item.type == ConditionType.SCHEDULED), None)
    since = stored.last_transition_time if stored and stored.reason == state.reason else now
    due = max(since, placed.since or since, seen.caused_at or since) + STALLED_AFTER
    if now < due:
        return replace(placed, wake_at=earliest((placed.wake_at, due)))
    return replace(placed, blocked=state)
