"""Statuses as the operator writes them, for readers that the operator itself has no part in."""

from collections.abc import Mapping
from typing import Any

NOON = "2026-03-01T12:00:00Z"
# What a restoration's conditions say while nothing is the matter: (status, reason).
_IN_PROGRESS: Mapping[str, tuple[str, str]] = {
    "Accepted": ("True", "Valid"),
    "Scheduled": ("Unknown", "Pending"),
    "Suspended": ("False", "NotSuspended"),
    "Succeeded": ("Unknown", "InProgress"),
    "Finished": ("False", "InProgress"),
    "Reconciling": ("True", "InProgress"),
    "Stalled": ("False", "NotStalled"),
}


def make_status(phase: str, *, message: str = "", fields: Mapping[str, Any] | None = None, **conditions: str) -> Any:
    """A status: `make_status("Pending", Accepted="False/ProfileNotFound", message="there is no such profile")`.

    The message goes to the conditions that are named; the others are as in a restoration that is under way.
    """
    entries = []
    for kind, usual in _IN_PROGRESS.items():
        status, reason = conditions[kind].split("/") if kind in conditions else usual
        entries.append(
            {
                "type": kind,
                "status": status,
                "reason": reason,
                "message": message if kind in conditions else "",
                "lastTransitionTime": NOON,
                "observedGeneration": 1,
            }
        )
    return {"phase": phase, "observedGeneration": 1, "conditions": entries, **(fields or {})}


def running(percent: int) -> Any:
    """At work on the first execution."""
    progress = {
        "stage": "Restoring",
        "summary": f"{percent}% {percent}/100",
        "percent": percent,
        "framesDone": percent,
        "framesTotal": 100,
        "milliFramesPerSecond": 12500,
        "estimatedCompletionTime": "2026-03-01T12:05:30Z",
        "lastUpdateTime": NOON,
    }
    fields = {"progress": progress, "attempts": {"executions": 1}, "jobName": "vr-clip-00000000-e1-run"}
    return make_status("Running", Scheduled="True/Running", message="pod p on node n1", fields=fields)


def succeeded() -> Any:
    """Done, and its output published."""
    ended = dict.fromkeys(("Succeeded", "Finished"), "True/Completed")
    fields = {"output": {"uri": "s3://media/restored/clip.mp4"}, "attempts": {"executions": 1}}
    return make_status("Succeeded", message="verified 100 frames", fields=fields, **ended)


def failed(reason: str, message: str, *, last: str | None = None) -> Any:
    """Failed for good; `last` is the class of the last execution where that is not the reason."""
    attempt = {"execution": 1, "nodeName": "n1", "exitCode": 10, "reason": last or reason, "message": message}
    attempt |= {"jobName": "vr-clip-00000000-e1-run", "startTime": NOON, "endTime": NOON}
    fields = {"attempts": {"executions": 1}, "attemptHistory": [attempt], "jobName": attempt["jobName"]}
    return make_status("Failed", message=message, fields=fields, Succeeded=f"False/{reason}", Finished=f"True/{reason}")
