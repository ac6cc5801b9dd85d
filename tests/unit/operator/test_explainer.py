"""How often Events are read."""

from __future__ import annotations

import itertools
from datetime import datetime, timedelta

import pytest
from tests.builders.observations import at

from restoration_operator.cluster import ApiError, UnreachableError
from restoration_operator.explainer import Explainer
from restoration_operator.views import WarningEvent


class Log:
    """The API server's side."""

    def __init__(self) -> None:
        self.message = "exceeded quota"
        self.fail: Exception | None = None
        self.reads = 0

    async def newest_warning(self, namespace: str, uid: str, now: datetime) -> WarningEvent:
        self.reads += 1
        if self.fail is not None:
            raise self.fail
        return WarningEvent(reason="FailedCreate", message=self.message, read_at=now)


def seconds(event: WarningEvent) -> float:
    assert event.again_at is not None
    return (event.again_at - event.read_at).total_seconds()


async def test_a_cause_that_stays_is_asked_for_less_and_less() -> None:
    log = Log()
    clock = itertools.count(step=10)
    explainer = Explainer(log, clock=lambda: float(next(clock)))  # type: ignore[arg-type]
    event, now = None, at(0)
    pauses = []
    for _ in range(6):
        event = await explainer.explain("default", "uid", event, now)
        pauses.append(seconds(event))
        now += timedelta(seconds=seconds(event))
    assert pauses == [30, 60, 120, 240, 300, 300]
    log.message = "exceeded another quota"
    event = await explainer.explain("default", "uid", event, now)
    assert (event.message, seconds(event)) == ("exceeded another quota", 30)


async def test_a_thousand_that_wait_stand_in_a_line() -> None:
    log, clock = Log(), [0.0]
    explainer = Explainer(log, per_second=5, clock=lambda: clock[0])  # type: ignore[arg-type]
    waiting: dict[str, WarningEvent | None] = {f"uid-{number}": None for number in range(1000)}
    questions = 0
    while unread := [uid for uid, answer in waiting.items() if answer is None or not answer.read]:
        now = at(int(clock[0]))
        for uid in unread:
            answer = waiting[uid]
            if answer is None or (answer.again_at and now >= answer.again_at):
                waiting[uid] = await explainer.explain("default", uid, answer, now)
                questions += 1
        clock[0] += 0.2
    assert log.reads == 1000
    assert questions < 2001, "each came to be given a place, and at its turn"
    assert clock[0] == pytest.approx(200, abs=5), "five a second"


async def test_whose_wait_has_ended_keeps_nobody_waiting() -> None:
    log, clock = Log(), [0.0]
    explainer = Explainer(log, per_second=5, clock=lambda: clock[0])  # type: ignore[arg-type]
    for number in range(1000):
        await explainer.explain("default", f"uid-{number}", None, at(0))
    clock[0] = 10.0
    assert (await explainer.explain("default", "fresh", None, at(10))).read
    clock[0] = 1000.0
    for number in range(1000):
        await explainer.explain("default", f"later-{number}", None, at(1000))
    assert len(explainer._places) <= 1000, "places that nobody came for are forgotten"


async def test_many_that_keep_waiting_all_get_their_turn() -> None:
    """Also while new ones come faster than can be answered: who has a place does not lose it to them."""
    log, clock = Log(), [0.0]
    explainer = Explainer(log, per_second=5, clock=lambda: clock[0])  # type: ignore[arg-type]
    early = {f"early-{number}": WarningEvent(reason="", message="", read_at=at(0), read=False) for number in range(50)}
    for second in range(40):
        clock[0] = float(second)
        for uid, answer in early.items():
            if not answer.read and at(second) >= (answer.again_at or at(0)):
                early[uid] = await explainer.explain("default", uid, answer, at(second))
        for number in range(20):
            await explainer.explain("default", f"late-{second}-{number}", None, at(second))
    assert all(answer.read for answer in early.values())


async def test_what_cannot_be_read_leaves_the_last_answer() -> None:
    log = Log()
    clock = itertools.count(step=10)
    explainer = Explainer(log, clock=lambda: float(next(clock)))  # type: ignore[arg-type]
    known = await explainer.explain("default", "uid", None, at(0))
    for log.fail in (ApiError(403, "Forbidden", "no"), UnreachableError("gone")):
        again = await explainer.explain("default", "uid", known, at(40))
        assert (again.read, again.message, again.again_at) == (True, "exceeded quota", at(70))
        first = await explainer.explain("default", "uid", None, at(40))
        assert (first.read, first.again_at) == (False, at(70))
