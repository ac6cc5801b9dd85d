"""What the operator says about itself to Prometheus. No object names: their number is not bounded.

The queue's metrics have the names that controller-runtime gives them, so existing dashboards work.
"""

from prometheus_client import Counter, Gauge, Histogram

WRITES = Counter(
    "vr_operator_api_writes_total",
    "Writes to the Kubernetes API by verb and result (ok, HTTP status, error).",
    ["verb", "result"],
)
RECONCILES = Counter(
    "controller_runtime_reconcile_total",
    "Reconciliations by result (success, requeue, error).",
    ["controller", "result"],
)
RECONCILE_SECONDS = Histogram(
    "controller_runtime_reconcile_time_seconds", "Time one reconciliation took.", ["controller"]
)
QUEUE_DEPTH = Gauge("workqueue_depth", "Restorations waiting to be reconciled.", ["name"])
QUEUE_ADDS = Counter("workqueue_adds_total", "Times a restoration was taken from the queue.", ["name"])
QUEUE_RETRIES = Counter("workqueue_retries_total", "Reconciliations that failed and wait for another try.", ["name"])
QUEUE_LONGEST_WAIT = Gauge(
    "workqueue_unfinished_work_seconds", "How long the restoration that waits longest has been waiting.", ["name"]
)
EVENTS = Counter("vr_operator_watch_events_total", "Events received from watches.", ["resource"])
POLLS = Counter("vr_operator_progress_polls_total", "Questions for a runner's progress by result.", ["result"])
FINISHED = Counter("vr_operator_restorations_finished_total", "Restorations that ended, by reason.", ["reason"])
RUN_SECONDS = Histogram(
    "vr_operator_restoration_seconds",
    "Time from creation to the end of a restoration.",
    ["result"],
    buckets=(1, 5, 15, 60, 300, 900, 3600, 10800, 43200, 86400),
)
RESTORATIONS = Gauge("vr_operator_restorations", "Restorations that are not over, by phase.", ["phase"])
STALE_WATCH = Counter("vr_operator_stale_watch_total", "Objects whose changes a listing found before the watch did.")
