"""How long each stage took: the operator times the wait and the start, the runner everything after.

All are sums over executions. `total` is wall time from the creation of the object, so what is missing between the sum
of the parts and the total is time between executions. Kubernetes' times have a resolution of one second.
"""

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Final

from restoration_api.outcome import Outcome
from restoration_api.resources import VideoRestoration
from restoration_api.resources.status import TimingsStatus
from restoration_operator.views import JobView, PodView, Running, Terminated

RUNNER_STAGES: Final = (
    "fetch_milliseconds",
    "model_fetch_milliseconds",
    "model_load_milliseconds",
    "decode_milliseconds",
    "inference_milliseconds",
    "encode_milliseconds",
    "assemble_milliseconds",
    "upload_milliseconds",
    "gpu_milliseconds",
)


def with_start(
    restoration: VideoRestoration, job: JobView | None, pod: PodView, jobs: Iterable[JobView] = ()
) -> TimingsStatus:
    """Add the wait for a node and the start of the container; once per Job, when its runner runs.

    The wait begins with the restoration, or where a Job of the same execution went before (`jobs`), with its end:
    waiting for a slot of the profile is waiting, too.
    """
    stored = restoration.status.timings or TimingsStatus()
    first = stored.queued_milliseconds is None
    began = restoration.metadata.creation_timestamp if first or job is None else _previous_end(job, jobs) or job.created
    placed = pod.scheduled_at or pod.taken
    runs = pod.container.since if isinstance(pod.container, Running) else _started(pod)
    return stored.model_copy(
        update={
            "queued_milliseconds": _sum(stored.queued_milliseconds, _between(began, placed)),
            "startup_milliseconds": _sum(stored.startup_milliseconds, _between(placed, pod.ready_at or runs)),
        }
    )


def with_end(stored: TimingsStatus | None, outcome: Outcome | None) -> TimingsStatus:
    """Add what the runner measured; once per execution, when it has ended."""
    stored = stored or TimingsStatus()
    if outcome is None:
        return stored
    peaks = [peak for peak in (stored.peak_gpu_memory_bytes, outcome.timings.peak_gpu_memory_bytes) if peak is not None]
    return stored.model_copy(
        update={
            **{name: _sum(getattr(stored, name), getattr(outcome.timings, name)) for name in RUNNER_STAGES},
            "peak_gpu_memory_bytes": max(peaks, default=None),
        }
    )


def with_total(stored: TimingsStatus | None, created: datetime | None, now: datetime) -> TimingsStatus:
    """Wall time from creation to the end."""
    return (stored or TimingsStatus()).model_copy(update={"total_milliseconds": _between(created, now)})


def _previous_end(job: JobView, jobs: Iterable[JobView]) -> datetime | None:
    ends = (other.end.at for other in jobs if other.execution == job.execution and other.uid != job.uid and other.end)
    return max((end for end in ends if end is not None), default=None)


def _started(pod: PodView) -> datetime | None:
    return pod.container.started if isinstance(pod.container, Terminated) else None


def _between(start: datetime | None, end: datetime | None) -> int | None:
    if start is None or end is None:
        return None
    # Clocks of two machines: an end before its start is zero, not negative.
    return max(0, round((end - start) / timedelta(milliseconds=1)))


def _sum(stored: int | None, more: int | None) -> int | None:
    return stored if more is None else (stored or 0) + more
