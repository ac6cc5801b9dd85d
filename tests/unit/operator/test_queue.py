"""A Job that a queue holds back, lets go, and takes back: what the status says and what is counted."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from tests.builders.observations import (
    JOB_UID,
    at,
    at_work,
    condition,
    created_jobs,
    deleted_jobs,
    ended,
    job,
    observe,
    pod,
    restoration,
    running,
    settle,
    started,
    wishing,
)

from restoration_operator.build import queueing
from restoration_operator.decide.decision import decide
from restoration_operator.decide.types import LookAtQueue, Observation, QueueWord
from restoration_operator.decide.workload import waits_for
from restoration_operator.views import JobView

HELD = "held back by its queue"


def suspended_job(since: float = 20, **changes: Any) -> JobView:
    return job(suspended=True, started=None, suspended_at=at(since), suspension="Job suspended", **changes)


def evicted(changes: dict[str, Any] | None = None, **rest: Any) -> Observation:
    """It ran from second 3 on; at second 20 the queue took the place back, and the pod is on its way out."""
    leaving = pod(running(), deletion_requested=at(20), deletion_due=at(50))
    seen = observe(at_work(changes), jobs=[suspended_job()], pods=[leaving], **rest)
    seen, decision = settle(seen, at(21))
    assert decision.actions == ()
    return seen


def said(seen: Observation) -> str:
    return next(item.message for item in seen.restoration.status.conditions if item.type == "Scheduled")


def test_a_job_that_waits_in_its_queue_is_left_alone() -> None:
    seen, decision = settle(observe(started(), jobs=[suspended_job(2)]), at(3))
    assert condition(seen, "Scheduled") == ("False", "Queued")
    assert seen.restoration.status.phase == "Queued"
    assert HELD in said(seen)
    assert decision.actions == ()
    assert seen.restoration.status.attempts.disruptions == 0
    assert condition(seen, "Suspended") == ("False", "NotSuspended"), "that is the user's word"


def test_an_eviction_is_a_disruption_that_is_told_while_it_lasts() -> None:
    seen = evicted()
    [entry] = seen.restoration.status.attempt_history
    assert (entry.reason, entry.start_time, entry.end_time) == ("Preempted", None, None)
    assert "pod clip-pod lost its place on node node-1" in (entry.message or "")
    assert seen.restoration.status.attempts.disruptions == 1
    assert seen.restoration.status.attempts.running_seconds == 17
    assert condition(seen, "Scheduled") == ("False", "Queued")
    assert condition(seen, "Finished") == ("False", "InProgress")


def test_one_eviction_is_counted_once() -> None:
    seen = evicted()
    gone = pod(ended(143), gone=True)
    again, decision = settle(replace(seen, pods=(gone,)), at(600))
    assert again.restoration.status == seen.restoration.status
    assert decision.actions == ()


def test_admitted_again_the_same_execution_goes_on() -> None:
    seen = evicted()
    gone = pod(ended(143), gone=True, uid="old")
    let_go = job(started=at(900))
    seen, _ = settle(replace(seen, jobs=(let_go,), pods=(gone,)), at(901))
    assert condition(seen, "Scheduled") == ("Unknown", "Pending")
    second = pod(running(), name="clip-again", uid="new", created=at(901), taken=at(903), ready_at=at(905))
    seen, decision = settle(replace(seen, pods=(gone, second)), at(906))
    assert condition(seen, "Scheduled") == ("True", "Running")
    [entry] = seen.restoration.status.attempt_history
    assert (entry.execution, entry.reason, entry.pod_name, entry.start_time) == (1, None, "clip-again", at(903))
    assert seen.restoration.status.attempts.disruptions == 1
    assert not created_jobs(decision)
    # ... and taken back a second time: counted a second time.
    again = replace(seen, jobs=(suspended_job(1003),))
    again, _ = settle(again, at(1004))
    assert again.restoration.status.attempts.disruptions == 2
    assert again.restoration.status.attempts.running_seconds == 17 + 100


def test_time_in_the_queue_is_not_running_time() -> None:
    seen = evicted({"activeDeadlineSeconds": 60})
    later = replace(seen, jobs=(suspended_job(active_deadline_seconds=60),))
    later, decision = settle(later, at(100_000))
    assert condition(later, "Finished") == ("False", "InProgress")
    assert decision.actions == ()


def test_one_eviction_too_many_ends_it() -> None:
    seen = evicted({"retryPolicy": {"maxDisruptions": 0}})
    assert condition(seen, "Succeeded") == ("False", "RetriesExhausted")
    assert seen.restoration.status.attempt_history[0].reason == "Preempted"


def test_the_user_may_suspend_what_the_queue_holds_back() -> None:
    seen = observe(started(), jobs=[suspended_job(2)])
    seen, decision = settle(wishing(seen, suspend=True), at(30))
    assert deleted_jobs(decision) == [("vr-clip-7f3c9a1b-e1-run", "Foreground")]
    assert condition(seen, "Suspended")[0] == "True"


def test_a_start_deadline_does_not_run_in_the_queue() -> None:
    seen = observe(started({"startDeadlineSeconds": 60}), jobs=[suspended_job(2)])
    seen, _ = settle(seen, at(100_000))
    assert condition(seen, "Finished")[0] == "False"


class TestWorkload:
    def seen(self, word: QueueWord | None) -> Observation:
        return observe(started(), jobs=[suspended_job(10)], queue=word, queue_readable=True)

    def word(self, read: float, message: str = "no room", job_uid: str = JOB_UID) -> QueueWord:
        return QueueWord(job_uid=job_uid, message=message, read_at=at(read))

    def test_it_is_read_first(self) -> None:
        uid = suspended_job().uid
        for word in (None, self.word(5, job_uid=uid), self.word(11, job_uid="another")):
            assert decide(self.seen(word), at(12)).looks == (LookAtQueue(uid),)

    def test_its_words_are_the_message(self) -> None:
        seen, decision = settle(self.seen(self.word(12, job_uid=suspended_job().uid)), at(13))
        assert said(seen) == "no room"
        assert decision.wake_at == at(42)

    def test_without_words_the_job_speaks(self) -> None:
        seen, _ = settle(self.seen(self.word(12, "", job_uid=suspended_job().uid)), at(13))
        assert HELD in said(seen)

    @pytest.mark.parametrize(("waited", "pause"), [(0, 30), (300, 30), (3600, 360), (86400, 600)])
    def test_who_waits_long_is_looked_at_seldom(self, waited: int, pause: int) -> None:
        read = 10 + waited
        seen = self.seen(self.word(read, job_uid=suspended_job().uid))
        seen, decision = settle(seen, at(read))
        assert decision.wake_at == at(read + pause)
        assert decide(seen, at(read + pause)).looks
        assert not decide(seen, at(read + pause) - timedelta(seconds=1)).looks

    def test_nothing_is_read_where_it_may_not_be(self) -> None:
        seen = replace(self.seen(None), queue_readable=False)
        assert decide(seen, at(99_999)).looks == ()


def conditions(**states: tuple[str, str, str]) -> dict[str, Any]:
    found = [
        {"type": kind, "status": status, "reason": reason, "message": message}
        for kind, (status, reason, message) in states.items()
    ]
    return {"status": {"conditions": found}}


WORKLOADS: dict[str, tuple[dict[str, Any], str]] = {
    "new": ({}, "no quota is reserved yet"),
    "no quota": (
        conditions(QuotaReserved=("False", "Pending", "insufficient unused quota for nvidia.com/gpu in flavor l40s")),
        "insufficient unused quota for nvidia.com/gpu in flavor l40s",
    ),
    "preempted": (
        conditions(
            Evicted=("True", "Preempted", "Preempted to accommodate a workload with higher priority"),
            QuotaReserved=("False", "Pending", "couldn't assign flavors to pod set main"),
        ),
        "evicted (Preempted): Preempted to accommodate a workload with higher priority; "
        "couldn't assign flavors to pod set main",
    ),
    "evicted before, admitted since": (
        conditions(
            Evicted=("False", "QuotaReserved", "Previously: preempted"),
            QuotaReserved=("True", "QuotaReserved", ""),
            Admitted=("True", "Admitted", ""),
        ),
        "",
    ),
    "admission check": (
        conditions(QuotaReserved=("True", "QuotaReserved", ""), Admitted=("False", "NoChecks", "not all checks")),
        "quota is reserved, admission waits: not all checks",
    ),
    "deactivated": (
        {"spec": {"active": False}, **conditions(Evicted=("True", "Deactivated", "exceeded max-exec-time"))},
        "evicted (Deactivated): exceeded max-exec-time; the Workload is deactivated (spec.active is false)",
    ),
}


@pytest.mark.parametrize(("workload", "words"), WORKLOADS.values(), ids=WORKLOADS)
def test_words_of_a_workload(workload: dict[str, Any], words: str) -> None:
    assert waits_for(workload) == words


def test_open_admission_checks_are_named() -> None:
    workload = conditions(QuotaReserved=("True", "QuotaReserved", ""))
    checks = [{"name": "provision", "state": "Pending", "message": "buying a node"}, {"name": "ok", "state": "Ready"}]
    workload["status"]["admissionChecks"] = checks
    assert waits_for(workload) == "quota is reserved, admission waits: provision is Pending buying a node"


GIVEN = {
    "kueue.x-k8s.io/queue-name": "gpu",
    "kueue.x-k8s.io/priority-class": "overnight",
    "kueue.x-k8s.io/max-exec-time-seconds": "3600",
    "kueue.x-k8s.io/job-min-parallelism": "2",
    "kueue.x-k8s.io/job-completions-equal-parallelism": "true",
    "kueue.x-k8s.io/podset-required-topology": "rack",
    "kueue.x-k8s.io/podset-slice-size": "2",
    "team": "a",
}


def test_what_is_copied() -> None:
    assert set(queueing.labels(GIVEN, "run")) == {
        "kueue.x-k8s.io/queue-name",
        "kueue.x-k8s.io/priority-class",
        "kueue.x-k8s.io/max-exec-time-seconds",
    }
    assert queueing.job_annotations(GIVEN, "run") == {"kueue.x-k8s.io/job-min-parallelism": "2"}
    assert queueing.pod_annotations(GIVEN, "run") == {
        "kueue.x-k8s.io/podset-required-topology": "rack",
        "kueue.x-k8s.io/podset-slice-size": "2",
    }


@pytest.mark.parametrize("role", ["plan", "assemble"])
def test_a_job_without_a_gpu_stands_in_no_queue(role: str) -> None:
    assert queueing.labels(GIVEN, role) == queueing.job_annotations(GIVEN, role) == {}
    assert queueing.pod_annotations(GIVEN, role) == {}


def test_the_job_carries_them_and_is_not_suspended_by_us() -> None:
    asked = restoration(labels={"kueue.x-k8s.io/queue-name": "gpu"})
    meta = asked.metadata.model_copy(update={"annotations": {"kueue.x-k8s.io/podset-preferred-topology": "rack"}})
    _, decision = settle(observe(asked.model_copy(update={"metadata": meta})), at(1))
    manifest = next(getattr(action, "manifest", None) for action in decision.actions if hasattr(action, "manifest"))
    assert manifest is not None
    assert manifest["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "gpu"
    template = manifest["spec"]["template"]["metadata"]
    assert template["annotations"]["kueue.x-k8s.io/podset-preferred-topology"] == "rack"
    assert "kueue.x-k8s.io/queue-name" not in template["labels"]
    assert "suspend" not in manifest["spec"]
