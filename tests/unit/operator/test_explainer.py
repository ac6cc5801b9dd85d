"""How often Events are read."""

from __future__ import annotations

from datetime import datetime, timedelta

from tests.builders.observations import at

from restoration_operator.cluster import ApiError, UnreachableError
from restoration_operator.explainer import Explainer
from restoration_operator.pace import Pace
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
    explainer, event, now = Explainer(log), None, at(0)  # type: ignore[arg-type]
    pauses = []
    for _ in range(6):
        event = await explainer.explain("default", "uid", event, now)
        pauses.append(seconds(event))
        now += timedelta(seconds=seconds(event))
    assert pauses == [30, 60, 120, 240, 300, 300]
    log.message = "exceeded another quota"
    event = await explainer.explain("default", "uid", event, now)
    assert (event.message, seconds(event)) == ("exceeded another quota", 30)


async def test_a_thousand_that_wait_share_a_few_reads() -> None:
    log, clock = Log(), [0.0]
    explainer = Explainer(log, pace=Pace(per_second=5, clock=lambda: clock[0]))  # type: ignore[arg-type]
    answers = [await explainer.explain("default", f"uid-{number}", None, at(0)) for number in range(1000)]
    assert log.reads == 1
    unread = [answer for answer in answers if not answer.read]
    assert len(unread) == 999
    assert {seconds(answer) for answer in unread} == {3, 4, 5, 6, 7, 8}, "they do not come together again"
    clock[0] += 0.2
    assert (await explainer.explain("default", "uid-7", answers[7], at(1))).read


async def test_what_cannot_be_read_leaves_the_last_answer() -> None:
    log = Log()
    explainer = Explainer(log)  # type: ignore[arg-type]
    known = await explainer.explain("default", "uid", None, at(0))
    for log.fail in (ApiError(403, "Forbidden", "no"), UnreachableError("gone")):
        again = await explainer.explain("default", "uid", known, at(40))
        assert (again.read, again.message, again.again_at) == (True, "exceeded quota", at(70))
        first = await explainer.explain("default", "uid", None, at(40))
        assert (first.read, first.again_at) == (False, at(70))
