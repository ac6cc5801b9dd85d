"""The attempt history: one entry per execution, the user's post-mortem and the operator's durable memory.

An entry is written when the execution's Job has been seen. So "reserved, but no entry" means that the Job may never
have existed and is created under that very name; "entry, but no Job" means that it was there and is gone. An entry
with an end time is closed: the next execution gets a new number.
"""

from typing import Any, Final

from restoration_api.resources import VideoRestorationStatus
from restoration_api.resources.status import Attempt
from restoration_operator.decide.conditions import clip
from restoration_operator.decide.types import Ending

HISTORY_ENTRIES: Final = 10
MESSAGE_CHARACTERS: Final = 1024
SUSPENDED: Final = "Suspended"
"""Reason of an entry whose Job the operator ended because the user suspended the restoration."""


def entry(status: VideoRestorationStatus, number: int) -> Attempt | None:
    """The entry of an execution."""
    return next((item for item in status.attempt_history if item.execution == number), None)


def record(status: VideoRestorationStatus, number: int, **facts: Any) -> VideoRestorationStatus:
    """The status with these facts in the entry of an execution, which is added if it is new."""
    old = entry(status, number) or Attempt(execution=number)
    others = [item for item in status.attempt_history if item.execution != number]
    kept = [*others, old.model_copy(update=facts)][-HISTORY_ENTRIES:]
    return status.model_copy(update={"attempt_history": tuple(kept)})


def close(status: VideoRestorationStatus, number: int, ending: Ending, **facts: Any) -> VideoRestorationStatus:
    """The status with the entry of an execution closed."""
    outcome, pod = ending.outcome, ending.pod
    known: dict[str, Any] = {
        "exit_code": ending.exit_code,
        "gpu": outcome.gpu if outcome else None,
        "segments_done": outcome.segments_done if outcome else None,
        "pod_name": pod.name if pod else None,
        "node_name": pod.node if pod else None,
        "start_time": pod.taken if pod else None,
    }
    return record(
        status,
        number,
        **{name: value for name, value in known.items() if value is not None},
        reason=ending.reason,
        message=clip(ending.message, MESSAGE_CHARACTERS) or None,
        **facts,
    )
