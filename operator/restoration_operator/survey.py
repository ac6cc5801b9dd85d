"""How all restorations stand at one moment: what dashboards and alerts show of those that do not run.

Counted from the stored statuses, so every replica knows it, and only when somebody asks.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from restoration_api.resources import Condition, ConditionType, Phase, VideoRestoration
from restoration_operator.decide.conditions import PENDING
from restoration_operator.decide.progress import STALE_WORDS

RUNS = (Phase.RUNNING, Phase.ASSEMBLING)
UNSEEN = "New"
"""Phase, and reason to wait, of what has not been looked at yet."""


@dataclass(frozen=True)
class Survey:
    """Numbers of restorations, by the word that their status gives."""

    phases: Counter[str]
    waiting: Counter[str]
    stalled: Counter[str]
    stale: int
    oldest_wait_seconds: float
    """Of those that wait; 0 where none does."""


def survey(phases: Iterable[str], unfinished: Iterable[VideoRestoration], now: datetime) -> Survey:
    """Count everybody; `phases` has the finished ones too."""
    waiting: Counter[str] = Counter()
    stalled: Counter[str] = Counter()
    stale, oldest = 0, 0.0
    for restoration in unfinished:
        conditions: dict[str, Condition] = {item.type: item for item in restoration.status.conditions}
        if _status(conditions, ConditionType.FINISHED) == "True":
            continue
        if _status(conditions, ConditionType.STALLED) == "True":
            stalled[conditions[ConditionType.STALLED].reason] += 1
        scheduled = conditions.get(ConditionType.SCHEDULED)
        if scheduled is not None and STALE_WORDS in scheduled.message:
            stale += 1
        if restoration.status.phase in RUNS or restoration.spec.suspend:
            continue
        waiting[_why(restoration, conditions)] += 1
        since = _waiting_since(restoration, scheduled)
        if since is not None:
            oldest = max(oldest, (now - since).total_seconds())
    return Survey(Counter(phases), waiting, stalled, stale, oldest)


def _status(conditions: dict[str, Condition], kind: ConditionType) -> str | None:
    return conditions[kind].status if kind in conditions else None


def _why(restoration: VideoRestoration, conditions: dict[str, Condition]) -> str:
    """The reason of the first condition that says no; else of the one that is not decided; else the phase."""
    for kind in (ConditionType.ACCEPTED, ConditionType.SCHEDULED):
        if _status(conditions, kind) == "False":
            return conditions[kind].reason
    scheduled = conditions.get(ConditionType.SCHEDULED)
    if scheduled is not None and scheduled.status == "Unknown" and scheduled.reason != PENDING:
        return scheduled.reason
    return str(restoration.status.phase or UNSEEN)


def _waiting_since(restoration: VideoRestoration, scheduled: Condition | None) -> datetime | None:
    """Before the first run: since it was created. After: since it was last running."""
    if restoration.status.start_time is None or scheduled is None:
        return restoration.metadata.creation_timestamp
    return scheduled.last_transition_time
