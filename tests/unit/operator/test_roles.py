"""One execution, up to three Jobs: what each end of a role leads to, and what of it is seen."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from tests.builders import outcomes
from tests.builders.observations import (
    UID,
    at,
    broken,
    complete,
    condition,
    created_jobs,
    ended,
    job,
    observe,
    pod,
    profile,
    restoration,
    running,
    settle,
    waiting,
    wishing,
)

from restoration_api.outcome import FailureReason
from restoration_api.resources import Phase
from restoration_operator.build.names import Role, job_name
from restoration_operator.decide.types import Observation, PlanJobs, SetJobTtl, Slots
from restoration_operator.views import JobView, PodView

GPU = profile({"gpu.count": 1})
PLAN_UID, RUN_UID, ASSEMBLE_UID = (f"33333333-3333-4333-8333-33333333333{number}" for number in range(3))
UIDS = {Role.PLAN: PLAN_UID, Role.RUN: RUN_UID, Role.ASSEMBLE: ASSEMBLE_UID}

MADE = {Role.PLAN: at(2), Role.RUN: at(62), Role.ASSEMBLE: at(121)}
"""When the Job of each role is created, in the story of all tests here."""


def named(role: Role, execution: int = 1) -> str:
    return job_name("clip", UID, execution=execution, role=role)


def job_of(role: Role, view: JobView | None = None, *, execution: int = 1) -> JobView:
    made = MADE[role]
    known = replace(view or job(execution), name=named(role, execution), role=role.value, uid=UIDS[role])
    return replace(known, created=made, started=made)


def pod_of(role: Role, container: Any, *, execution: int = 1, **changes: Any) -> PodView:
    name = f"{role}-pod"
    view = pod(container, name=name, uid=f"{UIDS[role]}-pod", job_name=named(role, execution), job_uid=UIDS[role])
    return replace(view, execution=execution, **changes)


def planning(changes: dict[str, Any] | None = None, **rest: Any) -> Observation:
    """The plan's Job has been created and seen."""
    known = {"plan_jobs": "Always", "profile": GPU} | rest
    seen, decision = settle(observe(restoration(changes), **known))
    assert created_jobs(decision) == [named(Role.PLAN)]
    return settle(replace(seen, jobs=(job_of(Role.PLAN),)), at(2))[0]


def planned(message: str | None = None, changes: dict[str, Any] | None = None, **rest: Any) -> Observation:
    """The plan's Job has ended well; nothing has been decided since."""
    over = job_of(Role.PLAN, complete())
    said = outcomes.planned() if message is None else message
    return replace(planning(changes, **rest), jobs=(over,), pods=(pod_of(Role.PLAN, ended(0, said)),))


def restoring(**rest: Any) -> Observation:
    """After its plan, the Job that restores has been created and seen."""
    seen, decision = settle(planned(**rest), at(61))
    assert created_jobs(decision) == [named(Role.RUN)]
    return settle(replace(seen, jobs=(*seen.jobs, job_of(Role.RUN))), at(62))[0]


FIRST: list[tuple[str, PlanJobs, int, dict[str, Any], Role]] = [
    ("a GPU is asked for", "Always", 1, {}, Role.PLAN),
    ("none is", "Always", 0, {}, Role.PLAN),
    ("plans for GPUs only", "GPU", 1, {}, Role.PLAN),
    ("plans for GPUs only, none is", "GPU", 0, {}, Role.RUN),
    ("no plans", "Never", 1, {}, Role.RUN),
    ("planned by an earlier execution", "Always", 1, {"cacheKey": "c" * 64}, Role.RUN),
]


@pytest.mark.parametrize(("name", "plan_jobs", "gpus", "status", "role"), FIRST, ids=[row[0] for row in FIRST])
def test_where_an_execution_begins(
    name: str, plan_jobs: PlanJobs, gpus: int, status: dict[str, Any], role: Role
) -> None:
    seen = observe(restoration(status=status), plan_jobs=plan_jobs, profile=profile({"gpu.count": gpus}))
    settled, decision = settle(seen)
    assert created_jobs(decision) == [named(role)]
    assert settled.restoration.status.job_name == named(role)
    assert settled.restoration.status.attempts.executions == 1


class TestPlan:
    def test_it_takes_no_slot_and_waits_for_none(self) -> None:
        full = profile({"gpu.count": 1, "limits": {"maxActive": 1}})
        seen = planning(profile=full, slots=Slots(active=1, ahead=0))
        assert condition(seen, "Scheduled")[0] == "Unknown"

    def test_the_one_that_restores_waits_for_a_slot_of_its_own(self) -> None:
        full = profile({"gpu.count": 1, "limits": {"maxActive": 1}})
        seen, decision = settle(planned(profile=full, slots=Slots(active=1, ahead=0)), at(61))
        assert created_jobs(decision) == []
        assert condition(seen, "Scheduled") == ("False", "Queued")
        assert seen.restoration.status.phase is Phase.QUEUED
        assert seen.restoration.status.cache_key == "c" * 64
        _, decision = settle(replace(seen, slots=Slots(active=0, ahead=0)), at(70))
        assert created_jobs(decision) == [named(Role.RUN)]

    def test_while_it_runs_nobody_is_told_that_it_restores(self) -> None:
        seen, _ = settle(replace(planning(), pods=(pod_of(Role.PLAN, running()),)), at(8))
        status = seen.restoration.status
        assert condition(seen, "Scheduled") == ("Unknown", "Planning")
        assert (status.phase, status.start_time) == (Phase.STARTING, None)
        assert status.attempt_history[0].start_time == at(3)

    def test_then_the_same_execution_restores(self) -> None:
        seen = restoring()
        status = seen.restoration.status
        assert (status.attempts.executions, status.attempts.retries) == (1, 0)
        assert status.input is not None and status.input.frames == 60
        assert (status.cache_key, status.cache_hit) == ("c" * 64, False)
        assert [item.job_name for item in status.attempt_history] == [named(Role.RUN)]
        assert [item.reason for item in status.attempt_history] == [None]
        assert status.timings is not None and status.timings.fetch_milliseconds == 300

    def test_its_job_is_released_once_its_end_is_stored(self) -> None:
        _, decision = settle(restoring(), at(63))
        assert [action.job.name for action in decision.actions if isinstance(action, SetJobTtl)] == [named(Role.PLAN)]

    def test_its_time_counts_against_the_deadline(self) -> None:
        seen = restoring(changes={"activeDeadlineSeconds": 600})
        assert seen.restoration.status.attempts.running_seconds == 56

    @pytest.mark.parametrize(
        ("code", "message", "reason"),
        [
            (10, outcomes.failed(FailureReason.INVALID_INPUT, "in.mp4 is no video"), "InvalidInput"),
            (12, outcomes.failed(FailureReason.INPUT_NOT_FOUND, "s3://media/in.mp4"), "InputNotFound"),
            (13, outcomes.failed(FailureReason.ACCESS_DENIED, "403"), "AccessDenied"),
            (14, outcomes.failed(FailureReason.OUTPUT_CONFLICT, "exists"), "OutputConflict"),
        ],
    )
    def test_what_no_gpu_could_change_ends_it(self, code: int, message: str, reason: str) -> None:
        over = job_of(Role.PLAN, broken("PodFailurePolicy"))
        seen = replace(planning(), jobs=(over,), pods=(pod_of(Role.PLAN, ended(code, message)),))
        seen, decision = settle(seen, at(61))
        assert condition(seen, "Finished") == ("True", reason)
        assert created_jobs(decision) == []
        assert [item.job_name for item in seen.restoration.status.attempt_history] == [named(Role.PLAN)]

    def test_a_result_that_is_there_ends_it(self) -> None:
        seen, decision = settle(planned(outcomes.succeeded(reason="CacheHit")), at(61))
        assert condition(seen, "Succeeded") == ("True", "CacheHit")
        assert condition(seen, "Scheduled") == ("True", "CacheHit")
        assert created_jobs(decision) == []
        assert seen.restoration.status.cache_hit is True
        assert seen.restoration.status.phase is Phase.SUCCEEDED

    def test_a_failure_that_passes_is_tried_again_by_the_same_policy(self) -> None:
        message = outcomes.failed(FailureReason.STORAGE_ERROR, "503")
        over = job_of(Role.PLAN, broken())
        seen = replace(planning(), jobs=(over,), pods=(pod_of(Role.PLAN, ended(21, message)),))
        seen, _ = settle(seen, at(61))
        assert condition(seen, "Scheduled") == ("False", "BackingOff")
        assert seen.restoration.status.attempts.retries == 1
        _, decision = settle(seen, at(1000))
        assert created_jobs(decision) == [named(Role.PLAN, 2)]

    def test_a_later_execution_needs_no_other_plan(self) -> None:
        message = outcomes.failed(FailureReason.GPU_FAULT, "Xid 79")
        seen = restoring()
        over = job_of(Role.RUN, broken())
        seen, _ = settle(replace(seen, jobs=(over,), pods=(pod_of(Role.RUN, ended(20, message)),)), at(120))
        _, decision = settle(seen, at(1000))
        assert created_jobs(decision) == [named(Role.RUN, 2)]

    def test_a_plan_whose_report_is_lost_was_made_all_the_same(self) -> None:
        """Its Job is complete. The one that restores finds the plan, or whatever else is there."""
        seen = replace(planning(), jobs=(job_of(Role.PLAN, complete()),), confirmed=True)
        _, decision = settle(seen, at(61))
        assert created_jobs(decision) == [named(Role.RUN)]

    def test_a_plan_that_vanished_is_made_again(self) -> None:
        seen, _ = settle(replace(planning(), jobs=(), confirmed=True), at(61))
        assert seen.restoration.status.attempt_history[0].reason == "PodDeleted"
        _, decision = settle(seen, at(1000))
        assert created_jobs(decision) == [named(Role.PLAN, 2)]

    def test_where_all_segments_are_finished_no_gpu_is_asked_for(self) -> None:
        _, decision = settle(planned(outcomes.planned(segments_done=3)), at(61))
        assert created_jobs(decision) == [named(Role.ASSEMBLE)]

    def test_the_start_deadline_is_for_the_gpu(self) -> None:
        seen = restoring(changes={"startDeadlineSeconds": 100})
        stuck = replace(seen, pods=(*seen.pods, pod_of(Role.RUN, waiting("x"), scheduled=False, created=at(62))))
        seen, _ = settle(stuck, at(161))
        assert condition(seen, "Scheduled") == ("False", "Unschedulable")
        seen, _ = settle(replace(stuck, confirmed=True), at(162))
        assert condition(seen, "Finished") == ("True", "StartDeadlineExceeded")

    def test_waiting_for_the_gpu_is_waiting(self) -> None:
        seen = restoring()
        begun = pod_of(Role.RUN, running(), scheduled_at=at(160), taken=at(160), ready_at=at(170))
        seen, _ = settle(replace(seen, pods=(*seen.pods, begun)), at(171))
        timings = seen.restoration.status.timings
        # Three seconds for the plan's pod, and from the plan's end at 60 to 160.
        assert timings is not None and timings.queued_milliseconds == 103_000

    def test_suspended_while_it_runs(self) -> None:
        seen = wishing(planning(), suspend=True)
        seen, _ = settle(seen, at(20))
        gone = replace(seen, jobs=(), confirmed=True)
        seen, decision = settle(gone, at(30))
        assert created_jobs(decision) == []
        assert condition(seen, "Suspended")[0] == "True"
        _, decision = settle(wishing(seen, suspend=False), at(40))
        assert created_jobs(decision) == [named(Role.PLAN, 2)]

    def test_suspended_between_plan_and_gpu(self) -> None:
        seen, decision = settle(wishing(planned(), suspend=True), at(61))
        assert created_jobs(decision) == []
        assert seen.restoration.status.phase is Phase.SUSPENDED
        assert seen.restoration.status.attempts.executions == 1
        _, decision = settle(wishing(seen, suspend=False), at(70))
        assert created_jobs(decision) == [named(Role.RUN)]


class TestLostReport:
    def lost(self, **rest: Any) -> Observation:
        """The Job that restored is over, and nothing is left of its pod."""
        seen = restoring(**rest)
        return replace(seen, jobs=(seen.jobs[0], job_of(Role.RUN, broken())), pods=(), confirmed=True)

    def settling(self) -> Observation:
        seen, decision = settle(self.lost(), at(120))
        assert created_jobs(decision) == [named(Role.ASSEMBLE)]
        return settle(replace(seen, jobs=(*seen.jobs, job_of(Role.ASSEMBLE))), at(121))[0]

    def test_the_bucket_is_asked_before_anything_is_counted(self) -> None:
        seen = self.settling()
        status = seen.restoration.status
        assert (status.attempts.executions, status.attempts.disruptions) == (1, 0)
        assert condition(seen, "Finished")[0] == "False"

    def test_it_was_a_success(self) -> None:
        seen = self.settling()
        over = (*seen.jobs[:-1], job_of(Role.ASSEMBLE, complete()))
        pods = (pod_of(Role.ASSEMBLE, ended(0, outcomes.succeeded(), finished=at(130))),)
        seen, _ = settle(replace(seen, jobs=over, pods=pods), at(131))
        assert condition(seen, "Succeeded") == ("True", "Completed")
        assert seen.restoration.status.output is not None
        [entry] = seen.restoration.status.attempt_history
        assert (entry.execution, entry.reason) == (1, "Completed")

    def test_it_was_not_over(self) -> None:
        seen = self.settling()
        over = (*seen.jobs[:-1], job_of(Role.ASSEMBLE, broken()))
        pods = (pod_of(Role.ASSEMBLE, ended(143, outcomes.unfinished(), finished=at(130))),)
        seen, _ = settle(replace(seen, jobs=over, pods=pods), at(131))
        [entry] = seen.restoration.status.attempt_history
        assert entry.reason == "PodDeleted"
        assert entry.message is not None and "1 of 3 segments" in entry.message
        assert seen.restoration.status.attempts.disruptions == 1
        _, decision = settle(seen, at(1000))
        assert created_jobs(decision) == [named(Role.RUN, 2)]

    def test_it_was_not_over_and_the_pod_says_why(self) -> None:
        """As after a restart of the container runtime, which does not know how the container ended."""
        stayed = pod_of(Role.RUN, ended(255, "the end of a log", reason="Unknown", finished=at(119)))
        seen, decision = settle(replace(self.lost(), pods=(stayed,)), at(120))
        assert created_jobs(decision) == [named(Role.ASSEMBLE)]
        seen, _ = settle(replace(seen, jobs=(*seen.jobs, job_of(Role.ASSEMBLE))), at(121))
        over = (*seen.jobs[:-1], job_of(Role.ASSEMBLE, broken()))
        pods = (stayed, pod_of(Role.ASSEMBLE, ended(143, outcomes.unfinished(), finished=at(130))))
        seen, _ = settle(replace(seen, jobs=over, pods=pods), at(131))
        [entry] = seen.restoration.status.attempt_history
        assert entry.reason == "NodeShutdown"
        assert entry.message is not None and "1 of 3 segments" in entry.message
        assert seen.restoration.status.attempts.disruptions == 1

    def test_nobody_asks_twice(self) -> None:
        """The second report was lost as well: the next execution finds whatever there is."""
        seen = replace(self.settling(), jobs=(), pods=())
        seen, _ = settle(seen, at(131))
        assert [item.reason for item in seen.restoration.status.attempt_history] == ["PodDeleted"]
        _, decision = settle(seen, at(1000))
        assert created_jobs(decision) == [named(Role.RUN, 2)]

    def test_it_holds_no_slot_and_waits_for_none(self) -> None:
        full = profile({"gpu.count": 1, "limits": {"maxActive": 1}})
        seen = replace(self.lost(profile=full), slots=Slots(active=1, ahead=3))
        _, decision = settle(seen, at(120))
        assert created_jobs(decision) == [named(Role.ASSEMBLE)]
