"""The answer to "why is it pending": the condition `Scheduled`, from Job, pod and, where nothing else says it, Events.

A quota, Pod Security or a missing service account do not refuse the Job but its pod, and a missing Secret leaves the
pod in `ContainerCreating`: both are told only in Events, which are read when something takes suspiciously long and
never watched. Waiting is not failing: all of these may pass, and end a restoration only at its start deadline.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from restoration_api.resources import ConditionType, Phase
from restoration_operator.decide import attempts
from restoration_operator.decide.conditions import NOT_SCHEDULED, State, current
from restoration_operator.decide.execution import Active
from restoration_operator.decide.types import LookAtEvents, Observation
from restoration_operator.views import PodView, Running, Terminated, Waiting

POD_PATIENCE: Final = timedelta(seconds=5)
"""The Job controller usually takes a few hundred milliseconds to create a pod."""
CONTAINER_PATIENCE: Final = timedelta(seconds=20)
"""Volumes and sandbox take a few seconds; beyond this somebody wants to know."""
LOOK_AGAIN: Final = timedelta(seconds=30)

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
CONTAINER_REASONS: Final = frozenset({"CreateContainerConfigError", "CreateContainerError", "RunContainerError"})
MOUNT_EVENTS: Final = frozenset({"FailedMount", "FailedAttachVolume", "FailedMapVolume"})


@dataclass(frozen=True, kw_only=True)
class Placement:
    """What is known about the pod's way to a node."""

    scheduled: State
    phase: Phase = Phase.STARTING
    hold: bool = False
    """Between two states that matter: leave phase and conditions as they are."""
    look: LookAtEvents | None = None
    wake_at: datetime | None = None

    @property
    def running(self) -> bool:
        """The runner runs."""
        return self.scheduled.status == "True"


def place(seen: Observation, active: Active, now: datetime) -> Placement:
    """Judge the newest pod of the Job, or its absence."""
    job, pod = active.job, active.pod
    if job.suspended:
        held = "the Job is held back by its queue (spec.suspend is true)"
        return Placement(scheduled=State("False", "Queued", held), phase=Phase.QUEUED)
    if pod is None:
        return _without_pod(seen, active, now)
    if _runs(seen, active.number, pod):
        return Placement(scheduled=State("True", "Running", f"pod {pod.name} on node {pod.node}"), phase=Phase.RUNNING)
    # The kubelet reports the container's end a moment before the pod's.
    if pod.terminal or pod.deletion_requested is not None or isinstance(pod.container, Terminated):
        # After a disruption the Job controller makes another pod; else it is about to end the Job.
        return Placement(scheduled=NOT_SCHEDULED, hold=not (pod.terminal and pod.disruption is not None))
    if pod.scheduled is False:
        return Placement(scheduled=State("False", "Unschedulable", pod.scheduling_message))
    if isinstance(pod.container, Waiting) and pod.container.reason in IMAGE_REASONS:
        return Placement(scheduled=_image_error(seen, pod.container))
    if isinstance(pod.container, Waiting) and pod.container.reason in CONTAINER_REASONS:
        return Placement(scheduled=State("False", "PodRejected", pod.container.message))
    if pod.scheduled and not isinstance(pod.container, Running):
        return _creating(seen, pod, now)
    return Placement(scheduled=NOT_SCHEDULED)


def _runs(seen: Observation, number: int, pod: PodView) -> bool:
    if not isinstance(pod.container, Running) or pod.terminal:
        return False
    # Ready turns False again when a node goes silent; a runner that has run before is not "starting" then.
    entry = attempts.entry(seen.restoration.status, number)
    return pod.ready or (entry is not None and entry.pod_name == pod.name and entry.start_time is not None)


def _image_error(seen: Observation, waiting: Waiting) -> State:
    # The kubelet alternates between two wordings every few seconds; one write says it as well as a hundred.
    before = current(seen.restoration.status, ConditionType.SCHEDULED, NOT_SCHEDULED)
    return before if before.reason == "ImagePullError" else State("False", "ImagePullError", waiting.message)


def _without_pod(seen: Observation, active: Active, now: datetime) -> Placement:
    began = active.job.started or active.job.created or now
    return _ask(seen, active.job.uid, began + POD_PATIENCE, now)


def _creating(seen: Observation, pod: PodView, now: datetime) -> Placement:
    began = pod.taken or pod.scheduled_at or pod.created or now
    return _ask(seen, pod.uid, began + CONTAINER_PATIENCE, now)


def _ask(seen: Observation, uid: str, not_before: datetime, now: datetime) -> Placement:
    """Wait until `not_before`, then let the Events say why, and look again from time to time."""
    if now < not_before:
        return Placement(scheduled=NOT_SCHEDULED, wake_at=not_before)
    event = seen.warnings.get(uid)
    if event is None or now >= event.read_at + LOOK_AGAIN:
        return Placement(scheduled=NOT_SCHEDULED, look=LookAtEvents(uid))
    reason = "MountFailed" if event.reason in MOUNT_EVENTS else "PodRejected"
    state = State("False", reason, event.message) if event.reason else NOT_SCHEDULED
    return Placement(scheduled=state, wake_at=event.read_at + LOOK_AGAIN)
