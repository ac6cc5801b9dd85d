"""Between two executions: what the user sees, what keeps the next one waiting, and what the last one leaves behind."""

from dataclasses import dataclass
from datetime import datetime

from restoration_api.outcome import FailureReason
from restoration_api.resources import ConditionType, Phase
from restoration_operator.decide import attempts, execution, retry, roles
from restoration_operator.decide.conditions import ACCEPTED, NOT_SCHEDULED, Facts, State, current
from restoration_operator.decide.types import DeleteJob, Observation, Propagation, SetJobTtl
from restoration_operator.views import JobView


@dataclass(frozen=True, kw_only=True)
class Pause:
    """The next execution does not start yet."""

    facts: Facts
    wake_at: datetime | None = None


def pause(seen: Observation, now: datetime) -> Pause | None:
    """What keeps the next execution from starting, slots aside; None if nothing does."""
    if seen.restoration.spec.suspend:
        return Pause(facts=Facts(phase=Phase.SUSPENDED, accepted=ACCEPTED, scheduled=NOT_SCHEDULED))
    due = retry.due(seen.restoration)
    if due is not None and now < due.at:
        scheduled = State("False", due.reason, due.message)
        return Pause(facts=Facts(phase=Phase.RETRYING, accepted=ACCEPTED, scheduled=scheduled), wake_at=due.at)
    at_large = execution.at_large(seen)
    if not at_large:
        return None
    # N+1 never starts while something of N may still write.
    if due is None:
        return Pause(facts=pending(seen))
    scheduled = State("False", due.reason, f"the next execution waits for {at_large[0]} of an earlier one to end")
    return Pause(facts=Facts(phase=Phase.RETRYING, accepted=ACCEPTED, scheduled=scheduled))


def pending(seen: Observation) -> Facts:
    """Not running, and neither accepted nor refused anew: as before, in another phase."""
    status = seen.restoration.status
    alive = Phase.RUNNING if any(not pod.terminal for pod in seen.pods) else Phase.PENDING
    return Facts(
        phase=Phase.SUSPENDED if seen.restoration.spec.suspend else alive,
        accepted=current(status, ConditionType.ACCEPTED, ACCEPTED),
        scheduled=current(status, ConditionType.SCHEDULED, NOT_SCHEDULED),
    )


def leftovers(seen: Observation, number: int) -> tuple[DeleteJob | SetJobTtl, ...]:
    """What becomes of Jobs with a number below `number`, and of this number's in another role than the current one:
    how they ended is stored in the status."""
    ttl_seconds = seen.restoration.spec.cleanup.job_ttl_seconds
    actions: list[DeleteJob | SetJobTtl] = []
    for job in seen.jobs:
        if job.execution > number or (job.execution == number and not _superseded(seen, job)):
            continue
        if job.unfinished:
            actions.extend(_end(seen, job))
        elif job.ttl_seconds is None and not job.deleting:
            actions.append(SetJobTtl(job, ttl_seconds))
    return tuple(actions)


def _superseded(seen: Observation, job: JobView) -> bool:
    """Whether the execution has gone on to another Job than this one."""
    status = seen.restoration.status
    return job.execution == status.attempts.executions and (
        job.name != status.job_name or roles.following(status) is not None
    )


def _end(seen: Observation, job: JobView) -> tuple[DeleteJob, ...]:
    """An unfinished Job of a closed execution should not exist: whatever made it, it ends."""
    closed = attempts.entry(seen.restoration.status, job.execution)
    if closed is not None and closed.reason == FailureReason.NODE_LOST:
        # The kubelet of a lost node will never confirm: foreground deletion, once begun, would wait for ever.
        return (DeleteJob(job, Propagation.BACKGROUND),)
    return () if job.deleting else (DeleteJob(job, Propagation.FOREGROUND),)
