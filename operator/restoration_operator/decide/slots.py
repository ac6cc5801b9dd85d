"""`limits.maxActive`: how many Jobs of a profile may exist at once, and whose turn it is next.

The order is that of creation. Only the stored status says who holds a slot and who waits for one, so that any number
of workers, and the next leader, count alike: the decision that takes a slot is the one that reserves an execution.
Jobs of other roles than `run` need no GPU and hold no slot.
"""

from datetime import datetime, timedelta
from enum import Enum, auto
from typing import Final

from restoration_api.outcome import FailureReason
from restoration_api.resources import ConditionType, VideoRestoration
from restoration_operator.build.names import Role
from restoration_operator.decide import attempts, retry, roles
from restoration_operator.decide.cleanup import is_finished
from restoration_operator.decide.conditions import NOT_SCHEDULED, State, current
from restoration_operator.decide.types import Observation

QUEUED: Final = "Queued"

NEXT_IN_LINE: Final = 4
"""How many of those that wait are told of every change: the oldest, and some more because one may be refused."""

REFRESH: Final = timedelta(seconds=30)
"""Others read a new position no more often than this, and than a second for each place: ten thousand in line cost 7
writes a second, whatever the slots do."""


class Standing(Enum):
    """What a restoration means to the others of its profile."""

    HOLDS = auto()
    """It has a Job that needs a slot, or is about to."""
    WAITS = auto()
    """It wants a slot."""
    APART = auto()
    """Over, suspended, refused, being deleted, planning, or waiting for its next try."""


def standing(restoration: VideoRestoration) -> Standing:
    """One that nobody has looked at yet waits: it may be first in line."""
    status = restoration.status
    if is_finished(restoration):
        return Standing.APART
    before = current(status, ConditionType.SCHEDULED, NOT_SCHEDULED)
    step = roles.following(status)
    if step is None and _under_way(restoration):
        return Standing.HOLDS if roles.current(status) is Role.RUN else Standing.APART
    if step is not None and step.role is not Role.RUN:
        return Standing.APART
    refused = status.condition(ConditionType.ACCEPTED) == "False"
    # After a failure it waits for its time first: in line it would hold up those behind it for minutes.
    leaving = restoration.metadata.deletion_timestamp is not None
    if restoration.spec.suspend or leaving or refused or before.reason in (retry.BACKING_OFF, FailureReason.NODE_LOST):
        return Standing.APART
    return Standing.WAITS


def wait(seen: Observation, profile: str, most: int | None, now: datetime) -> tuple[State, datetime | None] | None:
    """What the condition `Scheduled` says while there is no slot, and when to look again; None if there is one."""
    if most is None:
        return None
    slots = seen.slots
    if slots.active + slots.ahead < most and standing(seen.restoration) is Standing.WAITS:
        return None
    # One that was apart until now stands in line first, where other workers see it: else two could take one slot.
    position = slots.ahead + 1
    fresh = State("False", QUEUED, f"{slots.active} of {most} slots of profile {profile} in use; position {position}")
    stored = current(seen.restoration.status, ConditionType.SCHEDULED, fresh)
    if slots.ahead < NEXT_IN_LINE:
        return fresh, None
    due = (seen.place_told_at or now) + _patience(position)
    if stored.reason != QUEUED or now >= due:
        return fresh, now + _patience(position)
    return stored, due


def _patience(position: int) -> timedelta:
    return max(REFRESH, timedelta(seconds=position))


def _under_way(restoration: VideoRestoration) -> bool:
    """Whether its last execution is not over."""
    number = restoration.status.attempts.executions
    last = attempts.entry(restoration.status, number)
    return number > 0 and (last is None or last.end_time is None)
