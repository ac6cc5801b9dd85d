"""The seven conditions of a restoration, all present from the first visit and always computed together.

A condition's transition time changes with its status and with nothing else, and `observedGeneration` says which spec
it was computed from: what the API conventions ask for, and what `kubectl wait` and kstatus rely on.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal

from restoration_api.resources import Condition, ConditionType, Phase, VideoRestorationStatus
from restoration_operator.decide.types import Ending, Observation

MESSAGE_CHARACTERS: Final = 4096
"""The schema allows 32768; nobody reads that, and every watcher would carry it around."""

IN_PROGRESS: Final = "InProgress"
PENDING: Final = "Pending"


@dataclass(frozen=True)
class State:
    """A condition without its bookkeeping."""

    status: Literal["True", "False", "Unknown"]
    reason: str
    message: str = ""


ACCEPTED: Final = State("True", "Valid")
NOT_SCHEDULED: Final = State("Unknown", PENDING)


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What the policies found out; the rest of the conditions follows from it."""

    phase: Phase
    accepted: State
    scheduled: State
    blocked: State | None = None
    """The user has to act: why, as the condition `Stalled` says it."""
    ending: Ending | None = None
    """Set: the restoration is over."""


def report(seen: Observation, facts: Facts, now: datetime) -> VideoRestorationStatus:
    """The stored status with phase, conditions and generation as the facts have them; the rest stays."""
    restoration = seen.restoration
    status, generation = restoration.status, restoration.metadata.generation
    states = _states(facts, suspended=restoration.spec.suspend)
    stored = {condition.type: condition for condition in status.conditions}
    return status.model_copy(
        update={
            "observed_generation": generation,
            "phase": facts.phase,
            "conditions": tuple(
                _condition(stored.get(kind), kind, state, generation, now) for kind, state in states.items()
            ),
        }
    )


def current(status: VideoRestorationStatus, kind: ConditionType, otherwise: State) -> State:
    """The stored condition's state, or `otherwise` before the first visit."""
    for condition in status.conditions:
        if condition.type == kind:
            return State(condition.status, condition.reason, condition.message)
    return otherwise


def since(status: VideoRestorationStatus, kind: ConditionType) -> datetime | None:
    """When the stored condition took its status."""
    return next((item.last_transition_time for item in status.conditions if item.type == kind), None)


def clip(text: str, characters: int = MESSAGE_CHARACTERS) -> str:
    """`text` cut to what a field holds, with a mark that something is missing."""
    return text if len(text) <= characters else text[: characters - 1] + "…"


def _states(facts: Facts, *, suspended: bool) -> dict[ConditionType, State]:
    over, blocked = facts.ending, facts.blocked
    succeeded, finished = State("Unknown", IN_PROGRESS), State("False", IN_PROGRESS)
    if over is not None:
        finished = State("True", over.reason, over.message)
        succeeded = State("True" if over.succeeded else "False", over.reason, over.message)
        blocked = None if over.succeeded else finished
    idle = next(
        (word for word, holds in (("Finished", over), ("Suspended", suspended), ("Stalled", blocked)) if holds), None
    )
    return {
        ConditionType.ACCEPTED: facts.accepted,
        ConditionType.SCHEDULED: facts.scheduled,
        ConditionType.SUSPENDED: State("True", "UserRequested") if suspended else State("False", "NotSuspended"),
        ConditionType.SUCCEEDED: succeeded,
        ConditionType.FINISHED: finished,
        ConditionType.RECONCILING: State("True", IN_PROGRESS) if idle is None else State("False", idle),
        ConditionType.STALLED: (
            State("False", "NotStalled") if blocked is None else State("True", blocked.reason, blocked.message)
        ),
    }


def _condition(
    before: Condition | None, kind: ConditionType, state: State, generation: int, now: datetime
) -> Condition:
    message = clip(state.message)
    said = (state.status, state.reason, message, generation)
    if before is not None and (before.status, before.reason, before.message, before.observed_generation) == said:
        return before
    unchanged = before is not None and before.status == state.status
    return Condition(
        type=kind,
        status=state.status,
        observed_generation=generation,
        last_transition_time=before.last_transition_time if before and unchanged else now,
        reason=state.reason,
        message=message,
    )


def earliest(moments: Iterable[datetime | None]) -> datetime | None:
    """The first of the moments that exist."""
    return min((moment for moment in moments if moment is not None), default=None)
