"""The attempt history: one entry per execution, the user's post-mortem and the operator's durable memory.

An entry is written when the execution's Job has been seen. So "reserved, but no entry" means that the Job may never
have existed and is created under that very name; "entry, but no Job" means that it was there and is gone. An entry
with an end time is closed: the next execution gets a new number.

The history is bounded; what must not be forgotten with an entry (budgets, running time) is in `status.attempts`.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

from restoration_api.outcome import FAILURES
from restoration_api.resources import VideoRestorationStatus
from restoration_api.resources.status import Attempt
from restoration_operator.decide.conditions import clip
from restoration_operator.decide.types import Ending
from restoration_operator.views import JobView

HISTORY_ENTRIES: Final = 10
MESSAGE_CHARACTERS: Final = 1024
MOST_EXCLUDED_NODES: Final = 16
"""These three are what the schema holds; an administrator's `specPatch` may exclude more nodes."""
SUSPENDED: Final = "Suspended"
"""Reason of an entry whose Job the operator ended because the user suspended the restoration."""

_COUNTED_BY_ENTRY: Final = frozenset(row.reason.value for row in FAILURES.values() if row.most_retries is not None)
"""Classes with a limit of their own, which is counted in the history: their entries stay."""


def entry(status: VideoRestorationStatus, number: int) -> Attempt | None:
    """The entry of an execution."""
    return next((item for item in status.attempt_history if item.execution == number), None)


def begin(status: VideoRestorationStatus, number: int, job: JobView) -> VideoRestorationStatus:
    """The status with the entry of an execution whose Job was seen: what that was told, and others were not."""
    return record(
        status,
        number,
        job_name=job.name,
        active_deadline_seconds=job.active_deadline_seconds,
        memory_hint_mib=job.memory_hint_mib,
        excluded_nodes=job.excluded_nodes[:MOST_EXCLUDED_NODES] or None,
    )


def leave_open(
    status: VideoRestorationStatus, number: int, ending: Ending, *, reason: str, end_time: datetime
) -> VideoRestorationStatus:
    """The status after a Job of an execution that another Job of the same one follows: its running time counts, too."""
    closed = close(status, number, ending, job_name=status.job_name, end_time=end_time)
    return record(closed, number, reason=reason, end_time=None, exit_code=None)


def end_open(status: VideoRestorationStatus, ending: Ending, now: datetime) -> VideoRestorationStatus:
    """The status of a restoration that ends between two Jobs of an execution: that is over, too."""
    number = status.attempts.executions
    item = entry(status, number)
    if item is None or item.end_time is not None:
        return status
    return record(status, number, reason=ending.reason, message=clip(ending.message, MESSAGE_CHARACTERS), end_time=now)


def reopen(status: VideoRestorationStatus, number: int) -> VideoRestorationStatus:
    """The status before another Job of the same execution is created: what was noted of the one before is forgotten."""
    if entry(status, number) is None:
        return status
    return record(status, number, reason=None, message=None, start_time=None, pod_name=None, node_name=None)


def record(status: VideoRestorationStatus, number: int, **facts: Any) -> VideoRestorationStatus:
    """The status with these facts in the entry of an execution, which is added if it is new."""
    old = entry(status, number) or Attempt(execution=number)
    others = [item for item in status.attempt_history if item.execution != number]
    return status.model_copy(update={"attempt_history": _bounded([*others, old.model_copy(update=facts)])})


def close(status: VideoRestorationStatus, number: int, ending: Ending, **facts: Any) -> VideoRestorationStatus:
    """The status with the entry of an execution closed and its running time counted; once per execution."""
    outcome, pod = ending.outcome, ending.pod
    known: dict[str, Any] = {
        "exit_code": ending.exit_code,
        "gpu": outcome.gpu if outcome else None,
        "segments_done": outcome.segments_done if outcome else None,
        "pod_name": pod.name if pod else None,
        "node_name": pod.node if pod else None,
        "start_time": pod.taken if pod else None,
    }
    closed = record(
        status,
        number,
        **{name: value for name, value in known.items() if value is not None},
        reason=ending.reason,
        message=short(ending.message) or None,
        **facts,
    )
    item = entry(closed, number)
    return with_running_seconds(closed, ran_seconds(item) if item else 0)


def short(text: str) -> str:
    """A message as long as an entry holds."""
    return clip(text, MESSAGE_CHARACTERS)


def with_running_seconds(status: VideoRestorationStatus, more: int) -> VideoRestorationStatus:
    """The status with so much more running time counted against `activeDeadlineSeconds`."""
    return counted(status, running_seconds=status.attempts.running_seconds + more)


def counted(status: VideoRestorationStatus, **counters: int) -> VideoRestorationStatus:
    """The status with these counters."""
    return status.model_copy(update={"attempts": status.attempts.model_copy(update=counters)})


def ran_seconds(item: Attempt) -> int:
    """From the moment a kubelet took the pod to the end; 0 if it never ran or is not over.

    Clocks of two machines: an end before its start is 0, not negative.
    """
    if item.start_time is None or item.end_time is None:
        return 0
    return max(0, int((item.end_time - item.start_time).total_seconds()))


def _bounded(items: Sequence[Attempt]) -> tuple[Attempt, ...]:
    """The newest ten, and in place of the oldest of them those that still count."""
    surplus = len(items) - HISTORY_ENTRIES
    passing = [item.execution for item in items if item.reason not in _COUNTED_BY_ENTRY]
    dropped = set(passing[: max(0, surplus)])
    return tuple(item for item in items if item.execution not in dropped)
