"""Why is it pending: one row per answer."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Any

import pytest
from tests.builders.observations import (
    JOB_UID,
    POD_UID,
    at,
    at_work,
    condition,
    ended,
    job,
    observe,
    pod,
    running,
    settle,
    started,
    waiting,
)

from restoration_api.outcome import Progress, Stage
from restoration_operator.decide.types import LookAtEvents, Observation, PolledProgress
from restoration_operator.views import JobView, PodView, WarningEvent

QUOTA = 'pods "clip-pod" is forbidden: exceeded quota: gpu'
SECRET = 'MountVolume.SetUp failed for volume "storage-media": secret "media-s3" not found'


def warning(reason: str, message: str, read_at: datetime, **rest: Any) -> WarningEvent:
    return WarningEvent(reason=reason, message=message, read_at=read_at, **rest)


ANSWERS: list[tuple[str, JobView, PodView | None, float, dict[str, Any], tuple[str, str], str, str]] = [
    ("new", job(), None, 3, {}, ("Unknown", "Pending"), "Starting", ""),
    ("queued by Kueue", job(suspended=True), None, 3, {}, ("False", "Queued"), "Queued", "held back by its queue"),
    (
        "nobody makes a pod",
        job(),
        None,
        10,
        {"warnings": {job().uid: warning("FailedCreate", QUOTA, at(8))}},
        ("False", "PodRejected"),
        "Starting",
        QUOTA,
    ),
    (
        "nobody makes a pod and nobody says why",
        job(),
        None,
        10,
        {"warnings": {job().uid: warning("", "", at(8))}},
        ("Unknown", "Pending"),
        "Starting",
        "",
    ),
    (
        "no node",
        job(),
        pod(scheduled=False, node=None, taken=None, scheduling_message="0/3 nodes are available"),
        5,
        {},
        ("False", "Unschedulable"),
        "Starting",
        "0/3 nodes are available",
    ),
    (
        "no image",
        job(),
        pod(waiting("ImagePullBackOff", 'Back-off pulling image "runner:9"')),
        9,
        {},
        ("False", "ImagePullError"),
        "Starting",
        "runner:9",
    ),
    (
        "the image wants to be root",
        job(),
        pod(waiting("CreateContainerConfigError", "image will run as root")),
        9,
        {},
        ("False", "PodRejected"),
        "Starting",
        "image will run as root",
    ),
    ("creating", job(), pod(waiting("ContainerCreating")), 9, {}, ("Unknown", "Pending"), "Starting", ""),
    (
        "no Secret",
        job(),
        pod(waiting("ContainerCreating")),
        30,
        {"warnings": {POD_UID: warning("FailedMount", SECRET, at(25))}},
        ("False", "MountFailed"),
        "Starting",
        SECRET,
    ),
    ("not ready yet", job(), pod(running(), ready=False), 9, {}, ("Unknown", "Pending"), "Starting", ""),
    ("runs", job(), pod(running()), 9, {}, ("True", "Running"), "Running", "pod clip-pod on node node-1"),
    (
        "evicted, to be replaced",
        job(),
        pod(ended(143, finished=at(38)), disruption="EvictionByEvictionAPI"),
        40,
        {},
        ("Unknown", "Pending"),
        "Starting",
        "",
    ),
    (
        "evicted, and a quota forbids another pod",
        job(),
        pod(ended(143, finished=at(38)), disruption="EvictionByEvictionAPI"),
        50,
        {"warnings": {job().uid: warning("FailedCreate", QUOTA, at(45), happened_at=at(44))}},
        ("False", "PodRejected"),
        "Starting",
        QUOTA,
    ),
    (
        "nobody makes a pod for a minute and nobody says why",
        job(),
        None,
        70,
        {"warnings": {job().uid: warning("", "", at(65))}},
        ("Unknown", "Pending"),
        "Starting",
        "has no pod, and no Event says why",
    ),
    (
        "resumed by its queue: what was told before is about another wait",
        job(started=at(100)),
        None,
        110,
        {"warnings": {job().uid: warning("FailedCreate", QUOTA, at(108), happened_at=at(50))}},
        ("Unknown", "Pending"),
        "Starting",
        "",
    ),
    (
        "no scheduler yet",
        job(),
        pod(scheduled=None, scheduled_at=None, node=None, taken=None),
        50,
        {},
        ("Unknown", "Pending"),
        "Starting",
        "",
    ),
    (
        "no scheduler at all",
        job(),
        pod(scheduled=None, scheduled_at=None, node=None, taken=None),
        70,
        {},
        ("False", "Unschedulable"),
        "Starting",
        "no scheduler has looked at pod clip-pod",
    ),
    (
        "a sidecar's image is missing",
        job(),
        pod(running(), ready=False, trouble=waiting("ErrImagePull", "container mesh: not found")),
        9,
        {},
        ("False", "ImagePullError"),
        "Starting",
        "container mesh: not found",
    ),
    (
        "the back-off names its cause",
        job(),
        pod(waiting("ImagePullBackOff", 'Back-off pulling image "runner:9": ErrImagePull: runner:9: not found')),
        9,
        {},
        ("False", "ImagePullError"),
        "Starting",
        "runner:9: not found",
    ),
    (
        "a large image",
        job(),
        pod(waiting("ContainerCreating")),
        30,
        {"warnings": {POD_UID: warning("", 'Pulling image "runner:9"', at(25))}},
        ("Unknown", "Pending"),
        "Starting",
        'Pulling image "runner:9"',
    ),
    (
        "the Events could not be read",
        job(),
        pod(waiting("ContainerCreating")),
        90,
        {"warnings": {POD_UID: warning("", "", at(85), read=False, again_at=at(95))}},
        ("Unknown", "Pending"),
        "Starting",
        "",
    ),
]


@pytest.mark.parametrize(
    ("the_job", "the_pod", "now", "rest", "scheduled", "phase", "message"),
    [answer[1:] for answer in ANSWERS],
    ids=[answer[0] for answer in ANSWERS],
)
def test_answers(
    the_job: JobView,
    the_pod: PodView | None,
    now: float,
    rest: dict[str, Any],
    scheduled: tuple[str, str],
    phase: str,
    message: str,
) -> None:
    seen, decision = settle(observe(started(), jobs=[the_job], pods=[the_pod] if the_pod else [], **rest), at(now))
    assert not decision.looks
    assert condition(seen, "Scheduled") == scheduled
    assert seen.restoration.status.phase == phase
    assert message in next(item.message for item in seen.restoration.status.conditions if item.type == "Scheduled")


@pytest.mark.parametrize(
    ("pods", "now", "uid"),
    [
        ([], 6, ""),
        ([], 7, job().uid),
        ([pod(waiting("ContainerCreating"))], 22, ""),
        ([pod(waiting("ContainerCreating"))], 23, POD_UID),
    ],
    ids=["Job, early", "Job, after 5 s", "pod, early", "pod, after 20 s"],
)
def test_events_are_read_only_when_something_takes_long(pods: list[PodView], now: float, uid: str) -> None:
    assert JOB_UID[:-1] in job().uid
    _, decision = settle(observe(started(), jobs=[job()], pods=pods), at(now))
    assert decision.looks == ((LookAtEvents(uid),) if uid else ())
    if not uid:
        assert decision.wake_at is not None
        assert decision.wake_at > at(now)


def message_of(seen: Observation) -> str:
    return next(item.message for item in seen.restoration.status.conditions if item.type == "Scheduled")


def test_two_wordings_of_a_missing_image_are_one_write() -> None:
    first, _ = settle(
        observe(started(), jobs=[job()], pods=[pod(waiting("ErrImagePull", "rpc error: not found"))]), at(9)
    )
    for wording in (
        "Back-off pulling",
        'Back-off pulling image "r:1": ErrImagePull: rpc error: not found',
    ):
        again = observe(first.restoration, jobs=[job()], pods=[pod(waiting("ImagePullBackOff", wording))])
        after, _ = settle(again, at(12))
        assert after.restoration.status == first.restoration.status


def test_another_cause_replaces_the_message_of_the_first() -> None:
    first, _ = settle(observe(started(), jobs=[job()], pods=[pod(waiting("ErrImagePull", "not found"))]), at(9))
    denied = pod(waiting("ErrImagePull", "pull access denied"))
    after, _ = settle(observe(first.restoration, jobs=[job()], pods=[denied]), at(12))
    assert message_of(after) == "pull access denied"


def test_the_schedulers_words_are_copied_no_more_often_than_every_half_minute() -> None:
    def pending(message: str) -> PodView:
        return pod(scheduled=False, node=None, taken=None, scheduling_message=message)

    first, _ = settle(observe(started(), jobs=[job()], pods=[pending("0/3 nodes")]), at(5))
    soon, decision = settle(
        observe(first.restoration, jobs=[job()], pods=[pending("0/4 nodes")], worded_at=at(5)), at(20)
    )
    assert soon.restoration.status == first.restoration.status
    assert decision.wake_at == at(35), "it comes again to tell the last words"
    later, _ = settle(replace(soon, pods=(pending("0/5 nodes"),)), at(35))
    assert message_of(later) == "0/5 nodes"
    # Another reason is never held back.
    changed = observe(soon.restoration, jobs=[job()], pods=[pod(waiting("ErrImagePull", "no"))], worded_at=at(19))
    assert condition(settle(changed, at(20))[0], "Scheduled") == ("False", "ImagePullError")


def test_a_wait_that_is_over_leaves_nothing_behind() -> None:
    stuck = {"warnings": {POD_UID: warning("FailedMount", SECRET, at(25))}}
    seen, _ = settle(observe(started(), jobs=[job()], pods=[pod(waiting("ContainerCreating"))], **stuck), at(30))
    seen, _ = settle(replace(seen, pods=(pod(running()),)), at(40))
    assert condition(seen, "Scheduled") == ("True", "Running")
    assert message_of(seen) == "pod clip-pod on node node-1"


def test_what_was_known_stands_while_events_cannot_be_read() -> None:
    creating = [pod(waiting("ContainerCreating"))]
    read = {POD_UID: warning("FailedMount", SECRET, at(25), again_at=at(55))}
    seen, _ = settle(observe(started(), jobs=[job()], pods=creating, warnings=read), at(30))
    unread = {POD_UID: warning("", "", at(56), read=False, again_at=at(60))}
    after, decision = settle(replace(seen, warnings=unread), at(57))
    assert after.restoration.status == seen.restoration.status
    assert not decision.looks


@pytest.mark.parametrize(
    ("the_pod", "warnings", "stalls"),
    [
        (None, {job().uid: warning("FailedCreate", "violates PodSecurity", at(8), again_at=at(900))}, True),
        (None, {job().uid: warning("FailedCreate", QUOTA, at(8), again_at=at(900))}, False),
        (pod(waiting("ErrImagePull", "not found")), {}, True),
        (pod(waiting("ContainerCreating")), {POD_UID: warning("FailedMount", SECRET, at(25), again_at=at(900))}, True),
        (pod(scheduled=False, node=None, taken=None, scheduling_message="0/3 nodes"), {}, False),
    ],
    ids=["Pod Security", "a quota that others use up", "image", "Secret", "no node"],
)
def test_a_cause_that_does_not_pass_by_itself_stalls_after_a_minute(
    the_pod: PodView | None, warnings: dict[str, WarningEvent], stalls: bool
) -> None:
    pods = [the_pod] if the_pod else []
    seen, decision = settle(observe(started(), jobs=[job()], pods=pods, warnings=warnings), at(30))
    assert condition(seen, "Scheduled")[0] == "False"
    assert condition(seen, "Stalled") == ("False", "NotStalled")
    seen, decision = settle(seen, at(89))
    assert condition(seen, "Stalled") == ("False", "NotStalled"), "Flux and helm --wait give up at Stalled"
    if stalls:
        assert decision.wake_at == at(90)
    seen, _ = settle(seen, at(90))
    expected = ("True", condition(seen, "Scheduled")[1]) if stalls else ("False", "NotStalled")
    assert condition(seen, "Stalled") == expected
    assert condition(seen, "Reconciling")[0] == ("False" if stalls else "True")
    # Somebody has acted.
    seen, _ = settle(replace(seen, pods=(pod(running()),)), at(95))
    assert condition(seen, "Stalled") == ("False", "NotStalled")
    assert condition(seen, "Reconciling")[0] == "True"


def test_the_minute_begins_anew_with_another_cause() -> None:
    seen, _ = settle(observe(started(), jobs=[job()], pods=[pod(waiting("ErrImagePull", "not found"))]), at(30))
    mount = {POD_UID: warning("FailedMount", SECRET, at(70), again_at=at(900))}
    seen, _ = settle(replace(seen, pods=(pod(waiting("ContainerCreating")),), warnings=mount, caused_at=at(91)), at(91))
    assert condition(seen, "Scheduled") == ("False", "MountFailed")
    assert condition(seen, "Stalled") == ("False", "NotStalled")


def test_a_runner_that_says_the_same_for_long_is_mentioned_and_nothing_else() -> None:
    said = Progress(execution=1, stage=Stage.LOADING_MODEL, updated_at=at(9))
    polled = PolledProgress(pod_uid=POD_UID, progress=said, unchanged_since=at(10))
    seen = observe(at_work(), jobs=[job()], pods=[pod(running())], polled=polled)
    seen, _ = settle(seen, at(609))
    assert message_of(seen) == "pod clip-pod on node node-1"
    seen, decision = settle(seen, at(610))
    assert message_of(seen).endswith("; no progress since 2026-01-01T12:00:10Z, in stage LoadingModel")
    assert condition(seen, "Scheduled") == ("True", "Running")
    assert condition(seen, "Stalled") == ("False", "NotStalled")
    assert decision.actions == ()
    moves = replace(polled, unchanged_since=at(611))
    seen, _ = settle(replace(seen, polled=moves), at(612))
    assert message_of(seen) == "pod clip-pod on node node-1"


@pytest.mark.parametrize("phase", ["Running", "Succeeded"])
def test_a_pod_that_has_ended_changes_nothing_until_its_job_has(phase: str) -> None:
    """Between container, pod and Job lie moments; a phase for them would cost a write and mean nothing."""
    before = at_work()
    asked = {POD_UID: warning("", "", at(58))}  # whether it takes long to start was asked, and answered
    seen, decision = settle(observe(before, jobs=[job()], pods=[pod(ended(0), phase=phase)], warnings=asked), at(59))
    assert seen.restoration.status == before.status
    assert decision.actions == ()


def state(name: str, waiting_reason: str = "", message: str = "") -> dict[str, Any]:
    """Status of one container, as a kubelet reports it."""
    return {
        "name": name,
        "state": {"waiting": {"reason": waiting_reason, "message": message}} if waiting_reason else {},
    }


@pytest.mark.parametrize(
    ("init", "containers", "trouble"),
    [
        ([], [state("runner", "ContainerCreating")], None),
        ([state("fetch")], [state("runner", "PodInitializing")], None),
        ([], [state("runner", "ErrImagePull", "not found")], ("ErrImagePull", "not found")),
        (
            [state("mesh", "CrashLoopBackOff", "back-off 10s")],
            [state("runner", "PodInitializing")],
            ("CrashLoopBackOff", "container mesh: back-off 10s"),
        ),
        ([], [state("runner"), state("mesh", "ErrImagePull", "no")], ("ErrImagePull", "container mesh: no")),
        ([], [], None),
    ],
    ids=["creating", "initializing", "runner", "init container", "sidecar", "nothing said"],
)
def test_any_container_of_the_pod_may_hold_it_up(
    init: list[dict[str, Any]], containers: list[dict[str, Any]], trouble: tuple[str, str] | None
) -> None:
    body = {
        "metadata": {"namespace": "default", "name": "clip-pod", "uid": POD_UID},
        "status": {"initContainerStatuses": init, "containerStatuses": containers},
    }
    found = PodView.of(body).trouble
    assert (found and (found.reason, found.message)) == trouble
