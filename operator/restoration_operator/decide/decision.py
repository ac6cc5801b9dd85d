"""Joins the policies: from an observation to the status that should be stored and the actions that follow from it."""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final, assert_never

from restoration_api.outcome import FAILURES, FailureReason
from restoration_api.resources import ConditionType, Phase, VideoRestorationStatus
from restoration_api.resources.status import Worker
from restoration_operator.build.job import Plan
from restoration_operator.build.names import Role, job_name
from restoration_operator.decide import (
    agreement,
    attempts,
    between,
    deadline,
    execution,
    placement,
    progress,
    queue,
    replacement,
    roles,
    slots,
    timings,
    variation,
)
from restoration_operator.decide.admission import Impossible, Refused, Terms
from restoration_operator.decide.cleanup import is_finished
from restoration_operator.decide.conclusion import conclude, failure, finish, with_status
from restoration_operator.decide.conditions import (
    ACCEPTED,
    NOT_SCHEDULED,
    Facts,
    State,
    current,
    earliest,
    report,
)
from restoration_operator.decide.roles import Step
from restoration_operator.decide.types import (
    CreateJob,
    Decision,
    DeleteJob,
    Ending,
    EnsureSnapshot,
    LookAtChildren,
    Observation,
    Profile,
    Propagation,
)
from restoration_operator.views import PodView

LOOK_AT_NODE_AGAIN: Final = timedelta(seconds=30)

_USED_UP: Final = "{0.meaning}; {0.remedy}".format(FAILURES[FailureReason.DEADLINE_EXCEEDED])

PLANNING: Final = "Planning"
"""Reason of `Scheduled=Unknown` while a Job without a GPU looks at input and output."""

OUR_NAME: Final = "videorestoration.dev/operator"
"""Value of `spec.managedBy` under which this operator acts; unset means the same."""


def decide(seen: Observation, now: datetime) -> Decision:
    """What should be stored and done now. Pure: the same observation and time give the same decision.

    `now` is in whole seconds, the resolution of every time in a status.
    """
    restoration = seen.restoration
    if restoration.spec.managed_by not in (None, OUR_NAME):
        return Decision(status=restoration.status)
    if is_finished(restoration):
        # Sticky. Only the generation is acknowledged: `suspend` and the TTLs stay mutable, and kstatus waits for it.
        generation = restoration.metadata.generation
        return Decision(status=restoration.status.model_copy(update={"observed_generation": generation}))
    situation = execution.situation(seen, now)
    match situation:
        case execution.Unclear():
            return Decision(status=restoration.status, looks=(situation.look,))
        case execution.Idle():
            return _prepare(seen, None, now)
        case execution.Reserved() | execution.Between():
            return _prepare(seen, situation.step, now)
        case execution.Active():
            return _follow(seen, situation, now)
        case execution.Leaving():
            return _wait(seen, now)
        case execution.Ended():
            return conclude(seen, situation, now)
        case _:
            assert_never(situation)


def _prepare(seen: Observation, step: Step | None, now: datetime) -> Decision:
    """The Job of this step (none: the first of a new execution) was never seen: agree on terms, reserve, create."""
    if seen.restoration.metadata.deletion_timestamp is not None:
        # Held by a finalizer, the garbage collector's own or somebody's: what was started now, it would have to remove.
        return Decision(status=seen.restoration.status)
    settled = agreement.terms(seen, now)
    match settled:
        case agreement.Unread():
            return Decision(status=seen.restoration.status, looks=(settled.look,))
        case Refused():
            return _refuse(seen, settled, now)
        case Impossible():
            return finish(seen, failure(FailureReason.INVALID_PARAMETERS, settled.message), now)
        case agreement.Tampered():
            return finish(seen, failure(FailureReason.SNAPSHOT_TAMPERED, settled.message), now)
        case Terms():
            pass
        case _:
            assert_never(settled)
    left = deadline.active_seconds_left(seen.restoration.spec, settled.profile.spec, seen.restoration.status)
    if left is not None and left <= 0:
        return finish(seen, failure(FailureReason.DEADLINE_EXCEEDED, _USED_UP), now)
    status = seen.restoration.status
    if step is None:
        first = roles.first(status, settled.profile.spec, seen.plan_jobs)
        step = Step(status.attempts.executions + 1, first)
    left_over = between.leftovers(seen, step.number)
    paused = between.pause(seen, now)
    if paused is not None:
        return Decision(status=report(seen, paused.facts, now), actions=left_over, wake_at=paused.wake_at)
    waits = step.role is Role.RUN and slots.standing(seen.restoration) is not slots.Standing.HOLDS
    waiting = _wait_for_slot(seen, settled, now) if waits else None
    return waiting or _create(seen, settled, step, left, now)


def _create(seen: Observation, settled: Terms, step: Step, seconds_left: int | None, now: datetime) -> Decision:
    """Reserve, then create: the actions run only once the status that reserves number and name is stored."""
    restoration, refusal = seen.restoration, seen.refusal
    profile = agreement.recorded(seen, settled)
    name = job_name(restoration.metadata.name, restoration.metadata.uid, execution=step.number, role=step.role)
    accepted = ACCEPTED if refusal is None else State("False", refusal.reason, refusal.message)
    before = current(restoration.status, ConditionType.ACCEPTED, ACCEPTED)
    if refusal is None and before.reason in ("ChildRejected", "NameConflict"):
        accepted = before  # it was refused before a restart; the coming attempt will tell
    phase = Phase.STARTING if accepted.status == "True" else Phase.PENDING
    status = report(seen, Facts(phase=phase, accepted=accepted, scheduled=NOT_SCHEDULED), now)
    status = attempts.reopen(status, step.number).model_copy(
        update={
            "profile": profile,
            "job_name": name,
            "attempts": status.attempts.model_copy(update={"executions": step.number}),
            "progress": None,
        }
    )
    if refusal is not None and now < refusal.retry_at:
        return Decision(status=status, wake_at=refusal.retry_at)
    plan = Plan(
        restoration=restoration,
        profile=settled.profile.spec,
        snapshot_name=profile.snapshot_name or "",
        request_hash=settled.snapshot.request_hash,
        execution=variation.next_execution(
            status, settled.profile.spec, step.number, role=step.role, seconds_left=seconds_left
        ),
        light=seen.light,
    )
    ensure = EnsureSnapshot(profile.snapshot_name or "", settled.snapshot)
    return Decision(status=status, actions=(ensure, CreateJob(plan)))


def _wait_for_slot(seen: Observation, settled: Terms, now: datetime) -> Decision | None:
    """The cap is read from the live profile: raising it helps at once, also for what was accepted before."""
    live = seen.profile.spec if isinstance(seen.profile, Profile) else settled.profile.spec
    waiting = slots.wait(seen, settled.profile.name, live.limits.max_active if live.limits else None, now)
    if waiting is None:
        return None
    scheduled, wake_at = waiting
    queued = Facts(phase=Phase.QUEUED, accepted=ACCEPTED, scheduled=scheduled)
    return Decision(status=report(seen, queued, now), wake_at=wake_at)


def _refuse(seen: Observation, refused: Refused, now: datetime) -> Decision:
    facts = Facts(
        phase=Phase.PENDING,
        accepted=State("False", refused.reason, refused.message),
        scheduled=NOT_SCHEDULED,
        blocked=State("True", refused.reason, refused.message) if refused.blocked else None,
    )
    return Decision(status=report(seen, facts, now), wake_at=refused.again_at)


def _follow(seen: Observation, active: execution.Active, now: datetime) -> Decision:
    """The Job is alive: report where it is, and end it if somebody wants it to end."""
    restoration, status = seen.restoration, seen.restoration.status
    older = between.leftovers(seen, active.number)
    entry = attempts.entry(status, active.number)
    if restoration.spec.suspend or (entry is not None and entry.reason == attempts.SUSPENDED):
        return _suspend(seen, active, now)
    worn_out = replacement.given_up(seen, active)
    if worn_out is not None:
        return conclude(seen, execution.Ended(number=active.number, ending=worn_out), now)
    if active.job.suspended:
        held = queue.follow(seen, active, now)
        return replace(held, actions=older, wake_at=earliest((held.wake_at, _lost_at(seen, active.pod, now))))
    counted = replacement.unanswered(seen, active, now)
    if isinstance(counted, Ending):
        return conclude(seen, execution.Ended(number=active.number, ending=counted), now)
    if counted is not None:
        return Decision(status=counted, actions=older)  # what is to be seen now follows from it
    placed = placement.place(seen, active, now)
    if placed.look is not None:
        return Decision(status=status, looks=(placed.look,))
    limits = _limits(seen, active, placed, now)
    if limits.ending is not None and not seen.confirmed:
        return Decision(status=status, looks=(LookAtChildren(),))  # it may run, or have ended, unheard of
    if limits.ending is not None:
        return conclude(seen, execution.Ended(number=active.number, ending=limits.ending), now)
    wake_at = earliest((placed.wake_at, limits.wake_at, _lost_at(seen, active.pod, now)))
    if entry is None or entry.job_name != active.job.name:
        status = attempts.begin(status, active.number, active.job)
    if placed.hold and entry is not None:
        return Decision(status=status, actions=older, wake_at=wake_at)
    phase = placed.phase
    if placed.running and active.pod is not None:
        accounted = replacement.take_over(seen, status, active.number, active.pod, now)
        if isinstance(accounted, Ending):
            return conclude(seen, execution.Ended(number=active.number, ending=accounted), now)
        status = _running(seen, accounted, active, active.pod, now)
        phase = progress.phase(status.progress)
    scheduled = placed.scheduled
    if placed.running and active.role is Role.PLAN:
        # Not `Running`: what people wait for has not begun, and a GPU may still be long in coming.
        phase, scheduled = Phase.STARTING, State("Unknown", PLANNING, f"{scheduled.message} looks at the input")
    noted = with_status(seen, status)
    facts = Facts(phase=phase, accepted=ACCEPTED, scheduled=scheduled, blocked=placed.blocked)
    return Decision(status=report(noted, facts, now), actions=older, wake_at=wake_at)


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What ends a living Job, now or at a time to come."""

    ending: Ending | None = None
    wake_at: datetime | None = None


def _limits(seen: Observation, active: execution.Active, placed: placement.Placement, now: datetime) -> Limits:
    """Deadlines, and waits that lead nowhere."""
    spec, status = seen.restoration.spec, seen.restoration.status
    entry = attempts.entry(status, active.number)
    if placed.running:
        noted = entry is not None and active.pod is not None and entry.pod_name == active.pod.name
        overdue = deadline.overdue_at(entry, active.job) if entry is not None and noted else None
        if overdue is not None and now >= overdue:
            return Limits(ending=failure(FailureReason.DEADLINE_EXCEEDED, _USED_UP))
        return Limits(wake_at=overdue)
    due = deadline.start_deadline(spec, status, active.job)
    if due is not None and now >= due:
        message = f"no pod ran before the start deadline: {placed.scheduled.message or placed.scheduled.reason}"
        return Limits(ending=failure(deadline.START_DEADLINE_EXCEEDED, message))
    patience = variation.patience_ends_at(active.job, active.pod)
    if patience is not None and now >= patience:
        nodes = ", ".join(active.job.excluded_nodes)
        message = f"no node but {nodes}, excluded after a GPU fault, could take the pod; the next execution may use it"
        return Limits(ending=failure(FailureReason.STARTUP_FAILURE, message))
    return Limits(wake_at=earliest((due, patience)))


def _running(
    seen: Observation, status: VideoRestorationStatus, active: execution.Active, pod: PodView, now: datetime
) -> VideoRestorationStatus:
    """Who works since when, how long it took to get there, and how far it is."""
    polled = seen.polled if seen.polled and seen.polled.pod_uid == pod.uid else None
    if polled is not None and polled.progress.execution != active.number:
        polled = None
    entry = attempts.entry(status, active.number)
    facts: dict[str, Any] = {"pod_name": pod.name, "node_name": pod.node}
    if entry is None or entry.start_time is None:
        facts["start_time"] = pod.taken or now
        again = entry is not None and replacement.given_back(seen, entry)
        if again:
            facts |= {"reason": None, "message": None}
        job = replace(active.job, created=active.job.started) if again else active.job
        started = timings.with_start(seen.restoration, job, pod, () if again else seen.jobs)
        status = status.model_copy(update={"timings": started})
    if polled is not None and polled.progress.gpu:
        facts["gpu"] = polled.progress.gpu
    status = attempts.record(status, active.number, **facts)
    gpu = facts.get("gpu") or (entry.gpu if entry else None)
    begun = None if active.role is Role.PLAN else pod.taken or now
    return status.model_copy(
        update={
            "start_time": status.start_time or begun,
            "worker": Worker(pod_name=pod.name, node_name=pod.node, gpu=gpu),
            "progress": progress.merge(status.progress, polled),
        }
    )


def _suspend(seen: Observation, active: execution.Active, now: datetime) -> Decision:
    """Record that the Job is to end by the user's wish, then delete it; also if the wish was taken back meanwhile."""
    status = attempts.begin(seen.restoration.status, active.number, active.job)
    status = attempts.record(status, active.number, reason=attempts.SUSPENDED)
    phase = Phase.SUSPENDED if seen.restoration.spec.suspend else Phase.PENDING
    facts = Facts(phase=phase, accepted=ACCEPTED, scheduled=NOT_SCHEDULED)
    delete = DeleteJob(active.job, Propagation.FOREGROUND)
    return Decision(
        status=report(with_status(seen, status), facts, now), actions=(*between.leftovers(seen, active.number), delete)
    )


def _wait(seen: Observation, now: datetime) -> Decision:
    """Something is going away; its last words are awaited."""
    pod = execution.newest(pod for pod in seen.pods if not pod.terminal)
    return Decision(status=report(seen, between.pending(seen), now), wake_at=_lost_at(seen, pod, now))


def _lost_at(seen: Observation, pod: PodView | None, now: datetime) -> datetime | None:
    due = pod.deletion_due if pod is not None else None
    if due is None:
        return None
    lost_at = execution.lost_at(seen, due)
    return lost_at if lost_at > now else now + LOOK_AT_NODE_AGAIN
