"""Disruptions of pods whose runner never answered: each is counted once, under its own name, and by its own budget."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from tests.builders.observations import (
    at,
    at_work,
    condition,
    created_jobs,
    deleted_jobs,
    ended,
    job,
    observe,
    pod,
    running,
    settle,
    started,
    waiting,
)

from restoration_api.outcome import FailureReason
from restoration_api.resources.status import Attempt
from restoration_operator.decide.types import Observation
from restoration_operator.views import PodView, Terminated

R = FailureReason
NEVER_STARTED = Terminated(exit_code=137, reason="ContainerStatusUnknown", message="", started=None, finished=None)
CREATING = waiting("ContainerCreating")

DISRUPTED: dict[str, tuple[PodView, FailureReason]] = {
    "evicted while its container is created": (
        pod(NEVER_STARTED, disruption="EvictionByEvictionAPI", deletion_requested=at(20)),
        R.EVICTED,
    ),
    "evicted before it had a node": (
        pod(None, phase="Failed", node=None, taken=None, disruption="EvictionByEvictionAPI", deletion_requested=at(20)),
        R.EVICTED,
    ),
    "evicted and gone at once": (
        pod(CREATING, disruption="EvictionByEvictionAPI", deletion_requested=at(20), gone=True),
        R.EVICTED,
    ),
    "evicted before its runner's first answer": (
        pod(ended(143, finished=at(23)), disruption="EvictionByEvictionAPI", deletion_requested=at(20)),
        R.EVICTED,
    ),
    "its node is tainted": (
        pod(NEVER_STARTED, disruption="DeletionByTaintManager", deletion_requested=at(20)),
        R.EVICTED,
    ),
    "its node runs short": (pod(NEVER_STARTED, reason="Evicted", disruption="TerminationByKubelet"), R.EVICTED),
    "preempted by the scheduler": (
        pod(NEVER_STARTED, disruption="PreemptionByScheduler", deletion_requested=at(20)),
        R.PREEMPTED,
    ),
    "preempted by the kubelet": (
        pod(NEVER_STARTED, reason="Preempting", disruption="TerminationByKubelet"),
        R.PREEMPTED,
    ),
    "its node shuts down": (
        pod(NEVER_STARTED, reason="Terminated", disruption="TerminationByKubelet"),
        R.NODE_SHUTDOWN,
    ),
    "its node's object is deleted": (pod(CREATING, phase="Failed", disruption="DeletionByPodGC"), R.NODE_LOST),
    "it failed for want of its node": (
        pod(ended(21, finished=at(23)), disruption="DeletionByTaintManager", deletion_requested=at(20)),
        R.EVICTED,
    ),
}
"""Pods whose Job lives on: its rule ignores them."""


def seen_with(*pods: PodView, changes: dict[str, Any] | None = None) -> Observation:
    return observe(started(changes), jobs=[job()], pods=pods)


def second(container: Any = None, **changes: Any) -> PodView:
    """The Job's next pod, ten seconds later."""
    names: dict[str, Any] = {"name": "pod-2", "uid": "pod-2", "created": at(40), "taken": at(41)}
    return pod(container, **names | changes)


def entry(seen: Observation) -> Attempt:
    [only] = seen.restoration.status.attempt_history
    return only


def disruptions(seen: Observation) -> int:
    counters = seen.restoration.status.attempts
    assert (counters.retries, counters.infrastructure_retries, counters.executions) == (0, 0, 1)
    return counters.disruptions


@pytest.mark.parametrize(("ended_pod", "reason"), DISRUPTED.values(), ids=DISRUPTED)
def test_it_is_counted_when_it_is_seen(ended_pod: PodView, reason: FailureReason) -> None:
    seen, decision = settle(seen_with(ended_pod), at(30))
    assert disruptions(seen) == 1
    assert (entry(seen).reason, entry(seen).start_time, entry(seen).end_time) == (reason, None, None)
    assert "pod clip-pod was disrupted" in (entry(seen).message or "")
    assert decision.actions == ()
    # Seen again, seen by an operator that was started since, and when the next pod runs: still one.
    for now, pods in ((31, [ended_pod]), (50, [ended_pod, second(running())]), (60, [second(running())])):
        seen, _ = settle(replace(seen, pods=tuple(pods)), at(now))
        assert disruptions(seen) == 1
    assert condition(seen, "Scheduled") == ("True", "Running")
    assert (entry(seen).pod_name, entry(seen).start_time) == ("pod-2", at(41))
    assert (entry(seen).reason, "clip-pod" in (entry(seen).message or "")) == (reason, True)


@pytest.mark.parametrize(("ended_pod", "reason"), DISRUPTED.values(), ids=DISRUPTED)
def test_where_none_is_allowed_it_is_the_end(ended_pod: PodView, reason: FailureReason) -> None:
    seen, _ = settle(seen_with(ended_pod, changes={"retryPolicy": {"maxDisruptions": 0}}), at(30))
    assert condition(seen, "Succeeded") == ("False", "RetriesExhausted")
    assert (entry(seen).reason, disruptions(seen)) == (reason, 0)


def test_an_operator_that_comes_when_the_next_pod_runs_counts_it_too() -> None:
    first, _ = DISRUPTED["its node runs short"]
    seen, _ = settle(seen_with(first, second(running())), at(50))
    assert (disruptions(seen), entry(seen).pod_name) == (1, "pod-2")


def test_one_pod_after_another() -> None:
    """After the third the Job would take its time: a new execution is quicker."""
    first = pod(NEVER_STARTED, disruption="EvictionByEvictionAPI", deletion_requested=at(20))
    again = second(NEVER_STARTED, disruption="EvictionByEvictionAPI", deletion_requested=at(50))
    third = second(NEVER_STARTED, name="pod-3", uid="pod-3", created=at(80), disruption="PreemptionByScheduler")
    seen, _ = settle(seen_with(first), at(30))
    seen, _ = settle(replace(seen, pods=(first, again)), at(60))
    assert (disruptions(seen), entry(seen).pod_name, entry(seen).end_time) == (2, "pod-2", None)
    seen, decision = settle(replace(seen, pods=(first, again, third), confirmed=True), at(90))
    assert (disruptions(seen), entry(seen).reason) == (3, R.PREEMPTED)
    assert [name for name, _ in deleted_jobs(decision)] == ["vr-clip-7f3c9a1b-e1-run"]
    _, decision = settle(replace(seen, jobs=()), at(200))
    assert created_jobs(decision) == ["vr-clip-7f3c9a1b-e2-run"]


def test_after_one_that_ran_both_are_counted() -> None:
    """Nobody saw the first one end; the second came and went before its runner answered."""
    gone = second(NEVER_STARTED, disruption="PreemptionByScheduler", deletion_requested=at(45))
    seen, _ = settle(observe(at_work(), jobs=[job()], pods=[gone]), at(50))
    assert (disruptions(seen), entry(seen).pod_name, entry(seen).start_time) == (2, "pod-2", None)
    assert seen.restoration.status.attempts.running_seconds == (40 - 3) + (45 - 41)


def test_an_old_one_is_not_counted_for_a_new_one() -> None:
    """The first stays as an object, the second is gone without a trace; an operator is started meanwhile."""
    first, _ = DISRUPTED["its node runs short"]
    seen, _ = settle(seen_with(first), at(30))
    seen, _ = settle(replace(seen, pods=(first, second(running()))), at(50))
    seen, _ = settle(replace(seen, pods=(first,)), at(60))
    assert disruptions(seen) == 1


@pytest.mark.parametrize("exit_code", [0, 10])
def test_whoever_came_to_an_end_was_not_disrupted(exit_code: int) -> None:
    """The Job ends with it, and says how."""
    done = pod(ended(exit_code), disruption="EvictionByEvictionAPI", deletion_requested=at(20))
    seen, _ = settle(seen_with(done), at(60))
    assert disruptions(seen) == 0


def test_time_that_a_kubelet_had_it_is_running_time() -> None:
    ended_pod, _ = DISRUPTED["evicted before its runner's first answer"]
    seen, _ = settle(seen_with(ended_pod, changes={"activeDeadlineSeconds": 100}), at(30))
    assert seen.restoration.status.attempts.running_seconds == 20
    assert entry(seen).active_deadline_seconds == 80


def test_a_lost_node_with_a_pod_that_never_answered() -> None:
    silent = pod(CREATING, deletion_requested=at(30), deletion_due=at(60), disruption="DeletionByTaintManager")
    seen, _ = settle(replace(seen_with(silent), nodes_ready={"node-1": False}), at(360))
    assert (disruptions(seen), entry(seen).reason) == (1, R.NODE_LOST)


def test_a_queue_that_takes_a_place_back_before_it_was_used_disrupts_nothing() -> None:
    leaving = pod(CREATING, deletion_requested=at(20), gone=True)
    held = job(suspended=True, started=None, suspended_at=at(20))
    seen, _ = settle(replace(seen_with(leaving), jobs=(held,)), at(30))
    assert disruptions(seen) == 0
    assert condition(seen, "Scheduled") == ("False", "Queued")
