"""How Events of our own are posted: after the fact, once, slowly, and without anybody waiting."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from tests.builders.live_api import eventually
from tests.builders.observations import restoration
from tests.unit.operator.test_announcements import begun

from restoration_api.resources import VideoRestorationStatus
from restoration_operator import events
from restoration_operator.cluster import ApiError, UnreachableError
from restoration_operator.decide.announcements import Announcement, Reason
from restoration_operator.events import Announcer, event_body


class Posted:
    """The API server's side."""

    def __init__(self) -> None:
        self.bodies: list[dict[str, Any]] = []
        self.series: list[tuple[str, int]] = []
        self.fail: Exception | None = None
        self.expired = False

    async def create_event(self, body: dict[str, Any]) -> None:
        if self.fail is not None:
            raise self.fail
        self.bodies.append(body)

    async def repeat_event(self, namespace: str, name: str, count: int, last: str) -> bool:
        if self.expired:
            return False
        self.series.append((name, count))
        return True


@asynccontextmanager
async def announcing(posted: Posted) -> AsyncIterator[Announcer]:
    announcer = Announcer(posted, instance="operator-0", per_second=1e6)  # type: ignore[arg-type]
    task = asyncio.create_task(announcer.run())
    yield announcer
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def until(holds: Callable[[], bool]) -> None:
    async def ask() -> bool:
        return holds()

    await eventually(ask, what="the Event")


def waits(reason: str, message: str = "0/3 nodes") -> VideoRestorationStatus:
    condition = {"type": "Scheduled", "status": "False", "reason": reason, "message": message}
    return restoration(status={"conditions": [condition | {"lastTransitionTime": "2026-01-01T12:00:00Z"}]}).status


async def test_the_same_again_is_counted() -> None:
    posted = Posted()
    async with announcing(posted) as announcer:
        for _ in range(3):
            announcer.recorded(restoration(), waits("Unschedulable"))
        await until(lambda: len(posted.series) == 2)
        [body] = posted.bodies
        assert posted.series == [(body["metadata"]["name"], 2), (body["metadata"]["name"], 3)]
        announcer.recorded(restoration(), waits("Unschedulable", "0/4 nodes"))
        await until(lambda: len(posted.bodies) == 2)


async def test_an_event_that_has_expired_is_posted_anew() -> None:
    posted = Posted()
    async with announcing(posted) as announcer:
        announcer.recorded(restoration(), waits("Unschedulable"))
        await until(lambda: len(posted.bodies) == 1)
        posted.expired = True
        announcer.recorded(restoration(), waits("Unschedulable"))
        await until(lambda: len(posted.bodies) == 2)
        first, second = posted.bodies
        assert first["metadata"]["name"] != second["metadata"]["name"]


@pytest.mark.parametrize("error", [ApiError(403, "Forbidden", "no"), UnreachableError("gone")])
async def test_a_lost_event_harms_nothing(error: Exception) -> None:
    posted = Posted()
    async with announcing(posted) as announcer:
        posted.fail = error
        announcer.recorded(restoration(), waits("Unschedulable"))
        await until(lambda: not announcer._others and not announcer._warnings)
        posted.fail = None
        announcer.recorded(restoration(), waits("ImagePullError"))
        await until(lambda: [body["reason"] for body in posted.bodies] == ["ImagePullError"])


async def test_a_burst_loses_its_oldest_and_warnings_go_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "WAITING_EVENTS", 3)
    posted = Posted()
    announcer = Announcer(posted, instance="operator-0", per_second=1e6)  # type: ignore[arg-type]
    for number in range(5):
        announcer.recorded(restoration(name=f"clip-{number}", uid=str(number)), waits("Queued"))
    announcer.recorded(restoration(), waits("ImagePullError"))
    task = asyncio.create_task(announcer.run())
    await until(lambda: len(posted.bodies) == 4)
    task.cancel()
    names = [body["regarding"]["name"] for body in posted.bodies]
    assert names == ["clip", "clip-2", "clip-3", "clip-4"]


def test_names_and_notes_fit_what_the_api_server_allows() -> None:
    longest = restoration(name="a" * 253)
    body = event_body(longest, Announcement(Reason.FAILED, "ä" * 2000), "operator-0")
    assert len(body["metadata"]["name"]) <= 253
    assert len(body["note"].encode()) <= 1024
    assert body["note"].endswith("ä…")
    assert body["metadata"]["name"] != event_body(longest, Announcement(Reason.FAILED, "x"), "o")["metadata"]["name"]


def test_a_life_names_its_restoration() -> None:
    told = begun()
    body = event_body(told.seen.restoration, told.announced[0], "operator-0")
    meta = told.seen.restoration.metadata
    assert body["regarding"]["uid"] == meta.uid
    assert (body["type"], body["action"]) == ("Normal", "CreateJob")
