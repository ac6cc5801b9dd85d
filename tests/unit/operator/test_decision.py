"""The life of a restoration, decision by decision."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from tests.builders import outcomes
from tests.builders.observations import (
    POD_UID,
    UID,
    at,
    at_work,
    broken,
    complete,
    condition,
    created_jobs,
    deleted_jobs,
    ended,
    ensured,
    job,
    observe,
    pod,
    profile,
    restoration,
    running,
    settle,
    started,
    suspended,
    wishing,
)

from restoration_api.outcome import FailureReason, Progress, Stage
from restoration_api.resources import VideoRestoration
from restoration_operator.build.names import job_name
from restoration_operator.build.snapshot import Snapshot
from restoration_operator.decide import attempts
from restoration_operator.decide.cleanup import Finished, after_the_end
from restoration_operator.decide.decision import decide
from restoration_operator.decide.slots import Standing, standing
from restoration_operator.decide.types import (
    CreateJob,
    DeleteJob,
    LookAtChildren,
    LookAtNode,
    LookAtSnapshot,
    NoProfile,
    Observation,
    PolledProgress,
    Propagation,
    Refusal,
    SetJobTtl,
    Slots,
    StoredSnapshot,
)
from restoration_operator.views import JobView

FIRST = "vr-clip-7f3c9a1b-e1-run"
SECOND = "vr-clip-7f3c9a1b-e2-run"


class TestBegin:
    def test_the_number_is_stored_before_anything_is_created(self) -> None:
        decision = decide(observe(restoration()), at(1))
        assert decision.status.attempts.executions == 1
        assert decision.status.job_name == FIRST
        assert decision.status.profile is not None
        assert decision.status.profile.hash
        assert decision.status.attempt_history == (), "an entry means that the Job was seen"

    def test_then_snapshot_and_job_are_created_in_this_order(self) -> None:
        _, decision = settle(observe(restoration()), at(1))
        assert [type(action).__name__ for action in decision.actions] == ["EnsureSnapshot", "CreateJob"]
        assert created_jobs(decision) == [FIRST]

    def test_all_conditions_from_the_first_visit(self) -> None:
        seen, _ = settle(observe(restoration(generation=3)), at(1))
        assert {item.type for item in seen.restoration.status.conditions} == {
            "Accepted",
            "Scheduled",
            "Suspended",
            "Succeeded",
            "Finished",
            "Reconciling",
            "Stalled",
        }
        assert {item.observed_generation for item in seen.restoration.status.conditions} == {3}
        assert condition(seen, "Accepted") == ("True", "Valid")
        assert condition(seen, "Finished") == ("False", "InProgress")
        assert condition(seen, "Reconciling")[0] == "True"

    def test_refused_without_profile(self) -> None:
        missing = NoProfile(reason="ProfileNotFound", message="there is no such profile")
        seen, decision = settle(observe(restoration(), profile=missing), at(61))
        assert condition(seen, "Accepted") == ("False", "ProfileNotFound")
        assert condition(seen, "Stalled") == ("True", "ProfileNotFound")
        assert condition(seen, "Reconciling")[0] == "False"
        assert decision.actions == ()
        assert seen.restoration.status.attempts.executions == 0

    def test_the_profile_comes_later(self) -> None:
        missing = NoProfile(reason="ProfileNotFound", message="there is no such profile")
        seen, _ = settle(observe(restoration(), profile=missing), at(5))
        seen, decision = settle(replace(seen, profile=profile()), at(9))
        assert created_jobs(decision) == [FIRST]
        assert condition(seen, "Accepted") == ("True", "Valid")

    def test_somebody_elses_object_is_left_alone(self) -> None:
        seen = observe(restoration({"managedBy": "kueue.x-k8s.io/multikueue"}))
        assert decide(seen, at(1)).status == seen.restoration.status
        assert decide(seen, at(1)).actions == ()

    def test_what_can_never_run_fails_without_a_job(self) -> None:
        impossible = profile({"defaults": {"overlapFrames": 12}})
        seen, decision = settle(observe(restoration(), profile=impossible), at(1))
        assert condition(seen, "Succeeded") == ("False", "InvalidParameters")
        assert condition(seen, "Finished")[0] == "True"
        assert decision.actions == ()

    def test_a_full_profile_makes_it_wait(self) -> None:
        full = profile({"limits.maxActive": 12})
        seen, decision = settle(observe(restoration(), profile=full, slots=Slots(active=12, ahead=6)), at(1))
        assert condition(seen, "Scheduled") == ("False", "Queued")
        message = next(item.message for item in seen.restoration.status.conditions if item.type == "Scheduled")
        assert message == "12 of 12 slots of profile default in use; position 7"
        assert seen.restoration.status.phase == "Queued"
        assert decision.actions == ()
        seen, decision = settle(replace(seen, slots=Slots(active=11, ahead=0)), at(2))
        assert created_jobs(decision) == [FIRST]


class TestCreate:
    def test_a_refusal_of_the_api_server_is_shown_and_tried_again(self) -> None:
        refusal = Refusal(reason="ChildRejected", message="exceeded quota: count/jobs.batch", retry_at=at(10))
        seen, _ = settle(observe(restoration()), at(1))
        seen, decision = settle(replace(seen, refusal=refusal), at(2))
        assert condition(seen, "Accepted") == ("False", "ChildRejected")
        assert decision.actions == ()
        assert decision.wake_at == at(10)
        _, decision = settle(seen, at(10))
        assert created_jobs(decision) == [FIRST]

    def test_a_restart_does_not_forget_the_refusal_until_the_next_attempt(self) -> None:
        refusal = Refusal(reason="ChildRejected", message="no", retry_at=at(10))
        seen, _ = settle(observe(restoration()), at(1))
        seen, _ = settle(replace(seen, refusal=refusal), at(2))
        after, decision = settle(replace(seen, refusal=None), at(3))
        assert condition(after, "Accepted") == ("False", "ChildRejected")
        assert created_jobs(decision) == [FIRST]
        created, _ = settle(replace(after, jobs=(job(),)), at(4))
        assert condition(created, "Accepted") == ("True", "Valid")

    def test_a_strange_snapshot_is_left_where_it_is(self) -> None:
        seen, decision = settle(observe(restoration()), at(1))
        strange = StoredSnapshot(name="vr-clip-7f3c9a1b", content=Snapshot(profile_json="{}", request_json="{}"))
        seen, decision = settle(replace(seen, snapshot=strange), at(2))
        assert seen.restoration.status.profile is not None
        assert seen.restoration.status.profile.snapshot_name == "vr-clip-7f3c9a1b-2"
        wanted = ensured(decision)
        assert wanted is not None
        assert wanted.name == "vr-clip-7f3c9a1b-2"

    def test_a_profile_edited_between_reservation_and_job(self) -> None:
        """The stored hash no longer fits the profile and no snapshot was written: agreed again, same number."""
        seen, _ = settle(observe(restoration()), at(1))
        edited = replace(seen, profile=profile({"defaults": {"seed": 7}}))
        _, decision = settle(edited, at(2))
        assert decision.looks == (LookAtSnapshot("vr-clip-7f3c9a1b"),)
        read = replace(edited, snapshot=StoredSnapshot(name="vr-clip-7f3c9a1b", content=None))
        after, decision = settle(read, at(2))
        assert after.restoration.status.attempts.executions == 1
        assert after.restoration.status.profile is not None
        assert after.restoration.status.profile.hash != seen.restoration.status.profile.hash  # type: ignore[union-attr]
        assert created_jobs(decision) == [FIRST]

    def test_the_snapshot_counts_when_the_profile_has_changed(self) -> None:
        seen, first = settle(observe(restoration()), at(1))
        kept = ensured(first)
        edited = replace(seen, profile=profile({"image": "runner:2", "defaults": {"seed": 7}}), snapshot=kept)
        _, decision = settle(edited, at(2))
        container = decision.actions[1].manifest["spec"]["template"]["spec"]["containers"][0]  # type: ignore[union-attr]
        assert container["image"] == "runner:1"
        assert ensured(decision) == kept


class TestFollow:
    def test_the_job_is_recorded_when_it_was_seen(self) -> None:
        [entry] = started().status.attempt_history
        assert (entry.execution, entry.job_name, entry.start_time) == (1, FIRST, None)

    def test_running(self) -> None:
        status = at_work().status
        assert status.phase == "Running"
        assert status.start_time == at(3)
        assert status.worker is not None
        assert (status.worker.pod_name, status.worker.node_name) == ("clip-pod", "node-1")
        assert status.timings is not None
        assert (status.timings.queued_milliseconds, status.timings.startup_milliseconds) == (3000, 5000)

    def test_nothing_new_is_no_write(self) -> None:
        before = at_work()
        seen, decision = settle(observe(before, jobs=[job()], pods=[pod(running())]), at(300))
        assert seen.restoration.status == before.status
        assert decision.actions == ()

    def test_progress_and_assembling(self) -> None:
        said = Progress(execution=1, stage=Stage.ASSEMBLING, frames_done=60, frames_total=60, updated_at=at(50))
        seen = observe(
            at_work(),
            jobs=[job()],
            pods=[pod(running())],
            polled=PolledProgress(pod_uid=POD_UID, progress=said, unchanged_since=at(50)),
        )
        after, _ = settle(seen, at(51))
        assert after.restoration.status.phase == "Assembling"
        assert after.restoration.status.progress is not None
        assert after.restoration.status.progress.summary == "100% 60/60"

    @pytest.mark.parametrize(("pod_uid", "execution"), [("another-pod", 1), (POD_UID, 2)])
    def test_another_runners_progress_is_not_believed(self, pod_uid: str, execution: int) -> None:
        said = Progress(execution=execution, stage=Stage.RESTORING, frames_done=9, frames_total=10, updated_at=at(50))
        polled = PolledProgress(pod_uid=pod_uid, progress=said, unchanged_since=at(50))
        after, _ = settle(observe(at_work(), jobs=[job()], pods=[pod(running())], polled=polled), at(51))
        assert after.restoration.status.progress is None

    def test_start_deadline(self) -> None:
        waiting_pod = pod(scheduled=False, node=None, taken=None, scheduling_message="0/3 nodes are available")
        before = started({"startDeadlineSeconds": 100})
        seen, decision = settle(observe(before, jobs=[job()], pods=[waiting_pod]), at(101))
        assert decision.wake_at == at(102)
        _, decision = settle(seen, at(102))
        assert decision.looks == (LookAtChildren(),), "the watch may be behind, and the pod may run"
        seen, _ = settle(replace(seen, confirmed=True), at(102))
        assert condition(seen, "Succeeded") == ("False", "StartDeadlineExceeded")
        assert condition(seen, "Scheduled") == ("False", "StartDeadlineExceeded")
        assert "0/3 nodes are available" in seen.restoration.status.attempt_history[0].message  # type: ignore[operator]

    def test_start_deadline_of_the_profile_as_it_was(self) -> None:
        """Its Job carries it: what an administrator changes later concerns later restorations."""
        agreed = profile({"defaults": {"startDeadlineSeconds": 100}})
        _, decision = settle(observe(restoration(), profile=agreed), at(1))
        [manifest] = [action.manifest for action in decision.actions if isinstance(action, CreateJob)]
        assert manifest["metadata"]["annotations"]["videorestoration.dev/start-deadline-seconds"] == "100"
        waiting_pod = pod(scheduled=False, node=None, taken=None)
        seen = observe(started(), jobs=[job(start_deadline_seconds=100)], pods=[waiting_pod])
        seen, decision = settle(seen, at(101))
        assert decision.wake_at == at(102)
        seen, _ = settle(replace(seen, confirmed=True), at(102))
        assert condition(seen, "Succeeded") == ("False", "StartDeadlineExceeded")

    def test_a_lower_number_ends(self) -> None:
        stray = job(1, uid="stray")
        _, decision = settle(observe(second_execution(), jobs=[stray, job(2, started=at(99))]), at(100))
        assert deleted_jobs(decision) == [(FIRST, "Foreground")]

    def test_a_pod_on_a_silent_node_is_lost_in_the_end(self) -> None:
        stuck = pod(running(), deletion_requested=at(60), deletion_due=at(90))
        before = observe(at_work(), jobs=[job()], pods=[stuck])
        seen, decision = settle(before, at(389))
        assert not decision.looks
        assert decision.wake_at == at(390)
        _, decision = settle(seen, at(390))
        assert decision.looks == (LookAtNode("node-1"),)
        alive, decision = settle(replace(seen, nodes_ready={"node-1": True}), at(390))
        assert decision.wake_at == at(420)
        assert condition(alive, "Finished")[0] == "False"
        lost, decision = settle(replace(seen, nodes_ready={"node-1": False}), at(390))
        assert condition(lost, "Finished")[0] == "False"
        assert condition(lost, "Scheduled") == ("False", "NodeLost")
        assert lost.restoration.status.attempts.disruptions == 1
        assert deleted_jobs(decision) == [(FIRST, "Background")], "a dead kubelet confirms nothing"
        # The pod stays for as long as its node's object does; it does not hold up the next execution.
        _, decision = settle(replace(lost, jobs=()), at(400))
        assert created_jobs(decision) == [SECOND]


def second_execution() -> VideoRestoration:
    """A restoration that was suspended once and goes on."""
    gone = replace(suspended(), jobs=(), pods=(pod(ended(143), gone=True),), confirmed=True)
    seen, _ = settle(gone, at(30))
    seen, _ = settle(wishing(replace(seen, confirmed=False), suspend=False), at(40))
    return seen.restoration


class TestSuspend:
    def test_suspended_from_the_start(self) -> None:
        seen, decision = settle(observe(restoration({"suspend": True})), at(1))
        assert condition(seen, "Suspended") == ("True", "UserRequested")
        assert condition(seen, "Accepted") == ("True", "Valid")
        assert seen.restoration.status.phase == "Suspended"
        assert decision.actions == ()

    def test_the_wish_is_recorded_and_then_the_job_deleted(self) -> None:
        seen = wishing(observe(at_work(), jobs=[job()], pods=[pod(running())]), suspend=True)
        first = decide(seen, at(20))
        assert first.status.attempt_history[0].reason == "Suspended"
        after, decision = settle(seen, at(20))
        assert deleted_jobs(decision) == [(FIRST, "Foreground")]
        assert condition(after, "Finished") == ("False", "InProgress")

    def test_going_on_is_the_next_number(self) -> None:
        status = second_execution().status
        assert status.attempts.executions == 2
        assert status.job_name == SECOND
        assert [(item.execution, item.reason) for item in status.attempt_history] == [(1, "Suspended")]
        assert status.attempts.retries == 0

    def test_it_is_no_failure_and_the_next_wait_is_a_first_one(self) -> None:
        seen = suspended()
        status = attempts.counted(seen.restoration.status, failures_in_a_row=5)
        seen = replace(seen, restoration=seen.restoration.model_copy(update={"status": status}))
        seen, _ = settle(replace(seen, jobs=(), pods=(), confirmed=True), at(21))
        assert seen.restoration.status.attempt_history[0].end_time is not None
        assert seen.restoration.status.attempts.failures_in_a_row == 0

    def test_not_before_the_old_pod_has_ended(self) -> None:
        seen, _ = settle(replace(suspended(), jobs=(), pods=(pod(running()),), confirmed=True), at(21))
        seen, decision = settle(wishing(seen, suspend=False), at(22))
        assert decision.actions == ()
        assert seen.restoration.status.attempts.executions == 1

    @pytest.mark.parametrize(
        ("container", "reason"),
        [
            (ended(0, outcomes.succeeded()), "Completed"),
            (ended(10, outcomes.failed(FailureReason.INVALID_INPUT, "no")), "InvalidInput"),
        ],
    )
    def test_work_that_was_quicker_counts(self, container: Any, reason: str) -> None:
        the_job = complete() if reason == "Completed" else broken("PodFailurePolicy")
        seen, _ = settle(replace(suspended(), jobs=(the_job,), pods=(pod(container),)), at(61))
        assert condition(seen, "Finished") == ("True", reason)


class TestEnd:
    def test_success(self) -> None:
        last = pod(ended(0, outcomes.succeeded(frames=60)))
        seen, decision = settle(observe(at_work(), jobs=[complete()], pods=[last]), at(61))
        status = seen.restoration.status
        assert condition(seen, "Succeeded") == ("True", "Completed")
        assert condition(seen, "Finished") == ("True", "Completed")
        assert condition(seen, "Stalled")[0] == "False"
        assert status.phase == "Succeeded"
        assert status.completion_time == at(61)
        assert status.output is not None
        assert status.output.frames == 60
        assert status.timings is not None
        assert status.timings.total_milliseconds == 61_000
        assert status.timings.inference_milliseconds == 9000
        assert decision.actions == ()

    @pytest.mark.parametrize(
        ("container", "reason"),
        [
            (ended(0, outcomes.succeeded()), "Completed"),
            (ended(0, outcomes.succeeded(reason="CacheHit")), "CacheHit"),
            (ended(12, outcomes.failed(FailureReason.INPUT_NOT_FOUND, "s3://media/in.mp4")), "InputNotFound"),
            # After these another Job may follow, which must not meet this one: its own end is awaited.
            (ended(0, outcomes.planned()), None),
            (ended(21, outcomes.failed(FailureReason.STORAGE_ERROR, "503")), None),
            (ended(143, outcomes.unfinished()), None),
            # No report, or one that the exit code contradicts.
            (ended(0), None),
            (ended(12, "Traceback"), None),
            (ended(1, outcomes.succeeded()), None),
            (ended(137, outcomes.succeeded(), reason="OOMKilled"), None),
            (running(), None),
        ],
    )
    def test_what_the_runner_reports_as_the_end_is_the_end_while_its_job_still_lives(
        self, container: Any, reason: str | None
    ) -> None:
        alive = pod(container, phase="Running")
        seen, decision = settle(observe(at_work(), jobs=[job()], pods=[alive]), at(61))
        assert condition(seen, "Finished") == (("False", "InProgress") if reason is None else ("True", reason))
        assert decision.actions == ()
        if reason is not None:
            assert seen.restoration.status.attempt_history[0].end_time == at(59)

    def test_a_pod_of_another_job_of_that_name_says_nothing(self) -> None:
        stranger = pod(ended(0, outcomes.succeeded()), phase="Running", job_uid="another")
        seen, _ = settle(observe(at_work(), jobs=[job()], pods=[stranger]), at(61))
        assert condition(seen, "Finished")[0] == "False"

    def test_a_job_may_wind_up_by_itself_for_a_minute(self) -> None:
        """Its logs are kept as long as those of any other, unless something in its pod never ends."""
        alive = pod(ended(0, outcomes.succeeded()), phase="Running")
        seen, _ = settle(observe(at_work(), jobs=[job()], pods=[alive]), at(61))
        over = Finished.of(seen.restoration)
        assert after_the_end(over, (job(),), default_ttl_seconds=None, now=at(62)) == ((), at(121))
        released = after_the_end(over, (complete(),), default_ttl_seconds=None, now=at(63))
        assert released == ((SetJobTtl(complete(), 3600),), None)
        ended_late = after_the_end(over, (job(),), default_ttl_seconds=None, now=at(121))
        assert ended_late == ((DeleteJob(job(), Propagation.FOREGROUND),), None)

    def test_nothing_is_concluded_from_absence_before_it_is_confirmed(self) -> None:
        before = at_work()
        for missing in (
            observe(before),
            observe(before, jobs=[broken()]),
            observe(before, jobs=[complete()], pods=[pod(running())]),
        ):
            assert decide(missing, at(61)).looks == (LookAtChildren(),)

    def test_a_job_deleted_by_a_stranger(self) -> None:
        seen, _ = settle(observe(at_work(), confirmed=True), at(61))
        [entry] = seen.restoration.status.attempt_history
        # Nothing tells how far it had come: the bucket is asked (test_roles.TestLostReport).
        assert (entry.reason, entry.end_time) == (None, None)
        assert seen.restoration.status.job_name == job_name("clip", UID, execution=1, role="assemble")

    def test_a_pod_that_outlives_its_job_is_awaited(self) -> None:
        seen, decision = settle(observe(at_work(), pods=[pod(running())], confirmed=True), at(61))
        assert condition(seen, "Finished")[0] == "False"
        assert decision.actions == ()
        over, _ = settle(replace(seen, pods=(pod(ended(0, outcomes.succeeded())),)), at(70))
        assert condition(over, "Succeeded") == ("True", "Completed")

    def test_the_end_is_the_end(self) -> None:
        last = pod(ended(0, outcomes.succeeded()))
        seen, _ = settle(observe(at_work(), jobs=[complete()], pods=[last]), at(61))
        for later in (replace(seen, jobs=(), pods=()), replace(seen, jobs=(job(2),)), replace(seen, confirmed=True)):
            decision = decide(later, at(1000))
            assert decision.status == seen.restoration.status
            assert decision.actions == ()

    def test_a_later_generation_is_acknowledged(self) -> None:
        seen, _ = settle(observe(at_work(), jobs=[complete()], pods=[pod(ended(0, outcomes.succeeded()))]), at(61))
        meta = seen.restoration.metadata.model_copy(update={"generation": 2})
        later = replace(seen, restoration=seen.restoration.model_copy(update={"metadata": meta}))
        assert decide(later, at(99)).status.observed_generation == 2

    def test_a_long_message_is_cut(self) -> None:
        seen, _ = settle(observe(at_work(), jobs=[broken()], pods=[pod(ended(1, "x" * 300_000))]), at(61))
        assert len(json.dumps(seen.restoration.status.to_json())) < 20_000
        assert 768 < len(seen.restoration.status.attempt_history[0].message or "") <= 1024

    def test_timings_of_one_that_was_never_seen_running(self) -> None:
        seen, _ = settle(observe(started(), jobs=[complete()], pods=[pod(ended(0, outcomes.succeeded()))]), at(61))
        timings = seen.restoration.status.timings
        assert timings is not None
        assert timings.queued_milliseconds == 3000
        assert seen.restoration.status.start_time == at(3)

    def test_a_clock_that_is_ahead(self) -> None:
        """The node's clock is an hour ahead: the wait does not begin in an hour."""
        last = pod(ended(21, finished=at(3660)))
        seen, decision = settle(observe(at_work(), jobs=[broken()], pods=[last]), at(61))
        assert seen.restoration.status.attempt_history[0].end_time == at(61)
        assert decision.wake_at is not None
        assert decision.wake_at <= at(71)

    def test_tampered(self) -> None:
        """Nothing of the second execution can be built: profile edited, snapshot replaced."""
        before = second_execution()
        strange = StoredSnapshot(name="vr-clip-7f3c9a1b", content=Snapshot(profile_json="{}", request_json="{}"))
        seen = observe(before, profile=profile({"defaults": {"seed": 7}}), snapshot=strange)
        after, decision = settle(seen, at(50))
        assert condition(after, "Succeeded") == ("False", "SnapshotTampered")
        assert decision.actions == ()

    def test_the_running_time_is_used_up(self) -> None:
        last = pod(ended(143, finished=at(40)), gone=True)
        seen, _ = settle(
            replace(suspended({"activeDeadlineSeconds": 20}), jobs=(), pods=(last,), confirmed=True), at(41)
        )
        seen, _ = settle(wishing(seen, suspend=False), at(42))
        assert condition(seen, "Succeeded") == ("False", "DeadlineExceeded")


def transient(**changes: Any) -> Any:
    """A restoration whose first execution has just failed in a way that another try may cure."""
    last = pod(ended(21, outcomes.failed(FailureReason.STORAGE_ERROR, "503 from s3")))
    return observe(at_work(changes), jobs=[broken()], pods=[last])


class TestRetry:
    def test_what_is_seen_until_the_next_execution(self) -> None:
        seen, decision = settle(transient(), at(61))
        status = seen.restoration.status
        assert status.phase == "Retrying"
        assert condition(seen, "Scheduled") == ("False", "BackingOff")
        assert condition(seen, "Finished") == ("False", "InProgress")
        assert condition(seen, "Reconciling")[0] == "True"
        assert condition(seen, "Stalled")[0] == "False"
        assert (status.attempts.retries, status.attempts.failures_in_a_row) == (1, 1)
        assert [(item.reason, item.exit_code, item.message) for item in status.attempt_history] == [
            ("StorageError", 21, "503 from s3")
        ]
        assert decision.wake_at is not None
        assert at(61) < decision.wake_at <= at(69)

    def test_closing_and_waiting_are_one_write(self) -> None:
        decision = decide(transient(), at(61))
        assert decision.status == settle(transient(), at(61))[0].restoration.status

    def test_the_job_is_released_once_its_end_is_stored(self) -> None:
        seen = transient()
        assert decide(seen, at(61)).actions == ()
        _, decision = settle(seen, at(61))
        assert decision.actions == (SetJobTtl(broken(), 3600),)

    def test_then_the_next_number(self) -> None:
        seen, decision = settle(transient(), at(61))
        assert decision.wake_at is not None
        _, early = settle(seen, decision.wake_at - timedelta(seconds=1))
        assert created_jobs(early) == []
        seen, late = settle(seen, decision.wake_at)
        assert created_jobs(late) == [SECOND]
        assert seen.restoration.status.attempts.executions == 2
        assert condition(seen, "Scheduled") == ("Unknown", "Pending")
        assert seen.restoration.status.phase == "Starting"

    def test_a_restart_of_the_operator_does_not_shorten_the_wait(self) -> None:
        seen, decision = settle(transient(), at(61))
        later, again = settle(observe(seen.restoration), at(62))
        assert again.wake_at == decision.wake_at
        assert later.restoration.status == seen.restoration.status

    def test_suspended_meanwhile(self) -> None:
        seen, _ = settle(transient(), at(61))
        seen, decision = settle(wishing(seen, suspend=True), at(62))
        assert seen.restoration.status.phase == "Suspended"
        assert created_jobs(decision) == []
        _, decision = settle(seen, at(10_000))
        assert created_jobs(decision) == []
        seen, decision = settle(wishing(seen, suspend=False), at(63))
        assert condition(seen, "Scheduled") == ("False", "BackingOff"), "suspending does not shorten the wait"
        _, decision = settle(seen, at(100))
        assert created_jobs(decision) == [SECOND]

    def test_a_permanent_class_ends_it(self) -> None:
        last = pod(ended(12, outcomes.failed(FailureReason.INPUT_NOT_FOUND, "s3://media/raw/clip.mp4 is not there")))
        seen, decision = settle(observe(at_work(), jobs=[broken("PodFailurePolicy")], pods=[last]), at(61))
        assert condition(seen, "Finished") == ("True", "InputNotFound")
        assert decision.wake_at is None

    def test_the_budget_is_used_up(self) -> None:
        seen, _ = settle(transient(retryPolicy={"maxRetries": 0}), at(61))
        assert condition(seen, "Succeeded") == ("False", "RetriesExhausted")
        assert condition(seen, "Stalled") == ("True", "RetriesExhausted")
        message = next(item.message for item in seen.restoration.status.conditions if item.type == "Succeeded")
        assert message == (
            "maxRetries=0 allows no other execution after 1 execution; "
            "the last one ended with StorageError: 503 from s3"
        )
        assert seen.restoration.status.attempt_history[0].reason == "StorageError"
        assert condition(seen, "Scheduled") == ("True", "Running")

    def test_not_while_something_of_the_last_one_is_at_large(self) -> None:
        """Its Job was deleted and made again unseen: the pod of the first still writes."""
        seen, _ = settle(transient(), at(61))
        stray = pod(running(), uid="stray", job_uid="another")
        waiting, decision = settle(replace(seen, pods=(*seen.pods, stray)), at(100))
        assert created_jobs(decision) == []
        message = next(item.message for item in waiting.restoration.status.conditions if item.type == "Scheduled")
        assert message == "the next execution waits for pod clip-pod of an earlier one to end"
        assert waiting.restoration.status.phase == "Retrying"
        _, decision = settle(replace(waiting, pods=seen.pods), at(101))
        assert created_jobs(decision) == [SECOND]

    def test_the_running_time_is_used_up_by_failures(self) -> None:
        seen, _ = settle(transient(activeDeadlineSeconds=50), at(61))
        assert condition(seen, "Succeeded") == ("False", "DeadlineExceeded")
        assert condition(seen, "Scheduled") == ("Unknown", "Pending"), "nothing starts any more"

    def test_what_differs_is_in_the_job_and_in_the_record(self) -> None:
        before = {"activeDeadlineSeconds": 1000}
        fault = pod(ended(20, outcomes.failed(FailureReason.GPU_FAULT, "Xid 79")))
        seen, _ = settle(observe(at_work(before), jobs=[broken()], pods=[fault]), at(61))
        _, decision = settle(seen, at(100))
        [manifest] = [action.manifest for action in decision.actions if isinstance(action, CreateJob)]
        told = manifest["spec"]["template"]["spec"]
        assert told["activeDeadlineSeconds"] == 1000 - (59 - 3)
        away = told["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
        assert away == {
            "nodeSelectorTerms": [
                {"matchFields": [{"key": "metadata.name", "operator": "NotIn", "values": ["node-1"]}]}
            ]
        }
        seen, _ = settle(seen, at(100))
        made = JobView.of(manifest | {"metadata": manifest["metadata"] | {"uid": "second", "namespace": "default"}})
        seen, _ = settle(replace(seen, jobs=(made,), pods=()), at(101))
        entry = seen.restoration.status.attempt_history[-1]
        assert (entry.execution, entry.active_deadline_seconds, entry.excluded_nodes) == (2, 944, ("node-1",))


def test_the_first_execution_has_the_whole_deadline() -> None:
    _, decision = settle(observe(restoration({"activeDeadlineSeconds": 600})), at(1))
    pod_spec = decision.actions[1].manifest["spec"]["template"]["spec"]  # type: ignore[union-attr]
    assert pod_spec["activeDeadlineSeconds"] == 600


def test_ids_of_the_story() -> None:
    assert UID.endswith("7f3c9a1b")
    assert at(1) - at(0) == timedelta(seconds=1)


BEFORE_ITS_DELETION: dict[str, Callable[[], Observation]] = {
    "never looked at": lambda: observe(restoration()),
    "reserved": lambda: settle(observe(restoration()), at(1))[0],
    "its Job was removed": lambda: observe(at_work(), confirmed=True),
    "its Job has failed": lambda: observe(at_work(), jobs=[broken()], pods=[pod(ended(21))]),
}


@pytest.mark.parametrize("before", BEFORE_ITS_DELETION.values(), ids=BEFORE_ITS_DELETION)
def test_for_what_is_being_deleted_nothing_is_started(before: Callable[[], Observation]) -> None:
    """A finalizer holds it: the garbage collector's own (`--cascade=foreground`), or another's."""
    seen = before()
    leaving = seen.restoration.metadata.model_copy(update={"deletion_timestamp": at(60)})
    seen = replace(seen, restoration=seen.restoration.model_copy(update={"metadata": leaving}))
    for now in (at(60), at(600)):
        seen, decision = settle(seen, now)
        assert created_jobs(decision) == []
    assert seen.restoration.status.attempts.executions <= 1
    assert standing(seen.restoration) is not Standing.WAITS, "it would hold up those behind it"
