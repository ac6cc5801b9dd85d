"""A disruption that the Job survives: its controller makes another pod, and the execution goes on in that.

This is the quick way, and under Kueue the place in the queue is kept. But the controller's delay doubles with every
pod, also with those that it ignores as failures (kubernetes/kubernetes#130881: 10, 20, 40, 80 seconds …), so after the
third a new execution is quicker. Either way the disruption is counted, and the pod's running time with it.
"""

from datetime import datetime
from typing import Any, Final

from restoration_api.outcome import FailureReason
from restoration_api.resources import VideoRestorationStatus
from restoration_api.resources.status import Attempt
from restoration_operator.decide import attempts, classify, retry
from restoration_operator.decide.execution import Active
from restoration_operator.decide.types import Ending, Observation
from restoration_operator.views import PodView, Terminated

MOST_DISRUPTED_PODS: Final = 3
"""The next delay would be 80 seconds."""


def take_over(
    seen: Observation, status: VideoRestorationStatus, number: int, pod: PodView, now: datetime
) -> VideoRestorationStatus | Ending:
    """The status with the pod before `pod` accounted for, if there was one; its end, if nothing may follow it."""
    entry = attempts.entry(status, number)
    if entry is None or entry.start_time is None or entry.pod_name in (None, pod.name):
        return status
    before = next((one for one in seen.pods if one.name == entry.pod_name and one.execution == number), None)
    ended_at = min(_ended_at(before) or pod.created or now, now)
    ending = Ending(
        succeeded=False,
        reason=_reason(before),
        message=f"pod {entry.pod_name} was disrupted on node {entry.node_name}; pod {pod.name} took its place",
        pod=before,
        at=ended_at,
    )
    facts = {"reason": ending.reason, "message": attempts.short(ending.message), "start_time": pod.taken or now}
    return count(seen, status, number, ending, **facts)


def count(
    seen: Observation, status: VideoRestorationStatus, number: int, ending: Ending, **facts: Any
) -> VideoRestorationStatus | Ending:
    """The status with a disruption of a living execution counted, with its running time, and these facts in its entry;
    the end of the execution, if that was one too many."""
    verdict = retry.judge(seen.restoration.spec.retry_policy, status, ending, number=number)
    if isinstance(verdict, retry.Over):
        return ending
    entry = attempts.entry(status, number) or Attempt(execution=number)
    ran_seconds = attempts.ran_seconds(entry.model_copy(update={"end_time": ending.at}))
    left = entry.active_deadline_seconds
    status = attempts.record(
        status.model_copy(update={"attempts": verdict.counted}),
        number,
        active_deadline_seconds=None if left is None else max(1, left - ran_seconds),
        **facts,
    )
    return attempts.with_running_seconds(status, ran_seconds)


def given_up(seen: Observation, active: Active) -> Ending | None:
    """The end of an execution whose Job would make its next pod only after a long delay."""
    pods = [pod for pod in seen.pods if pod.job_uid == active.job.uid]
    disrupted = [pod for pod in pods if pod.phase == "Failed" and pod.disruption is not None]
    if len(disrupted) < MOST_DISRUPTED_PODS or any(not pod.terminal for pod in pods) or active.job.suspended:
        return None
    if active.pod is not None and active.pod.disruption is None:
        return None  # it came to an end of its own, and with it does the Job
    return classify.ending(active.job, active.pod)


def _reason(pod: PodView | None) -> FailureReason:
    if pod is None:
        return FailureReason.EVICTED  # all that an operator knows which was started since
    # A queue takes a place back by suspending the Job, and its pods are deleted without a word about why.
    return classify.disruption(pod) or FailureReason.PREEMPTED


def _ended_at(pod: PodView | None) -> datetime | None:
    return pod.container.finished if pod is not None and isinstance(pod.container, Terminated) else None
