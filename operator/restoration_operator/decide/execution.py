"""Where the current execution stands, from its reserved number, its Job and its pods.

Nothing is concluded from something missing until it was listed from the API server for this very decision: the store
may lag behind a write of our own, and watches lose events.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from restoration_api.outcome import FAILURES, FailureReason
from restoration_api.resources.status import Attempt
from restoration_operator.build.names import Role
from restoration_operator.decide import attempts, classify, roles
from restoration_operator.decide.roles import Step
from restoration_operator.decide.types import Ending, Look, LookAtChildren, LookAtNode, Observation
from restoration_operator.views import JobView, PodView, Terminated


@dataclass(frozen=True)
class Idle:
    """No execution is under way; the next number may be reserved."""


@dataclass(frozen=True)
class Reserved:
    """A Job's name is reserved and the Job was never seen."""

    step: Step


@dataclass(frozen=True)
class Between:
    """A Job of the execution is over, and another one follows it."""

    step: Step


@dataclass(frozen=True, kw_only=True)
class Active:
    """The Job exists and is neither finished nor being deleted."""

    number: int
    job: JobView
    pod: PodView | None
    """The newest one."""

    @property
    def role(self) -> Role:
        """What the Job is there for."""
        return Role.of(self.job.role)


@dataclass(frozen=True)
class Leaving:
    """Job or pods are on their way out; what they leave behind decides."""

    number: int


@dataclass(frozen=True, kw_only=True)
class Ended:
    """Nothing of it runs any more, or it is declared lost."""

    number: int
    ending: Ending


@dataclass(frozen=True)
class Unclear:
    """Something has to be read first."""

    look: Look


Situation = Idle | Reserved | Between | Active | Leaving | Ended | Unclear


def situation(seen: Observation, now: datetime) -> Situation:
    """What is the case with the execution whose number was reserved last."""
    status = seen.restoration.status
    number = status.attempts.executions
    entry = attempts.entry(status, number)
    if number == 0 or (entry is not None and entry.end_time is not None):
        return Idle()
    following = roles.following(status)
    if following is not None:
        return Between(following)
    job = next((job for job in seen.jobs if job.name == status.job_name), None)
    pods = [pod for pod in seen.pods if pod.job_name == status.job_name]
    if job is not None:
        # Of a Job that a stranger deleted before it was recorded, and that was made again, pods may be remembered.
        pods = [pod for pod in pods if pod.job_uid == job.uid]
    recorded = entry is not None and entry.job_name == status.job_name
    if job is None and not recorded and not pods:
        return Reserved(Step(number, roles.current(status)))
    pod = newest(pods)
    if job is None or job.end is not None:
        return _over(seen, job, pods, now)
    told = _told(job, pods)
    if told is not None:
        return Ended(number=number, ending=told)
    lost = _lost(seen, pod, now)
    if lost is not None:
        return lost
    if job.deleting:
        return Leaving(number)
    return Active(number=number, job=job, pod=newest(pod for pod in pods if not _taken_away(job, entry, pod)))


def _taken_away(job: JobView, entry: Attempt | None, pod: PodView) -> bool:
    """Whether a queue ended the pod with its Job's suspension: it says nothing about the Job that was let go since."""
    if entry is not None and entry.reason == FailureReason.PREEMPTED and entry.start_time is None:
        return pod.name == entry.pod_name
    leaving = (pod.terminal or pod.deletion_requested is not None) and pod.disruption is None
    return leaving and pod.created is not None and job.started is not None and pod.created < job.started


def newest(pods: Iterable[PodView]) -> PodView | None:
    """The pod that was created last; of those of one second (creation times have no fractions) the one that stays."""

    def rank(pod: PodView) -> tuple[datetime, bool, bool, str]:
        return pod.made, not pod.terminal, pod.deletion_requested is None, pod.uid

    return max(pods, key=rank, default=None)


def at_large(seen: Observation) -> tuple[str, ...]:
    """What of this restoration may still write, in words: an unfinished Job, or a pod that has not ended.

    A pod that was declared lost stays for as long as its node's object does. Should it work on unseen, both write the
    same bytes under preconditions (the first marker wins).
    """
    jobs = (f"Job {job.name}" for job in seen.jobs if job.unfinished)
    pods = (f"pod {pod.name}" for pod in seen.pods if not pod.terminal and not _given_up(seen, pod))
    return (*jobs, *pods)


def _given_up(seen: Observation, pod: PodView) -> bool:
    history = seen.restoration.status.attempt_history
    closed = attempts.entry(seen.restoration.status, pod.execution)
    if closed is None:
        # Older than the bounded history: the executions since would not have begun if it had not been given up.
        return any(item.execution > pod.execution for item in history)
    return closed.end_time is not None and closed.reason == FailureReason.NODE_LOST


def _over(seen: Observation, job: JobView | None, pods: list[PodView], now: datetime) -> Situation:
    status = seen.restoration.status
    number = status.attempts.executions
    pod = newest(pods)
    complete = next((one for one in pods if one.phase == "Succeeded"), None)
    evident = job is not None and pod is not None and pod.terminal and not pod.gone
    if not evident and not seen.confirmed:
        return Unclear(LookAtChildren())
    if any(not one.terminal for one in pods):
        return _lost(seen, pod, now) or Leaving(number)
    ending = classify.ending(job, complete or pod)
    entry = attempts.entry(status, number)
    if entry is not None and entry.reason == attempts.SUSPENDED and not _decided_by_the_work(ending):
        ending = Ending(succeeded=False, reason=attempts.SUSPENDED, message="suspended by the user", pod=pod)
    return Ended(number=number, ending=ending)


def _told(job: JobView, pods: list[PodView]) -> Ending | None:
    """The end of a restoration that its runner has reported, while its Job still lives.

    Kubelet and Job controller take 2 to 3 s to say of a container that has ended that its Job is over (measured), and
    nothing in these seconds can change what the runner has published, or refused. Only what is final counts: after
    anything else another Job may follow, and that must not meet a living one.
    """
    endings = (classify.ending(job, pod) for pod in pods if isinstance(pod.container, Terminated))
    return next((end for end in endings if end.outcome is not None and end.reason in classify.FINAL), None)


def _decided_by_the_work(ending: Ending) -> bool:
    """Whether a suspended execution was quicker: it succeeded, or failed in a way that no second try changes."""
    if ending.succeeded:
        return True
    permanent = FailureReason(ending.reason) in FAILURES and FAILURES[FailureReason(ending.reason)].permanent
    return permanent and ending.exit_code is not None


def _lost(seen: Observation, pod: PodView | None, now: datetime) -> Ended | Unclear | None:
    """Kubernetes does not declare a pod lost whose node is silent but not deleted; the operator does, in the end."""
    if pod is None or pod.terminal or pod.deletion_due is None or pod.node is None:
        return None
    if now < lost_at(seen, pod.deletion_due):
        return None
    ready = seen.nodes_ready.get(pod.node)
    if ready is None:
        return Unclear(LookAtNode(pod.node))
    if ready:
        return None
    message = f"node {pod.node} is not ready and pod {pod.name} does not end; it is declared lost"
    ending = Ending(succeeded=False, reason=FailureReason.NODE_LOST, message=message, pod=pod)
    return Ended(number=seen.restoration.status.attempts.executions, ending=ending)


def lost_at(seen: Observation, deletion_due: datetime) -> datetime:
    """When a pod that should have ended by `deletion_due` may be declared lost."""
    return deletion_due + timedelta(seconds=seen.lost_node_seconds)
