"""The questions that the dashboard answers.

A panel is a question, its queries and a unit; `dashboard.py` makes Grafana's JSON of it. Numbers of the operator are
taken with max over its replicas, which all count the same, before anything is added up.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

RATE: Final = "$__rate_interval"
"""Grafana puts in a window that holds at least four scrapes."""


@dataclass(frozen=True)
class Query:
    """PromQL, and what its series are called."""

    expr: str
    legend: str = ""


@dataclass(frozen=True)
class Panel:
    """One question."""

    title: str
    queries: tuple[Query, ...]
    unit: str = "short"
    kind: Literal["stat", "timeseries"] = "timeseries"
    width: int = 8
    description: str = ""
    stacked: bool = False
    alert_above: float | None = None
    """From here on it is red."""


@dataclass(frozen=True)
class Row:
    """Panels under one heading."""

    title: str
    panels: tuple[Panel, ...]


def _total(metric: str, label: str, selector: str = "") -> str:
    """A gauge of the operator, over all values of its label."""
    return f"sum(max by (namespace, job, {label}) ({metric}{selector}))"


def _by(metric: str, label: str, selector: str = "") -> Query:
    """The same by that label."""
    return Query(f"sum by ({label}) (max by (namespace, job, {label}) ({metric}{selector}))", f"{{{{{label}}}}}")


def _increase(metric: str, label: str, window: str, selector: str = "") -> Query:
    return Query(f"sum by ({label}) (increase({metric}{selector}[{window}])) > 0", f"{{{{{label}}}}}")


def _quantile(share: float, metric: str, window: str) -> Query:
    expr = f"histogram_quantile({share}, sum by (le) (rate({metric}_bucket[{window}])))"
    return Query(expr, f"p{round(share * 100)}")


def _stat(title: str, expr: str, unit: str = "short", alert_above: float | None = None, description: str = "") -> Panel:
    return Panel(title, (Query(expr),), unit, "stat", 4, description, alert_above=alert_above)


_FAILED: Final = '{reason!~"Completed|CacheHit"}'
_RUNNING: Final = '{phase=~"Running|Assembling"}'
_FINISHED: Final = "vr_operator_restorations_finished_total"
_POD: Final = "{{namespace}}/{{pod}}"
_OPERATOR: Final = "and on (namespace, pod) vr_operator_loop_lag_seconds"
"""Metrics of a process that is an operator of ours."""

NOW: Final = Row(
    "Now",
    (
        _stat("Waiting", f"{_total('vr_operator_restorations_waiting', 'reason')} or vector(0)"),
        _stat(
            "Longest wait",
            "max(vr_operator_oldest_wait_seconds)",
            "s",
            3600,
            "Of those that wait to run: since they were created, or since they ran last.",
        ),
        _stat("Running", f"{_total('vr_operator_restorations', 'phase', _RUNNING)} or vector(0)"),
        _stat(
            "Stuck",
            f"{_total('vr_operator_restorations_stalled', 'reason')} or vector(0)",
            alert_above=1,
            description="They wait for what does not pass by itself; their condition Stalled says what to do.",
        ),
        _stat("Finished in a day", f"sum(increase({_FINISHED}[1d]))"),
        _stat("Failed in a day", f"sum(increase({_FINISHED}{_FAILED}[1d]))", alert_above=1),
    ),
)
WAITING: Final = Row(
    "How many wait, and why",
    (
        Panel("Waiting, by reason", (_by("vr_operator_restorations_waiting", "reason"),), stacked=True),
        Panel("Stuck, by reason", (_by("vr_operator_restorations_stalled", "reason"),), stacked=True),
        Panel(
            "Unfinished, by phase",
            (_by("vr_operator_restorations", "phase", '{phase!~"Succeeded|Failed"}'),),
            stacked=True,
        ),
        Panel(
            "Longest wait, and runners without progress",
            (
                Query("max(vr_operator_oldest_wait_seconds)", "longest wait"),
                Query("time() - min(vr_runner_last_progress_timestamp_seconds)", "longest without progress"),
            ),
            "s",
        ),
        Panel(
            "From creation to the first Job, waiting included",
            (
                _quantile(0.5, "vr_operator_job_creation_seconds", "1h"),
                _quantile(0.99, "vr_operator_job_creation_seconds", "1h"),
            ),
            "s",
        ),
        Panel(
            "Questions for progress",
            (Query(f"sum by (result) (rate(vr_operator_progress_polls_total[{RATE}]))", "{{result}}"),),
            "reqps",
            description="failed: a NetworkPolicy or a mesh may be in the way; nothing but the percentage is missing.",
        ),
    ),
)
SPEED: Final = Row(
    "How fast",
    (
        Panel(
            "Frames a second",
            (
                Query(f"sum by (namespace, pod) (rate(vr_runner_restored_frames_total[{RATE}])) > 0", _POD),
                Query(f"sum(rate(vr_runner_restored_frames_total[{RATE}]))", "all"),
            ),
        ),
        Panel(
            "Seconds of work for a second of video",
            (
                Query("videorestoration:seconds_per_output_second", _POD),
                _quantile(0.5, "vr_operator_seconds_per_video_second", "1h"),
                _quantile(0.95, "vr_operator_seconds_per_video_second", "1h"),
            ),
            "s",
            description="Pods: by the frames of the last minutes. Quantiles: of what finished within an hour.",
        ),
        Panel(
            "GPU seconds for a second of video",
            (
                Query(
                    "sum(increase(vr_operator_gpu_seconds_total[1h]))"
                    " / (sum(increase(vr_operator_restored_video_seconds_total[1h])) > 0)",
                    "GPU seconds",
                ),
            ),
            "s",
            description="What a second of video costs, over what finished within an hour; 0 on CPUs.",
        ),
        Panel(
            "Time in stages, of what finished",
            (_increase("vr_operator_stage_seconds_total", "stage", "1h"),),
            "s",
            stacked=True,
        ),
        Panel("Runners, by stage", (Query("sum by (stage) (vr_runner_stage) > 0", "{{stage}}"),), stacked=True),
        Panel(
            "Done",
            (Query("100 * vr_runner_frames_done / vr_runner_video_frames", _POD),),
            "percent",
        ),
    ),
)
GPUS: Final = Row(
    "GPUs",
    (
        Panel(
            "GPU utilization",
            (Query("videorestoration:gpu_utilization:percent", f"{_POD} GPU {{{{gpu}}}}"),),
            "percent",
            width=12,
            description="From NVIDIA's DCGM exporter, of runner pods only.",
            alert_above=90,
        ),
        Panel(
            "GPU memory",
            (Query("videorestoration:gpu_memory:percent", f"{_POD} GPU {{{{gpu}}}}"),),
            "percent",
            width=12,
            alert_above=92,
        ),
    ),
)
ENDS: Final = Row(
    "How they end",
    (
        Panel("Failures, by reason", (_increase(_FINISHED, "reason", "1h", _FAILED),), stacked=True),
        Panel(
            "Ends of executions, by reason", (_increase("vr_operator_executions_total", "reason", "1h"),), stacked=True
        ),
        Panel(
            "Failed, of the last half hour",
            (Query("videorestoration:failures:percent", "failed"),),
            "percent",
            alert_above=1,
        ),
    ),
)
OPERATOR: Final = Row(
    "The operator",
    (
        Panel(
            "Since a watch last delivered something",
            (Query("max by (resource) (vr_operator_watch_age_seconds)", "{{resource}}"),),
            "s",
            description="A quiet cluster is old too. Restorations must not be, while statuses are written.",
        ),
        Panel(
            "Writes, by result",
            (Query(f"sum by (verb, result) (rate(vr_operator_api_writes_total[{RATE}])) > 0", "{{verb}} {{result}}"),),
            "reqps",
        ),
        Panel(
            "Reconciliations: time, and wait before",
            (
                Query(
                    "histogram_quantile(0.99, sum by (le) "
                    f'(rate(controller_runtime_reconcile_time_seconds_bucket{{controller="videorestoration"}}[{RATE}])))',
                    "p99 time",
                ),
                Query(
                    "histogram_quantile(0.99, sum by (le) "
                    f'(rate(workqueue_queue_duration_seconds_bucket{{name="videorestoration"}}[{RATE}])))',
                    "p99 wait",
                ),
            ),
            "s",
        ),
        Panel("Event loop's lag", (Query("vr_operator_loop_lag_seconds", "{{pod}}"),), "s", alert_above=5),
        Panel("Memory", (Query(f"process_resident_memory_bytes {_OPERATOR}", "{{pod}}"),), "bytes"),
        Panel(
            "Processor time", (Query(f"rate(process_cpu_seconds_total[{RATE}]) {_OPERATOR}", "{{pod}}"),), "percentunit"
        ),
    ),
)
ROWS: Final = (NOW, WAITING, SPEED, GPUS, ENDS, OPERATOR)
