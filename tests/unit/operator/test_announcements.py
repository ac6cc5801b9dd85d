"""What is worth an Event: told from a whole life, step by step."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hack.operator_reference import operator_reference
from tests.builders import outcomes
from tests.builders.observations import (
    at,
    complete,
    ended,
    job,
    observe,
    pod,
    restoration,
    running,
    waiting,
    wishing,
)

from restoration_api.resources import VideoRestorationStatus
from restoration_operator.decide.announcements import REASONS, Announcement, Reason, announcements
from restoration_operator.decide.decision import decide
from restoration_operator.decide.types import NoProfile, Observation
from restoration_operator.views import WarningEvent

QUOTA = "exceeded quota: gpu"
REJECTED = WarningEvent(reason="FailedCreate", message=QUOTA, read_at=at(30))


class Told:
    """Everything that was announced while statuses were stored one after the other."""

    def __init__(self, seen: Observation) -> None:
        self.seen = seen
        self.announced: list[Announcement] = []

    def at(self, seconds: float, **changes: Any) -> Told:
        """See this and store what is decided until the status stands."""
        self.seen = replace(self.seen, **changes)
        for _ in range(10):
            decision = decide(self.seen, at(seconds))
            if decision.looks or decision.status.to_json() == self.seen.restoration.status.to_json():
                return self
            self.announced += announcements(self.seen.restoration.status, decision.status)
            fresh = self.seen.restoration.model_copy(update={"status": decision.status})
            self.seen = replace(self.seen, restoration=fresh)
        raise AssertionError("the decision does not come to rest")

    @property
    def reasons(self) -> list[str]:
        return [item.reason.value for item in self.announced]

    @property
    def last(self) -> str:
        return self.announced[-1].note


def begun() -> Told:
    return Told(observe(restoration())).at(0).at(2, jobs=(job(),))


def test_a_quiet_life_is_three_events() -> None:
    told = begun().at(3, pods=(pod(waiting("ContainerCreating")),)).at(8, pods=(pod(running()),))
    told.at(60, jobs=(complete(),), pods=(pod(ended(0, outcomes.succeeded(frames=60))),))
    assert told.reasons == ["JobCreated", "Running", "Completed"]
    assert "pod clip-pod on node node-1" in told.announced[1].note


def test_a_failure_names_its_class() -> None:
    told = begun().at(8, pods=(pod(running()),))
    failed = outcomes.failed("InvalidInput", "s3://media/raw/clip.mp4 has no video stream")  # type: ignore[arg-type]
    told.at(60, jobs=(complete(),), pods=(pod(ended(10, failed)),))
    assert told.reasons[-1] == "Failed"
    assert "ExecutionFailed" in told.reasons
    assert told.last.startswith("InvalidInput: s3://media/raw/clip.mp4 has no video stream")


@pytest.mark.parametrize(
    ("changes", "reason", "note"),
    [
        ({"warnings": {job().uid: REJECTED}}, "PodRejected", QUOTA),
        ({"pods": (pod(waiting("ErrImagePull", "not found")),)}, "ImagePullError", "not found"),
        ({"jobs": (job(suspended=True),)}, "Queued", "held back"),
        (
            {"pods": (pod(scheduled=False, node=None, taken=None, scheduling_message="0/3 nodes"),)},
            "Unschedulable",
            "0/3 nodes",
        ),
    ],
)  # fmt: skip
def test_a_wait_is_told_once(changes: dict[str, Any], reason: str, note: str) -> None:
    told = begun().at(30, **changes).at(31).at(32)
    assert told.reasons == ["JobCreated", reason]
    assert note in told.last


def test_a_refusal_names_its_reason() -> None:
    missing = NoProfile(reason="ProfileNotFound", message="there is no such profile")
    told = Told(observe(restoration(), profile=missing)).at(0).at(1)
    assert told.reasons == ["Refused"]
    assert told.last == "ProfileNotFound: there is no such profile"


def test_suspended_and_resumed() -> None:
    told = begun().at(8, pods=(pod(running()),))
    told.seen = wishing(told.seen, suspend=True)
    told.at(20).at(30, jobs=(), pods=(), confirmed=True)
    told.seen = wishing(told.seen, suspend=False)
    told.at(40)
    assert told.reasons == ["JobCreated", "Running", "Suspended", "Resumed"]


def test_nothing_is_told_of_what_is_over() -> None:
    told = begun().at(8, pods=(pod(running()),)).at(60, jobs=(complete(),), pods=(pod(ended(0, outcomes.succeeded())),))
    count = len(told.announced)
    over = told.seen.restoration.status
    assert announcements(over, over.model_copy(update={"observed_generation": 9})) == ()
    assert len(told.at(90).announced) == count


def test_the_first_status_of_all_is_no_news() -> None:
    assert announcements(VideoRestorationStatus(), VideoRestorationStatus()) == ()


@pytest.mark.parametrize("reason", Reason)
def test_every_reason_is_documented(reason: Reason) -> None:
    assert REASONS[reason].meaning
    assert f"| `{reason}` | {REASONS[reason].type} |" in operator_reference()
