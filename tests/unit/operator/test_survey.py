"""What dashboards show of those that do not run: how many, why, and for how long."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from prometheus_client import REGISTRY
from tests.builders.observations import restoration

from restoration_api.resources import VideoRestoration
from restoration_operator import metrics
from restoration_operator.survey import Survey, survey

CREATED = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)
NOW = CREATED + timedelta(minutes=10)


def stamp(minutes: int) -> str:
    return (CREATED + timedelta(minutes=minutes)).strftime("%Y-%m-%dT%H:%M:%SZ")


def said(phase: str, *, changes: dict[str, Any] | None = None, start: int | None = None, **conditions: str) -> Any:
    """A restoration with `Type="Status/Reason/message/minute of its transition"`."""
    listed = []
    for kind, text in conditions.items():
        status, reason, message, minute = [*text.split("/"), "", "0"][:4]
        time = stamp(int(minute or 0))
        listed.append(
            {"type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": time}
        )
    status_body: dict[str, Any] = {"phase": phase, "conditions": listed}
    if start is not None:
        status_body["startTime"] = stamp(start)
    return restoration(changes, status=status_body, created=CREATED)


def judged(*unfinished: VideoRestoration) -> Survey:
    return survey([], unfinished, NOW)


@pytest.mark.parametrize(
    ("one", "reason", "waited_minutes"),
    [
        (restoration(created=CREATED), "New", 10),
        (said("Pending", Accepted="False/ProfileNotFound"), "ProfileNotFound", 10),
        (said("Queued", Accepted="True/Valid", Scheduled="False/Queued/3 are ahead"), "Queued", 10),
        (said("Starting", Accepted="True/Valid", Scheduled="False/ImagePullError"), "ImagePullError", 10),
        (said("Starting", Accepted="True/Valid", Scheduled="Unknown/Planning"), "Planning", 10),
        (said("Starting", Accepted="True/Valid", Scheduled="Unknown/Pending"), "Starting", 10),
        # It has run before: what counts is the wait since then.
        (said("Retrying", start=1, Scheduled="Unknown/Pending//7"), "Retrying", 3),
        (said("Queued", start=1, Scheduled="False/Queued//8"), "Queued", 2),
    ],
)
def test_who_waits_and_why(one: VideoRestoration, reason: str, waited_minutes: int) -> None:
    found = judged(one)
    assert dict(found.waiting) == {reason: 1}
    assert found.oldest_wait_seconds == waited_minutes * 60


@pytest.mark.parametrize(
    "one",
    [
        said("Running", Scheduled="True/Running"),
        said("Assembling", Scheduled="True/Running"),
        said("Suspended", changes={"suspend": True}, Scheduled="Unknown/Pending"),
        # Over, and not yet released.
        said("Failed", Finished="True/InvalidInput", Stalled="True/InvalidInput"),
    ],
    ids=["running", "assembling", "suspended", "finished"],
)
def test_who_does_not_wait(one: VideoRestoration) -> None:
    found = judged(one)
    assert (dict(found.waiting), found.oldest_wait_seconds, dict(found.stalled)) == ({}, 0, {})


def test_the_longest_wait_is_the_oldest_ones() -> None:
    young = restoration(created=NOW - timedelta(minutes=1), uid="11111111-0000-4000-8000-000000000000")
    assert judged(young, restoration(created=CREATED)).oldest_wait_seconds == 600


def test_stalled_and_stale_are_counted() -> None:
    stuck = said("Starting", Scheduled="False/MountFailed", Stalled="True/MountFailed")
    silent = said("Running", Scheduled="True/Running/pod a on node b; no progress since 12:01")
    found = judged(stuck, silent)
    assert (dict(found.stalled), found.stale) == ({"MountFailed": 1}, 1)


def test_a_reason_that_nobody_has_any_more_is_not_exported() -> None:
    def value(name: str, **labels: str) -> float | None:
        return REGISTRY.get_sample_value(name, labels)

    metrics.surveyed(judged(said("Queued", Scheduled="False/Queued")))
    assert value("vr_operator_restorations_waiting", reason="Queued") == 1
    assert value("vr_operator_oldest_wait_seconds") == 600
    metrics.surveyed(judged())
    assert value("vr_operator_restorations_waiting", reason="Queued") is None
    assert value("vr_operator_oldest_wait_seconds") == 0
