"""A disruption that the Job survives: its controller makes another pod, and the execution goes on in that.

This is the quick way, and under Kueue the place in the queue is kept. But the controller's delay doubles with every
pod, also with those that it ignores as failures (kubernetes/kubernetes#130881: 10, 20, 40, 80 seconds …), so after the
third a new execution is quicker. Either way the disruption is counted, and the pod's running time with it.

A pod that ran is counted when the next one runs: by its name in the record, even if nobody saw it end. One that was
disrupted before its runner answered is in no record, and is counted when it is seen to have ended.
"""

from collections.abc import Iterator
from datetime import datetime
from typing import Any, Final

from restoration_api.outcome import PERMANENT_EXIT_CODES, FailureReason
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


def unanswered(seen: Observation, active: Active, now: datetime) -> VideoRestorationStatus | Ending | None:
    """The status with the first disrupted pod accounted for that no record knows; the execution's end, if nothing may
    follow it; None if there is no such pod.

    Pods come one after another (`podReplacementPolicy: Failed`), so whatever was made before the recorded pod was
    accounted for before it.
    """
    pod = next(_unknown(seen, active), None)
    if pod is None:
        return None
    status = seen.restoration.status
    entry = attempts.entry(status, active.number)
    if entry is None or entry.job_name != active.job.name:
        status = attempts.begin(status, active.number, active.job)
    accounted = take_over(seen, status, active.number, pod, now)
    if isinstance(accounted, Ending):
        return accounted
    reason = classify.disruption(pod) or FailureReason.EVICTED
    where = f"on node {pod.node}" if pod.node else "without a node"
    said = f"pod {pod.name} was disrupted {where} before its runner answered"
    at = min(_ended_at(pod) or pod.deletion_requested or now, now)
    ending = Ending(succeeded=False, reason=reason, message=said, pod=pod, at=at)
    noted = attempts.record(accounted, active.number, pod_name=pod.name, node_name=pod.node, start_time=pod.taken)
    facts = {"reason": reason.value, "message": attempts.short(said), "start_time": None}
    return count(seen, noted, active.number, ending, **facts)


def _unknown(seen: Observation, active: Active) -> Iterator[PodView]:
    """Disrupted pods of the Job that the execution's record does not name, the oldest first."""
    entry = attempts.entry(seen.restoration.status, active.number)
    pods = sorted((pod for pod in seen.pods if pod.job_uid == active.job.uid), key=lambda pod: (pod.made, pod.name))
    if entry is not None and entry.pod_name is not None:
        noted = next((pod for pod in pods if pod.name == entry.pod_name), None)
        since = noted.made if noted is not None else entry.start_time
        pods = [pod for pod in pods if pod.made > since] if since is not None else pods[-1:]
    return (pod for pod in pods if pod.terminal and pod.disruption is not None and not _came_to_an_end(pod))


def _came_to_an_end(pod: PodView) -> bool:
    """Whether its Job ends with it, whatever disrupted it: the exit code says enough."""
    code = pod.container.exit_code if isinstance(pod.container, Terminated) else None
    return pod.phase == "Succeeded" or code == 0 or code in PERMANENT_EXIT_CODES


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


def given_back(seen: Observation, entry: Attempt) -> bool:
    """Whether a queue had taken the execution's place: it ends pods without a word, unlike whoever preempts a pod."""
    if entry.reason != FailureReason.PREEMPTED or entry.start_time is not None:
        return False
    before = next((pod for pod in seen.pods if pod.name == entry.pod_name), None)
    return before is None or before.disruption is None


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
