"""Disruptions that a Job survives: its controller makes another pod, and the execution goes on."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from tests.builders.observations import (
    at,
    at_work,
    broken,
    condition,
    created_jobs,
    deleted_jobs,
    ended,
    job,
    observe,
    pod,
    running,
    settle,
)

from restoration_api.resources.status import Attempt
from restoration_operator.decide.types import Observation
from restoration_operator.views import PodView


def evicted(number: int = 1, **changes: Any) -> PodView:
    """A pod that was evicted; the first is the one of `at_work`."""
    names = {"name": "clip-pod", "uid": "first"} if number == 1 else {"name": f"pod-{number}", "uid": f"pod-{number}"}
    gone = pod(ended(143), disruption="EvictionByEvictionAPI", created=at(2 + number), **names)
    return replace(gone, **changes)


def replaced(before: PodView | None, changes: dict[str, Any] | None = None) -> Observation:
    """The second pod runs, 20 seconds after the first has ended."""
    second = pod(running(), name="pod-2", uid="pod-2", created=at(70), taken=at(79))
    pods = [one for one in (before, second) if one is not None]
    limit = (changes or {}).get("activeDeadlineSeconds")
    return observe(at_work(changes), jobs=[job(active_deadline_seconds=limit)], pods=pods)


def entry(seen: Observation) -> Attempt:
    [only] = seen.restoration.status.attempt_history
    return only


@pytest.mark.parametrize(
    "before",
    [evicted(), evicted(gone=True), evicted(disruption=None), None],
    ids=["still there", "gone", "taken back by a queue", "forgotten by a restart"],
)
def test_it_is_counted_once_and_the_execution_goes_on(before: PodView | None) -> None:
    seen, decision = settle(replaced(before), at(80))
    assert seen.restoration.status.attempts.disruptions == 1
    assert (entry(seen).pod_name, entry(seen).start_time, entry(seen).end_time) == ("pod-2", at(79), None)
    assert condition(seen, "Scheduled") == ("True", "Running")
    assert decision.actions == ()
    assert "pod clip-pod was disrupted on node node-1; pod pod-2 took its place" in (entry(seen).message or "")
    again, _ = settle(seen, at(300))
    assert again.restoration.status.attempts.disruptions == 1


def test_running_time_of_both_pods_is_counted_and_the_gap_is_not() -> None:
    seen, _ = settle(replaced(evicted()), at(80))
    assert seen.restoration.status.attempts.running_seconds == 59 - 3
    last = pod(ended(21, finished=at(179)), name="pod-2", uid="pod-2", created=at(70), taken=at(79))
    closed, _ = settle(replace(seen, jobs=(), pods=(evicted(), last), confirmed=True), at(180))
    assert closed.restoration.status.attempts.running_seconds == 59 - 3 + 100


def test_a_second_pod_that_was_never_seen_running() -> None:
    last = pod(ended(21, finished=at(179)), name="pod-2", uid="pod-2", created=at(70), taken=at(79))
    seen = observe(at_work(), jobs=[], pods=[evicted(), last], confirmed=True)
    closed, _ = settle(seen, at(180))
    counters = closed.restoration.status.attempts
    assert (counters.running_seconds, counters.disruptions, counters.retries) == (156, 1, 1)


def test_the_kubelet_gives_the_second_pod_the_whole_time_again_and_the_operator_does_not() -> None:
    seen, decision = settle(replaced(evicted(), {"activeDeadlineSeconds": 100}), at(80))
    assert entry(seen).active_deadline_seconds == 100 - 56
    assert decision.wake_at == at(79 + 44 + 60)
    over, _ = settle(replace(seen, confirmed=True), at(79 + 44 + 60))
    assert condition(over, "Succeeded") == ("False", "DeadlineExceeded")


def test_the_first_pod_is_the_kubelets_business() -> None:
    limited = job(active_deadline_seconds=100)
    before = observe(at_work({"activeDeadlineSeconds": 100}), jobs=[limited], pods=[pod(running())])
    seen, _ = settle(before, at(10_000))
    assert condition(seen, "Finished")[0] == "False"


def test_waiting_for_a_place_is_free() -> None:
    waiting = pod(name="pod-2", uid="pod-2", created=at(70), taken=None, node=None, scheduled=False)
    limited = job(active_deadline_seconds=100)
    before = observe(at_work({"activeDeadlineSeconds": 100}), jobs=[limited], pods=[evicted(), waiting])
    seen, _ = settle(before, at(10_000))
    assert condition(seen, "Scheduled") == ("False", "Unschedulable")


def test_no_disruption_is_allowed() -> None:
    seen, _ = settle(replaced(evicted(), {"retryPolicy": {"maxDisruptions": 0}}), at(80))
    assert condition(seen, "Succeeded") == ("False", "RetriesExhausted")
    assert entry(seen).reason == "Evicted"


def test_after_three_a_new_execution_is_quicker() -> None:
    pods = [evicted(), evicted(2), evicted(3)]
    seen, _ = settle(observe(at_work(), jobs=[job()], pods=pods[:2]), at(80))
    assert entry(seen).end_time is None
    seen, decision = settle(replace(seen, pods=tuple(pods), confirmed=True), at(100))
    assert entry(seen).reason == "Evicted"
    assert [name for name, _ in deleted_jobs(decision)] == ["vr-clip-7f3c9a1b-e1-run"]
    _, decision = settle(replace(seen, jobs=()), at(120))
    assert created_jobs(decision) == ["vr-clip-7f3c9a1b-e2-run"]


def test_a_pod_that_failed_by_itself_after_three_ends_with_its_job() -> None:
    last = pod(ended(21), name="pod-4", uid="pod-4", created=at(90))
    seen = observe(at_work(), jobs=[job()], pods=[evicted(), evicted(2), evicted(3), last])
    seen, _ = settle(seen, at(100))
    assert entry(seen).end_time is None
    seen, _ = settle(replace(seen, jobs=(broken(),)), at(101))
    assert (entry(seen).reason, entry(seen).end_time) == ("StorageError", at(59))


def test_a_queue_may_take_its_time() -> None:
    pods = [evicted(), evicted(2), evicted(3)]
    seen, _ = settle(observe(at_work(), jobs=[job(suspended=True)], pods=pods), at(100))
    assert entry(seen).end_time is None
    assert condition(seen, "Scheduled") == ("False", "Queued")


def test_no_other_node_than_the_faulty_one() -> None:
    """One GPU node: it is avoided for as long as an autoscaler may take, and then tried again."""
    away = job(excluded_nodes=("node-1",))
    waiting = pod(created=at(70), taken=None, node=None, scheduled=False, scheduling_message="0/1 nodes are available")
    seen, decision = settle(observe(at_work(), jobs=[away], pods=[waiting]), at(80))
    assert condition(seen, "Scheduled") == ("False", "Unschedulable")
    assert decision.wake_at == at(670)
    seen, _ = settle(replace(seen, confirmed=True), at(670))
    assert entry(seen).reason == "StartupFailure"
    assert "node-1" in (entry(seen).message or "")
    _, decision = settle(replace(seen, jobs=(), pods=()), at(690))
    [manifest] = [action.manifest for action in decision.actions if hasattr(action, "manifest")]
    assert "affinity" not in manifest["spec"]["template"]["spec"]
