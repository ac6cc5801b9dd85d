"""What Events say about a wait, and what they only seem to say: one row per log."""

from __future__ import annotations

from typing import Any

import pytest
from tests.builders.observations import at

from restoration_operator.decide.explanation import explain

SECRET = 'MountVolume.SetUp failed for volume "storage-media": secret "media-s3" not found'
CONFIG = 'MountVolume.SetUp failed for volume "request": configmap "vr-clip" not found'
SUMMARY = "Unable to attach or mount volumes: unmounted volumes=[storage-media]: timed out"
QUOTA = 'Error creating: pods "x" is forbidden: exceeded quota: gpu'


def event(
    reason: str, message: str, seconds: float, *, source: str = "kubelet", kind: str = "Warning"
) -> dict[str, Any]:
    """A core Event as kubelet and controllers write it."""
    return {
        "reason": reason,
        "message": message,
        "type": kind,
        "source": {"component": source},
        "lastTimestamp": at(seconds).isoformat(),
    }


def normal(reason: str, message: str, seconds: float, *, source: str = "kubelet") -> dict[str, Any]:
    return event(reason, message, seconds, source=source, kind="Normal")


def policy(seconds: float) -> dict[str, Any]:
    return event("PolicyViolation", "policy require-labels: fail (audit)", seconds, source="kyverno-admission")


def new_style(reason: str, message: str, seconds: float) -> dict[str, Any]:
    """As a reporter writes it that uses `events.k8s.io`: no source, no last timestamp."""
    return {
        "reason": reason,
        "message": message,
        "type": "Warning",
        "reportingComponent": "kubelet",
        "eventTime": at(seconds - 60).isoformat(),
        "series": {"count": 4, "lastObservedTime": at(seconds).isoformat()},
    }


LOGS: dict[str, tuple[list[dict[str, Any]], float, str, str]] = {
    "nothing": ([], 10, "", ""),
    "a quota": ([event("FailedCreate", QUOTA, 5, source="job-controller")], 10, "FailedCreate", QUOTA),
    "a Secret": ([event("FailedMount", SECRET, 5)], 10, "FailedMount", SECRET),
    "a new-style Event": ([new_style("FailedMount", SECRET, 100)], 110, "FailedMount", SECRET),
    "a network": (
        [event("FailedCreatePodSandBox", "no address left", 5)],
        10,
        "FailedCreatePodSandBox",
        "no address left",
    ),
    "the Secret has come: the image is being pulled": (
        [event("FailedMount", SECRET, 5), normal("Pulling", "Pulling image r:1", 9)],
        10,
        "",
        "Pulling image r:1",
    ),
    "within one second": (
        [normal("Pulling", "Pulling image r:1", 5), event("FailedMount", SECRET, 5)],
        10,
        "",
        "Pulling image r:1",
    ),
    "a problem after the pull": (
        [normal("Pulled", "pulled", 5), event("FailedCreatePodSandBox", "no address left", 8)],
        10,
        "FailedCreatePodSandBox",
        "no address left",
    ),
    "the volume is attached now": (
        [
            event("FailedAttachVolume", "still on node-2", 5, source="attachdetach-controller"),
            normal("SuccessfulAttachVolume", "attached", 9, source="attachdetach-controller"),
        ],
        10,
        "",
        "",
    ),
    "attached, then not mountable": (
        [normal("SuccessfulAttachVolume", "", 5, source="attachdetach-controller"), event("FailedMount", SECRET, 5)],
        10,
        "FailedMount",
        SECRET,
    ),
    "two causes are one text in one order": (
        [event("FailedMount", SECRET, 5), event("FailedMount", CONFIG, 3)],
        10,
        "FailedMount",
        f"{CONFIG}; {SECRET}",
    ),
    "one of two causes is over": (
        [event("FailedMount", SECRET, 400), event("FailedMount", CONFIG, 5)],
        410,
        "FailedMount",
        SECRET,
    ),
    "the summary says less than the cause": (
        [event("FailedMount", SECRET, 100), event("FailedMount", SUMMARY, 120)],
        130,
        "FailedMount",
        SECRET,
    ),
    "only the summary": ([event("FailedMount", SUMMARY, 120)], 130, "FailedMount", SUMMARY),
    "long ago": ([event("FailedMount", SECRET, 5)], 5 + 15 * 60, "", ""),
    "not long ago": ([event("FailedMount", SECRET, 5)], 4 + 15 * 60, "FailedMount", SECRET),
    "a policy engine's audit": ([policy(5)], 10, "", ""),
    "a remark": ([event("DNSConfigForming", "too many search paths", 5)], 10, "", ""),
    "something goes on": ([normal("Scheduled", "assigned", 5, source="default-scheduler")], 10, "", ""),
}


@pytest.mark.parametrize(("log", "now", "reason", "message"), LOGS.values(), ids=LOGS)
def test_logs(log: list[dict[str, Any]], now: float, reason: str, message: str) -> None:
    for events in (log, log[::-1]):
        found = explain(events, at(now))
        assert (found.reason, found.message) == (reason, message)
