"""What Kubernetes' own Events about one object say about its wait.

Quota, Pod Security, a missing service account, Secret or ConfigMap are told nowhere else. Events are a log and not a
state: a Warning stays for an hour after its cause is gone. So a Warning counts only if it comes from Kubernetes itself
(policy engines report audits as Warnings too), is no mere remark, and nothing later says that the wait went on.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

Json = Mapping[str, Any]

SOURCES: Final = frozenset({"job-controller", "kubelet", "attachdetach-controller"})
REMARKS: Final = frozenset(
    {
        "DNSConfigForming",
        "FailedToRetrieveImagePullSecret",
        "Unhealthy",
        "BackOff",
        "Failed",
        "InspectFailed",
        "ErrImageNeverPull",
    }
)
"""Warnings that hold nothing up, or that the pod's container status says better (images)."""
MOUNT_REASONS: Final = frozenset({"FailedMount", "FailedAttachVolume", "FailedMapVolume"})
UNSPECIFIC: Final = "Unable to attach or mount volumes"
"""Opening of the kubelet's summary after two minutes; what is wrong with which volume is in another Event."""
PROGRESS: Final = frozenset({"Pulling", "Pulled", "Created", "Started"})
"""Volumes are mounted and the sandbox is there before the kubelet says any of these."""
ATTACHED: Final = "SuccessfulAttachVolume"
REPEATED_WITHIN: Final = timedelta(seconds=150)
"""The kubelet retries a mount after at most 122 s: of two causes, one that is that much older is over."""
FORGOTTEN_AFTER: Final = timedelta(minutes=15)
"""client-go lets the same Event through every 5 minutes at least (its spam filter's refill) while its cause lasts."""
MOST_MESSAGES: Final = 3


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """Why something waits. `reason` is empty if nothing holds it up; `message` may then say what goes on."""

    reason: str = ""
    message: str = ""
    happened_at: datetime | None = None


def explain(events: Iterable[Json], now: datetime) -> Explanation:
    """Read the core Events about one object.

    Several causes at once give one text, in an order that does not depend on which was told last: else it would change
    with every look.
    """
    ours = [event for event in events if _source(event) in SOURCES]
    problems = _specific([event for event in ours if _is_problem(event) and now - _time(event) < FORGOTTEN_AFTER])
    step = max((event for event in ours if event.get("reason") in PROGRESS), key=_time, default=None)
    if step is not None:
        problems = [event for event in problems if _time(event) > _time(step)]
    attached = max((_time(event) for event in ours if event.get("reason") == ATTACHED), default=None)
    if attached is not None:
        problems = [
            event for event in problems if event.get("reason") != "FailedAttachVolume" or _time(event) >= attached
        ]
    if not problems:
        return Explanation(message=step["message"] if step else "", happened_at=_time(step) if step else None)
    newest = max(map(_time, problems))
    current = [event for event in problems if newest - _time(event) <= REPEATED_WITHIN]
    current.sort(key=lambda event: (event["reason"] not in MOUNT_REASONS, event.get("message", "")))
    messages = list(dict.fromkeys(str(event.get("message", "")) for event in current))
    return Explanation(reason=current[0]["reason"], message="; ".join(messages[:MOST_MESSAGES]), happened_at=newest)


def _is_problem(event: Json) -> bool:
    return event.get("type") == "Warning" and event.get("reason", "") not in REMARKS


def _specific(problems: list[Json]) -> list[Json]:
    plain = [event for event in problems if not str(event.get("message", "")).startswith(UNSPECIFIC)]
    return plain or problems


def _source(event: Json) -> str:
    return str(event.get("reportingComponent") or (event.get("source") or {}).get("component") or "")


def _time(event: Json) -> datetime:
    series = event.get("series") or {}
    text = series.get("lastObservedTime") or event.get("lastTimestamp") or event.get("eventTime")
    text = text or (event.get("metadata") or {}).get("creationTimestamp")
    return datetime.fromisoformat(text) if text else datetime.min.replace(tzinfo=UTC)
