"""A counter of a status never falls, and rises by what has happened and no more.

A counter that falls gives a budget back; one that jumps takes from it what nobody spent. What has happened is read from
the attempt history of the two statuses, never from the counters themselves.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import datetime
from typing import Final

from restoration_api.outcome import FAILURES, Budget, FailureReason
from tests.builders.simulation.server import Json

COUNTERS: Final = {
    Budget.RETRIES: "retries",
    Budget.INFRASTRUCTURE: "infrastructureRetries",
    Budget.DISRUPTIONS: "disruptions",
}
CLASSES: Final = frozenset(str(reason) for reason in FailureReason)
LEFT_OPEN: Final = frozenset({"Planned", "ReportLost"})
"""Reasons of an entry whose execution goes on with another Job: the running time of the one before is counted."""
GROWING: Final = ("framesDone", "segmentsDone", "percent")
FIXED: Final = ("framesTotal", "segmentsTotal")


def broken(old: Json, new: Json, *, over: bool) -> Iterator[str]:
    """What is wrong with the step from one status to the next, in sentences; `over`: the second one is the last."""
    had = {item["execution"]: item for item in old.get("attemptHistory", ())}
    changed = [
        (had.get(item["execution"], {}), item)
        for item in new.get("attemptHistory", ())
        if had.get(item["execution"]) != item
    ]
    was, now = old.get("attempts", {}), new["attempts"]
    yield from _budgets(was, now, changed, over=over)
    yield from _running_time(was, now, changed)
    same_job = (old.get("jobName"), was.get("executions")) == (new.get("jobName"), now["executions"])
    planned = any(item.get("reason") == "Planned" for _, item in changed)
    if same_job and not planned and not over:
        yield from _progress(old.get("progress") or {}, new.get("progress") or {})


def _budgets(was: Json, now: Json, changed: list[tuple[Json, Json]], *, over: bool) -> Iterator[str]:
    """The failure that ends a restoration was not followed by another try, so it is counted nowhere."""
    closed = [after["reason"] for before, after in changed if _ended(after) and not _ended(before)]
    due = Counter(FAILURES[FailureReason(reason)].budget for reason in closed if reason in CLASSES and not over)
    # A pod that was disrupted before its runner answered: its entry stays open, and names it.
    unanswered = sum(_unanswered(before, after) for before, after in changed)
    due[Budget.DISRUPTIONS] += unanswered
    # A pod that was replaced, or that its queue took away: its entry stays open.
    replaced = 1 if any(before.get("podName") and before.get("startTime") for before, _ in changed) else 0
    for budget, name in COUNTERS.items():
        before, after = was.get(name, 0), now.get(name, 0)
        least, most = due[budget], due[budget] + (replaced if budget is Budget.DISRUPTIONS else 0)
        if after < before:
            yield f"{name} fell from {before} to {after}"
        elif not least <= after - before <= most:
            yield f"{name} went from {before} to {after}, and {closed or 'no execution'} ended"


def _running_time(was: Json, now: Json, changed: list[tuple[Json, Json]]) -> Iterator[str]:
    before, after = was.get("runningSeconds", 0), now.get("runningSeconds", 0)
    if after < before:
        yield f"runningSeconds fell from {before} to {after}"
    closed = [item for old, item in changed if _ended(item) and not _ended(old)]
    if len(closed) == len(changed) and all(not old.get("podName") for old, _ in changed):
        ran = sum(_ran_seconds(item) for item in closed)
        if after - before != ran:
            yield f"runningSeconds went from {before} to {after} for executions that ran for {ran} s"
    elif after > before and not any(_stopped(old, item) for old, item in changed):
        yield f"runningSeconds went from {before} to {after}, and no pod ended"


def _progress(was: Json, now: Json) -> Iterator[str]:
    for name in GROWING:
        if now.get(name) is not None and now[name] < (was.get(name) or 0):
            yield f"{name} fell from {was[name]} to {now[name]}"
    for name in FIXED:
        if was.get(name) is not None and now.get(name) != was[name]:
            yield f"{name} was {was[name]} and is {now.get(name)}"
    if now.get("framesTotal") is not None and now.get("framesDone", 0) > now["framesTotal"]:
        yield f"{now['framesDone']} frames are done of {now['framesTotal']}"


def _stopped(old: Json, new: Json) -> bool:
    """Whether a pod of this attempt has stopped running in between."""
    if _ended(new) and not _ended(old):
        return True
    changes = any(old.get(key) != new.get(key) for key in ("podName", "startTime", "jobName"))
    return changes or (new.get("reason") in LEFT_OPEN and new.get("reason") != old.get("reason"))


def _unanswered(old: Json, new: Json) -> bool:
    """Whether the entry has come to name a pod that never ran, and why not."""
    is_new = new.get("podName") is not None and new.get("podName") != old.get("podName")
    return is_new and new.get("startTime") is None and new.get("reason") in CLASSES and not _ended(new)


def _ended(entry: Json) -> bool:
    return entry.get("endTime") is not None


def _ran_seconds(entry: Json) -> int:
    if entry.get("startTime") is None:
        return 0
    start, end = (datetime.fromisoformat(entry[key]) for key in ("startTime", "endTime"))
    return max(0, int((end - start).total_seconds()))
