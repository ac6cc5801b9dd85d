"""Which Job an execution needs next: one that plans, one that restores, one that finds out what became of a lost one.

An execution has one number and up to three Jobs, one after another, each named by its role: `…-e1-plan`, `…-e1-run`,
`…-e1-assemble`. The plan needs no GPU, so whatever ends a restoration at once (a result that is there, an input that is
not) ends it before a GPU is waited for. `status.jobName` is the Job that is reserved or there; an entry in the attempt
history whose `jobName` is another one's belongs to the role before.
"""

from dataclasses import dataclass
from typing import Final

from restoration_api.resources import ProfileSpec, VideoRestorationStatus
from restoration_operator.build.names import Role
from restoration_operator.decide import attempts
from restoration_operator.decide.types import PlanJobs

PLANNED: Final = "Planned"
"""Reason of an open entry: its plan is made, what comes next is not reserved yet."""
REPORT_LOST: Final = "ReportLost"
"""Reason of an open entry: its Job is over and nothing tells how; the bucket is to be asked."""


@dataclass(frozen=True)
class Step:
    """A Job that may be created next."""

    number: int
    role: Role


def current(status: VideoRestorationStatus) -> Role:
    """The role of the Job that `status.jobName` names."""
    return Role.of((status.job_name or "").rpartition("-")[2])


def first(status: VideoRestorationStatus, profile: ProfileSpec, plan_jobs: PlanJobs) -> Role:
    """Where a new execution begins: what was planned once stays planned, whatever became of the execution."""
    if status.cache_key is not None or plan_jobs == "Never":
        return Role.RUN
    return Role.PLAN if plan_jobs == "Always" or profile.gpu.count else Role.RUN


def after_plan(status: VideoRestorationStatus) -> Role:
    """Where all segments are finished already, no GPU is needed for what is left."""
    found = status.progress
    whole = found is not None and found.segments_total and found.segments_done == found.segments_total
    return Role.ASSEMBLE if whole else Role.RUN


def following(status: VideoRestorationStatus) -> Step | None:
    """The next Job of an execution between two of its roles; None if it is not between any."""
    number = status.attempts.executions
    entry = attempts.entry(status, number)
    if entry is None or entry.end_time is not None:
        return None
    if entry.reason == PLANNED:
        return Step(number, after_plan(status))
    return Step(number, Role.ASSEMBLE) if entry.reason == REPORT_LOST else None
