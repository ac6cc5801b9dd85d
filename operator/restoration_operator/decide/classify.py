"""How an execution ended, in the words of the failure table (`restoration_api.outcome.FAILURES`).

Rules are tried in order and the first that fits decides. The order is the policy: what the kernel or a deadline did
comes before what the exit code says; a permanent class before a disruption, since a second try would end the same;
a disruption before a transient class, since losing its node is why the runner could not reach storage. Exit codes 137
and 143 mean nothing by themselves.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from pydantic import ValidationError

from restoration_api.outcome import (
    EXIT_CODES,
    EXIT_INTERRUPTED,
    FAILURES,
    PERMANENT_EXIT_CODES,
    Budget,
    FailureReason,
    Outcome,
    Result,
)
from restoration_operator.decide.types import Ending
from restoration_operator.views import JobEnd, JobView, PodView, Terminated

SUCCESS_REASONS: Final = ("Completed", "CacheHit", "Planned")

FINAL: Final = frozenset({"Completed", "CacheHit"} | {str(EXIT_CODES[code]) for code in PERMANENT_EXIT_CODES})
"""Reasons with which a runner itself ends a restoration: no other Job follows, whatever becomes of this one."""

DISRUPTIONS: Final = {
    "PreemptionByScheduler": FailureReason.PREEMPTED,
    "EvictionByEvictionAPI": FailureReason.EVICTED,
    "DeletionByTaintManager": FailureReason.EVICTED,
    "TerminationByKubelet": FailureReason.EVICTED,
    "DeletionByPodGC": FailureReason.NODE_LOST,
}
"""Reasons of the pod condition `DisruptionTarget` (Kubernetes documentation, pod disruption conditions)."""

SHUTDOWN_REASONS: Final = ("NodeShutdown", "Terminated", "Shutdown")
"""`status.reason` of pods that the kubelet ended during a graceful node shutdown."""

UNKNOWN_ENDS: Final = ("ContainerStatusUnknown", "Unknown")
"""`reason` of a container that the kubelet, or containerd (then with exit code 255), did not find again after a restart
of the node: its exit code is made up. The kubelet says the same, with code 137, of a container that it never started,
when its pod is ended from outside (`TerminatePod`, kubernetes/pkg/kubelet/status)."""

LOG_CHARACTERS: Final = 768
"""Of the end of a log: with what comes before it, as much as an entry of the history holds."""

_EXIT_CODE_IN_JOB = re.compile(r"failed with exit code (\d+)")
"""In the message of a Job that a `podFailurePolicy` rule ended: it outlives the pod."""


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What is left of an execution."""

    job: JobEnd | None
    pod: PodView | None

    @property
    def container(self) -> Terminated | None:
        state = self.pod.container if self.pod else None
        return state if isinstance(state, Terminated) else None

    @property
    def exit_code(self) -> int | None:
        if self.container is not None:
            return None if self.container.reason in UNKNOWN_ENDS else self.container.exit_code
        return _exit_code_of(self.job)


def _exit_code_of(job: JobEnd | None) -> int | None:
    """What ended the Job, in its own words."""
    found = _EXIT_CODE_IN_JOB.search(job.message) if job else None
    return int(found[1]) if found else None


def read_outcome(text: str) -> Outcome | None:
    """The runner's own report, or None if the text is something else (the end of its log)."""
    try:
        return Outcome.from_json(text)
    except ValidationError:
        return None


def ending(job: JobView | None, pod: PodView | None) -> Ending:
    """The verdict over an execution of which nothing runs any more."""
    evidence = Evidence(job=job.end if job else None, pod=pod)
    decisive = _exit_code_of(evidence.job)
    if evidence.container is not None and decisive not in (None, evidence.container.exit_code):
        # Of the pod that ended the Job nothing is left, and this one came before it.
        evidence, pod = Evidence(job=evidence.job, pod=None), None
    container = evidence.container
    outcome = read_outcome(container.message) if container else None
    finished = container.finished if container else None
    at = finished or (evidence.job.at if evidence.job else None)
    if _succeeded(evidence, outcome):
        return Ending(
            succeeded=True,
            reason=outcome.reason if outcome and outcome.reason in SUCCESS_REASONS else "Completed",
            message=outcome.message if outcome else _WITHOUT_REPORT,
            exit_code=0,
            outcome=outcome,
            pod=pod,
            at=at,
            evidence_missing=container is None,
        )
    reason = next(found for rule in _RULES if (found := rule(evidence)) is not None)
    return Ending(
        succeeded=False,
        reason=reason,
        message=_message(reason, evidence, outcome, job),
        exit_code=evidence.exit_code,
        outcome=outcome,
        pod=pod,
        at=at,
        evidence_missing=reason in (FailureReason.POD_DELETED, FailureReason.NODE_SHUTDOWN)
        and evidence.exit_code is None,
    )


_WITHOUT_REPORT = "the runner succeeded, but its report was lost; the manifest beside the output has the details"


def _succeeded(evidence: Evidence, outcome: Outcome | None) -> bool:
    if evidence.job is not None and not evidence.job.succeeded:
        return False
    exited_well = evidence.container.exit_code == 0 if evidence.container else evidence.job is not None
    return exited_well and (outcome is None or outcome.result is Result.SUCCEEDED)


def _killed_for_memory(evidence: Evidence) -> FailureReason | None:
    container = evidence.container
    return FailureReason.HOST_OUT_OF_MEMORY if container and container.reason == "OOMKilled" else None


def _deadline(evidence: Evidence) -> FailureReason | None:
    reasons = {evidence.pod.reason if evidence.pod else "", evidence.job.reason if evidence.job else ""}
    return FailureReason.DEADLINE_EXCEEDED if "DeadlineExceeded" in reasons else None


def _permanent_class(evidence: Evidence) -> FailureReason | None:
    reason = EXIT_CODES.get(evidence.exit_code or 0)
    return reason if reason and FAILURES[reason].permanent else None


def disruption(pod: PodView) -> FailureReason | None:
    """Why somebody else ended the pod; None if nobody did, or said so.

    What somebody said comes before what a lost container lets one suppose, and who asked for the pod's deletion did not
    wait for a node to restart.
    """
    if pod.reason in SHUTDOWN_REASONS:
        return FailureReason.NODE_SHUTDOWN
    if pod.reason == "Preempting":  # the kubelet itself, for a critical pod
        return FailureReason.PREEMPTED
    if pod.disruption is not None:
        return DISRUPTIONS.get(pod.disruption, FailureReason.EVICTED)
    if pod.reason == "Evicted":
        return FailureReason.EVICTED
    is_lost = isinstance(pod.container, Terminated) and pod.container.reason in UNKNOWN_ENDS
    return FailureReason.NODE_SHUTDOWN if is_lost and pod.deletion_requested is None else None


def _disruption(evidence: Evidence) -> FailureReason | None:
    return disruption(evidence.pod) if evidence.pod else None


def _transient_class(evidence: Evidence) -> FailureReason | None:
    return EXIT_CODES.get(evidence.exit_code or 0)


def _deleted(evidence: Evidence) -> FailureReason | None:
    pod, container = evidence.pod, evidence.container
    if pod is None:
        # With backoffLimit 0, `kubectl delete pod` fails the Job and takes the exit code with it.
        plain = evidence.job is None or evidence.job.succeeded or evidence.job.reason == "BackoffLimitExceeded"
        return FailureReason.POD_DELETED if plain else None
    asked = pod.deletion_requested
    if asked is not None and (container is None or container.finished is None or asked <= container.finished):
        return FailureReason.POD_DELETED
    if evidence.exit_code == EXIT_INTERRUPTED or (pod.gone and container is None):
        return FailureReason.POD_DELETED
    return None


def _never_started(evidence: Evidence) -> FailureReason | None:
    pod = evidence.pod
    refused = pod is not None and pod.phase == "Failed" and evidence.container is None
    return FailureReason.STARTUP_FAILURE if refused else None


def _anything(evidence: Evidence) -> FailureReason:
    del evidence
    return FailureReason.UNKNOWN


_RULES: tuple[Callable[[Evidence], FailureReason | None], ...] = (
    _killed_for_memory,
    _deadline,
    _permanent_class,
    _disruption,
    _transient_class,
    _deleted,
    _never_started,
    _anything,
)


def _message(reason: FailureReason, evidence: Evidence, outcome: Outcome | None, job: JobView | None) -> str:
    """The runner's sentence; else the row of the table, followed by whatever Kubernetes or the log says.

    A disruption needs nobody: another execution follows. And the log of who was ended from outside says nothing of it.
    """
    if outcome is not None and outcome.result is Result.FAILED and outcome.message:
        return outcome.message
    pod, container = evidence.pod, evidence.container
    row = FAILURES[reason]
    from_outside = row.budget is Budget.DISRUPTIONS or reason is FailureReason.HOST_OUT_OF_MEMORY
    telling = container is not None and outcome is None and not from_outside
    log_end = _end_of(container.message.strip()) if container is not None and telling else ""
    job_message = evidence.job.message if evidence.job and not evidence.job.succeeded else ""
    details = log_end or (pod.message if pod else "") or (job_message if pod is None else "")
    where = f"pod {pod.name}" if pod else f"Job {job.name}" if job else "the Job"
    code = f", exit code {evidence.exit_code}" if evidence.exit_code is not None else ""
    opening = "ended without a report" if reason is FailureReason.UNKNOWN else row.meaning
    advice = f"; {row.remedy}" if row.budget is not Budget.DISRUPTIONS else ""
    return f"{where}: {opening}{code}{advice}" + (f": {details}" if details else "")


def _end_of(log: str) -> str:
    return log if len(log) <= LOG_CHARACTERS else f"…{log[-LOG_CHARACTERS:]}"
