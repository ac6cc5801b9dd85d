"""Slots of a profile: who holds one, who is next, what those that wait are told, and how often."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.builders.observations import T0, at, condition, created_jobs, observe, profile, restoration, settle

from restoration_operator.build.names import job_name
from restoration_operator.decide import slots
from restoration_operator.decide.decision import decide
from restoration_operator.decide.slots import Standing
from restoration_operator.decide.types import Observation, Slots
from restoration_operator.line import Lines

FULL = profile({"limits.maxActive": 2})
KEYS = ("one", "two")


def status(executions: int = 0, role: str = "run", **conditions: tuple[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = {
        "conditions": [
            {"type": kind, "status": value, "reason": reason, "message": "", "lastTransitionTime": T0.isoformat()}
            for kind, (value, reason) in conditions.items()
        ]
    }
    if executions:
        name = job_name("clip", "0b6f6a3e-3a55-4b0e-9d6e-6f6f7f3c9a1b", execution=executions, role=role)
        found |= {"attempts": {"executions": executions}, "jobName": name}
    return found


def over(number: int, reason: str) -> dict[str, Any]:
    return {"attemptHistory": [{"execution": number, "reason": reason, "endTime": at(9).isoformat()}]}


def open_with(reason: str) -> dict[str, Any]:
    """A Job of the first execution is over, and another one of the same follows."""
    return {"attemptHistory": [{"execution": 1, "reason": reason}]}


STANDINGS: dict[str, tuple[dict[str, Any], dict[str, Any], Standing]] = {
    "nobody has looked yet": ({}, {}, Standing.WAITS),
    "queued": ({}, status(Accepted=("True", "Valid"), Scheduled=("False", "Queued")), Standing.WAITS),
    "refused": ({}, status(Accepted=("False", "NotPermitted")), Standing.APART),
    "suspended": ({"suspend": True}, {}, Standing.APART),
    "reserved": ({}, status(1), Standing.HOLDS),
    "suspended, but its Job is still there": ({"suspend": True}, status(1), Standing.HOLDS),
    "plans": ({}, status(1, role="plan"), Standing.APART),
    "has planned, and stands in line": ({}, status(1, role="plan") | open_with("Planned"), Standing.WAITS),
    "has planned, suspended": ({"suspend": True}, status(1, role="plan") | open_with("Planned"), Standing.APART),
    "left no report": ({}, status(1) | open_with("ReportLost"), Standing.APART),
    "assembles": ({}, status(1, role="assemble"), Standing.APART),
    "between two executions": ({}, status(1) | over(1, "Suspended"), Standing.WAITS),
    "waits for its next try": ({}, status(1, Scheduled=("False", "BackingOff")) | over(1, "Unknown"), Standing.APART),
    "over": ({}, status(1, Finished=("True", "Completed")) | over(1, "Completed"), Standing.APART),
}


@pytest.mark.parametrize(("changes", "stored", "expected"), STANDINGS.values(), ids=STANDINGS)
def test_standing(changes: dict[str, Any], stored: dict[str, Any], expected: Standing) -> None:
    assert slots.standing(restoration(changes, status=stored)) is expected


def waiting(position: int, *, active: int = 2, told: float | None = None) -> Observation:
    seen = observe(restoration(), profile=FULL, slots=Slots(active=active, ahead=position - 1))
    return replace(seen, place_told_at=None if told is None else at(told))


def moved(seen: Observation, position: int, *, told: float) -> Observation:
    return replace(seen, slots=Slots(active=2, ahead=position - 1), place_told_at=at(told))


def said(seen: Observation) -> str:
    return next(item.message for item in seen.restoration.status.conditions if item.type == "Scheduled")


@pytest.mark.parametrize(
    ("active", "ahead", "goes"), [(0, 0, True), (1, 0, True), (2, 0, False), (1, 1, False), (0, 2, False), (0, 1, True)]
)
def test_who_may_go(active: int, ahead: int, goes: bool) -> None:
    seen = observe(restoration(), profile=FULL, slots=Slots(active=active, ahead=ahead))
    seen, decision = settle(seen, at(1))
    assert bool(created_jobs(decision)) is goes
    assert condition(seen, "Scheduled")[1] == ("Pending" if goes else "Queued")


def test_who_comes_back_stands_in_line_before_it_takes_a_slot() -> None:
    """Two workers decide at the same time: what only one of them knows of cannot be counted by the other."""
    stored = status(1, Accepted=("True", "Valid"), Scheduled=("False", "BackingOff")) | over(1, "StorageError")
    seen = observe(restoration(status=stored), profile=FULL)
    first = decide(seen, at(600))
    assert not created_jobs(first)
    assert [item.reason for item in first.status.conditions if item.type == "Scheduled"] == ["Queued"]
    seen, decision = settle(seen, at(600))
    assert created_jobs(decision)


def test_the_first_in_line_read_every_change() -> None:
    seen, _ = settle(waiting(5, told=1), at(1))
    seen, decision = settle(moved(seen, 4, told=1), at(2))
    assert said(seen) == "2 of 2 slots of profile default in use; position 4"
    assert decision.wake_at is None, "they are woken by the change itself"


@pytest.mark.parametrize(("position", "seconds"), [(5, 30), (30, 30), (31, 31), (1000, 1000)])
def test_others_read_it_now_and_then(position: int, seconds: int) -> None:
    seen, decision = settle(waiting(position + 1, told=0), at(0))
    seen, decision = settle(moved(seen, position, told=0), at(1))
    assert said(seen).endswith(f"position {position + 1}"), "not yet"
    assert decision.wake_at == at(seconds)
    seen, decision = settle(moved(seen, position, told=0), at(seconds))
    assert said(seen).endswith(f"position {position}")
    assert decision.wake_at == at(2 * seconds)


def test_a_restart_does_not_write_a_thousand_places() -> None:
    seen, _ = settle(waiting(1000, told=0), at(0))
    stored = seen.restoration
    again = replace(moved(seen, 900, told=0), restoration=stored, place_told_at=at(5000))  # first seen just now
    assert decide(again, at(5000)).status == stored.status


def test_a_queue_that_moves_all_the_time_costs_few_writes() -> None:
    """A thousand in line, a slot freed every second for ten minutes: each is woken when it said, or when it is near."""
    count, seconds, writes = 1000, 600, 0
    told = [0] * count
    shown = list(range(1, count + 1))
    for second in range(1, seconds):
        for number in range(second, count):
            position = number - second + 1
            near = position <= slots.NEXT_IN_LINE
            patience = max(slots.REFRESH, timedelta(seconds=position)).total_seconds()
            if shown[number] != position and (near or second - told[number] >= patience):
                shown[number], told[number] = position, second
                writes += 1
    assert writes / seconds < 10
    # The rule of the table above is the one of the decision.
    seen, _ = settle(waiting(1000, told=0), at(0))
    assert decide(moved(seen, 400, told=0), at(399)).status == seen.restoration.status
    assert decide(moved(seen, 400, told=0), at(400)).status != seen.restoration.status


class Naive:
    """The same, counted anew each time."""

    def __init__(self) -> None:
        self.places: dict[str, tuple[str, float, Standing]] = {}

    def seen_by(self, uid: str, key: str, created: float) -> Slots:
        others = [(name, *place) for name, place in self.places.items() if name != uid and place[0] == key]
        return Slots(
            active=sum(standing is Standing.HOLDS for *_, standing in others),
            ahead=sum(standing is Standing.WAITS and (age, name) < (created, uid) for name, _, age, standing in others),
        )


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    st.lists(
        st.tuples(st.integers(0, 9), st.sampled_from(KEYS), st.sampled_from([*Standing, None])),
        max_size=60,
    )
)
def test_the_line_is_what_counting_anew_gives(steps: list[tuple[int, str, Standing | None]]) -> None:
    lines, naive = Lines(), Naive()
    for number, key, standing in steps:
        uid, created = f"uid-{number}", float(number // 3)
        if standing is None:
            lines.drop(uid)
            naive.places.pop(uid, None)
        else:
            lines.put(uid, key=key, created=created, standing=standing)
            naive.places[uid] = (key, created, standing)
        for other in range(10):
            for name in KEYS:
                age = float(other // 3)
                expected = naive.seen_by(f"uid-{other}", name, age)
                assert lines.seen_by(f"uid-{other}", key=name, created=age) == expected


def test_a_slot_that_is_given_up_wakes_the_oldest() -> None:
    lines = Lines()
    for number in range(8):
        lines.put(f"waits-{number}", key="k", created=10 - number, standing=Standing.WAITS)
    lines.put("holds", key="k", created=0, standing=Standing.HOLDS)
    lines.put("elsewhere", key="other", created=0, standing=Standing.HOLDS)
    oldest = [f"waits-{number}" for number in (7, 6, 5, 4)]
    assert lines.drop("elsewhere") == []
    assert lines.put("holds", key="k", created=0, standing=Standing.APART) == oldest
    assert lines.put("waits-7", key="k", created=3, standing=Standing.HOLDS) == []
    assert lines.drop("waits-6") == ["waits-5", "waits-4", "waits-3", "waits-2"]
