"""What is left to do for a restoration that is over: release its Jobs, and delete it when its own time has come.

A Job is given its TTL only after its end is stored in the status, because its pod's termination message is the only
place where the result is written. An unfinished Job of a finished restoration (a lost node, a missed deadline) ends;
one whose runner has reported the end is about to end by itself, and has a minute to do so (a sidecar may not).
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from restoration_api.outcome import FailureReason
from restoration_api.resources import ConditionType, VideoRestoration
from restoration_operator.decide.classify import FINAL
from restoration_operator.decide.conditions import earliest
from restoration_operator.decide.types import Action, DeleteJob, DeleteRestoration, Propagation, SetJobTtl
from restoration_operator.views import JobView

WINDING_UP: Final = timedelta(seconds=60)
"""Between a runner's report and the end of its Job: twice the grace period of a pod."""


@dataclass(frozen=True, kw_only=True)
class Finished:
    """All that is kept of a restoration that is over: thousands of them stay around."""

    uid: str
    namespace: str
    name: str
    resource_version: str
    finished_at: datetime
    reason: str
    lost: bool
    """The last execution was declared lost with its node."""
    profile: tuple[str, str]
    """Kind and name that the spec refers to."""
    job_ttl_seconds: int
    ttl_seconds: int | None

    @classmethod
    def of(cls, restoration: VideoRestoration) -> "Finished":
        """Reduce a restoration whose condition `Finished` is True."""
        meta, spec = restoration.metadata, restoration.spec
        condition = next(item for item in restoration.status.conditions if item.type == ConditionType.FINISHED)
        last = next((item for item in restoration.status.attempt_history[-1:]), None)
        return cls(
            uid=meta.uid,
            namespace=meta.namespace or "",
            name=meta.name,
            resource_version=meta.resource_version,
            finished_at=condition.last_transition_time,
            reason=condition.reason,
            lost=last is not None and last.reason == FailureReason.NODE_LOST,
            profile=(spec.profile_ref.kind, spec.profile_ref.name),
            job_ttl_seconds=spec.cleanup.job_ttl_seconds,
            ttl_seconds=spec.ttl_seconds_after_finished,
        )


def is_finished(restoration: VideoRestoration) -> bool:
    """Terminal and sticky: nothing is ever started again for this uid."""
    return restoration.status.condition(ConditionType.FINISHED) == "True"


def after_the_end(
    over: Finished, jobs: tuple[JobView, ...], *, default_ttl_seconds: int | None, now: datetime
) -> tuple[tuple[Action, ...], datetime | None]:
    """Actions due now, and when the next one is.

    `default_ttl_seconds` is the live profile's: like its slots it belongs to the fleet, not to the restoration.
    """
    ttl = over.ttl_seconds if over.ttl_seconds is not None else default_ttl_seconds
    due = None if ttl is None else over.finished_at + timedelta(seconds=ttl)
    if due is not None and now >= due:
        return (DeleteRestoration(),), None
    actions: list[Action] = []
    for job in jobs:
        if job.unfinished and over.lost:
            # The kubelet of a lost node will never confirm: foreground deletion, once begun, would wait for ever.
            actions.append(DeleteJob(job, Propagation.BACKGROUND))
        elif job.deleting:
            continue
        elif job.unfinished and over.reason in FINAL and now < over.finished_at + WINDING_UP:
            due = earliest((due, over.finished_at + WINDING_UP))
        elif job.unfinished:
            actions.append(DeleteJob(job, Propagation.FOREGROUND))
        elif job.ttl_seconds is None:
            actions.append(SetJobTtl(job, over.job_ttl_seconds))
    return tuple(actions), due
