"""What the columns of `list` and `watch` say."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from tests.builders.resources import make_vr
from tests.builders.statuses import failed, make_status, running, succeeded

from restoration_cli.errors import CommandError
from restoration_cli.rows import duration, row
from restoration_cli.view import Restoration

NOW = datetime(2026, 3, 1, 12, 4, 30, tzinfo=UTC)
CREATED = "2026-03-01T11:47:30Z"

ROWS: list[tuple[Any, tuple[str, ...]]] = [
    ({}, ("Pending", "", "", "", "0", "")),
    (running(41), ("Running", "41% 41/100", "12.50 fps", "60s", "1", "")),
    (succeeded(), ("Succeeded", "", "", "", "1", "")),
    (failed("InvalidInput", "no video"), ("Failed", "", "", "", "1", "InvalidInput")),
    (make_status("Pending", Accepted="False/OutputClaimed"), ("Pending", "", "", "", "0", "OutputClaimed")),
    (make_status("Queued", Scheduled="False/Queued"), ("Queued", "", "", "", "0", "Queued")),
    (make_status("Starting"), ("Starting", "", "", "", "0", "")),
    (make_status("Suspended"), ("Suspended", "", "", "", "0", "")),
]


@pytest.mark.parametrize(("status", "expected"), ROWS)
def test_rows(status: Any, expected: tuple[str, ...]) -> None:
    body = make_vr(namespace="media")
    body["metadata"] |= {"creationTimestamp": CREATED}
    found = row(Restoration.of(body | {"status": status}), NOW)
    assert (found.namespace, found.name, found.age) == ("media", "clip", "17m")
    assert (found.phase, found.progress, found.speed, found.left, found.tries, found.why) == expected


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (119, "119s"), (125, "2m5s"), (600, "10m"), (10_000, "166m"), (12_000, "3h20m"), (172_800, "2d")],
)
def test_durations(seconds: int, text: str) -> None:
    assert duration(seconds) == text


def test_a_newer_schema_is_listed_all_the_same() -> None:
    newer = make_vr({"output.codec": "VVC", "restoration.dream": True})
    status = {"phase": "Dreaming", "progress": {"stage": "Dreaming", "summary": "1%"}}
    assert row(Restoration.of(newer | {"status": status}), NOW).progress == "1%"


def test_what_cannot_be_read_is_named() -> None:
    with pytest.raises(CommandError, match=r"VideoRestoration clip: attempts\.executions cannot be read"):
        Restoration.of(make_vr() | {"status": {"attempts": {"executions": "two"}}})
