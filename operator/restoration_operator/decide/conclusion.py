"""What follows from the end of an execution: another one, or the end of the restoration."""

from dataclasses import replace
from datetime import datetime
from typing import Any, Final, TypeVar, assert_never

from pydantic import ValidationError

from restoration_api.outcome import FailureReason, InputOutcome, Outcome, OutputOutcome, Result
from restoration_api.resources import ConditionType, Phase, VideoRestorationStatus
from restoration_api.resources.status import InputStatus, OutputStatus, Worker
from restoration_operator.build import names
from restoration_operator.build.names import Role
from restoration_operator.decide import (
    attempts,
    between,
    classify,
    deadline,
    execution,
    progress,
    replacement,
    retry,
    roles,
    timings,
)
from restoration_operator.decide.conditions import ACCEPTED, NOT_SCHEDULED, Facts, State, current, report
from restoration_operator.decide.types import Decision, Ending, Observation
from restoration_operator.views import Terminated

CACHE_HIT: Final = "CacheHit"


def conclude(seen: Observation, ended: execution.Ended, now: datetime) -> Decision:
    """Go on to the execution's next Job, or close the attempt and judge whether another one follows."""
    role, ending = roles.current(seen.restoration.status), ended.ending
    if role is Role.PLAN and ending.succeeded and ending.reason != CACHE_HIT:
        return _go_on(seen, ended, roles.PLANNED, now)
    if role is Role.RUN and ending.evidence_missing and not ending.succeeded:
        # Nothing tells how it ended; the bucket may know, and asking it costs no GPU.
        return _go_on(seen, ended, roles.REPORT_LOST, now)
    if role is Role.ASSEMBLE and ending.outcome is not None and ending.outcome.result is Result.INTERRUPTED:
        message = f"execution {ended.number} left no report, and {ending.outcome.message}"
        ending = replace(ending, reason=_what_took_the_report(seen, ended.number), message=message)
        return _close(seen, replace(ended, ending=ending), now)
    return _close(seen, ended, now)


def _go_on(seen: Observation, ended: execution.Ended, reason: str, now: datetime) -> Decision:
    """The execution is not over: note what its Job found out, and why another one follows."""
    status, ending = _timed(seen, ended, now), ended.ending
    end = min(ending.at or now, now)
    status = attempts.leave_open(status, ended.number, ending, reason=reason, end_time=end)
    status = status.model_copy(update=_results(status, ending.outcome))
    if reason == roles.PLANNED:
        status = status.model_copy(update={"progress": progress.planned(ending.outcome, now)})
    facts = Facts(phase=Phase.STARTING, accepted=ACCEPTED, scheduled=NOT_SCHEDULED)
    if seen.restoration.spec.suspend:
        facts = replace(facts, phase=Phase.SUSPENDED)
    return Decision(status=report(with_status(seen, status), facts, now))


def _what_took_the_report(seen: Observation, number: int) -> FailureReason:
    """What the pod that restored says of its end, where it is still there to say anything."""
    meta = seen.restoration.metadata
    worked = names.job_name(meta.name, meta.uid, execution=number, role=Role.RUN)
    pod = execution.newest(pod for pod in seen.pods if pod.job_name == worked)
    return (pod and classify.disruption(pod)) or FailureReason.POD_DELETED


def _timed(seen: Observation, ended: execution.Ended, now: datetime) -> VideoRestorationStatus:
    """The status with the times of this Job: its wait and start, if not noted yet, and what its runner measured."""
    status, pod = seen.restoration.status, ended.ending.pod
    if pod is not None and pod.taken is not None:
        accounted = replacement.take_over(seen, status, ended.number, pod, now)
        status = status if isinstance(accounted, Ending) else accounted
    entry = attempts.entry(status, ended.number)
    if (entry is None or entry.start_time is None) and pod is not None and pod.taken is not None:
        job = next((job for job in seen.jobs if job.name == status.job_name), None)
        status = status.model_copy(update={"timings": timings.with_start(seen.restoration, job, pod, seen.jobs)})
    return status.model_copy(update={"timings": timings.with_end(status.timings, ended.ending.outcome)})


def _close(seen: Observation, ended: execution.Ended, now: datetime) -> Decision:
    status, ending = _timed(seen, ended, now), ended.ending
    if status.start_time is None and ending.pod is not None:
        status = status.model_copy(update={"start_time": ending.pod.taken})
    # Another machine's clock may be ahead; a wait that begins in the future would be a long one.
    end = min(ending.at or now, now)
    status = attempts.close(status, ended.number, ending, job_name=status.job_name, end_time=end)
    closed = with_status(seen, status)
    if ending.succeeded:
        return finish(closed, ending, now)
    policy = seen.restoration.spec.retry_policy
    if ending.reason == attempts.SUSPENDED:
        rested = with_status(seen, attempts.counted(status, failures_in_a_row=0))
        return Decision(status=report(rested, between.pending(rested), now))
    verdict = retry.judge(policy, status, ending, number=ended.number)
    match verdict:
        case retry.Over():
            return finish(closed, replace(ending, reason=verdict.reason, message=verdict.message), now)
        case retry.Again():
            failures = retry.failures_in_a_row(policy, status, ended.number)
            status = status.model_copy(update={"attempts": verdict.counted})
            again = with_status(seen, attempts.counted(status, failures_in_a_row=failures))
            paused = between.pause(again, now)
            facts = between.pending(again) if paused is None else paused.facts
            return Decision(status=report(again, facts, now))
        case _:
            assert_never(verdict)


def finish(seen: Observation, ending: Ending, now: datetime) -> Decision:
    """The terminal status: written once, kept for ever."""
    seen = with_status(seen, attempts.end_open(seen.restoration.status, ending, now))
    restoration, status = seen.restoration, seen.restoration.status
    impossible = status.profile is None and ending.reason == FailureReason.INVALID_PARAMETERS
    facts = Facts(
        phase=Phase.SUCCEEDED if ending.succeeded else Phase.FAILED,
        accepted=State("False", ending.reason, ending.message) if impossible else ACCEPTED,
        scheduled=_scheduled(status, ending),
        ending=ending,
    )
    total = timings.with_total(status.timings, restoration.metadata.creation_timestamp, now)
    update: dict[str, Any] = {"completion_time": now, "timings": total, **_results(status, ending.outcome)}
    if ending.pod is not None:
        gpu = ending.outcome.gpu if ending.outcome else None
        gpu = gpu or (status.worker.gpu if status.worker else None)
        update["worker"] = Worker(pod_name=ending.pod.name, node_name=ending.pod.node, gpu=gpu)
    if ending.succeeded:
        update["progress"] = progress.finished(status.progress, ending.outcome, now)
    return Decision(status=report(seen, facts, now).model_copy(update=update))


def failure(reason: str, message: str) -> Ending:
    """An end that the operator decides on."""
    return Ending(succeeded=False, reason=reason, message=message)


def with_status(seen: Observation, status: VideoRestorationStatus) -> Observation:
    """The same, as if this were stored already."""
    return replace(seen, restoration=seen.restoration.model_copy(update={"status": status}))


def _scheduled(status: VideoRestorationStatus, ending: Ending) -> State:
    """Where it was when it ended."""
    last = attempts.entry(status, status.attempts.executions)
    if ending.reason == CACHE_HIT:
        return State("True", "CacheHit", ending.message)
    if ending.pod is not None and isinstance(ending.pod.container, Terminated):
        return State("True", "Running", f"pod {ending.pod.name} on node {ending.pod.node}")
    if ending.reason == deadline.START_DEADLINE_EXCEEDED:
        return State("False", ending.reason, ending.message)
    if ending.pod is not None and last is not None and last.reason == FailureReason.NODE_LOST:
        return State("False", FailureReason.NODE_LOST, ending.message)
    return NOT_SCHEDULED if retry.is_waiting(status) else current(status, ConditionType.SCHEDULED, NOT_SCHEDULED)


def _results(status: VideoRestorationStatus, outcome: Outcome | None) -> dict[str, Any]:
    """What the runner found out about input and output."""
    if outcome is None:
        return {}
    found: dict[str, Any] = {"cache_key": outcome.cache_key or status.cache_key, "cache_hit": outcome.cache_hit}
    if outcome.input is not None:
        found["input"] = _input(outcome.input)
    if outcome.output is not None:
        found["output"] = _output(outcome.output)
    return found


def _input(found: InputOutcome) -> InputStatus:
    return _fitting(InputStatus, found.model_dump(exclude_none=True))


def _output(made: OutputOutcome) -> OutputStatus:
    return _fitting(OutputStatus, made.model_dump(exclude_none=True))


P = TypeVar("P", InputStatus, OutputStatus)


def _fitting(model: type[P], facts: dict[str, Any]) -> P:
    """What of a runner's facts the status has room for. A runner is what an image makes it: one fact that no schema
    admits must not keep the restoration from ending."""
    try:
        return model.model_validate(facts)
    except ValidationError as error:
        wrong = {str(item["loc"][0]) for item in error.errors(include_url=False) if item["loc"]}
        by_alias = {field.alias or name: name for name, field in model.model_fields.items()}
        unfit = {by_alias.get(name, name) for name in wrong}
        return model.model_validate({name: value for name, value in facts.items() if name not in unfit})
