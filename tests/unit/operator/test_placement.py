"""Why is it pending: one row per answer."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest
from tests.builders.observations import (
    JOB_UID,
    POD_UID,
    at,
    condition,
    job,
    observe,
    pod,
    running,
    settle,
    started,
    waiting,
)

from restoration_operator.decide.types import LookAtEvents
from restoration_operator.views import JobView, PodView, WarningEvent

QUOTA = 'pods "clip-pod" is forbidden: exceeded quota: gpu'
SECRET = 'MountVolume.SetUp failed for volume "storage-media": secret "media-s3" not found'


def warning(reason: str, message: str, read_at: datetime) -> WarningEvent:
    return WarningEvent(reason=reason, message=message, read_at=read_at)


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
        pod(running(), phase="Failed", disruption="EvictionByEvictionAPI"),
        40,
        {},
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


def test_two_wordings_of_a_missing_image_are_one_write() -> None:
    first, _ = settle(
        observe(started(), jobs=[job()], pods=[pod(waiting("ErrImagePull", "rpc error: not found"))]), at(9)
    )
    again = observe(first.restoration, jobs=[job()], pods=[pod(waiting("ImagePullBackOff", "Back-off pulling"))])
    after, _ = settle(again, at(12))
    assert after.restoration.status == first.restoration.status


@pytest.mark.parametrize("phase", ["Running", "Succeeded"])
def test_a_pod_that_has_ended_changes_nothing_until_its_job_has(phase: str) -> None:
    """Between container, pod and Job lie moments; a phase for them would cost a write and mean nothing."""
    from tests.builders.observations import at_work, ended

    before = at_work()
    asked = {POD_UID: warning("", "", at(58))}  # whether it takes long to start was asked, and answered
    seen, decision = settle(observe(before, jobs=[job()], pods=[pod(ended(0), phase=phase)], warnings=asked), at(59))
    assert seen.restoration.status == before.status
    assert decision.actions == ()
