"""Why a restoration waits, where it is, or how it ended, in sentences. Pure.

The order is that of the questions somebody at a terminal would ask: is it over, is it going away, has anybody looked at
it, is it held by its user, is it accepted, does it run.
"""

from dataclasses import dataclass
from datetime import datetime

from restoration_api.resources import ConditionType, Phase
from restoration_api.resources.status import Attempt
from restoration_cli.reasons import ACCEPTED, ENDINGS, SCHEDULED, words
from restoration_cli.rows import age, left
from restoration_cli.view import OPERATOR, Restoration


@dataclass(frozen=True)
class Explanation:
    """What `explain` prints. `message` is the operator's own sentence, `remedy` empty where nothing is to be done."""

    headline: str
    message: str = ""
    remedy: str = ""
    failed: bool = False


def explain(it: Restoration, now: datetime) -> Explanation:
    """The one thing to know about a restoration now."""
    if it.finished:
        return _ended(it)
    if it.metadata.deletion_timestamp is not None:
        return Explanation(f"{it.name} is being deleted.", remedy="nothing; finished segments stay in the bucket")
    manager = it.spec.get("managedBy")
    if manager not in (None, OPERATOR):
        return Explanation(f"{it.name} is managed by {manager}, not by the operator.", remedy=f"ask {manager}")
    if it.condition(ConditionType.ACCEPTED) is None:
        return Explanation(
            f"{it.name} waits: no operator has looked at it yet.",
            remedy="if it stays so, check that the operator runs and that its scope includes this namespace",
        )
    if it.spec.get("suspend"):
        return Explanation(
            f"{it.name} is suspended: its user asked for it; finished segments are kept.",
            remedy=f"kubectl vr resume {it.name}",
        )
    return _not_accepted(it) or _under_way(it, now)


def attempt_line(attempt: Attempt) -> str:
    """One execution in one line."""
    place = f" on {attempt.node_name}" if attempt.node_name else ""
    code = f" (exit {attempt.exit_code})" if attempt.exit_code is not None else ""
    segments = f", {attempt.segments_done} segments finished" if attempt.segments_done is not None else ""
    if attempt.end_time is None:
        # An open entry's reason is the operator's note to itself about what comes next.
        return f"execution {attempt.execution}{place}: not over"
    said = f": {attempt.message}" if attempt.message else ""
    return f"execution {attempt.execution}{place}: {attempt.reason or 'ended'}{code}{segments}{said}"


def _ended(it: Restoration) -> Explanation:
    condition = it.condition(ConditionType.SUCCEEDED)
    reason, message = (condition.reason, condition.message) if condition else ("Unknown", "")
    said = words(reason, ENDINGS)
    if it.succeeded:
        return Explanation(f"{it.name} succeeded: {said.means}.", message)
    remedy = said.remedy
    last = it.status.attempt_history[-1].reason if it.status.attempt_history else None
    if reason == "RetriesExhausted" and last is not None:
        cause = words(last, ENDINGS)
        remedy = f"{cause.remedy}; then: kubectl vr retry {it.name}"
        return Explanation(
            f"{it.name} failed: {said.means}, at last with {last}: {cause.means}.", message, remedy, failed=True
        )
    return Explanation(f"{it.name} failed ({reason}): {said.means}.", message, remedy, failed=True)


def _not_accepted(it: Restoration) -> Explanation | None:
    condition = it.condition(ConditionType.ACCEPTED)
    if condition is None or condition.status == "True":
        return None
    said = words(condition.reason, ACCEPTED)
    return Explanation(f"{it.name} waits ({condition.reason}): {said.means}.", condition.message, said.remedy)


def _under_way(it: Restoration, now: datetime) -> Explanation:
    condition = it.condition(ConditionType.SCHEDULED)
    if condition is None:
        return Explanation(f"{it.name} waits: its Job is being created.")
    said = words(condition.reason, SCHEDULED)
    if condition.status == "True":
        return Explanation(f"{it.name} is at work{_progress(it, now)}.", condition.message)
    if it.status.phase is Phase.RETRYING:
        pause = SCHEDULED["BackingOff"]
        why = "" if condition.reason == "BackingOff" else f" ({condition.reason}: {said.means})"
        return Explanation(f"{it.name} waits: {pause.means}{why}.", condition.message, pause.remedy)
    since = f", for {age(condition.last_transition_time, now)}" if condition.status == "False" else ""
    return Explanation(f"{it.name} waits ({condition.reason}){since}: {said.means}.", condition.message, said.remedy)


def _progress(it: Restoration, now: datetime) -> str:
    progress = it.status.progress
    if progress is None:
        return ""
    parts = [str(progress.stage or ""), progress.summary or "", f"{left(it, now)} left" if left(it, now) else ""]
    text = ", ".join(part for part in parts if part)
    return f": {text}" if text else ""
