"""How the next execution differs from the ones before: the record of those decides, and nothing else.

A faulty GPU is avoided by the next execution only, because faults of a node pass and nobody would ever take it off a
list. Less memory is asked of all later ones, because what did not fit once will not fit again.
"""

from datetime import datetime, timedelta
from typing import Final

from restoration_api.outcome import FailureReason
from restoration_api.resources import ProfileSpec, VideoRestorationStatus
from restoration_operator.build.job import Execution
from restoration_operator.build.names import Role
from restoration_operator.build.quantity import amount
from restoration_operator.decide import attempts
from restoration_operator.views import JobView, PodView

HINT_SHARE: Final = 0.5
"""Of the container's limit. Whatever the number, the runner does without all that it can do without: about half."""

HINT_WITHOUT_LIMIT_MIB: Final = 2048
"""Where the profile sets no limit: the pod was killed by a limit of its namespace or for the node's sake."""

PATIENCE: Final = timedelta(minutes=10)
"""How long another node is waited for: an autoscaler needs some minutes for one. A faulty GPU that works again is worth
more than a perfect one that never comes."""


def next_execution(
    status: VideoRestorationStatus,
    profile: ProfileSpec,
    number: int,
    *,
    role: Role = Role.RUN,
    seconds_left: int | None,
) -> Execution:
    """What the Job of this number is told that others are not; `profile` is the snapshot."""
    return Execution(
        number=number,
        role=role,
        active_deadline_seconds=seconds_left,
        memory_hint_mib=_memory_hint_mib(status, profile),
        excluded_nodes=_excluded_nodes(status, number),
    )


def patience_ends_at(job: JobView, pod: PodView | None) -> datetime | None:
    """When a pod that is kept away from nodes has waited long enough for another one."""
    if not job.excluded_nodes or pod is None or pod.scheduled is not False or pod.created is None:
        return None
    return pod.created + PATIENCE


def _excluded_nodes(status: VideoRestorationStatus, number: int) -> tuple[str, ...]:
    """The node of a GPU fault, and while fault follows fault, those of all of them."""
    last = attempts.entry(status, number - 1)
    if last is None or last.reason != FailureReason.GPU_FAULT or last.node_name is None:
        return ()
    nodes = dict.fromkeys((*(last.excluded_nodes or ()), last.node_name))
    return tuple(nodes)[-attempts.MOST_EXCLUDED_NODES :]


def _memory_hint_mib(status: VideoRestorationStatus, profile: ProfileSpec) -> int | None:
    if all(item.reason != FailureReason.HOST_OUT_OF_MEMORY for item in status.attempt_history):
        return None
    limit = (profile.resources.limits or {}).get("memory") if profile.resources else None
    return HINT_WITHOUT_LIMIT_MIB if limit is None else max(1, int(amount(limit) * HINT_SHARE) >> 20)
