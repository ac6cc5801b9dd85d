"""Whether another execution follows a failed one, and when.

Three budgets (`spec.retryPolicy`) keep apart what the work, the infrastructure and other people's priorities cost; the
counters in the status outlive the bounded history. Whatever no second try can change has no budget and ends at once.
Waits double and are spread, so that a storage that comes back is not met by everybody in the same second; spreading is
derived from uid and number, because a decision must come out the same when it is made again.
"""

import hashlib
from dataclasses import dataclass
from datetime import datetime, timedelta
from math import ceil
from typing import Final

from restoration_api.outcome import FAILURES, Budget, FailureClass, FailureReason
from restoration_api.resources import ConditionType, VideoRestoration, VideoRestorationStatus
from restoration_api.resources.restoration import RetryPolicy
from restoration_api.resources.status import Attempts
from restoration_operator.decide import attempts
from restoration_operator.decide.conditions import NOT_SCHEDULED, clip, current
from restoration_operator.decide.types import Ending

RETRIES_EXHAUSTED: Final = "RetriesExhausted"
BACKING_OFF: Final = "BackingOff"
"""Reason of `Scheduled=False` while the next execution waits for its time."""

JITTER: Final = 0.25
"""Largest part of a wait that is left out: enough to spread a thousand restarts over the last minute of five."""

EXCERPT_CHARACTERS: Final = 256
"""Of the last message, in a message that says more than that; the whole is in the attempt history."""

_DOUBLINGS: Final = 30
"""Beyond these every wait has met its limit."""


@dataclass(frozen=True)
class Again:
    """Another execution follows; `counted` are the counters with this failure in them."""

    counted: Attempts


@dataclass(frozen=True)
class Over:
    """No other execution follows."""

    reason: str
    message: str


@dataclass(frozen=True, kw_only=True)
class Due:
    """When the execution after a failed one may start, and what the user is told until then."""

    at: datetime
    reason: str
    message: str


def judge(policy: RetryPolicy, status: VideoRestorationStatus, ending: Ending, *, number: int) -> Again | Over:
    """What follows the failure of execution `number`; `status` has not counted it yet."""
    row = failure_class(ending.reason)
    if row is None or row.permanent:
        return Over(ending.reason, ending.message)
    before = sum(item.reason == row.reason and item.execution != number for item in status.attempt_history)
    if row.most_retries is not None and before >= row.most_retries:
        return Over(row.reason, f"{ending.message} (it ended the same way before: no other try follows)")
    used, most = _used(status.attempts, row.budget), _most(policy, row.budget)
    if most is not None and used >= most:
        limit = f"{row.budget.value}={most} allows no other execution after {_executions(number)}"
        return Over(RETRIES_EXHAUSTED, f"{limit}; the last one ended with {row.reason.value}: {ending.message}")
    return Again(status.attempts.model_copy(update={_COUNTERS[row.budget]: used + 1}))


def due(restoration: VideoRestoration) -> Due | None:
    """When the next execution may start; None if the last one did not fail, or is not over."""
    status, policy = restoration.status, restoration.spec.retry_policy
    number = status.attempts.executions
    last = attempts.entry(status, number)
    row = failure_class(last.reason) if last else None
    if last is None or last.end_time is None or row is None or row.permanent:
        return None
    wait = _wait_seconds(policy, status.attempts.failures_in_a_row, spread=_fraction(restoration.metadata.uid, number))
    at = last.end_time + timedelta(seconds=wait)
    text = clip(last.message or row.meaning, EXCERPT_CHARACTERS)
    used, most = _used(status.attempts, row.budget), _most(policy, row.budget)
    counted = f"{used} of {most} {_NOUNS[row.budget]}" if most is not None else f"{_NOUNS[row.budget]} so far: {used}"
    return Due(
        at=at,
        reason=row.reason if row.reason is FailureReason.NODE_LOST else BACKING_OFF,
        message=(
            f"execution {number + 1} starts at {at:%Y-%m-%dT%H:%M:%SZ} ({counted}); "
            f"execution {number} ended with {row.reason.value}: {text}"
        ),
    )


def failures_in_a_row(policy: RetryPolicy, status: VideoRestorationStatus, number: int) -> int:
    """Failures since the last execution that was worth its wait, that one included; `number` has just failed.

    An execution that ran for longer than the longest wait has finished segments to show: what comes after it begins
    with a short wait again, or a day on preemptible nodes would end in five minutes of waiting after each. Counted in
    the status, because the history ends after ten.
    """
    last = attempts.entry(status, number)
    long = last is not None and attempts.ran_seconds(last) > policy.max_backoff_seconds
    return 1 if long else status.attempts.failures_in_a_row + 1


def is_waiting(status: VideoRestorationStatus) -> bool:
    """Whether the stored status says that the next execution waits for its time."""
    return current(status, ConditionType.SCHEDULED, NOT_SCHEDULED).reason in _WAITING


def failure_class(reason: str | None) -> FailureClass | None:
    """The row of the failure table; None for `Completed`, `Suspended`, or a class of a newer operator."""
    return FAILURES.get(FailureReason(reason)) if reason in _REASONS else None


_WAITING: Final = frozenset({BACKING_OFF, FailureReason.NODE_LOST.value})
_REASONS: Final = frozenset(item.value for item in FailureReason)
_COUNTERS: Final = {
    Budget.RETRIES: "retries",
    Budget.INFRASTRUCTURE: "infrastructure_retries",
    Budget.DISRUPTIONS: "disruptions",
}
_NOUNS: Final = {
    Budget.RETRIES: "retries",
    Budget.INFRASTRUCTURE: "infrastructure retries",
    Budget.DISRUPTIONS: "disruptions",
}


def _used(counters: Attempts, budget: Budget) -> int:
    return {
        Budget.RETRIES: counters.retries,
        Budget.INFRASTRUCTURE: counters.infrastructure_retries,
        Budget.DISRUPTIONS: counters.disruptions,
    }[budget]


def _most(policy: RetryPolicy, budget: Budget) -> int | None:
    """None: unlimited."""
    return {
        Budget.RETRIES: policy.max_retries,
        Budget.INFRASTRUCTURE: policy.max_infrastructure_retries,
        Budget.DISRUPTIONS: policy.max_disruptions,
    }[budget]


def _executions(number: int) -> str:
    return "1 execution" if number == 1 else f"{number} executions"


def _wait_seconds(policy: RetryPolicy, failures: int, *, spread: float) -> int:
    doublings = min(max(failures - 1, 0), _DOUBLINGS)
    whole: int = min(policy.backoff_seconds * 2**doublings, policy.max_backoff_seconds)
    return ceil(whole * (1 - JITTER * spread))


def _fraction(uid: str, number: int) -> float:
    """Between 0 and 1, and always the same for the same execution."""
    digest = hashlib.sha256(f"{uid}/{number}".encode()).digest()
    return int.from_bytes(digest[:4]) / 2**32
