"""Rows of the tables of `list` and `watch`. Pure."""

from dataclasses import dataclass
from datetime import datetime

from restoration_api.resources import ConditionType, Phase
from restoration_cli.view import Restoration


@dataclass(frozen=True)
class Row:
    """One restoration, ready to print."""

    namespace: str
    name: str
    phase: str
    progress: str
    speed: str
    left: str
    tries: str
    age: str
    why: str


def row(it: Restoration, now: datetime) -> Row:
    """What is known about a restoration, in words that fit a column."""
    progress, created = it.status.progress, it.metadata.creation_timestamp
    rate = progress.milli_frames_per_second if progress and not it.finished else None
    return Row(
        namespace=it.metadata.namespace or "",
        name=it.name,
        phase=str(it.status.phase or Phase.PENDING),
        progress=(progress.summary or "") if progress else "",
        speed=f"{rate / 1000:.2f} fps" if rate else "",
        left=left(it, now),
        tries=str(it.status.attempts.executions),
        age=age(created, now) if created else "",
        why=why(it),
    )


def why(it: Restoration) -> str:
    """The reason that answers "why is it in this phase", or nothing if the phase says it all."""
    if it.metadata.deletion_timestamp is not None:
        return "Deleting"
    if it.finished:
        ended = it.condition(ConditionType.SUCCEEDED)
        return ended.reason if ended is not None and ended.reason != "Completed" else ""
    if it.status.phase in (Phase.SUSPENDED, Phase.RUNNING, Phase.ASSEMBLING):
        return ""
    for kind in (ConditionType.ACCEPTED, ConditionType.SCHEDULED):
        condition = it.condition(kind)
        if condition is not None and condition.status != "True":
            return "" if condition.reason == "Pending" else condition.reason
    return ""


def left(it: Restoration, now: datetime) -> str:
    """Time until the estimated end, such as `4m10s`; empty if nobody knows or it is over."""
    progress = it.status.progress
    if it.finished or progress is None or progress.estimated_completion_time is None:
        return ""
    return duration(max(0, round((progress.estimated_completion_time - now).total_seconds())))


def age(since: datetime, now: datetime) -> str:
    """Time since then; clocks that disagree give no negative ages."""
    return duration(max(0, int((now - since).total_seconds())))


def duration(seconds: int) -> str:
    """At most two units, as kubectl prints ages: `45s`, `4m10s`, `3h5m`, `2d`."""
    minutes, hours, days = seconds // 60, seconds // 3600, seconds // 86400
    if seconds < 120:
        return f"{seconds}s"
    if minutes < 10:
        return f"{minutes}m{seconds % 60}s" if seconds % 60 else f"{minutes}m"
    if hours < 3:
        return f"{minutes}m"
    if hours < 8:
        return f"{hours}h{minutes % 60}m" if minutes % 60 else f"{hours}h"
    return f"{hours}h" if hours < 48 else f"{days}d"
