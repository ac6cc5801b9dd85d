"""What the operator says about itself to Prometheus. No object names: their number is not bounded.

Reconciliations and the queue have the names that controller-runtime gives them, so existing dashboards work. The help
texts are the documentation: `docs/operator-reference.md` is generated from this module.
"""

import time
from datetime import UTC, datetime
from typing import Final

from prometheus_client import Counter, Gauge, Histogram

from restoration_api.outcome import FailureReason
from restoration_api.resources import ConditionType, VideoRestoration, VideoRestorationStatus
from restoration_operator.decide.deadline import START_DEADLINE_EXCEEDED
from restoration_operator.decide.retry import RETRIES_EXHAUSTED
from restoration_operator.survey import Survey

NAME: Final = "videorestoration"
"""Name of controller and queue in the labels of controller-runtime's metrics."""
QUICK: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
"""Seconds. The API server answers in milliseconds; the end shows an outage of half a minute."""
UNHURRIED: Final = (0.5, 1, 2, 5, 10, 30, 60, 300, 1800)
"""Seconds, for what is measured against times of Kubernetes, which are whole seconds."""
LIFETIMES: Final = (1, 5, 15, 60, 300, 900, 3600, 10800, 43200, 86400)
"""Seconds, from a cache hit to a film on a CPU."""
PACES: Final = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 60, 180, 600)
"""Seconds of work for a second of video: 1 is real time, the end a large network on a CPU."""
ENDS: Final = ("Completed", "CacheHit", *FailureReason, RETRIES_EXHAUSTED, START_DEADLINE_EXCEEDED)
"""Reasons of ends. All are exported from the start: the first failure of a kind is an increase only after a zero."""
STAGES: Final = (
    "queued",
    "startup",
    "fetch",
    "model_fetch",
    "model_load",
    "decode",
    "inference",
    "encode",
    "assemble",
    "upload",
)
"""Those of `status.timings`."""

RECONCILES = Counter(
    "controller_runtime_reconcile_total",
    "Reconciliations by result: success, requeue (API server not reached), error.",
    ["controller", "result"],
)
RECONCILE_ERRORS = Counter(
    "controller_runtime_reconcile_errors_total",
    "Reconciliations that failed; they are tried again with backoff.",
    ["controller"],
)
RECONCILE_SECONDS = Histogram(
    "controller_runtime_reconcile_time_seconds",
    "Time one reconciliation took, requests to the API server included.",
    ["controller"],
    buckets=QUICK,
)
QUEUE_DEPTH = Gauge("workqueue_depth", "Restorations waiting to be reconciled.", ["name"])
QUEUE_ADDS = Counter("workqueue_adds_total", "Times a restoration was put into the queue.", ["name"])
QUEUE_SECONDS = Histogram(
    "workqueue_queue_duration_seconds", "Time a restoration waited in the queue.", ["name"], buckets=QUICK
)
QUEUE_UNFINISHED = Gauge(
    "workqueue_unfinished_work_seconds",
    "Seconds of work in progress, of all workers together; growing without end means that one hangs.",
    ["name"],
)
QUEUE_LONGEST = Gauge(
    "workqueue_longest_running_processor_seconds", "Seconds that the slowest worker has been at it.", ["name"]
)
QUEUE_RETRIES = Counter("workqueue_retries_total", "Reconciliations that failed and wait for another try.", ["name"])

WRITES = Counter(
    "vr_operator_api_writes_total",
    "Writes to the Kubernetes API by verb and result (ok, HTTP status, error).",
    ["verb", "result"],
)
WATCH_EVENTS = Counter("vr_operator_watch_events_total", "Events received from watches.", ["resource"])
WATCH_AGE = Gauge(
    "vr_operator_watch_age_seconds",
    "Time since a watch last delivered something. A quiet cluster is old too: compare it with "
    "vr_operator_resync_behind_objects.",
    ["resource"],
)
RESYNC_BEHIND = Gauge(
    "vr_operator_resync_behind_objects", "Objects that the last listing found newer than the watches had told."
)
STALE_WATCH = Counter(
    "vr_operator_stale_watch_objects_total",
    "Objects whose change a watch did not deliver in time; the process ends to start afresh.",
)
LEADER = Gauge("leader_election_master_status", "1 on the replica that works, by the name of the Lease.", ["name"])
LOOP_LAG = Gauge("vr_operator_loop_lag_seconds", "How late the event loop is; above 5 /healthz says so.")

RESTORATIONS = Gauge("vr_operator_restorations", "Restorations by phase; New has not been looked at.", ["phase"])
WAITING = Gauge(
    "vr_operator_restorations_waiting",
    "Restorations that wait to run, by the reason that their conditions give; suspended ones do not count.",
    ["reason"],
)
OLDEST_WAIT = Gauge(
    "vr_operator_oldest_wait_seconds", "Time that the restoration has waited which has waited longest to run."
)
STALLED = Gauge(
    "vr_operator_restorations_stalled",
    "Restorations that wait for what does not pass by itself (condition Stalled), by reason.",
    ["reason"],
)
STALE = Gauge("vr_operator_restorations_stale", "Restorations whose runner answers but has said the same for too long.")
FINISHED = Counter("vr_operator_restorations_finished_total", "Restorations that ended, by reason.", ["reason"])
RUN_SECONDS = Histogram(
    "vr_operator_restoration_seconds",
    "Time from creation to the end of a restoration by result (succeeded, failed).",
    ["result"],
    buckets=LIFETIMES,
)
EXECUTIONS = Counter(
    "vr_operator_executions_total", "Executions that ended, by reason: Completed, or a class of failure.", ["reason"]
)
JOB_CREATION_SECONDS = Histogram(
    "vr_operator_job_creation_seconds",
    "Time from the creation of a restoration to its first Job; the time of creation is in whole seconds.",
    buckets=UNHURRIED,
)
FINISH_SECONDS = Histogram(
    "vr_operator_finish_seconds",
    "Time from the end of a Job, or of the runner that reported the end, in whole seconds, to Finished=True.",
    buckets=UNHURRIED,
)
GPU_SECONDS = Counter("vr_operator_gpu_seconds_total", "Time in which GPUs were busy, as runners reported it.")
FRAMES = Counter("vr_operator_restored_frames_total", "Frames of finished restorations; cache hits do not count.")
VIDEO_SECONDS = Counter(
    "vr_operator_restored_video_seconds_total",
    "Length of the videos of finished restorations; cache hits do not count. GPU seconds divided by it are the cost.",
)
PACE = Histogram(
    "vr_operator_seconds_per_video_second",
    "Time from the first pod's start to the end, for each second of video; cache hits do not count.",
    buckets=PACES,
)
STAGE_SECONDS = Counter(
    "vr_operator_stage_seconds_total",
    "Time that finished restorations spent in each stage; decode, inference and encode overlap.",
    ["stage"],
)

POLLS = Counter(
    "vr_operator_progress_polls_total",
    "Questions for a runner's progress by result: ok, failed, or foreign (another pod answered at the address).",
    ["result"],
)
PROGRESS_WAITING = Gauge("vr_operator_progress_waiting", "Answers of runners that wait for their turn to be written.")
EVENTS_POSTED = Counter(
    "vr_operator_events_total",
    "Kubernetes Events of our own by result: posted, repeated (counted in a series), failed, dropped.",
    ["result"],
)
EVENT_READS = Counter(
    "vr_operator_event_reads_total",
    "Reads of other programs' Events, to explain a wait, by result: ok, failed, postponed.",
    ["result"],
)


for _reason in ENDS:
    FINISHED.labels(str(_reason))
for _stage in STAGES:
    STAGE_SECONDS.labels(_stage)


def watched(resource: str) -> None:
    """A watch has delivered something."""
    WATCH_EVENTS.labels(resource).inc()
    watching(resource)


def watching(resource: str) -> None:
    """A watch is expected to deliver from now on: one that never does is as silent as one that has ceased to."""
    last = time.monotonic()
    WATCH_AGE.labels(resource).set_function(lambda: time.monotonic() - last)


def surveyed(found: Survey) -> None:
    """Everybody was looked at, because somebody asks for the metrics."""
    for gauge, counts in ((RESTORATIONS, found.phases), (WAITING, found.waiting), (STALLED, found.stalled)):
        gauge.clear()
        for label, count in counts.items():
            gauge.labels(label).set(count)
    OLDEST_WAIT.set(found.oldest_wait_seconds)
    STALE.set(found.stale)


def job_created(restoration: VideoRestoration) -> None:
    """The first Job of a restoration exists."""
    created = restoration.metadata.creation_timestamp
    if created is not None:
        JOB_CREATION_SECONDS.observe(_seconds_since(created))


def recorded(before: VideoRestorationStatus, after: VideoRestorationStatus, *, job_ended: datetime | None) -> None:
    """A status was stored; `job_ended` is when the Job of its last execution ended, if it has, by the API server's
    clock."""
    closed_before = {item.execution for item in before.attempt_history if item.end_time is not None}
    for attempt in after.attempt_history:
        if attempt.end_time is not None and attempt.execution not in closed_before:
            EXECUTIONS.labels(attempt.reason or "Unknown").inc()
    spent = _gpu_milliseconds(after) - _gpu_milliseconds(before)
    if spent > 0:
        GPU_SECONDS.inc(spent / 1000)
    if after.condition(ConditionType.FINISHED) == "True" and before.condition(ConditionType.FINISHED) != "True":
        _finished(after, job_ended)


def _finished(status: VideoRestorationStatus, job_ended: datetime | None) -> None:
    finished = next(item for item in status.conditions if item.type == ConditionType.FINISHED)
    succeeded = status.condition(ConditionType.SUCCEEDED) == "True"
    FINISHED.labels(finished.reason).inc()
    total = status.timings.total_milliseconds if status.timings else None
    if total is not None:
        RUN_SECONDS.labels("succeeded" if succeeded else "failed").observe(total / 1000)
    last = status.attempt_history[-1] if status.attempt_history else None
    if job_ended is None and last is not None and last.exit_code is not None:
        job_ended = last.end_time  # the runner's own report came first
    if job_ended is not None:
        FINISH_SECONDS.observe(_seconds_since(job_ended))
    if status.timings is not None:
        for stage in STAGES:
            STAGE_SECONDS.labels(stage).inc((getattr(status.timings, f"{stage}_milliseconds") or 0) / 1000)
    if succeeded and not status.cache_hit:
        _restored(status)


def _restored(status: VideoRestorationStatus) -> None:
    if status.output and status.output.frames:
        FRAMES.inc(status.output.frames)
    video_milliseconds = (status.input.duration_milliseconds if status.input else None) or 0
    if video_milliseconds > 0:
        VIDEO_SECONDS.inc(video_milliseconds / 1000)
        if status.start_time is not None and status.completion_time is not None:
            took = (status.completion_time - status.start_time).total_seconds()
            PACE.observe(max(0.0, took) * 1000 / video_milliseconds)


def _gpu_milliseconds(status: VideoRestorationStatus) -> int:
    return (status.timings.gpu_milliseconds if status.timings else None) or 0


def _seconds_since(moment: datetime) -> float:
    # Clocks of two machines: an end before its start is zero, not negative.
    return max(0.0, (datetime.now(UTC) - moment).total_seconds())
