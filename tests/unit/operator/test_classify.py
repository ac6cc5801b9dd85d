"""How an execution ended: one row per way, in the words of the failure table."""

from __future__ import annotations

import pytest
from tests.builders import outcomes
from tests.builders.observations import at, broken, complete, ended, pod, running, waiting

from restoration_api.outcome import EXIT_CODES, FAILURES, FailureReason
from restoration_operator.decide.attempts import MESSAGE_CHARACTERS
from restoration_operator.decide.classify import ending
from restoration_operator.decide.conditions import clip
from restoration_operator.views import JobView, PodView, Terminated

R = FailureReason
FAIL_JOB = "Container runner for pod default/clip-pod failed with exit code 12 matching FailJob rule at index 0"
NEVER_STARTED = Terminated(exit_code=137, reason="ContainerStatusUnknown", message="", started=None, finished=None)
"""What a kubelet says of a container that it was still creating when its pod was ended."""
LOG = '{"event": "segment finished", "segment": 3}'

WAYS: list[tuple[str, JobView | None, PodView | None, str]] = [
    *(
        (f"exit {code}", broken("PodFailurePolicy"), pod(ended(code, outcomes.failed(reason, "why"))), reason)
        for code, reason in EXIT_CODES.items()
    ),
    ("success", complete(), pod(ended(0, outcomes.succeeded())), "Completed"),
    ("cache hit", complete(), pod(ended(0, outcomes.succeeded(reason="CacheHit"))), "CacheHit"),
    ("success without a report", complete(), pod(ended(0, "some log")), "Completed"),
    ("success, pod gone", complete(), None, "Completed"),
    ("success of a Job that somebody deleted", None, pod(ended(0, outcomes.succeeded()), gone=True), "Completed"),
    ("the report says otherwise", complete(), pod(ended(0, outcomes.failed(R.UNKNOWN, "no"))), R.UNKNOWN),
    ("out of memory", broken(), pod(ended(137, reason="OOMKilled")), R.HOST_OUT_OF_MEMORY),
    ("137 alone means nothing", broken(), pod(ended(137)), R.UNKNOWN),
    ("143 alone", broken(), pod(ended(143)), R.POD_DELETED),
    ("deadline", broken(), pod(ended(143), reason="DeadlineExceeded"), R.DEADLINE_EXCEEDED),
    ("deadline of the Job", broken("DeadlineExceeded"), None, R.DEADLINE_EXCEEDED),
    ("preempted", broken(), pod(ended(143), disruption="PreemptionByScheduler"), R.PREEMPTED),
    ("drained", broken(), pod(ended(143), disruption="EvictionByEvictionAPI"), R.EVICTED),
    ("tainted", broken(), pod(ended(143), disruption="DeletionByTaintManager"), R.EVICTED),
    ("node pressure", broken(), pod(ended(137), reason="Evicted", disruption="TerminationByKubelet"), R.EVICTED),
    ("shutdown", broken(), pod(ended(143), reason="Terminated", disruption="TerminationByKubelet"), R.NODE_SHUTDOWN),
    ("kubelet makes room for a critical pod", broken(), pod(ended(143), reason="Preempting"), R.PREEMPTED),
    ("node rebooted", broken(), pod(ended(137, reason="ContainerStatusUnknown")), R.NODE_SHUTDOWN),
    ("runtime restarted", broken(), pod(ended(255, reason="Unknown")), R.NODE_SHUTDOWN),
    ("node deleted", broken(), pod(running(), phase="Failed", disruption="DeletionByPodGC"), R.NODE_LOST),
    *(
        (f"never started, {name}", broken(), pod(**{"container": NEVER_STARTED, "phase": "Failed", **changes}), reason)
        for name, changes, reason in (
            ("evicted", {"disruption": "EvictionByEvictionAPI", "deletion_requested": at(30)}, R.EVICTED),
            ("preempted", {"disruption": "PreemptionByScheduler", "deletion_requested": at(30)}, R.PREEMPTED),
            ("tainted", {"disruption": "DeletionByTaintManager", "deletion_requested": at(30)}, R.EVICTED),
            ("node pressure", {"disruption": "TerminationByKubelet", "reason": "Evicted"}, R.EVICTED),
            ("node under pressure refuses", {"reason": "Evicted", "container": None}, R.EVICTED),
            ("node shuts down", {"disruption": "TerminationByKubelet", "reason": "Terminated"}, R.NODE_SHUTDOWN),
            ("node that shuts down refuses", {"reason": "NodeShutdown", "container": None}, R.NODE_SHUTDOWN),
            ("kubelet makes room", {"disruption": "TerminationByKubelet", "reason": "Preempting"}, R.PREEMPTED),
            ("deleted", {"deletion_requested": at(30)}, R.POD_DELETED),
            ("deleted without a node", {"deletion_requested": at(30), "node": None, "container": None}, R.POD_DELETED),
        )
    ),
    ("evicted with a permanent class", broken(), pod(ended(10), disruption="EvictionByEvictionAPI"), R.INVALID_INPUT),
    ("evicted with a transient class", broken(), pod(ended(21), disruption="EvictionByEvictionAPI"), R.EVICTED),
    ("not admitted", broken(), pod(None, phase="Failed", reason="UnexpectedAdmissionError"), R.STARTUP_FAILURE),
    (
        "wrong node",
        broken(),
        pod(waiting("ContainerCreating"), phase="Failed", reason="NodeAffinity"),
        R.STARTUP_FAILURE,
    ),
    ("pod gone with its exit code", broken(), None, R.POD_DELETED),
    ("pod gone, the Job remembers", broken("PodFailurePolicy", FAIL_JOB), None, R.INPUT_NOT_FOUND),
    *(
        (f"pod gone, an earlier one {name}", broken("PodFailurePolicy", FAIL_JOB), earlier, R.INPUT_NOT_FOUND)
        for name, earlier in (
            ("was lost", pod(ended(137, reason="ContainerStatusUnknown"))),
            ("was evicted", pod(ended(143), disruption="EvictionByEvictionAPI")),
            ("had no memory", pod(ended(137, reason="OOMKilled"))),
            ("found no storage", pod(ended(30, outcomes.failed(R.STORAGE_ERROR, "why")))),
        )
    ),
    ("pod gone while it ran", broken(), pod(running(), gone=True), R.POD_DELETED),
    ("asked to go before it ended", broken(), pod(ended(1), deletion_requested=at(30)), R.POD_DELETED),
    ("asked to go after it ended", broken(), pod(ended(1), deletion_requested=at(120)), R.UNKNOWN),
    ("Job and pod gone", None, None, R.POD_DELETED),
    ("Job failed otherwise, no pod", broken("FailedIndexes"), None, R.UNKNOWN),
    ("unforeseen", broken(), pod(ended(1, "Traceback: boom")), R.UNKNOWN),
]


@pytest.mark.parametrize(("job", "last", "reason"), [way[1:] for way in WAYS], ids=[way[0] for way in WAYS])
def test_ways_to_end(job: JobView | None, last: PodView | None, reason: str) -> None:
    result = ending(job, last)
    assert result.reason == reason
    assert result.succeeded is (reason in ("Completed", "CacheHit"))
    assert result.message


def test_every_class_that_an_execution_can_end_with_has_a_row() -> None:
    decided_elsewhere = {R.SNAPSHOT_TAMPERED}
    assert set(FAILURES) - decided_elsewhere <= {way[3] for way in WAYS}


@pytest.mark.parametrize(
    ("last", "part"),
    [
        (
            pod(ended(10, outcomes.failed(R.INVALID_INPUT, "s3://a/b has no video stream"))),
            "s3://a/b has no video stream",
        ),
        (
            pod(ended(1, "line 1\nTraceback: boom\n")),
            "exit code 1; see the message and the log of the Job: line 1\nTraceback: boom",
        ),
        (pod(None, phase="Failed", reason="OutOfcpu", message="Node didn't have enough cpu"), "didn't have enough cpu"),
        (None, "deleted by somebody else"),
        (pod(ended(137, reason="OOMKilled")), "OOMKilled, exit code 137; raise resources.limits.memory"),
    ],
)
def test_the_message_says_what_is_known(last: PodView | None, part: str) -> None:
    assert part in ending(broken(), last).message


@pytest.mark.parametrize(
    "last",
    [
        pod(ended(137, LOG, reason="OOMKilled")),
        pod(ended(143, LOG)),
        pod(ended(143, LOG), disruption="EvictionByEvictionAPI"),
        pod(ended(255, LOG, reason="Unknown")),
    ],
    ids=["out of memory", "pod deleted", "evicted", "node restarted"],
)
def test_the_log_of_who_was_ended_from_outside_says_nothing_of_it(last: PodView) -> None:
    assert LOG not in ending(broken(), last).message


def test_of_a_long_log_the_end_is_kept() -> None:
    """The kubelet hands over 2048 bytes, the history holds 1024: what is cut is the beginning."""
    log = "".join(f"line {number}\n" for number in range(300)) + "ValueError: boom"
    message = clip(ending(broken(), pod(ended(1, log))).message, MESSAGE_CHARACTERS)
    assert message.startswith("pod clip-pod: ended without a report, exit code 1")
    assert message.endswith("ValueError: boom")


@pytest.mark.parametrize(
    ("job", "last", "missing"),
    [
        (broken(), None, True),
        (None, None, True),
        (broken(), pod(running(), gone=True), True),
        (broken(), pod(ended(255, reason="Unknown")), True),
        (complete(), None, True),
        (broken(), pod(ended(143)), False),
        (broken(), pod(ended(1)), False),
        (broken("PodFailurePolicy", FAIL_JOB), None, False),
        (complete(), pod(ended(0, outcomes.succeeded())), False),
    ],
    ids=["pod gone", "all gone", "gone while it ran", "nobody knows", "report lost", "143", "1", "FailJob", "success"],
)
def test_when_only_the_bucket_knows(job: JobView | None, last: PodView | None, missing: bool) -> None:
    assert ending(job, last).evidence_missing is missing
