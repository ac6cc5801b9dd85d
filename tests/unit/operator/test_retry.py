"""Whether another execution follows, when, and how it differs: one row per rule."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
from tests.builders.observations import at, profile, restoration

from restoration_api.outcome import FAILURES, FailureReason
from restoration_api.resources import VideoRestoration
from restoration_api.resources.status import Attempt
from restoration_operator.decide import attempts, deadline, retry
from restoration_operator.decide.types import Ending
from restoration_operator.decide.variation import next_execution

R = FailureReason
MINUTES = 60


def tried(*history: Attempt, policy: dict[str, Any] | None = None, **counters: int) -> VideoRestoration:
    """A restoration with these ended executions behind it."""
    changes = {"retryPolicy": policy} if policy else None
    body = restoration(changes)
    last = max((item.execution for item in history), default=0)
    status = body.status
    for item in sorted(history, key=lambda item: item.execution):
        status = attempts.record(status, item.execution, **item.model_dump(exclude={"execution"}))
        failure = retry.failure_class(item.reason) is not None
        in_a_row = retry.failures_in_a_row(body.spec.retry_policy, status, item.execution) if failure else 0
        status = attempts.counted(status, failures_in_a_row=in_a_row)
    return body.model_copy(update={"status": attempts.counted(status, executions=last, **counters)})


def failed(number: int, reason: str, *, ran: float = 30, ended: float = 100, **facts: Any) -> Attempt:
    """An execution that ended `ended` seconds after the restoration was made, having run for `ran`."""
    return Attempt(execution=number, reason=reason, start_time=at(ended - ran), end_time=at(ended), **facts)


def ending(reason: str, message: str = "why") -> Ending:
    return Ending(succeeded=False, reason=reason, message=message)


@dataclass(frozen=True, kw_only=True)
class Judged:
    """One row: what ended, what was counted before, and what follows."""

    reason: str
    policy: dict[str, Any] = field(default_factory=dict)
    history: tuple[Attempt, ...] = ()
    counters: dict[str, int] = field(default_factory=dict)
    over: str | None = None
    counted: dict[str, int] = field(default_factory=dict)


PERMANENT = [row.reason for row in FAILURES.values() if row.permanent]
VERDICTS = {
    **{f"{reason} is final": Judged(reason=reason, over=reason) for reason in PERMANENT},
    "a missed start deadline is final": Judged(
        reason=deadline.START_DEADLINE_EXCEEDED, over=deadline.START_DEADLINE_EXCEEDED
    ),
    "storage": Judged(reason=R.STORAGE_ERROR, counted={"retries": 1}),
    "a GPU fault": Judged(reason=R.GPU_FAULT, counters={"retries": 2}, counted={"retries": 3}),
    "unforeseen": Judged(reason=R.UNKNOWN, counted={"retries": 1}),
    "no model": Judged(reason=R.MODEL_UNAVAILABLE, counted={"retries": 1}),
    "not started": Judged(reason=R.STARTUP_FAILURE, counted={"infrastructure_retries": 1}),
    **{
        f"{reason} is a disruption": Judged(
            reason=reason, counters={"disruptions": 5000}, counted={"disruptions": 5001}
        )
        for reason in (R.PREEMPTED, R.EVICTED, R.NODE_SHUTDOWN, R.NODE_LOST, R.POD_DELETED)
    },
    "retries used up": Judged(reason=R.STORAGE_ERROR, counters={"retries": 3}, over="RetriesExhausted"),
    "no retries wanted": Judged(reason=R.UNKNOWN, policy={"maxRetries": 0}, over="RetriesExhausted"),
    "infrastructure used up": Judged(
        reason=R.STARTUP_FAILURE, counters={"infrastructure_retries": 5}, over="RetriesExhausted"
    ),
    "disruptions used up": Judged(
        reason=R.EVICTED, policy={"maxDisruptions": 2}, counters={"disruptions": 2}, over="RetriesExhausted"
    ),
    "budgets are separate": Judged(
        reason=R.EVICTED, counters={"retries": 3, "infrastructure_retries": 5}, counted={"disruptions": 1}
    ),
    "out of memory once": Judged(reason=R.HOST_OUT_OF_MEMORY, counted={"retries": 1}),
    "out of memory twice": Judged(
        reason=R.HOST_OUT_OF_MEMORY,
        history=(failed(1, R.HOST_OUT_OF_MEMORY), failed(2, R.EVICTED)),
        counters={"retries": 1},
        over=R.HOST_OUT_OF_MEMORY,
    ),
    "verification twice": Judged(
        reason=R.VERIFICATION_FAILED,
        history=(failed(1, R.VERIFICATION_FAILED),),
        counters={"retries": 1},
        over=R.VERIFICATION_FAILED,
    ),
    "each of the two once": Judged(
        reason=R.VERIFICATION_FAILED,
        history=(failed(1, R.HOST_OUT_OF_MEMORY),),
        counters={"retries": 1},
        counted={"retries": 2},
    ),
}


@pytest.mark.parametrize("row", VERDICTS.values(), ids=VERDICTS.keys())
def test_verdicts(row: Judged) -> None:
    number = len(row.history) + 1
    closed = (*row.history, failed(number, row.reason))
    seen = tried(*closed, policy=row.policy, **row.counters)
    verdict = retry.judge(seen.spec.retry_policy, seen.status, ending(row.reason), number=number)
    if row.over is not None:
        assert isinstance(verdict, retry.Over)
        assert verdict.reason == row.over
        assert row.reason in verdict.message or verdict.reason == row.reason
        assert "why" in verdict.message
    else:
        assert isinstance(verdict, retry.Again)
        before = seen.status.attempts
        assert verdict.counted == before.model_copy(update=row.counted), "exactly one budget is charged"


def test_every_class_has_a_verdict() -> None:
    assert {row.reason for row in VERDICTS.values()} >= set(FAILURES)


STORAGE = [failed(number, R.STORAGE_ERROR, ended=100 * number) for number in range(1, 11)]
WAITS = {
    "the first": (STORAGE[:1], {}, 10),
    "it doubles": (STORAGE[:3], {}, 40),
    "it has a limit": (STORAGE[:9], {}, 300),
    "both are the user's": (
        [failed(number, R.STORAGE_ERROR, ran=1) for number in (1, 2, 3)],
        {"backoffSeconds": 1, "maxBackoffSeconds": 3},
        3,
    ),
    "more failures than the history holds": (
        [failed(number, R.STORAGE_ERROR, ended=100 * number) for number in range(1, 14)],
        {"backoffSeconds": 1, "maxBackoffSeconds": 86400},
        4096,
    ),
    "a first wait above the limit": (STORAGE[:1], {"backoffSeconds": 3600}, 300),
    "whatever the class, in a row is in a row": ([STORAGE[0], failed(2, R.EVICTED, ended=200)], {}, 20),
    "after a long run the first wait again": ([*STORAGE[:5], failed(6, R.EVICTED, ran=301, ended=900)], {}, 10),
    "and the second after that": ([*STORAGE[:5], failed(6, R.EVICTED, ran=301), failed(7, R.EVICTED)], {}, 20),
    "a suspension is a new beginning": ([*STORAGE[:5], failed(6, "Suspended"), failed(7, R.EVICTED)], {}, 10),
    "one that never ran": ([Attempt(execution=1, reason=R.STARTUP_FAILURE, end_time=at(100))], {}, 10),
}


@pytest.mark.parametrize(("history", "policy", "seconds"), WAITS.values(), ids=WAITS.keys())
def test_waits(history: list[Attempt], policy: dict[str, Any], seconds: int) -> None:
    due = retry.due(tried(*history, policy=policy, retries=1))
    end = history[-1].end_time
    assert due is not None
    assert end is not None
    assert seconds * (1 - retry.JITTER) <= (due.at - end).total_seconds() <= seconds


def test_waits_are_spread_and_repeatable() -> None:
    def wait(uid: str) -> float:
        history = tuple(failed(number, R.STORAGE_ERROR, ended=100) for number in range(1, 8))
        seen = tried(*history)
        meta = seen.metadata.model_copy(update={"uid": uid})
        due = retry.due(seen.model_copy(update={"metadata": meta}))
        assert due is not None
        return (due.at - at(100)).total_seconds()

    waits = [wait(f"uid-{number}") for number in range(200)]
    assert waits == [wait(f"uid-{number}") for number in range(200)]
    assert len(set(waits)) > 50
    assert min(waits) >= 225
    assert max(waits) <= 300


@pytest.mark.parametrize(
    "history",
    [
        [],
        [Attempt(execution=1)],
        [failed(1, "Suspended")],
        [failed(1, "ClassOfANewerOperator")],
        [failed(1, R.INVALID_INPUT)],
    ],
    ids=["nothing yet", "it runs", "suspended", "unheard-of", "permanent"],
)
def test_no_wait(history: list[Attempt]) -> None:
    assert retry.due(tried(*history)) is None


def test_the_message_says_what_when_and_how_often() -> None:
    seen = tried(failed(1, R.STORAGE_ERROR, message="503 from https://s3.example.com"), retries=1)
    due = retry.due(seen)
    assert due is not None
    assert due.reason == "BackingOff"
    assert due.message == (
        f"execution 2 starts at {due.at:%Y-%m-%dT%H:%M:%SZ} (1 of 3 retries); "
        "execution 1 ended with StorageError: 503 from https://s3.example.com"
    )


def test_unlimited_disruptions_are_only_counted() -> None:
    due = retry.due(tried(failed(1, R.NODE_LOST, message="node-1 is gone"), disruptions=7))
    assert due is not None
    assert due.reason == "NodeLost"
    assert "(disruptions so far: 7)" in due.message


MEMORY = {
    "nothing yet": ((), {}, None),
    "half of the limit": ((failed(1, R.HOST_OUT_OF_MEMORY),), {"resources.limits": {"memory": "24Gi"}}, 12 * 1024),
    "a decimal limit": ((failed(1, R.HOST_OUT_OF_MEMORY),), {"resources.limits": {"memory": "1.5G"}}, 715),
    "bytes": ((failed(1, R.HOST_OUT_OF_MEMORY),), {"resources.limits": {"memory": 1 << 30}}, 512),
    "no limit": ((failed(1, R.HOST_OUT_OF_MEMORY),), {}, 2048),
    "it stays": (
        (failed(1, R.HOST_OUT_OF_MEMORY), failed(2, R.EVICTED)),
        {"resources.limits": {"memory": "2Gi"}},
        1024,
    ),
    "another class": ((failed(1, R.STORAGE_ERROR),), {"resources.limits": {"memory": "2Gi"}}, None),
}


@pytest.mark.parametrize(("history", "changes", "hint"), MEMORY.values(), ids=MEMORY.keys())
def test_memory_hints(history: tuple[Attempt, ...], changes: dict[str, Any], hint: int | None) -> None:
    seen = tried(*history)
    execution = next_execution(seen.status, profile(changes).spec, len(history) + 1, seconds_left=None)
    assert execution.memory_hint_mib == hint


FAULT = failed(1, R.GPU_FAULT, node_name="node-1")
NODES = {
    "nothing yet": ((), ()),
    "another class": ((failed(1, R.STORAGE_ERROR, node_name="node-1"),), ()),
    "the node of the fault": ((FAULT,), ("node-1",)),
    "one execution only": ((FAULT, failed(2, R.STORAGE_ERROR, node_name="node-2", excluded_nodes=("node-1",))), ()),
    "fault after fault": (
        (FAULT, failed(2, R.GPU_FAULT, node_name="node-2", excluded_nodes=("node-1",))),
        ("node-1", "node-2"),
    ),
    "nobody knows where": ((failed(1, R.GPU_FAULT),), ()),
}


@pytest.mark.parametrize(("history", "nodes"), NODES.values(), ids=NODES.keys())
def test_excluded_nodes(history: tuple[Attempt, ...], nodes: tuple[str, ...]) -> None:
    seen = tried(*history)
    execution = next_execution(seen.status, profile().spec, len(history) + 1, seconds_left=None)
    assert execution.excluded_nodes == nodes


class TestHistory:
    def test_it_is_bounded_and_what_counts_stays(self) -> None:
        history = [failed(1, R.HOST_OUT_OF_MEMORY), *(failed(number, R.EVICTED) for number in range(2, 31))]
        seen = tried(*history)
        assert [item.execution for item in seen.status.attempt_history] == [1, *range(22, 31)]

    def test_running_time_outlives_it(self) -> None:
        status = restoration().status
        for number in range(1, 31):
            status = attempts.record(status, number, start_time=at(1000 * number))
            status = attempts.close(status, number, ending(R.EVICTED), end_time=at(1000 * number + 7))
        assert len(status.attempt_history) == 10
        assert status.attempts.running_seconds == 30 * 7

    def test_clocks_of_two_machines(self) -> None:
        assert attempts.ran_seconds(Attempt(execution=1, start_time=at(10), end_time=at(3))) == 0
