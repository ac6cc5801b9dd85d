"""Metrics keep the rules that Prometheus' own linter has, and count what they say they count."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hack.operator_reference import documented_metrics, operator_reference
from prometheus_client import REGISTRY, generate_latest
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.parser import text_string_to_metric_families
from tests.builders.observations import restoration

from restoration_api.outcome import FailureReason
from restoration_operator import metrics

OBJECT_NAMES = {"namespace", "uid", "pod", "node", "job", "restoration", "profile", "key"}
"""Labels whose values would be as many as there are objects; `name` is controller-runtime's and constant here."""
METRICS = {metric.describe()[0].name: metric for metric in documented_metrics()}


@pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS)
class TestRules:
    """Those of `promtool check metrics` (prometheus/util/promlint), and one of ours."""

    def test_name_and_help(self, metric: MetricWrapperBase) -> None:
        family = metric.describe()[0]
        assert family.documentation.strip()
        assert re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", family.name)
        assert not re.search(
            r"_(milliseconds|minutes|hours|ms|kilobytes|mib|counter|gauge|histogram)(_|$)", family.name
        )
        # prometheus_client appends _total to a counter; nothing else may carry a counter's or histogram's suffix.
        assert not family.name.endswith(("_total", "_count", "_sum", "_bucket"))

    def test_no_label_holds_the_name_of_an_object(self, metric: MetricWrapperBase) -> None:
        assert not OBJECT_NAMES & set(metric._labelnames)
        if "name" in metric._labelnames:
            assert metric.describe()[0].name.startswith(("workqueue_", "leader_election_"))

    def test_it_is_documented(self, metric: MetricWrapperBase) -> None:
        assert f"| `{metric.describe()[0].name}" in operator_reference()


def test_another_parser_reads_what_is_served() -> None:
    families = {family.name for family in text_string_to_metric_families(generate_latest().decode())}
    assert set(METRICS) <= families


def value(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


def attempt(number: int, reason: str | None = None) -> dict[str, Any]:
    ended = {"reason": reason, "endTime": "2026-01-01T12:01:00Z"} if reason else {}
    return {"execution": number, **ended}


def over(reason: str, **rest: Any) -> dict[str, Any]:
    verdict = "True" if reason in ("Completed", "CacheHit") else "False"
    base = {"lastTransitionTime": "2026-01-01T12:01:00Z", "reason": reason, "message": ""}
    conditions = [{"type": "Finished", "status": "True", **base}, {"type": "Succeeded", "status": verdict, **base}]
    return {"conditions": conditions, **rest}


def test_executions_and_gpu_seconds_are_counted_once() -> None:
    before = restoration(status={"attemptHistory": [attempt(1, "StorageError"), attempt(2)]}).status
    ended = {"attemptHistory": [attempt(1, "StorageError"), attempt(2, "Completed")]}
    after = restoration(status=ended | {"timings": {"gpuMilliseconds": 1500}}).status
    name, seconds = "vr_operator_executions_total", "vr_operator_gpu_seconds_total"
    counted = value(name, reason="Completed"), value(name, reason="StorageError"), value(seconds)
    metrics.recorded(before, after, job_ended=None)
    metrics.recorded(after, after, job_ended=None)
    assert value(name, reason="Completed") == counted[0] + 1
    assert value(name, reason="StorageError") == counted[1]
    assert value(seconds) == counted[2] + 1.5


@pytest.mark.parametrize(
    ("reason", "hit", "frames"), [("Completed", False, 60), ("CacheHit", True, 0), ("InvalidInput", False, 0)]
)
def test_frames_of_what_was_restored(reason: str, hit: bool, frames: int) -> None:
    output = {"output": {"uri": "s3://media/out.mp4", "frames": 60}} if reason != "InvalidInput" else {}
    after = restoration(status=over(reason, cacheHit=hit, timings={"totalMilliseconds": 7000}, **output)).status
    result = "failed" if reason == "InvalidInput" else "succeeded"
    names = ("vr_operator_restored_frames_total", {}), ("vr_operator_restoration_seconds_count", {"result": result})
    counted = [value(name, **labels) for name, labels in names]
    ended = value("vr_operator_finish_seconds_count")
    metrics.recorded(restoration().status, after, job_ended=datetime.now(UTC) - timedelta(seconds=1))
    assert [value(name, **labels) for name, labels in names] == [counted[0] + frames, counted[1] + 1]
    assert value("vr_operator_finish_seconds_count") == ended + 1
    metrics.recorded(after, after, job_ended=None)
    assert value("vr_operator_finish_seconds_count") == ended + 1


def test_the_cost_of_a_second_of_video() -> None:
    timings = {"totalMilliseconds": 90_000, "queuedMilliseconds": 30_000, "inferenceMilliseconds": 20_000}
    times = {"startTime": "2026-01-01T12:00:00Z", "completionTime": "2026-01-01T12:00:40Z"}
    facts = {"input": {"durationMilliseconds": 8000}, "output": {"uri": "s3://media/out.mp4", "frames": 200}}
    after = restoration(status=over("Completed", cacheHit=False, timings=timings, **times, **facts)).status
    names = {
        "vr_operator_restored_video_seconds_total": {},
        "vr_operator_seconds_per_video_second_sum": {},
        "vr_operator_stage_seconds_total": {"stage": "queued"},
    }
    before = {name: value(name, **labels) for name, labels in names.items()}
    metrics.recorded(restoration().status, after, job_ended=None)
    assert {name: value(name, **labels) - before[name] for name, labels in names.items()} == {
        "vr_operator_restored_video_seconds_total": 8.0,
        "vr_operator_seconds_per_video_second_sum": 5.0,
        "vr_operator_stage_seconds_total": 30.0,
    }


def test_every_end_is_exported_before_it_happens() -> None:
    """`increase()` sees a first failure only if there was a zero before it."""
    exported = {
        sample.labels["reason"]
        for family in metrics.FINISHED.collect()
        for sample in family.samples
        if sample.name.endswith("_total")
    }
    assert {"Completed", "CacheHit", "RetriesExhausted", "StartDeadlineExceeded", *FailureReason} <= exported


def test_the_age_of_a_watch_grows_until_it_delivers() -> None:
    metrics.watched("jobs")
    first = value("vr_operator_watch_age_seconds", resource="jobs")
    assert value("vr_operator_watch_age_seconds", resource="jobs") > first
    # One that has never delivered anything has an age too, and no event is counted for it.
    metrics.watching("leases")
    assert value("vr_operator_watch_age_seconds", resource="leases") > 0
    assert REGISTRY.get_sample_value("vr_operator_watch_events_total", {"resource": "leases"}) is None
